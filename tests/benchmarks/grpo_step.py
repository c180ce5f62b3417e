"""Seconds of a GRPO step, ours beside TRL's.

    python -m tests.benchmarks.grpo_step [--prompts 8] [--answers 8] [--new 64] [--only ours]
                                         [--model DIR --ids FILE.json]

One JSON line a side: the same model (random weights, float32), prompts x answers rollouts of equal length, one update.
DIR is a Hugging Face folder instead, in bfloat16 with float32 masters, and FILE.json a list of prompts, each a list of
token ids, which all steps ask; there each side computes gradients of eight answers at a time, and none ends early.
peak_gb is the most memory that the process took until then: of one side where --only names it. TRL and torch are needed
for its side (the extra `parity`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from rlvr_limit import checkpoint, rl
from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.distributed.host_memory import return_freed
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, Params, init_params
from rlvr_limit.rl.algorithms import ALGORITHMS
from rlvr_limit.settings import EngineConfig, MeshConfig, OptimizerConfig
from rlvr_limit.types import SamplingParams
from tests.benchmarks.sampler import TINY

LONG = 32
"""Tokens of a random prompt."""

AT_ONCE = 8
"""Answers whose gradient is computed at a time, where the weights are real."""

Prompts = list[tuple[int, ...]]


def random_prompts(vocab: int, count: int) -> Iterator[Prompts]:
    """Those of one step after another."""
    rng = np.random.default_rng(0)
    while True:
        yield [tuple(rng.integers(10, vocab, LONG).tolist()) for _ in range(count)]


def reward_of(tokens: list[int]) -> float:
    """Something that differs between answers and costs nothing."""
    return float(sum(tokens) % 2)


def ours(
    c: ModelConfig, params: Params, steps: Iterator[Prompts], answers: int, new: int, at_once: int = 0
) -> Iterator[dict[str, float]]:
    """Seconds of rollout and update of one step after another; at_once: answers of a microbatch, 0: all."""
    engine: Engine | None = None
    tx = rl.optimizer(OptimizerConfig(1e-6, warmup=0), 1000)
    state = rl.init_state(params, tx)
    objective = rl.Objective(0.2, 0.2)
    for step, asked in enumerate(steps, 1):
        start = time.perf_counter()
        rows, longest = len(asked) * answers, max(map(len, asked))
        weights = rl.weights(state, c)
        if engine is None:
            shapes = EngineConfig(
                max_num_seqs=rows, steps_per_call=32, page_size=32, max_prompt_len=longest, prefix_rows=len(asked),
                prefill_rows=1 if at_once else 0,
            )  # fmt: skip
            engine = Engine(weights, c, shapes, new)
        else:
            engine.load(weights)
        sampling = SamplingParams(1.0, 1.0, new)
        requests = [
            Request(str(i), ids, prompt_key(0, f"train/{step}", str(i)), tuple(range(answers)), sampling)
            for i, ids in enumerate(asked)
        ]
        drawn = {(s.problem_id, s.index): s for s in engine.generate(requests)}
        samples = [drawn[str(i), g] for i in range(len(asked)) for g in range(answers)]
        del weights
        engine.load(None)
        return_freed()
        middle = time.perf_counter()
        pairs = [(asked[int(s.problem_id)], s.tokens) for s in samples]
        laid = log_probs.answer_rows(pairs, longest + new)
        reward_PG = np.array([reward_of(s.tokens) for s in samples]).reshape(len(asked), answers)
        advantage_BT, _ = rl.advantage(ALGORITHMS["grpo"], rl.Rewards(reward_PG, laid.answer_BT))
        behaviour_BT = np.zeros(laid.tokens_BT.shape, np.float32)
        behaviour_BT[laid.answer_BT] = np.concatenate([s.logp_model for s in samples])
        weight_BT = rl.token_weights(laid.answer_BT, np.ones(rows, bool), "answer", new)
        batch = rl.PolicyBatch(laid, behaviour_BT, advantage_BT.astype(np.float32), weight_BT)
        # A row holds a prompt and its answers.
        batches = rl.microbatches(batch, 1, longest + at_once * (new + 1)) if at_once else []
        batches = batches or [rl.prefix_batch(batch, longest, new)]
        state, metrics = rl.train_step(state, c, tx, objective, batches, rl.Compute().at_answers(c, batches, 1))
        # Of the sampler and the update, which round to bfloat16 in other places.
        assert abs(float(metrics["ratio"]) - 1) < (1e-4 if c.dtype == "float32" else 0.02)
        yield {"seconds": time.perf_counter() - start, "rollout_s": middle - start}


def theirs(
    c: ModelConfig, folder: Path | None, steps: Iterator[Prompts], answers: int, new: int, count: int
) -> list[dict[str, float]]:
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

    asked = [ids for prompts in itertools.islice(steps, count) for ids in prompts]
    rows = len(asked) // count * answers
    if folder:
        network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        words = transformers.AutoTokenizer.from_pretrained(folder)
        texts = [words.decode(ids) for ids in asked]
        assert [tuple(words(text).input_ids) for text in texts] == asked
    else:
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
        texts = [" ".join(map(str, ids)) for ids in asked]
    clock = Clock()
    at_once = AT_ONCE if folder else rows
    with tempfile.TemporaryDirectory() as scratch:
        options = GRPOConfig(
            output_dir=scratch, loss_type="grpo", beta=0.0, num_generations=answers, max_steps=count,
            per_device_train_batch_size=at_once, gradient_accumulation_steps=rows // at_once, max_completion_length=new,
            use_cpu=True, bf16=folder is not None, report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, temperature=1.0, generation_kwargs={"min_new_tokens": new},
            gradient_checkpointing=False, learning_rate=1e-6, top_k=0, top_p=1.0,
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
    parser.add_argument("--model", type=Path)
    parser.add_argument("--ids", type=Path)
    parser.add_argument("--only", choices=["ours", "trl"])
    a = parser.parse_args()
    if (a.model is None) != (a.ids is None):
        parser.error("--model and --ids are given together")
    c = checkpoint.read_model_config(a.model, "bfloat16") if a.model else TINY

    def steps() -> Iterator[Prompts]:
        if a.ids:
            return itertools.repeat([tuple(ids) for ids in json.loads(a.ids.read_text())[: a.prompts]])
        return random_prompts(c.vocab_size, a.prompts)

    def weights() -> Params:
        if a.model:
            return checkpoint.load_hf(a.model, replace(c, dtype="float32"), make_mesh(MeshConfig()))
        return init_params(c, jax.random.key(0))

    sides: dict[str, list[dict[str, float]]] = {}
    for name in [a.only] if a.only else ["ours", "trl"]:
        if name == "ours":
            stream = ours(c, weights(), steps(), a.answers, a.new, AT_ONCE if a.model else 0)
            found = list(itertools.islice(stream, a.steps))
        else:
            found = theirs(c, a.model, steps(), a.answers, a.new, a.steps)
        sides[name] = found
        middle = {key: round(statistics.median(row[key] for row in found[1:]), 3) for key in found[0]}
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
        first = round(found[0]["seconds"], 2)
        print(json.dumps({"side": name, "steps": a.steps - 1, "first_s": first, **middle, "peak_gb": peak}), flush=True)
    if len(sides) == 2:
        ratio = statistics.median(row["seconds"] for row in sides["trl"][1:]) / statistics.median(
            row["seconds"] for row in sides["ours"][1:]
        )
        print(json.dumps({"trl_over_ours": round(ratio, 2)}))


if __name__ == "__main__":
    main()
