"""Which implementation of a kernel a program gets: by the platform it is lowered for, not by the machine that asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

BATCH_INVARIANT = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Compiler options of programs in which a row's bits must not depend on how many rows are computed beside it.

XLA:CPU hands large elementwise operations and sums, and not small ones, to a library that rounds otherwise on some
processors (seen on AMD Zen 4). Products stay with it. Other platforms' compilers take no notice.
"""


def by_platform(*args: Any, default: Callable, tpu: Callable, cuda: Callable, cpu: Callable | None = None) -> Any:
    """What the implementation for the platform makes of args; `default` serves all others.

    XLA cannot cut a Pallas kernel over the devices of a mesh. Where args lie on several, tpu and cuda are taken only
    inside shard_map, whose code sees one device's part, and elsewhere default.
    """
    kernels = {} if is_sharded(args) else {"tpu": tpu, "cuda": cuda}
    kernels |= {"cpu": cpu} if cpu else {}
    return jax.lax.platform_dependent(*args, default=default, **kernels) if kernels else default(*args)


@cache
def warn_plain_xla(kernel: str, platform: str, arguments: str) -> None:
    """Logs, once, that this machine's programs compute `kernel` in plain XLA for such arguments."""
    if jax.default_backend() == platform:
        logging.getLogger(__name__).warning("%s in plain XLA: no kernel for %s takes %s", kernel, platform, arguments)


def is_sharded(args: Any) -> bool:
    """Whether XLA is to cut some array of args over the devices of a mesh, which it cannot for kernels."""
    meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(args)]
    return any(size > 1 and name not in mesh.manual_axes for mesh in meshes for name, size in mesh.shape.items())
