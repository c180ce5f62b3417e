"""The roofline of decoding and scoring: arithmetic on plain numbers, no jax.

Time = FLOP / rate + bytes / bandwidth, added and not overlapped (Williams et al. 2009 take the larger of the two; real
engines come nearer to the sum). Softmax, sampling, the host and what devices send each other are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """What one token costs: matmul_params multiply it; weight_bytes are read for a step, kv_bytes for a token of its
    context; attention_flops are spent on each such token, over all layers and heads."""

    matmul_params: int
    weight_bytes: int
    kv_bytes: int
    attention_flops: int


@dataclass(frozen=True)
class Machine:
    """Devices in `replicas` groups that each hold the weights once, cut `weight_shards` ways; a page is cut
    `kv_shards` ways. bandwidth (bytes/s) and flops (FLOP/s) are of one device."""

    replicas: int
    weight_shards: int
    kv_shards: int
    bandwidth: float
    flops: float


@dataclass(frozen=True)
class Batch:
    """`rows` live samples of `prompts` prompts: each attends to `own` tokens of its own and to `shared` of its prompt.

    Every replica has samples of every prompt, as far as it has rows.
    """

    rows: float
    prompts: float
    shared: float
    own: float


def step_seconds(decoder: Decoder, machine: Machine, batch: Batch) -> float:
    """Seconds of a decode step: live tokens are read, a prompt's once for all of its samples on a replica."""
    rows = batch.rows / machine.replicas
    tokens_read = rows * batch.own + min(batch.prompts, rows) * batch.shared
    flop = rows * (2 * decoder.matmul_params / machine.weight_shards)
    flop += rows * (batch.shared + batch.own) * decoder.attention_flops / machine.kv_shards
    read = decoder.weight_bytes / machine.weight_shards + tokens_read * decoder.kv_bytes / machine.kv_shards
    return flop / machine.flops + read / machine.bandwidth


def tokens_per_second(decoder: Decoder, machine: Machine, batch: Batch) -> float:
    """Tokens/s of the whole machine."""
    return batch.rows / step_seconds(decoder, machine, batch)


def scoring_seconds(decoder: Decoder, machine: Machine, rows: float, places: float) -> float:
    """Seconds to run `rows` rows of `places` tokens forward at once, attention over whole rows; compute alone."""
    work = rows * places * (2 * decoder.matmul_params + places * decoder.attention_flops)
    return work / (machine.replicas * machine.weight_shards * machine.flops)
