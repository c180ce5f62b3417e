"""The export job: the samples on record as logs of lm-eval and inspect_ai, and their counts as CSV."""

from __future__ import annotations

from rlvr_limit.evaluation.others.exporting import write_exports
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import ImportedSettings, Settings


def run(settings: Settings | ImportedSettings) -> None:
    """Needs no accelerator and no weights."""
    study = prepare(settings)
    if study.hosts.is_first:
        print(f"export: {write_exports(study)}")
    study.hosts.close()
