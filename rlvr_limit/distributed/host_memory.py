"""The C heaps of this process, in whose memory a model lies on a CPU. Nothing to do where glibc is not."""

from __future__ import annotations

import ctypes
import os

M_ARENA_MAX = -8  # malloc.h


def bound_heaps() -> None:
    """Two heaps for all threads: glibc gives each its own, where gigabytes that compilers freed are not used again."""
    libc = ctypes.CDLL(None)
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 2)


def return_freed() -> None:
    """Gives back to the system what was freed in the heaps, and glibc keeps: two gigabytes after an arm's training."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
