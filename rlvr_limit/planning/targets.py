"""The machines that a plan can be made for, this one among them, and what is assumed of them."""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from rlvr_limit.types import UserError, not_allowed

GiB = 2**30

PROCESS = 0.9e9
"""Bytes that Python, JAX and what was compiled take on a CPU, where they share the memory with the model."""

RESERVED = 2_500_000_000
"""Address space that JAX reserves and never fills: `ulimit -v` counts it too."""

CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Target:
    """`devices` equal devices, of which each of `hosts` hosts has as many."""

    name: str
    platform: str  # XLA's
    chip: str
    devices: int
    topology: str  # what the compiler calls all of them; "": it is not asked, programs are lowered only
    memory: int  # bytes of one device that a program may fill
    bandwidth: float  # of one device, bytes/s
    flops: float  # of one device in bfloat16, FLOP/s
    source: str  # of these two
    hosts: int = 1
    host_topology: str = ""  # what the compiler calls those of one host, where there are several
    process: float = 0.0  # bytes of the memory that are taken before the first array
    cores: int = 16  # of a host's processor

    @property
    def host_devices(self) -> int:
        """Devices of one host."""
        return self.devices // self.hosts


VENDOR = "the vendor's peak figures"
MEASURED = "measured on one H200: a copy, and bf16 matrix products"
GUESS = "a guess"

GPU_SHARE = 0.95
"""Of a GPU's memory, what JAX takes at start (cli.py sets it); the rest is for CUDA and NCCL."""

GPUS = {
    # memory, bandwidth, bf16 FLOP/s
    "h200": ("H200", 141e9, 4.3e12, 790e12, MEASURED),
    "h100": ("H100", 80e9, 3.35e12, 989e12, VENDOR),
    "a100-80": ("A100", 80e9, 2.04e12, 312e12, VENDOR),
    "a100-40": ("A100", 40e9, 1.56e12, 312e12, VENDOR),
    "l40s": ("L40S", 48e9, 0.86e12, 362e12, VENDOR),
    "rtx4090": ("RTX 4090", 24e9, 1.01e12, 165e12, VENDOR),
    "b200": ("B200", 180e9, 7.7e12, 2250e12, VENDOR),
}
"""Each is also there as NAME-8, or any other number of them in one machine; gpu:80GB is any GPU of such a memory."""

TPUS = {
    # chip, memory that its compiler gives to a program, bandwidth, bf16 FLOP/s, {devices: topology}, devices of a host
    "v5e": (
        *("TPU v5e", 1575 * GiB // 100, 819e9, 197e12),
        {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    ),
    "v5p": (
        *("TPU v5p", 9574 * GiB // 100, 2.765e12, 459e12),
        {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"},
    ),
    "v6e": (
        *("TPU v6e", 3125 * GiB // 100, 1.64e12, 918e12),
        {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    ),
}

NAMES = f"{', '.join(GPUS)} (or with a number behind, such as h200-8), gpu:80GB, v5e-8, v5p-8, v6e-16, cpu, here"


def find_target(name: str) -> Target:
    """The target of that name. Raises UserError, with the names, for another.

    Cloud names of v5p count tensor cores, two a chip; JAX sees one device a chip.
    """
    if name == "here":
        return this_machine()
    if name == "cpu":
        return _host(name, len(jax.local_devices(backend="cpu")))
    if match := re.fullmatch(r"gpu:(\d+)GB(?:-(\d+))?", name):
        return _gpu(name, ("GPU", float(match[1]) * 1e9, 1e12, 150e12, GUESS), int(match[2] or 1))
    for known, facts in GPUS.items():
        if match := re.fullmatch(rf"{known}(?:-(\d+))?", name):
            return _gpu(name, facts, int(match[1] or 1))
    if (match := re.fullmatch(r"(v5e|v5p|v6e)-(\d+)", name)) and (target := _tpu(name, match[1], int(match[2]))):
        return target
    raise not_allowed("config.target", name, f"one of {NAMES}")


def this_machine() -> Target:
    """The machine that this process runs on, as JAX sees it, all hosts of the run together."""
    first, count = jax.local_devices()[0], jax.local_device_count()
    hosts, cores = jax.process_count(), len(os.sched_getaffinity(0))
    if first.platform == "cpu":
        return replace(_host("here", count), devices=hosts * count, hosts=hosts)
    stats = first.memory_stats() or {}
    if "bytes_limit" not in stats:
        raise UserError(f"{first.device_kind} does not tell its memory: set engine.max_num_seqs, cache_tokens and mesh")
    platform = "cuda" if first.platform in ("gpu", "cuda", "rocm") else first.platform
    kind = first.device_kind.lower().replace(" ", "")
    like = [facts for facts in GPUS.values() if facts[0].lower().replace(" ", "") in kind]
    like += [(facts[0], *facts[1:4], VENDOR) for facts in TPUS.values() if facts[0].lower().replace(" ", "") in kind]
    _, _, bandwidth, flops, source = like[0] if like else ("", 0, 1e12, 150e12, GUESS)
    return Target(
        *("here", platform, first.device_kind, hosts * count, "", stats["bytes_limit"], bandwidth, flops, source),
        hosts=hosts,
        cores=cores,
    )


def host_memory() -> int:
    """Bytes that this process may have: the machine's, or less by a control group or a limit of the shell."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if CGROUP.is_file() and (text := CGROUP.read_text().strip()).isdigit():
        limits.append(int(text))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(max(0, soft - RESERVED))
    return min(limits)


def _host(name: str, devices: int) -> Target:
    """This machine's processor, as so many devices that share its memory."""
    speed = 20e9, 100e9, "a guess at two cores; memory is this machine's"
    cores = len(os.sched_getaffinity(0))
    return Target(name, "cpu", "CPU", devices, "", host_memory(), *speed, process=PROCESS, cores=cores)


def _gpu(name: str, facts: tuple, count: int) -> Target:
    chip, memory, bandwidth, flops, source = facts
    # Machines have eight GPUs at most, each machine with an NVLink of its own.
    hosts = -(-count // 8)
    if count % hosts:
        raise not_allowed("config.target", name, "a number of GPUs up to 8, or a multiple of 8")
    share = int(memory * GPU_SHARE)
    topology = f"{hosts}x1x{count // hosts}" if chip == "H200" else ""
    own = f"1x1x{count // hosts}" if hosts > 1 and topology else ""
    return Target(name, "cuda", chip, count, topology, share, bandwidth, flops, source, hosts, own)


def _tpu(name: str, kind: str, number: int) -> Target | None:
    chip, memory, bandwidth, flops, topologies = TPUS[kind]
    devices = number // 2 if kind == "v5p" else number
    if devices not in topologies:
        return None
    hosts = 1 if devices <= (4 if kind == "v5p" else 8) else devices // 4
    own = f"{kind}:{topologies[4]}" if hosts > 1 else ""
    return Target(
        *(name, "tpu", chip, devices, f"{kind}:{topologies[devices]}", memory, bandwidth, flops, VENDOR, hosts, own)
    )
