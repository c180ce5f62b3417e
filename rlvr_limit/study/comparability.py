"""Arms are compared under the same conditions, or not at all: what differs is shown, and must have been allowed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlvr_limit.images.image import VERSION
from rlvr_limit.settings import COMPARED, TOKEN_SAMPLING, EngineConfig, schema
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.matched_temperature import read_matching
from rlvr_limit.study.prepared import Study, answer_limit
from rlvr_limit.types import UNKNOWN, Problem, UserError


@dataclass(frozen=True)
class Conditions:
    """Under which conditions one arm is sampled and judged."""

    arm: str
    weights_sha256: str  # what the arm is, "" while it is not known
    values: Mapping[str, str]  # short texts that a person can read, by the names of settings.COMPARED


def differences(study: Study, entries: Sequence[EvaluatedArm]) -> tuple[str, ...]:
    """What differs between these arms, the first of which is their base, by allowance. UserError for what may not."""
    base, *others = (conditions_of(study, entry) for entry in entries)
    allow_unknown = study.imported.allow_unknown if study.imported else ()
    return check(base, others, study.settings.allow_differ, allow_unknown)


def same_arms(study: Study, entries: Sequence[EvaluatedArm]) -> tuple[str, ...]:
    """What must be said of arms that are the same, once their weights are known."""
    return equal_arms(conditions_of(study, entry) for entry in entries)


def conditions_of(study: Study, entry: EvaluatedArm) -> Conditions:
    """The conditions of one arm; its weights, and a temperature that is matched, where they are known already."""
    setup = study.setups[entry.arm]
    s, problems = setup.sampling, setup.problems
    alike = {
        "question": schema.digest([[p.id, p.question] for p in problems]),
        "benchmark": setup.benchmark,
        "images": _images_in_words(problems),
    }
    grader = {"grader": study.task.version}
    if study.imported:
        recorded = study.imported.arms[entry.name].recorded
        return Conditions(entry.name, "", {name: recorded.get(name, UNKNOWN) for name in COMPARED} | alike | grader)
    arm = study.settings.arms[entry.arm]
    shortest = min(answer_limit(s, setup.model, problem) for problem in problems)
    capped = shortest < s.max_tokens
    values = {
        **alike,
        "template": setup.variant,
        "eos": " ".join(map(str, sorted(setup.stop_tokens))) if setup.model else f"the endpoint's {' '.join(arm.stop)}",
        "lengths": f"{s.max_tokens}, at least {shortest} within the context" if capped else f"{shortest}",
        **{name: str(getattr(s, name)) for name in TOKEN_SAMPLING},
        **grader,
        "engine": _engine_in_words(study.engine) if setup.model else "an endpoint's",
        "dtype": setup.model.dtype if setup.model else "an endpoint's, not known",
    }
    if arm.sharpen:
        block = f", blocks of {arm.sharpen.block}" if arm.sharpen.block else ""
        values["temperature"] = f"p^{arm.sharpen.alpha:g}, {arm.sharpen.steps} steps of Metropolis-Hastings{block}"
    aim = arm.sampling.match_entropy
    if aim:
        matching = read_matching(study.root, entry.name)
        known = f"{matching.temperature:.4f}," if matching and matching.temperature is not None else "that"
        values["temperature"] = f"{known} of the entropy of {aim}"
    return Conditions(entry.name, study.weights_sha256(entry), values)


def check(
    base: Conditions, others: Iterable[Conditions], allow_differ: Sequence[str], allow_unknown: Sequence[str] = ()
) -> tuple[str, ...]:
    """What differs between the arms, or is unknown, by allowance: a sentence a field, for the page to print.

    Raises UserError, one line naming arms, fields and both values, where fields differ that allow_differ does not name,
    and where some are UNKNOWN that allow_unknown does not name.
    """
    arms = (base, *others)
    said, unknown, unlike_by_field, silent_fields = [], [], dict[str, str](), defaultdict[str, list[str]](list)
    for field in base.values:
        silent = [arm.arm for arm in arms if arm.values[field] == UNKNOWN]
        if silent and field not in allow_unknown:
            silent_fields[silent[0]].append(field)
        unknown += [f"{field} ({', '.join(silent)})" if len(silent) < len(arms) else field] if silent else []
        first, *rest = [arm for arm in arms if arm.arm not in silent] or arms[:1]
        expected = first.values[field]
        unlike = [other for other in rest if other.values[field] != expected]
        if unlike and field not in allow_differ:
            unlike_by_field[field] = (
                f"arm {unlike[0].arm}: {field} is {unlike[0].values[field]}, that of {first.arm} is {expected}"
            )
        elif unlike:
            values = "; ".join(f"{other.arm}: {other.values[field]}" for other in unlike)
            said.append(f"Allowed to differ: {field}. {first.arm}: {expected}; {values}.")
    if silent_fields:
        what = "; ".join(f"arm {arm}: its files do not record its {', '.join(f)}" for arm, f in silent_fields.items())
        fields = (*allow_unknown, *itertools.chain(*silent_fields.values()))
        raise UserError(f"{what}; it is compared without that only under config.allow_unknown={fields}")
    if unlike_by_field:
        raise UserError(
            f"{'; '.join(unlike_by_field.values())}; arms that differ so are compared only under "
            f"config.allow_differ={(*allow_differ, *unlike_by_field)}"
        )
    if unknown:
        said.insert(0, f"Unknown, as the files do not record it, and so not compared: {', '.join(unknown)}.")
    return tuple(said)


def equal_arms(arms: Iterable[Conditions]) -> tuple[str, ...]:
    """A sentence for every pair of arms that are one and the same: equal weights under equal conditions."""
    seen: dict[tuple[str, ...], str] = {}
    said = []
    for arm in arms:
        key = (arm.weights_sha256, *arm.values.values())
        twin = seen.setdefault(key, arm.arm) if arm.weights_sha256 else arm.arm
        if twin != arm.arm:
            said.append(
                f"{twin} and {arm.arm} are the same arm: equal weights (SHA-256 {arm.weights_sha256[:12]}) under equal "
                "conditions, so their samples are the same too."
            )
    return tuple(said)


def _images_in_words(problems: Sequence[Problem]) -> str:
    """Which files, and what the model sees of them."""
    images = [image for problem in problems for image in problem.images]
    sizes = {f"{i.limits.least:,} to {i.limits.most:,} pixels" if i.limits else "as drawn" for i in images}
    limits = " and ".join(sorted(sizes))
    return f"{len(images)} ({schema.digest([i.digest for i in images])}), {limits}, {VERSION}" if images else "none"


def _engine_in_words(engine: EngineConfig) -> str:
    """The shapes that decide which samples agree bit by bit."""
    if engine.reference:
        return "reference"
    cache = f", {engine.cache_tokens:,} tokens of cache" if engine.cache_tokens else ""
    return f"{engine.max_num_seqs} sequences, {engine.steps_per_call} steps a call, pages of {engine.page_size}{cache}"
