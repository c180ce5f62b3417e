"""The machines that a plan can be made for, and what is assumed of them. No jax here."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace

from rlvr_limit.types import not_allowed

GiB = 2**30


@dataclass(frozen=True)
class Target:
    """`devices` equal devices, of which each of `hosts` hosts has as many."""

    name: str
    platform: str  # XLA's
    chip: str
    devices: int
    topology: str  # what the compiler calls all of them
    memory: int  # bytes of one device that a program may fill
    bandwidth: float  # of one device, bytes/s
    flops: float  # of one device in bfloat16, FLOP/s
    source: str  # of these two
    hosts: int = 1
    host_topology: str = ""  # what the compiler calls those of one host, where there are several

    @property
    def host_devices(self) -> int:
        """Devices of one host."""
        return self.devices // self.hosts


VENDOR = "the vendor's peak figures"
MEASURED = "measured on one H200: a copy, and bf16 matrix products"
H200_MEMORY = 140 * 10**9

TARGETS = (
    Target("cpu", "cpu", "CPU", 1, "", 0, 20e9, 100e9, "a guess at two cores; memory is this machine's"),
    Target("h200", "cuda", "H200", 1, "1x1x1", H200_MEMORY, 4.3e12, 790e12, MEASURED),
    Target("h200-8", "cuda", "H200", 8, "1x1x8", H200_MEMORY, 4.3e12, 790e12, MEASURED),
    # Sixteen machines, each with an NVLink of its own.
    Target("h200-128", "cuda", "H200", 128, "16x1x8", H200_MEMORY, 4.3e12, 790e12, MEASURED, 16, "1x1x8"),
    Target("v5e-8", "tpu", "TPU v5e", 8, "v5e:2x4", 1575 * GiB // 100, 819e9, 197e12, VENDOR),
    # Cloud names of v5p count tensor cores, two a chip; JAX sees one device a chip.
    Target("v5p-8", "tpu", "TPU v5p", 4, "v5p:2x2x1", 9574 * GiB // 100, 2.765e12, 459e12, VENDOR),
    Target("v5p-128", "tpu", "TPU v5p", 64, "v5p:4x4x4", 9574 * GiB // 100, 2.765e12, 459e12, VENDOR, 16, "v5p:2x2x1"),
    Target("v6e-16", "tpu", "TPU v6e", 16, "v6e:4x4", 3125 * GiB // 100, 1.64e12, 918e12, VENDOR, 4, "v6e:2x2"),
)
"""Memory of TPUs is what their compiler gives to a program; of the H200's 141 GB, CUDA and NCCL keep about one."""


def find_target(name: str) -> Target:
    """The target of that name; the cpu's memory is this machine's. Raises UserError, with the names, for another."""
    known = {target.name: target for target in TARGETS}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise not_allowed("config.target", name, f"one of {', '.join(known)}{hint}")
    if name == "cpu":
        return replace(known[name], memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return known[name]
