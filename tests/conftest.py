"""What all tests share: eight virtual CPU devices, the repository on the path, deterministic hypothesis."""

import os
import sys
from pathlib import Path

from hypothesis import settings

VIRTUAL_DEVICES = "--xla_force_host_platform_device_count"

# jax reads XLA_FLAGS once, when its CPU client starts; a count the caller has chosen is kept.
if VIRTUAL_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {VIRTUAL_DEVICES}=8".strip()

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")
