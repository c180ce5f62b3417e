"""Low-rank adapters: W + (alpha / rank) A B of every product of a layer, A and B trained, W left alone.

Hu et al. 2021 (arXiv 2106.09685), eq. 3. Adapters are a tree of their own, with which a TrainState is made as with
parameters; an export holds the merged weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, Params
from rlvr_limit.types import not_allowed

INPUTS = {"q": 1, "k": 1, "v": 1, "o": 2, "gate": 1, "up": 1, "down": 1}
"""The matrices of a layer that can have adapters, and how many of their dimensions are summed over."""


@dataclass(frozen=True)
class Lora:
    """Rank and scale of adapters, and which matrices have them; static under jit. UserError for an unknown matrix."""

    rank: int
    alpha: float
    on: tuple[str, ...] = tuple(INPUTS)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise not_allowed("lora.rank", self.rank, "at least 1")
        if not set(self.on) <= INPUTS.keys():
            raise not_allowed("lora.on", self.on, f"all of {', '.join(INPUTS)}")


def adapter_specs(config: ModelConfig, lora: Lora) -> Params:
    """The tree of ParameterSpec of the adapters: a [*in, rank] and b [rank, *out], which begins at 0."""

    def pair(name: str, spec: ParameterSpec) -> dict[str, ParameterSpec]:
        inputs = INPUTS[name]
        into, out, axes = spec.shape[:inputs], spec.shape[inputs:], spec.axes
        return {
            "a": ParameterSpec((*into, lora.rank), (*axes[:inputs], None), math.prod(into) ** -0.5),
            "b": ParameterSpec((lora.rank, *out), (None, *axes[inputs:]), 0.0),
        }

    layers = decoder.parameter_specs(config)["layers"]
    return {"layers": [{name: pair(name, layer[name]) for name in lora.on} for layer in layers]}


def init_adapters(config: ModelConfig, lora: Lora, key: jax.Array) -> Params:
    """Fresh adapters in float32, which change nothing yet."""
    return decoder.init_from_specs(adapter_specs(config, lora), key, "float32")


def attached(params: Params, adapters: Params, lora: Lora) -> Params:
    """Parameters whose layers carry the adapters, as decoder.forward takes them."""

    def scaled(pair: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"a": pair["a"], "b": pair["b"] * (lora.alpha / lora.rank)}

    pairs = zip(params["layers"], adapters["layers"], strict=True)
    layers = [layer | {"lora": {name: scaled(pair) for name, pair in own.items()}} for layer, own in pairs]
    return params | {"layers": layers}


@partial(jax.jit, static_argnums=2)
def merged(params: Params, adapters: Params, lora: Lora) -> Params:
    """Plain parameters that say the same, in the dtypes of params."""

    def merged_layer(layer: dict[str, jax.Array], own: dict[str, Any]) -> dict[str, jax.Array]:
        changes = {
            name: jnp.tensordot(pair["a"], pair["b"], 1) * (lora.alpha / lora.rank) for name, pair in own.items()
        }
        return layer | {name: (layer[name] + change).astype(layer[name].dtype) for name, change in changes.items()}

    with decoder.matmul_precision(jnp.float32):
        pairs = zip(params["layers"], adapters["layers"], strict=True)
        return params | {"layers": [merged_layer(layer, own) for layer, own in pairs]}
