"""Writes logits of transformers for the checkpoints of families.py: python -m tests.goldens.make_goldens

Needs torch and transformers. A golden holds, for one row of tokens:
  digest                             SHA-256 of the weights
  logits, std                        some float32 logits of each position; the standard deviation of all
  rounded_logits                     the same with the weights rounded to bfloat16, still computed in float32
  bfloat16_rms, bfloat16_largest     how far from these transformers is, over all logits, when it computes in bfloat16
"""

from __future__ import annotations

import numpy as np
import torch
import transformers

from tests.goldens import families


def reference_logits(name: str, weights: str, compute: str, row: int = 0) -> np.ndarray:
    """Logits [T, V] of transformers, float32: weights rounded to one dtype, then computed in another."""
    config = transformers.AutoConfig.for_model(**families.FAMILIES[name])
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    state = {key: torch.from_numpy(x).to(getattr(torch, weights)) for key, x in families.state_dict(name).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    model = model.to(getattr(torch, compute))
    # from_pretrained keeps the frequencies in float32, .to does not: they are made again.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(families.tokens(name, row)).long()[None]).logits[0].float().numpy()


def main() -> None:
    """Makes every golden; prints what the tests will be measured by."""
    for name in families.FAMILIES:
        plain = reference_logits(name, "float32", "float32")
        rounded = reference_logits(name, "bfloat16", "float32")
        error = reference_logits(name, "bfloat16", "bfloat16") - rounded
        rms, largest = float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())
        np.savez_compressed(
            families.FOLDER / f"{name}.npz",
            digest=families.digest(families.state_dict(name)),
            logits=families.kept(plain),
            std=plain.std(),
            rounded_logits=families.kept(rounded),
            bfloat16_rms=rms,
            bfloat16_largest=largest,
        )
        print(f"{name}: std {plain.std():.3f}, transformers in bfloat16: rms {rms:.4f}, largest {largest:.3f}")


if __name__ == "__main__":
    main()
