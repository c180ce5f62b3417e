"""Settings of the machine: the sampling engine's shapes, the mesh of devices, the hosts of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlvr_limit.types import AtLeast, Interval


@dataclass(frozen=True)
class EngineConfig:
    """Shapes of the engine's compiled programs. What a config leaves at auto is chosen to fit the machine."""

    max_num_seqs: Annotated[int, AtLeast(0)] = 0  # sequences that are alive at once; 0: auto
    steps_per_call: Annotated[int, AtLeast(1)] = 8  # decode steps between two looks of the host
    page_size: Annotated[int, AtLeast(1)] = 32  # tokens of a cache page: 16 or more, rounded up to calls and kernels
    cache_tokens: Annotated[int, AtLeast(0)] = 0  # tokens of all pages; 0: auto, at most every longest sample's
    buckets: tuple[Annotated[int, AtLeast(1)], ...] = ()  # batch sizes that programs are made for; (): auto
    min_shared_prefix: Annotated[int, AtLeast(1)] = 64  # prompts this long are read once for all rows; GPU, TPU: all
    max_prompt_len: Annotated[int, AtLeast(0)] = 16  # tokens of a prompt; 0: as many as the longest prompt needs
    prefill_rows: Annotated[int, AtLeast(0)] = 0  # prompts that are prefilled at once; 0: auto
    prefix_rows: Annotated[int, AtLeast(1)] = 64  # prompts that the cache has room for, where cache_tokens is 0
    reference: bool = False  # always tiles of 64 rows: samples are bitwise the same for any max_num_seqs


@dataclass(frozen=True)
class MeshConfig:
    """Devices of a host along each axis."""

    data: Annotated[int, AtLeast(1)] = 1  # rows are spread over data x fsdp
    fsdp: Annotated[int, AtLeast(1)] = 1  # parameters over fsdp x tensor
    tensor: Annotated[int, AtLeast(1)] = 1


@dataclass(frozen=True)
class HostsConfig:
    """Processes of one run. The first three fields are given together, or left to the launcher (TPU, SLURM, MPI)."""

    coordinator: str = ""  # "address:port" of host 0, the same on every host
    count: Annotated[int, AtLeast(0)] = 0  # hosts of the run
    index: Annotated[int, AtLeast(-1)] = -1  # this host, from 0
    patience: Annotated[float, Interval("(0, inf)")] = 30.0  # seconds of silence after which a host counts as dead
    hosts_per_replica: Annotated[int, AtLeast(1)] = 1  # hosts that hold one replica of the sampler between them
