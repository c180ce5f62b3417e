"""The roofline of decoding and scoring: arithmetic on plain numbers, no jax.

Time = FLOP / rate + bytes / bandwidth, added and not overlapped (Williams et al. 2009 take the larger of the two; real
engines come nearer to the sum). Softmax, sampling, the host and what devices send each other are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """What one token costs: matmul_params multiply it; weight_bytes are read for a step, kv_bytes for a place of its
    context; attention_flops are spent on each such place, over all layers and heads."""

    matmul_params: int
    weight_bytes: int
    kv_bytes: int
    attention_flops: int


@dataclass(frozen=True)
class Machine:
    """Devices in `replicas` groups that each hold the weights once, cut `weight_shards` ways; a cache row is cut
    `kv_shards` ways. bandwidth (bytes/s) and flops (FLOP/s) are of one device."""

    replicas: int
    weight_shards: int
    kv_shards: int
    bandwidth: float
    flops: float


def step_seconds(decoder: Decoder, machine: Machine, slots: int, context: float) -> float:
    """Seconds of a decode step of `slots` live samples, each of which attends to `context` places."""
    rows = slots / machine.replicas
    flop = rows * (2 * decoder.matmul_params / machine.weight_shards)
    flop += rows * context * decoder.attention_flops / machine.kv_shards
    read = decoder.weight_bytes / machine.weight_shards + rows * context * decoder.kv_bytes / machine.kv_shards
    return flop / machine.flops + read / machine.bandwidth


def tokens_per_second(decoder: Decoder, machine: Machine, slots: int, context: float) -> float:
    """Tokens/s of the whole machine with every slot alive."""
    return slots / step_seconds(decoder, machine, slots, context)


def scoring_seconds(decoder: Decoder, machine: Machine, rows: float, places: float) -> float:
    """Seconds to run `rows` rows of `places` tokens forward at once, attention over whole rows; compute alone."""
    work = rows * places * (2 * decoder.matmul_params + places * decoder.attention_flops)
    return work / (machine.replicas * machine.weight_shards * machine.flops)


def mean_context(prompt: float, answer: float) -> float:
    """Places that a live sample attends to, averaged over an answer's life, if all answers are equally long."""
    return prompt + answer / 2
