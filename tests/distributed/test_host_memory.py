"""What the C heaps of this process keep, and give back."""

import ctypes
import subprocess
import sys

import pytest

FREED_BETWEEN_KEPT = """
import resource
from rlvr_limit.distributed.host_memory import return_freed

def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 2**20

blocks = [b"x" * 60_000 for _ in range(4_000)]  # 229 MB, each smaller than what malloc maps by itself
kept = blocks[::50]
full = resident()
del blocks
freed = resident()
return_freed()
print(full, freed, resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_memory_that_was_freed_between_blocks_in_use_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", FREED_BETWEEN_KEPT], capture_output=True, text=True, check=True)
    full, freed, returned = map(float, done.stdout.split())
    assert freed > full - 30, "without it the heap keeps nearly all"
    assert returned < full - 190
