"""Optimizers: schedules, clipping, and what a parameter's moments take.

| kind       | bytes a parameter: weights + gradient + moments, in float32 where nothing is said | 7.6e9 parameters |
|------------|-----------------------------------------------------------------------------------|------------------|
| adamw      | 4 + 4 + 8                                                                         | 122 GB           |
| adamw_bf16 | 4 + 4 + 4 (both moments in bfloat16)                                              |  91 GB           |
| adafactor  | 4 + 4 + next to nothing (row and column means of squares, no momentum)            |  61 GB           |

Weights stay in float32 in all three: an update of RL is about 1e-6, and a bfloat16 weight of 0.02 moves by 6e-5 or not
at all. adamw_bf16 is Adam to 3 digits and leaves an H200 room for a sampler's cache beside 7B; adafactor is for less.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rlvr_limit.settings import OptimizerConfig
from rlvr_limit.settings.schema import check_ranges
from rlvr_limit.types import not_allowed

SLOWEST_B2 = 0.99
"""The largest b2 of bfloat16 moments: they have 8 bits, and v (1 - b2) must be more than half of the last one of v."""


def optimizer(config: OptimizerConfig, updates: int, trains_vision: bool = True) -> optax.GradientTransformation:
    """The Optax chain of a run of `updates` updates. Raises UserError for a field out of its range."""
    check_ranges(config, "optimizer.")
    return optax.chain(
        _clipped(config.clip_norm),
        _preconditioner(config),
        optax.add_decayed_weights(config.weight_decay, None if trains_vision else _but_vision),
        optax.scale_by_learning_rate(_schedule(config, updates)),
    )


def _but_vision(params: Any) -> Any:
    """Which parameters decay where the tower is left alone; its gradient is 0 (Compute.trains_vision)."""
    return {name: jax.tree.map(lambda _, decays=name != "vision": decays, part) for name, part in params.items()}


def _clipped(most: float) -> optax.GradientTransformation:
    """optax.clip_by_global_norm as a product with one factor. Where gradients are divided, XLA writes the clipped ones
    out to read them again."""

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(1.0, most / optax.tree.norm(gradient))
        return jax.tree.map(lambda x: (x * factor).astype(x.dtype), gradient), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _schedule(config: OptimizerConfig, updates: int) -> optax.Schedule:
    if config.decay == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, config.warmup, max(updates, config.warmup + 1), 0.1 * config.learning_rate
        )
    # Optax reads a ramp of 0 steps as one that never leaves its start.
    first = 0.0 if config.warmup else config.learning_rate
    return optax.linear_schedule(first, config.learning_rate, config.warmup)


def _preconditioner(config: OptimizerConfig) -> optax.GradientTransformation:
    match config.kind:
        case "adamw":
            return optax.scale_by_adam(b2=config.b2)
        case "adamw_bf16":
            if config.b2 > SLOWEST_B2:
                raise not_allowed("optimizer.b2", config.b2, f"at most {SLOWEST_B2}, as bfloat16 moments need")
            return _kept_in_bfloat16(optax.scale_by_adam(b2=config.b2))
        case "adafactor":
            # Updates have a root mean square of at most 1 a tensor, as Adam's do: learning rates mean the same.
            return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    raise AssertionError(f"no optimizer is named {config.kind!r}")


def _kept_in_bfloat16(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """tx, whose float32 state is rounded to bfloat16 between updates."""

    def cast(tree: Any, old: Any, new: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(new) if x.dtype == old else x, tree)

    def init(params: Any) -> Any:
        return cast(tx.init(params), jnp.float32, jnp.bfloat16)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        changes, state = tx.update(gradient, cast(state, jnp.bfloat16, jnp.float32), params)
        return changes, cast(state, jnp.float32, jnp.bfloat16)

    return optax.GradientTransformation(init, update)
