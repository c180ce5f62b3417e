"""The roofline of decoding and scoring: arithmetic on plain numbers, no jax.

Time = FLOP / rate + bytes / bandwidth, added and not overlapped (Williams et al. 2009 take the larger of the two; real
engines come nearer to the sum). Softmax, sampling, the host and what devices send each other are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlvr_limit.models.image_layout import VisionConfig


@dataclass(frozen=True)
class TokenCost:
    """What one token of a decoder costs."""

    matmul_params: int  # that multiply it
    weight_bytes: int  # read for a step
    kv_bytes: int  # read for each token of its context
    attention_flops: int  # spent on each such token, over all layers and heads


@dataclass(frozen=True)
class MachineRates:
    """Devices in groups that each hold the weights once."""

    replicas: int  # groups
    weight_shards: int  # parts that a group's weights are cut into
    kv_shards: int  # parts that a page is cut into
    bandwidth: float  # of a device, bytes/s
    flops: float  # of a device, FLOP/s


@dataclass(frozen=True)
class LiveBatch:
    """Live samples of a step. Every replica has samples of every prompt, as far as it has rows."""

    rows: float
    prompts: float
    shared: float  # tokens of its prompt that each attends to
    own: float  # tokens of its own that each attends to


def tower_flops(vision: VisionConfig, out_width: int, patches: float) -> float:
    """FLOP of an image: products with the tower's parameters, attention in windows and to the whole image."""
    v, full = vision, len(vision.full_layers)
    merged = v.width * v.merge**2
    products = v.patch_size * v.width + v.layers * (4 * v.width**2 + 3 * v.width * v.ffn_width)
    products += merged * (merged + out_width) / v.merge**2
    seen = full * patches + (v.layers - full) * (v.window // v.patch) ** 2
    return patches * (2 * products + 4 * v.width * seen)


def step_seconds(cost: TokenCost, machine: MachineRates, batch: LiveBatch) -> float:
    """Seconds of a decode step: live tokens are read, a prompt's once for all of its samples on a replica."""
    rows = batch.rows / machine.replicas
    tokens_read = rows * batch.own + min(batch.prompts, rows) * batch.shared
    flop = rows * (2 * cost.matmul_params / machine.weight_shards)
    flop += rows * (batch.shared + batch.own) * cost.attention_flops / machine.kv_shards
    read = cost.weight_bytes / machine.weight_shards + tokens_read * cost.kv_bytes / machine.kv_shards
    return flop / machine.flops + read / machine.bandwidth


def tokens_per_second(cost: TokenCost, machine: MachineRates, batch: LiveBatch) -> float:
    """Tokens/s of the whole machine."""
    return batch.rows / step_seconds(cost, machine, batch)


def scoring_seconds(cost: TokenCost, machine: MachineRates, rows: float, length: float) -> float:
    """Seconds to run `rows` rows of `length` tokens forward at once, attention over whole rows; compute alone."""
    work = rows * length * (2 * cost.matmul_params + length * cost.attention_flops)
    return work / (machine.replicas * machine.weight_shards * machine.flops)
