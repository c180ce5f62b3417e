"""Settings that cannot be, each refused in one line that names the field."""

from __future__ import annotations

import re

from rlvr_limit.engine.cache import DTYPES
from rlvr_limit.models.decoder import REMAT
from rlvr_limit.study.comparability import FIELDS
from rlvr_limit.study.prepared import ORDER, Arm, Settings, Training, expand, origin, sampling_of
from rlvr_limit.study.recipes import check_adapters, check_reinforced
from rlvr_limit.types import UserError


def check(s: Settings) -> None:
    """Raises UserError, one line that names the field, for settings that cannot be."""
    if bool(s.task) == bool(s.benchmarks):
        raise UserError("config: give either config.task (Countdown) or config.benchmarks, one of the two")
    if not 0 <= s.seed < 2**32:
        raise UserError(f"config.seed: found {s.seed}, 0 to {2**32 - 1} is right")
    _check_panels(s)
    for name, arm in s.arms.items():
        _check_arm(s, name, arm)
        _check_order(s, (name,))
    _check_views(s)
    for name in s.allow_differ:
        if name not in FIELDS:
            raise UserError(f"config.allow_differ: found {name!r}, but of {', '.join(FIELDS)} some are right")
    _check_sampling(s)
    _check_engine(s)
    _check_training(s.training)


def _check_panels(s: Settings) -> None:
    panels = dict.fromkeys(arm.panel for arm in s.arms.values()) or {"": None}
    for panel in panels:
        groups = [arm.group for arm in s.arms.values() if arm.panel == panel]
        if groups.count("base") != 1:
            where = f" of panel {panel!r}" if panel else ""
            raise UserError(f"config.arms: {groups.count('base')} arms{where} have group 'base', exactly one is right")
        if len(panels) > 1 and not re.fullmatch(r"[\w.=-]+", panel):
            found = f"found a panel {panel!r}"
            raise UserError(f"config.arms: {found}, but letters, digits, . = - are right: each has a folder of its own")


def _check_arm(s: Settings, name: str, arm: Arm) -> None:
    where = f"config.arms.{name}"
    if arm.group not in ORDER:
        raise UserError(f"{where}.group: found {arm.group!r}, but one of {', '.join(ORDER)} is right")
    recipes = sum(r is not None for r in (arm.pretrain, arm.sft, arm.rl))
    if arm.weights_of and (arm.weights or recipes):
        raise UserError(f"{where}.weights_of: found {arm.weights_of!r} beside weights or a recipe, one is right")
    if s.benchmarks and not (arm.weights or arm.weights_of) and s.job != "plan":
        _check_released_recipe(s, where, arm)
    if s.task and recipes != 1 and not (arm.weights or arm.weights_of):
        raise UserError(f"{where}: give weights, weights_of, or exactly one of pretrain, sft and rl")
    start = arm.recipe.start if arm.recipe and not arm.weights else ""
    if start and (start not in s.arms or s.arms[start].rl or s.arms[start].weights_of):
        usable = ", ".join(other for other, a in s.arms.items() if not a.rl and not a.weights_of and other != name)
        raise UserError(f"{where}: starts from {start!r}, but one of {usable} is right")
    teacher = arm.sft.teacher if arm.sft and not arm.weights else ""
    if teacher and (teacher not in s.arms or teacher == name or s.arms[teacher].weights_of):
        usable = ", ".join(other for other, a in s.arms.items() if not a.weights_of and other != name)
        raise UserError(f"{where}.sft.teacher: found {teacher!r}, but one of {usable} is right")
    for kind in ("pretrain", "sft", "rl"):
        if getattr(arm, kind):
            check_adapters(f"{where}.{kind}", getattr(arm, kind))
    if arm.rl:
        check_reinforced(f"{where}.rl", arm.rl, s.sampling.max_tokens)


def _check_views(s: Settings) -> None:
    """What weights_of and match_entropy name must be there, and be no such arm itself."""
    evaluated = expand(s.arms)
    own = [e.name for e in evaluated if not e.weights_of]
    fixed = [e.name for e in evaluated if not s.arms[e.arm].sampling.match_entropy]
    for name, arm in s.arms.items():
        if arm.weights_of and arm.weights_of not in own:
            raise UserError(
                f"config.arms.{name}.weights_of: found {arm.weights_of!r}, but one of {', '.join(own)} is right"
            )
        wanted, where = arm.sampling.match_entropy, f"config.arms.{name}.sampling"
        if wanted and wanted not in fixed:
            raise UserError(f"{where}.match_entropy: found {wanted!r}, but one of {', '.join(fixed)} is right")
        if arm.sampling.match_within <= 0:
            raise UserError(f"{where}.match_within: found {arm.sampling.match_within}, above 0 nats is right")
        if wanted and arm.sampling.temperature is not None:
            raise UserError(f"{where}.temperature: match_entropy finds the temperature, one of the two is right")
        temperature = sampling_of(s.sampling, arm).temperature
        if temperature < 0 or (wanted and temperature == 0):
            raise UserError(f"{where}.temperature: found {temperature}, 0 or more is right, above 0 to be matched")


def _check_order(s: Settings, path: tuple[str, ...]) -> None:
    """No arm may need itself, as a start or a teacher, before it can be trained."""
    arm = s.arms[path[-1]]
    if arm.weights or not arm.recipe:
        return
    for other in filter(None, (arm.recipe.start, arm.sft.teacher if arm.sft else "")):
        if other in path:
            raise UserError(f"config.arms.{path[0]}: {' needs '.join((*path, other))}: no arm can come first")
        _check_order(s, (*path, other))


def _check_released_recipe(s: Settings, where: str, arm: Arm) -> None:
    """A recipe of a config with benchmarks starts, in the end, from weights that are given, and names its data."""
    if not arm.recipe:
        raise UserError(f"{where}.weights: found nothing, but a folder or a hub name, or a recipe sft or rl, is right")
    if arm.pretrain:
        raise UserError(f"{where}.pretrain: released models are not trained from nothing; sft or rl is right")
    kind = "rl" if arm.rl else "sft"
    if not arm.recipe.data:
        raise UserError(f"{where}.{kind}.data: found nothing, but the names or files of what it learns from are right")
    origin(s.arms, where.rpartition(".")[2])


def _check_sampling(s: Settings) -> None:
    counts = {f"n_of.{name}": n for name, n in s.sampling.n_of.items() if name in s.benchmarks}
    counts["n"] = s.sampling.n
    for name, n in counts.items():
        if n < 1:
            raise UserError(f"config.sampling.{name}: found {n}, 1 or more is right")
        if not 0 <= s.sampling.adaptive < n:
            raise UserError(
                f"config.sampling.adaptive: found {s.sampling.adaptive}, but fewer samples than {name} = {n}, or 0 for "
                f"{name} everywhere, is right"
            )
    if s.limit < 0:
        raise UserError(f"config.limit: found {s.limit}, a number of problems, or 0 for all, is right")
    if s.score.answers < 1:
        raise UserError(f"config.score.answers: found {s.score.answers}, 1 or more is right")
    most = max(counts.values())
    if not 0 <= s.report.k <= most:
        raise UserError(f"config.report.k: found {s.report.k}, sampling.n = {most} allows 1 to {most}, or 0")


def _check_training(t: Training) -> None:
    if t.tokens < 0:
        raise UserError(f"config.training.tokens: found {t.tokens}, 1 or more, or 0 for whole minibatches, is right")
    if t.remat not in REMAT:
        raise UserError(f"config.training.remat: found {t.remat!r}, but one of {', '.join(REMAT)} is right")
    if t.param_dtype not in ("", "float32", "bfloat16"):
        raise UserError(
            f"config.training.param_dtype: found {t.param_dtype!r}, but float32, bfloat16 or nothing is right"
        )


def _check_engine(s: Settings) -> None:
    e = s.engine
    for name in ("max_num_seqs", "steps_per_call", "page_size", "min_shared_prefix", "prefill_rows", "prefix_rows"):
        if getattr(e, name) < 1:
            raise UserError(f"config.engine.{name}: found {getattr(e, name)}, 1 or more is right")
    if e.max_prompt_len < 0:
        raise UserError(
            f"config.engine.max_prompt_len: found {e.max_prompt_len}, 1 or more, or 0 for the prompts', is right"
        )
    if e.speculative_tokens < 0 or (e.speculative_tokens and e.reference):
        raise UserError(
            f"config.engine.speculative_tokens: found {e.speculative_tokens}, 0 (off) is right, or in no "
            "reference mode the tokens that are verified at once"
        )
    if e.cache_dtype not in DTYPES:
        raise UserError(
            f"config.engine.cache_dtype: found {e.cache_dtype!r}, but 'int8', or '' for the model's dtype, is right"
        )
    for rows in e.buckets:
        if not 1 <= rows <= e.max_num_seqs:
            raise UserError(
                f"config.engine.buckets: found {rows}, 1 to engine.max_num_seqs = {e.max_num_seqs} is right"
            )
    shards = s.mesh.data * s.mesh.fsdp
    least = 2 * shards * -(-e.page_size // e.steps_per_call) * e.steps_per_call
    if e.cache_tokens and e.cache_tokens < least:
        raise UserError(
            f"config.engine.cache_tokens: found {e.cache_tokens}, {least} or more (two pages on each of {shards} "
            "shards) is right, or 0 for room for every slot's longest sample"
        )
