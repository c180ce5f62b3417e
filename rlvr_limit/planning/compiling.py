"""Compiling programs for machines that are not here, and what their compilers say of memory."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from rlvr_limit.planning.programs import CompiledProgram, DeviceProgram
from rlvr_limit.planning.targets import Target
from rlvr_limit.types import UserError, is_out_of_memory

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32
  shared_memory_per_block: 49152  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000  l2_cache_size: 52428800  clock_rate_ghz: 1.98  device_memory_size: 150000000000
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
"""XLA's description of the chip; NVIDIA's data sheet and CUDA's occupancy tables for compute capability 9.0."""

COMPILERS = {"tpu": ("libtpu", "tpu"), "cuda": ("jax_plugins.xla_cuda13", "cuda13")}
"""Platform -> the package that holds its compiler, and the extra that installs it."""

_OUT_OF_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED.*?(?:Used |required for HLO temporaries \()([\d.]+)([KMGT])", re.DOTALL
)


def missing_extra(target: Target) -> str | None:
    """The extra of pyproject.toml that holds the target's compiler, where it is not installed."""
    if target.platform not in COMPILERS:
        return None
    package, extra = COMPILERS[target.platform]
    try:
        is_there = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        is_there = None
    return None if is_there else extra


def devices_of(target: Target, hosts: int = 1) -> list[Any]:
    """The devices of so many of the target's hosts, host by host, as its compiler describes them.

    [] where the compiler is missing, which is logged, or has no description of the chip. For another machine jax is
    started on the CPU, whatever else there is here; UserError where it has started on something else.
    """
    if target.name == "here":
        return jax.local_devices()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    here = jax.local_devices()
    if here[0].platform != "cpu":
        raise UserError("a plan is made on the CPU, but jax has already started on another device; run it by itself")
    if target.platform == "cpu":
        return here
    if not target.topology:
        return []
    extra = missing_extra(target)
    if extra:
        logging.warning(
            "%s: its compiler is missing (pip install -e '.[%s]'), programs are only lowered", target.name, extra
        )
        return []
    # One host by its own topology: XLA:TPU does not compile for every part of a larger one.
    topology = target.host_topology if hosts < target.hosts and hosts == 1 else target.topology
    if target.platform == "tpu":
        described = topologies.get_topology_desc(topology_name=topology, platform="tpu")
    else:
        described = topologies.get_topology_desc(
            topology_name=target.chip, platform="cuda", target_config=H200, topology=topology
        )
    by_host = sorted(described.devices, key=lambda device: device.process_index)
    return by_host[: hosts * target.host_devices]


def compile_each(
    groups: Sequence[Sequence[DeviceProgram]], target: Target, real: bool
) -> list[tuple[CompiledProgram, ...]]:
    """compile_program of every program, in order; each is said before it begins, as a large one takes minutes."""
    began, number, count = time.monotonic(), 0, sum(map(len, groups))
    done = []
    for group in groups:
        done.append([])
        for program in group:
            number += 1
            said = f"{'compiling' if real else 'lowering'} for {target.name}, {number} of {count}: {program.name}"
            print(f"{said} ({time.monotonic() - began:,.0f} s so far)", file=sys.stderr, flush=True)
            done[-1].append(compile_program(program, target, real))
    return list(map(tuple, done))


def compile_program(program: DeviceProgram, target: Target, real: bool) -> CompiledProgram:
    """Compiles a program for the target, or only lowers it where not `real`.

    A program that the compiler refuses for want of memory does not fit; any other refusal is passed on.
    """
    began = time.monotonic()
    # The devices that are here are what JAX lowers for by itself.
    lowered = program.trace().lower(lowering_platforms=None if target.name == "here" else (target.platform,))
    if not real:
        return CompiledProgram(program.name, False, time.monotonic() - began, program.resident)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        needed = _OUT_OF_MEMORY.search(str(error))
        used = int(float(needed[1]) * 2 ** (10 * (1 + "KMGT".index(needed[2])))) if needed else None
        return CompiledProgram(program.name, True, time.monotonic() - began, program.resident, used, refused=True)
    seconds = time.monotonic() - began
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    alone = held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return CompiledProgram(program.name, True, seconds, program.resident, alone, memory.temp_size_in_bytes)
