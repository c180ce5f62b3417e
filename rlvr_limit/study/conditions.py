"""The conditions of the arms of a run, in words; study/comparability.py holds them against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlvr_limit import records
from rlvr_limit.settings import EngineConfig, schema
from rlvr_limit.study import comparability
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.matched_temperature import read_matching
from rlvr_limit.study.prepared import Study, answer_limit


def differences(study: Study, entries: Sequence[EvaluatedArm]) -> tuple[str, ...]:
    """What differs between these arms, the first of which is their base, by allowance. UserError for what may not."""
    base, *others = (of(study, entry) for entry in entries)
    return comparability.check(base, others, study.settings.allow_differ)


def same_arms(study: Study, entries: Sequence[EvaluatedArm]) -> tuple[str, ...]:
    """What must be said of arms that are the same, once their weights are known."""
    return comparability.same(of(study, entry) for entry in entries)


def of(study: Study, entry: EvaluatedArm) -> comparability.Conditions:
    """The conditions of one arm; its weights, and a temperature that is matched, where they are known already."""
    setup = study.setups[entry.arm]
    s, problems = setup.sampling, setup.problems
    shortest = min(answer_limit(s, setup.model, problem) for problem in problems)
    return comparability.Conditions(
        arm=entry.name,
        weights_sha256=weights_sha256(study, entry),
        question=schema.digest([[p.id, p.question] for p in problems]),
        benchmark=setup.benchmark,
        template=setup.variant,
        eos=" ".join(map(str, sorted(setup.stop_tokens))),
        lengths=f"{s.max_tokens}, at least {shortest} within the context" if shortest < s.max_tokens else f"{shortest}",
        temperature=temperature(study, entry),
        top_p=str(s.top_p),
        top_k=str(s.top_k),
        min_p=str(s.min_p),
        grader=study.task.version,
        engine=engine_in_words(study.engine),
        dtype=setup.model.dtype,
    )


def temperature(study: Study, entry: EvaluatedArm) -> str:
    """An arm's temperature, or what it is to be matched to."""
    setup, wanted = study.setups[entry.arm], study.settings.arms[entry.arm].sampling.match_entropy
    if not wanted:
        return str(setup.sampling.temperature)
    matching = read_matching(study.root, entry.name)
    if matching is None or matching.temperature is None:
        return f"that of the entropy of {wanted}"
    return f"{matching.temperature:.4f}, of the entropy of {wanted}"


def weights_sha256(study: Study, entry: EvaluatedArm) -> str:
    """What an arm is; "" where its weights have not been loaded yet."""
    fact = f"{entry.name}.weights_sha256"
    said = study.hosts.checked_values("arms.").get(fact, "")
    if said or not (study.root / "manifest.json").exists():
        return said
    return records.read_manifest(study.root)["facts"].get(f"arms.{fact}", "")


def decisive(engine: EngineConfig) -> dict[str, Any]:
    """The engine in what names a folder; folders from before there was a cache_dtype keep their names."""
    return {name: value for name, value in schema.to_jsonable(engine).items() if name != "cache_dtype" or value}


def engine_in_words(engine: EngineConfig) -> str:
    """The shapes that decide which samples agree bit by bit, and what the cache holds."""
    dtype = f", a cache in {engine.cache_dtype}" if engine.cache_dtype else ""
    if engine.reference:
        return f"reference{dtype}"
    cache = f", {engine.cache_tokens:,} tokens of cache" if engine.cache_tokens else ""
    return f"{engine.max_num_seqs} slots, windows of {engine.steps_per_call}, pages of {engine.page_size}{cache}{dtype}"
