"""Seconds of a GRPO step, ours beside TRL's: python -m tests.benchmarks.grpo_step [--prompts 8] [--new 64]

One JSON line a side, in turns in one run: the same shape of model (random weights, float32), prompts x answers rollouts
of equal length, one update. TRL and torch are needed for its side (the extra `parity`); --only ours does without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from rlvr_limit import rl
from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.rl.algorithms import ALGORITHMS
from rlvr_limit.settings import EngineConfig, OptimizerConfig
from rlvr_limit.types import SamplingParams
from tests.benchmarks.sampler import TINY

LONG = 32
"""Tokens of a prompt."""


def reward_of(tokens: list[int]) -> float:
    """Something that differs between answers and costs nothing."""
    return float(sum(tokens) % 2)


def ours(c: ModelConfig, prompts: int, answers: int, new: int, chosen: bool = True) -> Iterator[dict[str, float]]:
    """Seconds of rollout and update of one step after another; chosen: logits at the places of answers alone."""
    params = init_params(c, jax.random.key(0))
    rows = prompts * answers
    shapes = EngineConfig(max_num_seqs=rows, steps_per_call=32, page_size=32, max_prompt_len=LONG, prefix_rows=prompts)
    engine = Engine(params, c, shapes, new)
    tx = rl.optimizer(OptimizerConfig(1e-6, warmup=0), 1000)
    state = rl.init_state(params, tx)
    objective = rl.Objective(0.2, 0.2)
    rng, step = np.random.default_rng(0), 0
    while True:
        step += 1
        start = time.perf_counter()
        engine.load(state.params)
        asked = [tuple(rng.integers(10, c.vocab_size, LONG).tolist()) for _ in range(prompts)]
        sampling = SamplingParams(1.0, 1.0, new)
        requests = [
            Request(str(i), ids, prompt_key(0, f"train/{step}", str(i)), tuple(range(answers)), sampling)
            for i, ids in enumerate(asked)
        ]
        drawn = {(s.problem_id, s.index): s for s in engine.generate(requests)}
        samples = [drawn[str(i), g] for i in range(prompts) for g in range(answers)]
        middle = time.perf_counter()
        pairs = [(asked[int(s.problem_id)], s.tokens) for s in samples]
        laid = log_probs.answer_rows(pairs, LONG + new)
        reward_PG = np.array([reward_of(s.tokens) for s in samples]).reshape(prompts, answers)
        advantage_BT, _ = rl.advantage(ALGORITHMS["grpo"], rl.Rewards(reward_PG, laid.answer_BT))
        behaviour_BT = np.zeros(laid.tokens_BT.shape, np.float32)
        behaviour_BT[laid.answer_BT] = np.concatenate([s.logp_model for s in samples])
        weight_BT = rl.token_weights(laid.answer_BT, np.ones(rows, bool), "answer", new)
        batch = rl.PolicyBatch(laid, behaviour_BT, advantage_BT.astype(np.float32), weight_BT)
        batch = rl.prefix_batch(batch, LONG, new)
        compute = rl.Compute().at_answers(c, [batch], 1) if chosen else rl.Compute()
        state, metrics = rl.train_step(state, c, tx, objective, [batch], compute)
        assert abs(float(metrics["ratio"]) - 1) < 1e-4
        yield {"seconds": time.perf_counter() - start, "rollout_s": middle - start}


def theirs(c: ModelConfig, prompts: int, answers: int, new: int, steps: int) -> list[dict[str, float]]:
    """Seconds of TRL's steps, its generation by transformers."""
    import torch
    import transformers
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from trl import GRPOConfig, GRPOTrainer

    class Clock(transformers.TrainerCallback):
        """Notes when steps begin and end."""

        def __init__(self) -> None:
            self.found: list[dict[str, float]] = []

        def on_step_begin(self, *_: object, **__: object) -> None:
            self._began = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.found.append({"seconds": time.perf_counter() - self._began})

    network = transformers.AutoModelForCausalLM.from_config(
        transformers.Qwen2Config(
            vocab_size=c.vocab_size, hidden_size=c.width, num_hidden_layers=c.layers, num_attention_heads=c.heads,
            num_key_value_heads=c.kv_heads, intermediate_size=c.ffn_width, tie_word_embeddings=c.tied_embedding,
            eos_token_id=1, pad_token_id=0,
        ),
        dtype=torch.float32,
    )  # fmt: skip
    tokenizer = Tokenizer(WordLevel({str(i): i for i in range(c.vocab_size)}, unk_token="0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0", eos_token="1")
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(10, c.vocab_size, LONG))) for _ in range(prompts * steps)]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        options = GRPOConfig(
            output_dir=str(Path(folder)), loss_type="grpo", beta=0.0, num_generations=answers, max_steps=steps,
            per_device_train_batch_size=prompts * answers, max_completion_length=new, use_cpu=True, bf16=False,
            report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, temperature=1.0,
            generation_kwargs={"min_new_tokens": new}, gradient_checkpointing=False, learning_rate=1e-6,
        )  # fmt: skip
        GRPOTrainer(
            network, lambda completion_ids, **_: [reward_of(ids) for ids in completion_ids], args=options,
            train_dataset=Dataset.from_dict({"prompt": texts}), processing_class=words, callbacks=[clock],
        ).train()  # fmt: skip
    return clock.found


def main() -> None:
    """Both sides, the first step of each left out."""
    keep_compiled()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=["ours", "trl"])
    a = parser.parse_args()
    sides = {}
    if a.only != "trl":
        stream = ours(TINY, a.prompts, a.answers, a.new)
        sides["ours"] = [next(stream) for _ in range(a.steps)]
    if a.only != "ours":
        sides["trl"] = theirs(TINY, a.prompts, a.answers, a.new, a.steps)
    for name, found in sides.items():
        middle = {key: round(statistics.median(row[key] for row in found[1:]), 3) for key in found[0]}
        print(json.dumps({"side": name, "steps": a.steps - 1, "first_s": round(found[0]["seconds"], 2), **middle}))
    if len(sides) == 2:
        ratio = statistics.median(row["seconds"] for row in sides["trl"][1:]) / statistics.median(
            row["seconds"] for row in sides["ours"][1:]
        )
        print(json.dumps({"trl_over_ours": round(ratio, 2)}))


if __name__ == "__main__":
    main()
