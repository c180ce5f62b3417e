"""The decoder written out in NumPy, a token and a head at a time, in float64; and small models to hold it against."""

from __future__ import annotations

import jax
import numpy as np

from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec

GROUPED = ModelConfig(vocab_size=23, width=12, layers=2, heads=4, kv_heads=2, head_width=6, ffn_width=20)
TIED = ModelConfig(17, 8, 2, 2, 1, 4, 12, rope_theta=1e6, norm_eps=1e-5, qkv_bias=False, tied_embedding=True)
PLAIN = ModelConfig(11, 8, 1, 2, 2, 8, 12, rope_theta=500.0, qkv_bias=False)
NORMED = ModelConfig(13, 10, 2, 6, 1, 4, 14, qkv_bias=False, qk_norm=True)


def random_params(config, seed=0):
    """Parameters drawn in NumPy; norms are not 1 and biases not 0, as they are in a fresh model."""
    rng = np.random.default_rng(seed)

    def leaf(spec):
        mean, std = (1, 0.3) if spec.std is None else (0, spec.std or 0.3)
        return (mean + std * rng.normal(size=spec.shape)).astype(np.float32)

    return jax.tree.map(leaf, decoder.parameter_specs(config), is_leaf=lambda x: isinstance(x, ParameterSpec))


def in_float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def numpy_hidden(params, config, tokens):
    """Normed hidden states [T, D] of one row of tokens, from float64 parameters."""

    def norm(x, scale):
        return x / np.sqrt((x**2).mean() + config.norm_eps) * scale

    def turned(x, position):
        half = config.head_width // 2
        angle = position / config.rope_theta ** (2 * np.arange(half) / config.head_width)
        z = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
        return np.concatenate([z.real, z.imag])

    def projected(y, p, name, heads, position=None):
        out = np.stack([y @ p[name][:, head] for head in range(heads)])
        out = out + p[f"{name}_bias"] if config.qkv_bias else out
        out = np.stack([norm(x, p[f"{name}_norm"]) for x in out]) if config.qk_norm and name != "v" else out
        return out if position is None else np.stack([turned(x, position) for x in out])

    xs = [params["embedding"][token] for token in tokens]
    for p in params["layers"]:
        keys, values, after = [], [], []
        for position, x in enumerate(xs):
            y = norm(x, p["attention_norm"])
            q = projected(y, p, "q", config.heads, position)
            keys.append(projected(y, p, "k", config.kv_heads, position))
            values.append(projected(y, p, "v", config.kv_heads))
            for head in range(config.heads):
                shared = head // (config.heads // config.kv_heads)
                scores = np.array([q[head] @ k[shared] for k in keys]) / np.sqrt(config.head_width)
                weights = np.exp(scores - scores.max())
                mixed = sum(w * v[shared] for w, v in zip(weights / weights.sum(), values, strict=True))
                x = x + mixed @ p["o"][head]
            y = norm(x, p["ffn_norm"])
            gate = y @ p["gate"]
            after.append(x + (gate / (1 + np.exp(-gate)) * (y @ p["up"])) @ p["down"])
        xs = after
    return np.stack([norm(x, params["final_norm"]) for x in xs])


def numpy_log_softmax(params, config, tokens):
    """log P(token | tokens[: t + 1]) [T, V] in float64."""
    weights = params["embedding"].T if config.tied_embedding else params["unembedding"]
    return log_softmax(numpy_hidden(params, config, tokens) @ weights)


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
