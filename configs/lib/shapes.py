"""Shapes of the released bases, as their config.json has them; used where no weights are at hand (job=plan)."""


def shape(layers: int, width: int, heads: int, kv_heads: int, ffn_width: int, vocab_size: int, context: int) -> dict:
    """Fields of config.model; most of these models have heads of width 128 and untied embeddings."""
    return {
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_width": 128,
        "ffn_width": ffn_width,
        "vocab_size": vocab_size,
        "qkv_bias": True,
        "tied_embedding": False,
        "context": context,
    }


QWEN25_05B = {
    **shape(24, 896, 14, 2, 4864, 151_936, 32_768),
    "head_width": 64,
    "tied_embedding": True,
}
QWEN25_7B = shape(28, 3584, 28, 4, 18_944, 152_064, 131_072)
QWEN25_MATH_7B = {**QWEN25_7B, "context": 4096}
QWEN25_VL_7B = {
    **QWEN25_7B,
    "context": 128_000,
    "vision": {"width": 1280, "layers": 32, "heads": 16, "ffn_width": 3420, "full_layers": (7, 15, 23, 31)},
}
QWEN25_14B = shape(48, 5120, 40, 8, 13_824, 152_064, 131_072)
QWEN25_32B = shape(64, 5120, 40, 8, 27_648, 152_064, 131_072)
LLAMA31_8B = {**shape(32, 4096, 32, 8, 14_336, 128_256, 131_072), "qkv_bias": False}
