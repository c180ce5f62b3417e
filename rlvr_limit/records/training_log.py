"""The metrics of training runs, one JSON line a step in train/<arm>/metrics.jsonl of the run folder."""

from __future__ import annotations

import json
from typing import Any

from rlvr_limit.records.storage import Place

METRICS_FILE = "metrics.jsonl"


def training_rows(root: Place, arm: str) -> list[dict[str, Any]]:
    """The metrics of an arm's training run, one row a step; empty where there was none."""
    path = root / "train" / arm / METRICS_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
