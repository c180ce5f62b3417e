"""Writes what transformers makes of the checkpoints of visual.py: python -m tests.goldens.make_visual_goldens

Needs torch and transformers >= 5.19 (some earlier versions had wrong positions). All is computed in float64, prompt by
prompt: with these weights transformers in float32 is as far from that as our float32 is. The same prompts in one batch
padded on the left, in float32, must give the same tokens. A golden holds
  digest                 SHA-256 of the weights
  tokens, logp [3, G]    the likeliest tokens after each prompt, drawn one by one with a cache, and their log-probs
  logits [T, COLUMNS]    some logits of each position of all prompts, one behind the other; std: of all
  rows                   of the tower, for the first prompt's image
  places [T, 3], delta   positions of all prompts, one behind the other, and what they lag behind their end
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from tests.goldens import families, visual


def reference_model(name: str, dtype: torch.dtype) -> Any:
    """A checkpoint as transformers' model."""
    config = transformers.Qwen2_5_VLConfig(**visual.CHECKPOINTS[name] | {"bos_token_id": None, "eos_token_id": None})
    attention = "sdpa" if dtype == torch.float64 else "eager"
    model = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention)

    def newer(tensor: str) -> str:
        inner = tensor.replace("model.", "language_model.")
        return inner if tensor == "lm_head.weight" else f"model.{inner}"

    state = {newer(tensor): torch.from_numpy(x) for tensor, x in visual.state_dict(name).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    model = model.to(dtype).eval()
    # Frequencies are made again: .to has rounded, or widened, what was computed in float32.
    vision, text = model.model.visual, model.model.language_model
    vision.rotary_pos_emb = type(vision.rotary_pos_emb)(config.vision_config)
    text.rotary_emb = type(text.rotary_emb)(config.text_config)
    return model


def inputs(prompts: Sequence[tuple[list[int], list[int]]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Prompts as one batch, padded on the left."""
    longest, patches = max(len(ids) for ids, _ in prompts), visual.patches()
    ids = torch.tensor([[0] * (longest - len(ids)) + ids for ids, _ in prompts])
    sent = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in prompts]),
        "mm_token_type_ids": (ids == visual.IMAGE).int(),
    }
    shown = [number for _, numbers in prompts for number in numbers]
    if shown:
        sent["pixel_values"] = torch.from_numpy(np.concatenate([patches[i] for i in shown])).to(dtype)
        sent["image_grid_thw"] = torch.tensor([visual.GRIDS[i] for i in shown])
    return sent


def drawn(model: Any, sent: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, logp): the likeliest tokens one by one."""
    more = {"max_new_tokens": visual.GENERATED, "do_sample": False, "pad_token_id": 0}
    found = model.generate(**sent, **more, output_logits=True, return_dict_in_generate=True)
    tokens = found.sequences[:, sent["input_ids"].shape[1] :]
    logp = torch.stack(found.logits, 1).log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    return tokens.numpy(), logp.numpy()


@torch.no_grad()
def reference(name: str) -> dict[str, np.ndarray]:
    """A golden's arrays."""
    model = reference_model(name, torch.float64)
    each = [inputs([prompt], torch.float64) for prompt in visual.prompts()]
    logits = np.concatenate([model(**sent).logits[0].numpy() for sent in each])
    tokens, logp = (np.concatenate(x) for x in zip(*(drawn(model, sent) for sent in each), strict=True))
    keys = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    places = [model.model.get_rope_index(**{key: sent.get(key) for key in keys}) for sent in each]
    rows = model.model.visual(torch.from_numpy(visual.patches()[0]).double(), torch.tensor([visual.GRIDS[0]]))

    batched = drawn(reference_model(name, torch.float32), inputs(visual.prompts(), torch.float32))
    assert np.array_equal(tokens, batched[0]), "padded on the left, transformers draws other tokens"
    print(f"{name}: std {logits.std():.3f}; padded on the left, in float32: {np.abs(logp - batched[1]).max():.1e} nats")
    return {
        "digest": np.array(families.digest(visual.state_dict(name))),
        "tokens": tokens,
        "logp": logp.astype(np.float32),
        "logits": families.kept(logits).astype(np.float32),
        "std": logits.std(),
        "rows": rows.pooler_output.float().numpy(),
        "places": np.concatenate([at[:, 0].T.numpy() for at, _ in places]),
        "delta": np.array([int(delta) for _, delta in places]),
    }


def main() -> None:
    """Makes every golden."""
    for name in visual.CHECKPOINTS:
        np.savez_compressed(families.FOLDER / f"{name}.npz", **reference(name))


if __name__ == "__main__":
    main()
