"""The counts job: the page from a CSV of counts, without samples or models."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlvr_limit.evaluation.counts import CountsSettings, write_counts_report
from rlvr_limit.study.schema import from_config


def run(config: ConfigDict) -> None:
    """Prints curves, bands, categories and crossovers, and writes the page."""
    write_counts_report(from_config(CountsSettings, config))
