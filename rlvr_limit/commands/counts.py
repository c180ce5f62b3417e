"""The counts job: the page from a CSV of counts, without samples or models."""

from __future__ import annotations

from rlvr_limit.evaluation.counts import write_counts_report
from rlvr_limit.settings import CountsSettings


def run(settings: CountsSettings) -> None:
    """Prints curves, bands, categories and crossovers, and writes the page."""
    write_counts_report(settings)
