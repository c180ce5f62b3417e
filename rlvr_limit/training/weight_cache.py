"""Weights that one config's recipe has made are found by another config with an equal recipe: runs/trained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from rlvr_limit.records import storage
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.records.storage.folders import brought, is_whole, made
from rlvr_limit.records.training_log import METRICS_FILE
from rlvr_limit.rl.reward_functions import reward_named, source_digest
from rlvr_limit.settings import EngineConfig, Reinforced, Settings, schema
from rlvr_limit.study.prepared import Setup
from rlvr_limit.study.recipes import answer_len
from rlvr_limit.study.run_folder import leave_out_unused, recipe_facts


def take(cache: Place, root: Place, arm: str, save: Mapping[int, str]) -> bool:
    """Copies an arm's weights {step: name in weights/} and its metrics from the cache, if all of them are there."""
    if not all(is_whole(cache / str(step)) for step in save):
        return False
    for step, name in save.items():
        _copy(cache / str(step), root / "weights" / name)
    _copy(cache / METRICS_FILE, root / "train" / arm / METRICS_FILE)
    print(f"arm {arm}: not trained again, an equal recipe's weights are in {cache}", flush=True)
    return True


def give(cache: Place, root: Place, arm: str, save: Mapping[int, str]) -> None:
    """Copies what take looks for to the cache."""
    _copy(root / "train" / arm / METRICS_FILE, cache / METRICS_FILE)
    for step, name in save.items():
        _copy(root / "weights" / name, cache / str(step))


def place(s: Settings, setups: Mapping[str, Setup], engine: EngineConfig, hosts: int, arm: str) -> Place | None:
    """The folder of an arm's recipe, there or to be made; None where weights are not to be shared, or cannot be.

    Its name is a digest of all that decides a training run but the code. Recipes that start from given weights in the
    end are not shared: a folder's name does not say what is in it.
    """
    decisive = _decisive(s, setups, engine, hosts, arm) if s.share_weights else None
    return storage.place(s.runs) / "trained" / f"{arm}-{schema.digest(decisive)}" if decisive else None


def _decisive(s: Settings, setups: Mapping[str, Setup], engine: EngineConfig, hosts: int, arm: str) -> dict | None:
    """All that decides an arm's weights, its start's and its teacher's included; None where they are given.

    The name of the arm is part of it, since its random numbers derive from it. Which steps are kept is not.
    """
    recipe = s.arms[arm].recipe
    if s.arms[arm].weights or recipe is None or setups[arm].folder:
        return None
    facts = {"arm": arm, "recipe": {k: v for k, v in recipe_facts(recipe).items() if k != "save_at"}}
    for role, name in {"start": recipe.start, "teacher": recipe.teacher}.items():
        if name:
            facts[role] = _decisive(s, setups, engine, hosts, name)
            if facts[role] is None:
                return None
    if recipe.teacher and not isinstance(recipe, Reinforced):
        sampling = schema.to_jsonable(setups[recipe.teacher].sampling)
        facts["asked"] = {k: v for k, v in sampling.items() if k not in ("n", "n_of")}
    if hosts > 1:
        facts["hosts"] = hosts
    if isinstance(recipe, Reinforced):
        reward = reward_named(recipe.reward, f"config.arms.{arm}.rl.reward")
        facts["reward"] = source_digest(reward) if reward else ""
    common = {name: schema.to_jsonable(getattr(s, name)) for name in ("seed", "dtype", "mesh", "task", "model")}
    for group in (common["task"], common["model"]):
        leave_out_unused(group)
    training = {k: v for k, v in schema.to_jsonable(s.training).items() if k != "vision" or not v}
    more = {"training": training, "engine": schema.to_jsonable(engine)}
    return facts | common | more | {"max_tokens": answer_len(recipe, s.sampling)}


def _copy(source: Place, target: Place) -> None:
    """A whole file or folder or nothing; what is there already stays."""
    if is_whole(target) or target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        publish(target, lambda file: file.write(source.read_bytes()))
        return
    with brought(source) as there, made(target) as here:
        fresh = here.with_name(f".{here.name}.{os.getpid()}")
        shutil.copytree(there, fresh, dirs_exist_ok=True)
        os.replace(fresh, here)
