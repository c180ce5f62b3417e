"""What configs share; each config says only where it differs. Loaded by the configs, never by the package."""

from ml_collections import ConfigDict


def defaults() -> ConfigDict:
    """Fields that have the same meaning, and mostly the same value, in every config."""
    return ConfigDict(
        {
            "job": "compare",
            "seed": 0,
            "runs": "runs",
            "run_dir": "",
            "checkpoint_seconds": 10.0,
            "flush_seconds": 1.0,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "engine": {
                "slots": 512,
                "window": 9,
                "prompt_places": 7,
                "prefill_rows": 16,
                "prefix_rows": 64,
                "reference": False,
            },
            "score": {"answers": 16},
        }
    )
