"""Which implementation of a kernel a program gets: by the platform it is lowered for, not by the machine that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def by_platform(*args: Any, default: Callable, tpu: Callable, cuda: Callable, **others: Callable) -> Any:
    """What the implementation for the platform makes of args; `default` serves all others, and whatever XLA has to cut.

    XLA cannot cut a Pallas kernel over the devices of a mesh: where args lie on several, only code inside shard_map,
    which sees one device's part, gets tpu and cuda.
    """
    if any(_cut_by_xla(x) for x in jax.tree.leaves(args)):
        return default(*args)
    return jax.lax.platform_dependent(*args, default=default, tpu=tpu, cuda=cuda, **others)


def _cut_by_xla(x: Any) -> bool:
    mesh = jax.typeof(x).sharding.mesh
    automatic = (size for name, size in mesh.shape.items() if name not in mesh.manual_axes)
    return any(size > 1 for size in automatic)
