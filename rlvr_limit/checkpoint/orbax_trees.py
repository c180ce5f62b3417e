"""Trees as Orbax saves and restores them, on one host or on one of several.

Of a run on several hosts, Orbax refuses arrays that lie on one host only, and would wait for the other hosts. Here each
host goes through plain memory, by itself.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rlvr_limit.distributed.mesh import fetch_uncached, placed


def by_this_host() -> ocp.options.MultiprocessingOptions:
    """Options with which this host writes and reads what lies on its own devices, and waits for no other."""
    index, count = jax.process_index(), jax.process_count()
    if count == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(index, {index}, barrier_sync_key_prefix=f"host-{index}")


def to_save(tree: Any) -> Any:
    """The tree as Orbax takes it."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: fetch_uncached(x) if isinstance(x, jax.Array) else x, tree)


def to_fill(tree: Any) -> Any:
    """What Orbax restores into."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype) if hasattr(x, "sharding") else x, tree)


def laid_out(restored: Any, wanted: Any) -> Any:
    """What was restored, laid out as wanted."""
    if jax.process_count() == 1:
        return restored
    return jax.tree.map(
        lambda x, w: placed(np.asarray(x), w.sharding) if hasattr(w, "sharding") else x, restored, wanted
    )


def one_line(error: Exception) -> str:
    """An error's text as one line: tensorstore says where first and why last, and both are wanted."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-200:]}"
