"""Tiny random checkpoints that see: the released Qwen2.5-VL's config.json but for sizes, tensors, prompts and patches.

Needs NumPy alone, as families.py. Weights are large, biases not 0 and norms not 1: as transformers draws them, wrong
windows or positions move logits by 1e-2 and change no likeliest token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GRIDS = ((1, 10, 14), (1, 18, 6))
"""5 x 7 and 9 x 3 tokens: neither side is a multiple of a window's 4."""
IMAGE, START, END = 303, 301, 302
GENERATED = 8


def config(width: int, ffn_width: int, sections: list[int], heads: int, tied: bool, **vision: int) -> dict[str, Any]:
    """A config.json in the flat layout of the hub."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vocab_size": 320,
        "hidden_size": width,
        "intermediate_size": ffn_width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": sections},
        "max_position_embeddings": 4096,
        "max_window_layers": 2,
        "use_sliding_window": False,
        "sliding_window": 32768,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
        "image_token_id": IMAGE,
        "video_token_id": 304,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
        "vision_config": {
            "depth": 4,
            "hidden_act": "silu",
            "in_chans": 3,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": width,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
            **vision,
        },
    }


CHECKPOINTS = {
    "qwen25vl-untied": config(64, 96, [2, 3, 3], 4, False, hidden_size=32, intermediate_size=48, num_heads=2),
    "qwen25vl-tied": config(48, 56, [1, 2, 3], 4, True, hidden_size=24, intermediate_size=36, num_heads=2),
}


def tensor_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, by the names of the hub's files."""
    d, f, v = c["hidden_size"], c["intermediate_size"], c["vision_config"]
    kv = d // c["num_attention_heads"] * c["num_key_value_heads"]
    w, g, merged = v["hidden_size"], v["intermediate_size"], 4 * v["hidden_size"]
    layer = {
        "input_layernorm.weight": (d,),
        "post_attention_layernorm.weight": (d,),
        **{f"self_attn.{x}_proj.weight": (n, d) for x, n in (("q", d), ("k", kv), ("v", kv), ("o", d))},
        **{f"self_attn.{x}_proj.bias": (n,) for x, n in (("q", d), ("k", kv), ("v", kv))},
        **{f"mlp.{x}_proj.weight": shape for x, shape in (("gate", (f, d)), ("up", (f, d)), ("down", (d, f)))},
    }
    block = {
        "norm1.weight": (w,),
        "norm2.weight": (w,),
        **{
            f"attn.{x}.{kind}": (n, w)[: 1 + (kind == "weight")]
            for x, n in (("qkv", 3 * w), ("proj", w))
            for kind in KINDS
        },
        **{f"mlp.{x}_proj.{kind}": (g, w)[: 1 + (kind == "weight")] for x in ("gate", "up") for kind in KINDS},
        "mlp.down_proj.weight": (w, g),
        "mlp.down_proj.bias": (w,),
    }
    return {
        "model.embed_tokens.weight": (c["vocab_size"], d),
        "model.norm.weight": (d,),
        **({} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], d)}),
        **{f"model.layers.{i}.{name}": s for i in range(c["num_hidden_layers"]) for name, s in layer.items()},
        "visual.patch_embed.proj.weight": (w, 3, 2, 14, 14),
        **{f"visual.blocks.{i}.{name}": s for i in range(v["depth"]) for name, s in block.items()},
        "visual.merger.ln_q.weight": (w,),
        "visual.merger.mlp.0.weight": (merged, merged),
        "visual.merger.mlp.0.bias": (merged,),
        "visual.merger.mlp.2.weight": (d, merged),
        "visual.merger.mlp.2.bias": (d,),
    }


KINDS = ("weight", "bias")


def state_dict(name: str) -> dict[str, np.ndarray]:
    """The float32 tensors of a checkpoint."""
    rng = np.random.default_rng(sum(name.encode()))

    def draw(tensor: str, shape: tuple[int, ...]) -> np.ndarray:
        x = rng.standard_normal(shape)
        if len(shape) == 1:
            return (0.3 * x if tensor.endswith("bias") else 1 + 0.2 * x).astype(np.float32)
        x *= np.prod(shape[1:]) ** -0.5
        if "q_proj" in tensor or "k_proj" in tensor:
            x *= 2
        if "qkv" in tensor:
            x[: 2 * len(x) // 3] *= 2
        return x.astype(np.float32)

    return {tensor: draw(tensor, shape) for tensor, shape in sorted(tensor_shapes(CHECKPOINTS[name]).items())}


def patches() -> list[np.ndarray]:
    """The patches of an image of each of GRIDS, float32 [N, 1176]: rising shades under noise, twice in time."""
    rng = np.random.default_rng(23)
    images = []
    for _, rows, columns in GRIDS:
        x = (
            rng.standard_normal((rows * columns, 3, 1, 14, 14))
            + np.linspace(-1, 1, rows * columns)[:, None, None, None, None]
        )
        images.append(np.repeat(x, 2, axis=2).reshape(rows * columns, -1).astype(np.float32))
    return images


def prompts() -> list[tuple[list[int], list[int]]]:
    """(token ids, numbers of its images) of a prompt with one image, with two, and with none; of three lengths."""
    rng = np.random.default_rng(29)

    def text(length: int) -> list[int]:
        return rng.integers(300, size=length).tolist()

    def image(number: int) -> list[int]:
        return [START, *[IMAGE] * (GRIDS[number][1] * GRIDS[number][2] // 4), END]

    one = text(5) + image(0) + text(9)
    two = text(3) + image(1) + text(4) + image(0) + text(6)
    return [(one, [0]), (two, [1, 0]), (text(21), [])]
