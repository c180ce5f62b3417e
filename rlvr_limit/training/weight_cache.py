"""Weights that one config's recipe has made are found by another config with an equal recipe: runs/trained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from rlvr_limit.records import storage
from rlvr_limit.records.storage import ObjectPath, Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.records.storage.folders import brought, is_whole, put_whole
from rlvr_limit.records.training_log import METRICS_FILE
from rlvr_limit.rl.reward_functions import reward_named, source_digest
from rlvr_limit.settings import Reinforced, schema
from rlvr_limit.study.prepared import Study


def take(study: Study, arm: str, save: Mapping[int, str]) -> bool:
    """Copies an arm's weights {step: name in weights/} and its metrics from runs/trained, if all of them are there."""
    there = place(study, arm)
    if there is None or not all(is_whole(there / str(step)) for step in save):
        return False
    for step, name in save.items():
        _copy(there / str(step), study.root / "weights" / name)
    _copy(there / METRICS_FILE, study.root / "train" / arm / METRICS_FILE)
    print(f"arm {arm}: not trained again, an equal recipe's weights are in {there}", flush=True)
    return True


def give(study: Study, arm: str, save: Mapping[int, str]) -> None:
    """Copies what take looks for to runs/trained."""
    there = place(study, arm)
    if there is not None:
        _copy(study.root / "train" / arm / METRICS_FILE, there / METRICS_FILE)
        for step, name in save.items():
            _copy(study.root / "weights" / name, there / str(step))


def place(study: Study, arm: str) -> Place | None:
    """The folder of an arm's recipe, there or to be made; None where weights are not to be shared, or cannot be.

    Its name is a digest of all that decides a training run but the code. Recipes that start from given weights in the
    end are not shared: a folder's name does not say what is in it.
    """
    s = study.settings
    decisive = _decisive(study, arm) if s.share_weights else None
    return storage.place(s.runs) / "trained" / f"{arm}-{schema.digest(decisive)}" if decisive else None


def _decisive(study: Study, arm: str) -> dict | None:
    """All that decides an arm's weights, its start's and its teacher's included; None where they are given.

    The name of the arm is part of it, since its random numbers derive from it. Which steps are kept is not.
    """
    s, setup = study.settings, study.setups[arm]
    recipe = s.arms[arm].recipe
    if s.arms[arm].weights or recipe is None or setup.folder:
        return None
    found = {"arm": arm, "recipe": {k: v for k, v in schema.to_jsonable(recipe).items() if k != "save_at"}}
    needed = {"start": recipe.start, "teacher": "" if isinstance(recipe, Reinforced) else recipe.teacher}
    for role, name in needed.items():
        if name:
            found[role] = _decisive(study, name)
            if found[role] is None:
                return None
    if needed["teacher"]:
        asked = schema.to_jsonable(study.setups[needed["teacher"]].sampling)
        found["asked"] = {k: v for k, v in asked.items() if k not in ("n", "n_of")}
    if study.hosts.count > 1:
        found["hosts"] = study.hosts.count
    if isinstance(recipe, Reinforced):
        reward = reward_named(recipe.reward, f"config.arms.{arm}.rl.reward")
        found["reward"] = source_digest(reward) if reward else ""
    common = {name: schema.to_jsonable(getattr(s, name)) for name in ("seed", "dtype", "mesh", "task", "model")}
    more = {"training": schema.to_jsonable(s.training), "engine": schema.to_jsonable(study.engine)}
    return found | common | more | {"max_tokens": s.sampling.max_tokens}


def _copy(source: Place, target: Place) -> None:
    """A whole file or folder or nothing; what is there already stays."""
    if is_whole(target) or target.is_file():
        return
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        publish(target, lambda file: file.write(source.read_bytes()))
        return
    with brought(source) as here:
        if isinstance(target, ObjectPath):
            put_whole(here, target)
        else:
            _copy_folder(here, target)


def _copy_folder(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(source, fresh, dirs_exist_ok=True)
    os.replace(fresh, target)
