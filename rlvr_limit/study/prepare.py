"""From settings to a Study: checks them, asks every arm's problems in its own way, opens the run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax

from rlvr_limit.distributed import joining
from rlvr_limit.distributed.compiled import RUNS, keep_compiled
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.records.storage import is_url, place
from rlvr_limit.settings import EngineConfig, MeshConfig, Settings, schema
from rlvr_limit.study import comparability, run_folder
from rlvr_limit.study.arms import views_asked_as_lenders
from rlvr_limit.study.checks import check
from rlvr_limit.study.prepared import Setup, Study
from rlvr_limit.study.setups import task_and_setups
from rlvr_limit.tasks import references
from rlvr_limit.types import UserError

PROMPT_MULTIPLE = 64
"""max_prompt_len is rounded up to a multiple of this where a config leaves it to the prompts."""


def prepare(s: Settings) -> Study:
    """Checks settings, makes or opens their run folder and lays out the problems. Raises UserError, one line."""
    check(s)
    if s.job == "report":
        # A page is drawn at any moment, also while a run holds the accelerators.
        jax.config.update("jax_platforms", "cpu")
    platforms = jax.config.jax_platforms
    if platforms and "cpu" not in platforms.split(","):
        raise UserError(f"JAX_PLATFORMS is {platforms!r}, but curves need the CPU too: set it to '{platforms},cpu'")
    s = dataclasses.replace(s, arms=views_asked_as_lenders(s.arms))
    here = joining.start(s.hosts)
    keep_compiled(RUNS if is_url(s.runs) else Path(s.runs))
    matched = [name for name, arm in s.arms.items() if arm.sampling.match_entropy]
    if matched and here.count > 1:
        raise UserError(f"config.arms.{matched[0]}.sampling.match_entropy: works on one host, not on {here.count}")
    task, setups = task_and_setups(s)
    if s.score.references:
        references.load(s.score.references, next(iter(setups.values())).problems)
    conditions = run_folder.conditions(s, task, setups)
    root = place(s.run_dir) if s.run_dir else place(s.runs) / s.name / schema.digest(conditions)
    here.check_started_alike({**run_folder.code_and_versions(), **conditions, "run folder": str(root)})
    devices = MeshConfig() if s.job == "report" else s.mesh
    mesh = make_mesh(devices, here.replica_hosts if here.hosts_per_replica > 1 else ())
    study = Study(s, root, mesh, _engine(s, setups), task, setups, here)
    for entries in study.panels.values():
        comparability.differences(study, entries)
    if here.is_first:
        run_folder.open_folder(study, conditions)
    here.wait("prepare")
    return study


def _engine(s: Settings, setups: dict[str, Setup]) -> EngineConfig:
    """max_prompt_len = 0 means: as many as the longest prompt of any arm needs."""
    if s.engine.max_prompt_len:
        return s.engine
    asked = (p for each in setups.values() for p in (*each.problems, *each.training, *each.lessons))
    longest = max(len(p.prompt_ids) for p in asked)
    return dataclasses.replace(s.engine, max_prompt_len=-(-longest // PROMPT_MULTIPLE) * PROMPT_MULTIPLE)
