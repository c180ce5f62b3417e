"""The conditions of the arms of a run, in words; jobs/guard.py holds them against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlvr_limit import records
from rlvr_limit.engine import EngineConfig
from rlvr_limit.jobs import guard, settings
from rlvr_limit.jobs.experiment import Evaluated, Experiment, answer_limit
from rlvr_limit.jobs.matching import matched_temperature


def differences(experiment: Experiment, entries: Sequence[Evaluated]) -> tuple[str, ...]:
    """What differs between these arms, the first of which is their base, by allowance. UserError for what may not."""
    base, *others = (of(experiment, entry) for entry in entries)
    return guard.check(base, others, experiment.settings.allow_differ)


def same_arms(experiment: Experiment, entries: Sequence[Evaluated]) -> tuple[str, ...]:
    """What must be said of arms that are the same, once their weights are known."""
    return guard.same(of(experiment, entry) for entry in entries)


def of(experiment: Experiment, entry: Evaluated) -> guard.Conditions:
    """The conditions of one arm; its weights, and a temperature that is matched, where they are known already."""
    setup = experiment.setups[entry.arm]
    s, problems = setup.sampling, setup.problems
    shortest = min(answer_limit(s, setup.model, problem) for problem in problems)
    return guard.Conditions(
        arm=entry.name,
        weights_sha256=weights_sha256(experiment, entry),
        question=settings.digest([[p.id, p.question] for p in problems]),
        benchmark=setup.benchmark,
        template=setup.variant,
        eos=" ".join(map(str, sorted(setup.stop_tokens))),
        lengths=f"{s.max_tokens}, at least {shortest} within the context" if shortest < s.max_tokens else f"{shortest}",
        temperature=temperature(experiment, entry),
        top_p=str(s.top_p),
        top_k=str(s.top_k),
        min_p=str(s.min_p),
        grader=experiment.task.version,
        engine=engine_in_words(experiment.engine),
        dtype=setup.model.dtype,
    )


def temperature(experiment: Experiment, entry: Evaluated) -> str:
    """An arm's temperature, or what it is to be matched to."""
    setup, wanted = experiment.setups[entry.arm], experiment.settings.arms[entry.arm].sampling.match_entropy
    if not wanted:
        return str(setup.sampling.temperature)
    found = matched_temperature(experiment.root, entry.name)
    return f"that of the entropy of {wanted}" if found is None else f"{found:.4f}, of the entropy of {wanted}"


def weights_sha256(experiment: Experiment, entry: Evaluated) -> str:
    """What an arm is; "" where its weights have not been loaded yet."""
    fact = f"{entry.name}.weights_sha256"
    said = experiment.hosts.agreed("arms.").get(fact, "")
    if said or not (experiment.root / "manifest.json").exists():
        return said
    return records.read_manifest(experiment.root)["facts"].get(f"arms.{fact}", "")


def decisive(engine: EngineConfig) -> dict[str, Any]:
    """The engine in what names a folder; folders from before there was a cache_dtype keep their names."""
    return {name: value for name, value in settings.to_jsonable(engine).items() if name != "cache_dtype" or value}


def engine_in_words(engine: EngineConfig) -> str:
    """The shapes that decide which samples agree bit by bit, and what the cache holds."""
    dtype = f", a cache in {engine.cache_dtype}" if engine.cache_dtype else ""
    if engine.reference:
        return f"reference{dtype}"
    cache = f", {engine.cache_tokens:,} tokens of cache" if engine.cache_tokens else ""
    return f"{engine.slots} slots, windows of {engine.window}, pages of {engine.page}{cache}{dtype}"
