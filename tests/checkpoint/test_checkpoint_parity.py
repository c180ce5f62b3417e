"""What transformers writes loads here, and what goes out again opens there as the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlvr_limit.checkpoint import export_hf, load_hf, read_model_config, stop_tokens
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models import decoder
from rlvr_limit.settings import MeshConfig

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": 160,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "llama": ("Llama", {"head_dim": 10, "rope_parameters": LLAMA3}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
}
TOKENS_BT = np.random.default_rng(0).integers(0, SIZES["vocab_size"], (2, 128))


def write(folder: Path, family: str, dtype: str) -> None:
    """A random model, all of its parameters drawn (transformers starts biases at 0 and norms at 1), as it saves it."""
    import torch
    import transformers

    name, changed = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changed})
    net = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for key, x in net.named_parameters():
            if x.ndim == 1:
                x.copy_(torch.randn_like(x) * 0.3 + (0.0 if key.endswith("bias") else 1.0))
    net.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="40KB")


def their_logits(folder: Path, dtype: str) -> np.ndarray:
    """Logits [B, T, V] in float32 of a folder as transformers opens it."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager")
    with torch.no_grad():
        return net(torch.tensor(TOKENS_BT)).logits.float().numpy()


def stored(folder: Path) -> dict[str, Any]:
    return {name: x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_model_that_went_through_here_is_the_same_to_transformers(tmp_path: Path, family: str, dtype: str) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    write(before, family, dtype)
    config = read_model_config(before, dtype)
    params = load_hf(before, config, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    export_hf(after, params, config, tokenizer_folder=before)
    assert len(list(before.glob("*.safetensors"))) > 2
    theirs, ours = stored(before), stored(after)
    assert theirs.keys() == ours.keys()
    assert all(theirs[k].dtype == ours[k].dtype and theirs[k].tobytes() == ours[k].tobytes() for k in theirs)
    assert read_model_config(after, dtype) == config
    assert stop_tokens(after) == stop_tokens(before) == (2,)
    np.testing.assert_array_equal(their_logits(after, dtype), their_logits(before, dtype))


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_model_has_the_logits_of_transformers(tmp_path: Path, family: str) -> None:
    write(tmp_path, family, "float32")
    config = read_model_config(tmp_path, "float32")
    params = load_hf(tmp_path, config, make_mesh(MeshConfig()))
    ours = np.asarray(decoder.logits(params, decoder.forward_causal(params, config, TOKENS_BT)[0]))
    theirs = their_logits(tmp_path, "float32")
    worst = np.abs(ours - theirs).max() / theirs.std()
    print(f"{family}: max |delta| / std = {worst:.1e}")
    assert worst <= 1e-4
