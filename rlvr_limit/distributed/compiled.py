"""What this machine has compiled, kept for processes to come."""

from __future__ import annotations

from pathlib import Path

import jax

RUNS = Path("runs")


def keep_compiled(runs: Path = RUNS) -> None:
    """jax keeps programs in runs/.compiled, and finds them there: what was compiled fits this machine only."""
    jax.config.update("jax_compilation_cache_dir", str((runs / ".compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
