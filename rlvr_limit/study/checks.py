"""Settings that do not go together, each refused in one line that names the field; ranges are declared with them."""

from __future__ import annotations

import re

from rlvr_limit.grading.reasoning_gym import GRADER, PREFIX
from rlvr_limit.records.storage import is_url
from rlvr_limit.settings import Arm, Settings
from rlvr_limit.study.arms import expand, origin, sampling_of
from rlvr_limit.study.recipes import answer_len, check_recipe
from rlvr_limit.tasks.benchmarks import BY_NAME
from rlvr_limit.types import UserError, not_allowed


def check(s: Settings) -> None:
    """Raises UserError, one line that names the field, for settings that do not go together."""
    if bool(s.task) == bool(s.benchmarks):
        raise UserError("config: give either config.task (Countdown) or config.benchmarks, one of the two")
    if s.task and not s.model:
        raise UserError("config.model is missing: the decoder that learns the task")
    for name in s.allow_rows:
        if name not in BY_NAME:
            raise not_allowed("config.allow_rows", name, _one_of(BY_NAME))
    if any(name.startswith(PREFIX) for name in s.benchmarks) and s.grading.grader != GRADER:
        raise not_allowed("config.grading.grader", s.grading.grader, f"{GRADER!r}, beside {PREFIX}NAME")
    _check_panels(s)
    for name, arm in s.arms.items():
        _check_arm(s, name, arm)
        _check_order(s, (name,))
    _check_views(s)
    if s.job == "judge" and not s.judge:
        raise UserError("config.judge: empty; job=judge needs the model that is asked")
    if s.judge and bool(s.judge.weights) == bool(s.judge.endpoint):
        raise UserError("config.judge: give either weights or endpoint, one of the two")
    if s.judge and is_url(s.run_dir or s.runs):
        raise UserError("config.judge: needs a run folder on a disk of this machine")
    _check_sampling(s)
    _check_engine(s)


def _check_panels(s: Settings) -> None:
    panels = dict.fromkeys(arm.panel for arm in s.arms.values()) or {"": None}
    for panel in panels:
        groups = [arm.group for arm in s.arms.values() if arm.panel == panel]
        if groups.count("base") != 1:
            where = f" of panel {panel!r}" if panel else ""
            raise UserError(f"config.arms: {groups.count('base')} arms{where} have group 'base', not exactly one")
        if len(panels) > 1 and not re.fullmatch(r"[\w.=-]+", panel):
            # Each has a folder of its own.
            raise not_allowed("config.arms: panel", panel, "made of letters, digits, . = -")


def _check_arm(s: Settings, name: str, arm: Arm) -> None:
    where = f"config.arms.{name}"
    recipes = [kind for kind in ("pretrain", "sft", "rl") if getattr(arm, kind)]
    if arm.sharpen:
        _check_sharpen(s, f"{where}.sharpen", arm)
    if arm.endpoint:
        _check_endpoint(s, where, arm)
        return
    if arm.weights_of and (arm.weights or recipes):
        raise not_allowed(f"{where}.weights_of", arm.weights_of, "empty, beside weights or a recipe")
    if s.benchmarks and not (arm.weights or arm.weights_of) and s.job != "plan":
        _check_released_recipe(s, where, arm)
    if s.task and len(recipes) != 1 and not (arm.weights or arm.weights_of):
        raise UserError(f"{where}: give weights, weights_of, or exactly one of pretrain, sft and rl")
    start = arm.recipe.start if arm.recipe and not arm.weights else ""
    usable = [other for other, a in s.arms.items() if not (a.weights_of or a.endpoint) and other != name]
    if start and (start not in usable or s.arms[start].rl):
        raise not_allowed(f"{where}.{recipes[0]}.start", start, _one_of(o for o in usable if not s.arms[o].rl))
    teacher = arm.recipe.teacher if arm.recipe and not arm.weights else ""
    if teacher and teacher not in usable:
        raise not_allowed(f"{where}.{recipes[0]}.teacher", teacher, _one_of(usable))
    if s.task and arm.rl and arm.rl.unsolved_in:
        raise not_allowed(f"{where}.rl.unsolved_in", arm.rl.unsolved_in, "'', as nothing counts a task's own lessons")
    for kind in recipes:
        recipe = getattr(arm, kind)
        check_recipe(f"{where}.{kind}", recipe, answer_len(recipe, s.sampling))


def _check_sharpen(s: Settings, where: str, arm: Arm) -> None:
    """Its steps are exact where proposals reach every answer, and log-probs are the model's own."""
    sampling = sampling_of(s.sampling, arm)
    if arm.endpoint:
        raise UserError(f"{where}: an endpoint tells no log-probs")
    if arm.sampling.temperature is not None or arm.sampling.match_entropy:
        raise UserError(f"{where}: proposals are drawn at temperature 1 / alpha; give it no temperature of its own")
    if sampling.top_p < 1 or sampling.top_k or sampling.min_p:
        raise UserError(f"{where}: needs top_p = 1, top_k = 0 and min_p = 0 in the arm's sampling")


def _check_endpoint(s: Settings, where: str, arm: Arm) -> None:
    """No message here shows what was given: it may hold a key."""
    if arm.weights or arm.weights_of or arm.recipe:
        raise UserError(f"{where}.endpoint: beside weights, weights_of or a recipe; give one of them")
    if s.task:
        raise UserError(f"{where}.endpoint: no server knows the task's tokens; give config.benchmarks")
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", arm.endpoint.url):
        raise UserError(f"{where}.endpoint.url: not http(s)://HOST/PATH, without user, key or query")
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", arm.endpoint.key):
        raise UserError(f"{where}.endpoint.key: not the name of an environment variable in capitals; never a key")
    if not arm.endpoint.model:
        raise UserError(f"{where}.endpoint.model: empty; give the name under which the endpoint serves it")
    if arm.sampling.match_entropy:
        raise UserError(f"{where}.sampling.match_entropy: an endpoint tells no entropies")


def _check_views(s: Settings) -> None:
    """What weights_of and match_entropy name must be there, and be no such arm itself."""
    evaluated = expand(s.arms)
    evaluated = [e for e in evaluated if not s.arms[e.arm].endpoint]
    own = [e.name for e in evaluated if not e.weights_of]
    fixed = [e.name for e in evaluated if not (s.arms[e.arm].sampling.match_entropy or s.arms[e.arm].sharpen)]
    for name, arm in s.arms.items():
        where, sampling, wanted = f"config.arms.{name}", arm.sampling, arm.sampling.match_entropy
        if arm.weights_of and arm.weights_of not in own:
            raise not_allowed(f"{where}.weights_of", arm.weights_of, _one_of(own))
        if not wanted:
            continue
        if wanted not in fixed:
            raise not_allowed(f"{where}.sampling.match_entropy", wanted, _one_of(fixed))
        if sampling.temperature is not None:
            raise UserError(f"{where}.sampling.temperature: match_entropy finds the temperature, give one of the two")
        if not sampling_of(s.sampling, arm).temperature:
            raise not_allowed(f"{where}.sampling.temperature", 0.0, "above 0, as it is to be matched")
        if min((s.sampling.n, *s.sampling.n_of.values())) < 2:
            raise not_allowed("config.sampling.n", 1, "at least 2, as match_entropy needs an entropy's error")


def _check_order(s: Settings, path: tuple[str, ...]) -> None:
    """No arm may need itself, as a start or a teacher, before it can be trained."""
    arm = s.arms[path[-1]]
    if arm.weights or not arm.recipe:
        return
    for other in filter(None, (arm.recipe.start, arm.recipe.teacher)):
        if other in path:
            raise UserError(f"config.arms.{path[0]}: {' needs '.join((*path, other))}: no arm can come first")
        _check_order(s, (*path, other))


def _check_released_recipe(s: Settings, where: str, arm: Arm) -> None:
    """A recipe of a config with benchmarks starts, in the end, from weights that are given, and names its data."""
    if not arm.recipe:
        raise UserError(f"{where}.weights: empty; give a folder, a hub name, or a recipe sft or rl")
    if arm.pretrain:
        raise UserError(f"{where}.pretrain: released models are not trained from nothing; give sft or rl")
    if not arm.recipe.data:
        kind = "rl" if arm.rl else "sft"
        raise UserError(f"{where}.{kind}.data: empty; give the names or files of what it learns from")
    origin(s.arms, where.rpartition(".")[2])


def _check_sampling(s: Settings) -> None:
    for name, arm in s.arms.items():
        if arm.asked_first and (sampling_of(s.sampling, arm).temperature or s.sampling.n > 1 or s.sampling.n_of):
            raise UserError(
                f"config.arms.{name}.asked_first: an audit draws one answer, the likeliest: it needs "
                "sampling.temperature = 0.0, sampling.n = 1 and no sampling.n_of"
            )
    counts = {f"n_of.{name}": n for name, n in s.sampling.n_of.items() if name in s.benchmarks}
    counts["n"] = s.sampling.n
    for name, n in counts.items():
        if s.sampling.adaptive >= n:
            raise not_allowed("config.sampling.adaptive", s.sampling.adaptive, f"in [0, sampling.{name} = {n})")
    most = max(counts.values())
    if s.report.k > most:
        raise not_allowed("config.report.k", s.report.k, f"in [0, sampling.n = {most}]")


def _check_engine(s: Settings) -> None:
    e = s.engine
    for rows in e.buckets:
        if not e.max_num_seqs:
            raise UserError("config.engine.buckets: give engine.max_num_seqs too, or leave both to be chosen")
        if rows > e.max_num_seqs:
            raise not_allowed("config.engine.buckets", rows, f"in [1, engine.max_num_seqs = {e.max_num_seqs}]")
    shards = s.mesh.data * s.mesh.fsdp if s.mesh else 1
    least = 2 * shards * -(-e.page_size // e.steps_per_call) * e.steps_per_call
    if e.cache_tokens and e.cache_tokens < least:
        allowed = f"0 or at least {least}: two pages on each of {shards} shards"
        raise not_allowed("config.engine.cache_tokens", e.cache_tokens, allowed)
    if e.cache_tokens and not e.max_num_seqs:
        raise UserError("config.engine.cache_tokens: give engine.max_num_seqs too, or leave both to be chosen")
    trained = [name for name, arm in s.arms.items() if arm.recipe and not arm.weights]
    if trained and s.hosts.hosts_per_replica > 1:
        raise UserError(f"config.arms.{trained[0]}: a recipe; hosts.hosts_per_replica above 1 needs given weights")


def _one_of(names) -> str:
    return f"one of {', '.join(names)}"
