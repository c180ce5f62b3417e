"""GRPO beside TRL's own trainer: the same model, samples and rewards give the same loss and the same gradient."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from rlvr_limit import checkpoint, rl
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.settings import OptimizerConfig, Reinforced
from rlvr_limit.study import recipes
from rlvr_limit.tokenizer import load_tokenizer
from tests.support.tokenizer_files import write_qwen2

pytestmark = pytest.mark.parity

PROMPTS, ANSWERS, LONG, NEW = 3, 4, 5, 9


def gradient_of(folder: Path, prompts: np.ndarray, answers: np.ndarray, mask: np.ndarray, **batch: np.ndarray) -> tuple:
    """(loss, {name of a tensor: gradient}) of TRL's trainer for answers padded on the right."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    words.pad_token = words.pad_token or words.eos_token
    options = GRPOConfig(
        output_dir=str(folder.parent / "trl"), loss_type="grpo", beta=batch.pop("kl"), epsilon=0.2, epsilon_high=0.2,
        num_generations=ANSWERS, per_device_train_batch_size=PROMPTS * ANSWERS, max_completion_length=NEW,
        use_cpu=True, bf16=False, report_to=[], disable_dropout=True,
        # Not in the equation that both cite.
        use_bias_correction_kl=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        network, lambda completions, **_: [0.0] * len(completions), args=options,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * PROMPTS}), processing_class=words,
    )  # fmt: skip
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    tensors = {name: torch.from_numpy(x) for name, x in batch.items()}
    ones = torch.ones(prompts.shape, dtype=torch.long)
    loss = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": torch.from_numpy(prompts).long(),
            "prompt_mask": ones,
            "completion_ids": torch.from_numpy(answers).long(),
            "completion_mask": torch.from_numpy(mask).long(),
            **tensors,
        },
    )
    loss.backward()
    return float(loss.detach()), {name: p.grad.numpy() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_grpo_has_the_loss_and_the_gradient_of_trl(tmp_path: Path, kl: float) -> None:
    pytest.importorskip("trl")
    size = load_tokenizer(write_qwen2(tmp_path / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=300)
    params = init_params(shape, jax.random.key(0))
    params = jax.tree.map(lambda x: x * 1.5 if x.ndim > 1 else x, params)
    checkpoint.export_hf(tmp_path / "model", params, shape, tmp_path / "tokenizer")
    rng = np.random.default_rng(0)
    rows = PROMPTS * ANSWERS
    prompts = np.repeat(rng.integers(size, size=(PROMPTS, LONG)), ANSWERS, axis=0)
    answers = rng.integers(size, size=(rows, NEW))
    lengths = rng.integers(1, NEW + 1, rows)
    mask = np.arange(NEW) < lengths[:, None]
    # So far apart that the small number which TRL adds to their deviation, 100 times ours, does not show.
    reward_PG = 100.0 * rng.random((PROMPTS, ANSWERS)).round()
    reward_PG[0, :2] = 0, 100

    pairs = [(tuple(p), tuple(a[:n])) for p, a, n in zip(prompts.tolist(), answers.tolist(), lengths, strict=True)]
    drawn = log_probs.answer_rows(pairs, LONG + NEW)
    now = np.asarray(log_probs.answer_log_probs(params, shape, drawn)[0])
    behaviour_BT = (now + np.where(drawn.answer_BT, rng.normal(0, 0.3, now.shape), 0)).astype(np.float32)
    reference_BT = (now + np.where(drawn.answer_BT, rng.normal(0, 0.3, now.shape), 0)).astype(np.float32)
    optimizer = OptimizerConfig(1e-3)
    recipe = Reinforced("base", 1, (1,), optimizer, prompts=PROMPTS, answers=ANSWERS, minibatches=1, kl=kl)
    advantage_BT, _ = rl.advantage(recipes.algorithm(recipe), rl.Rewards(reward_PG, drawn.answer_BT), kl)
    weight_BT = rl.token_weights(drawn.answer_BT, np.ones(rows, bool), recipes.algorithm(recipe).aggregation, NEW)
    batch = rl.PolicyBatch(
        drawn, behaviour_BT, advantage_BT.astype(np.float32), weight_BT, reference_BT if kl else None
    )
    # As a run lays it out: the answers of a group behind one prompt.
    batch = rl.prefix_batch(batch, LONG, NEW)
    assert len(batch.rows.length_P) == PROMPTS
    sums = rl.zero_sums(params, recipes.objective(recipe))
    found = rl.accumulate(params, shape, recipes.objective(recipe), rl.Compute(), batch, sums)

    deviation = reward_PG.std(axis=1, ddof=1, keepdims=True)
    theirs = ((reward_PG - reward_PG.mean(axis=1, keepdims=True)) / (deviation + 1e-4)).reshape(-1)
    given = {"advantages": theirs.astype(np.float32), "old_per_token_logps": behaviour_BT[:, LONG:], "kl": kl}
    if kl:
        given["ref_per_token_logps"] = reference_BT[:, LONG:]
    loss, gradient = gradient_of(tmp_path / "model", prompts, answers, mask, **given)
    checkpoint.export_hf(tmp_path / "gradient", found.gradient, shape)
    ours = load_file(tmp_path / "gradient" / "model.safetensors")
    whole = np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in gradient.values()))
    worst = max(np.abs(ours[name] - x).max() for name, x in gradient.items())
    mine = float(found.metrics["loss"])
    print(f"kl {kl}: loss {mine:.6f}, TRL {loss:.6f}; gradient of norm {whole:.4f}, off by {worst:.1e}")
    assert abs(mine - loss) <= 1e-4 * max(1, abs(loss)) and abs(loss) > 1e-3
    assert ours.keys() == gradient.keys()
    for name, x in gradient.items():
        assert np.linalg.norm(ours[name] - x) <= 1e-4 * np.linalg.norm(x), name
