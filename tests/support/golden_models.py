"""The checkpoints of tests/goldens as our decoders."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params, RopeScaling
from tests.goldens import families
from tests.goldens.families import FAMILIES

NAMES = pytest.mark.parametrize("name", FAMILIES)


def model_config(name: str, dtype: str = "float32") -> ModelConfig:
    """The decoder of a checkpoint, mapped here by hand: the loader's own mapping is tested against its own files."""
    c = FAMILIES[name]
    scaling = c.get("rope_scaling")
    return ModelConfig(
        vocab_size=c["vocab_size"],
        width=c["hidden_size"],
        layers=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        kv_heads=c["num_key_value_heads"],
        head_width=c["head_dim"],
        ffn_width=c["intermediate_size"],
        rope_theta=c["rope_theta"],
        norm_eps=c["rms_norm_eps"],
        qkv_bias=c["model_type"] == "qwen2",
        tied_embedding=c["tie_word_embeddings"],
        dtype=dtype,
        qk_norm=c["model_type"] == "qwen3",
        rope_scaling=scaling
        and RopeScaling(
            scaling["factor"],
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
            scaling["original_max_position_embeddings"],
        ),
        context=c["max_position_embeddings"],
    )


def our_params(name: str, dtype: str = "float32") -> Params:
    """The checkpoint's tensors as our tree: [out, in] matrices become [in, out], heads get an axis of their own."""
    c, state = model_config(name), families.state_dict(name)
    d, h = c.width, c.head_width

    def layer(i: int) -> dict[str, np.ndarray]:
        part = {key.removeprefix(f"model.layers.{i}."): x for key, x in state.items() if f"layers.{i}." in key}
        leaves = {
            "attention_norm": part["input_layernorm.weight"],
            "o": part["self_attn.o_proj.weight"].T.reshape(c.heads, h, d),
            "ffn_norm": part["post_attention_layernorm.weight"],
            **{short: part[f"mlp.{short}_proj.weight"].T for short in ("gate", "up", "down")},
        }
        for short, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads)):
            leaves[short] = part[f"self_attn.{short}_proj.weight"].T.reshape(d, heads, h)
            if c.qkv_bias:
                leaves[f"{short}_bias"] = part[f"self_attn.{short}_proj.bias"].reshape(heads, h)
            if c.qk_norm and short != "v":
                leaves[f"{short}_norm"] = part[f"self_attn.{short}_norm.weight"]
        return leaves

    params = {
        "embedding": state["model.embed_tokens.weight"],
        "layers": [layer(i) for i in range(c.layers)],
        "final_norm": state["model.norm.weight"],
    }
    if not c.tied_embedding:
        params["unembedding"] = state["lm_head.weight"].T
    shapes = jax.tree.map(lambda s: s.shape, decoder.parameter_specs(c), is_leaf=lambda x: hasattr(x, "std"))
    assert jax.tree.map(jnp.shape, params) == shapes
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
