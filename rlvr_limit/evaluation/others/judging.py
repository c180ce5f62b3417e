"""What a judge model is asked about the chains of thought behind right answers, and what it said (metrics.md item 32).

Its questions are a study of their own, judge/ of the run folder, in which the judge is the only arm and draws the
likeliest answer to each: so it has weights or an endpoint as an arm has, and goes on where it was stopped. Each
question is asked once, whoever's answer it shows: a later job=judge has a folder for what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from rlvr_limit import passk, records, report
from rlvr_limit.evaluation.review import judged_chains
from rlvr_limit.records.storage import Place
from rlvr_limit.settings import Arm, Grading, Sampling, Settings, schema
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.verdicts import counted
from rlvr_limit.types import Problem, UserError, not_allowed

Key = tuple[str, str, int]
"""Arm, problem and index of a sample."""

QUESTION = "Problem:\n{}\n\nSolution:\n{}"


def questions(study: Study) -> Settings | None:
    """The study of what the judge is to be asked still; None where it has been asked everything.

    UserError on several hosts, and for problems that are not there.
    """
    s, judge, said = study.settings, study.settings.judge, answers(study)
    if study.hosts.count > 1:
        raise UserError(f"config.judge: works on one host, not on {study.hosts.count}")
    known = {problem.id for problem in study.problems}
    for name in judge.problems:
        if name not in known:
            raise not_allowed("config.judge.problems", name, "the id of a problem of this run")
    new = list(dict.fromkeys(asked for _, asked in _chains(study) if asked and asked not in said))
    if not new:
        return None
    folder = _folder(study) / schema.digest(new)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "chains.jsonl"
    file.write_text("".join(json.dumps({"problem": asked, "answer": "yes"}) + "\n" for asked in new), encoding="utf-8")
    arm = Arm("judge", "base", weights=judge.weights, revision=judge.revision, endpoint=judge.endpoint)
    return Settings(
        name="judge",
        job="sample",
        run_dir=str(folder),
        benchmarks=(str(file),),
        dtype=s.dtype,
        arms={"judge": replace(arm, prompt=judge.prompt)},
        sampling=Sampling(temperature=0.0, n=1, max_tokens=judge.max_tokens),
        grading=Grading(grader="exact"),
        share_samples=False,
    )


def says_yes(reply: str) -> bool:
    """Whether a reply ends in yes. One that ends otherwise is none: not taken for a right chain."""
    return re.search(r"\byes\W*$", reply.strip(), re.IGNORECASE) is not None


def answers(study: Study) -> dict[str, bool]:
    """What the judge, as it is set now, has said to each question."""
    said = {}
    for manifest in sorted(_folder(study).glob("*/manifest.json")):
        asked = records.read(manifest.parent, "prompts", ["problem_id", "question"]).to_pylist()
        by_id = {row["problem_id"]: row["question"] for row in asked}
        for row in records.read(manifest.parent, "samples", ["problem_id", "text"]).to_pylist():
            said[by_id[row["problem_id"]]] = says_yes(row["text"])
    return said


def with_verdicts(
    study: Study, arms: Sequence[report.ArmResults], problems: Sequence[Problem]
) -> tuple[tuple[report.ArmResults, ...], passk.JudgeCounts | None]:
    """The arms with right answers whose chain the judge took for right, where it was asked about all of a problem's,
    and what calibrates it: what it says of the chains that a person has judged, of all arms and benchmarks."""
    if not study.settings.judge:
        return tuple(arms), None
    said, persons, chosen = answers(study), judged_chains(study), study.settings.judge.problems
    place = {problem.id: i for i, problem in enumerate(problems)}
    yes = {arm.name: np.zeros(len(problems), np.int64) for arm in arms}
    unasked = {arm.name: np.array([bool(chosen) and p.id not in chosen for p in problems]) for arm in arms}
    counts = dict.fromkeys([(person, is_yes) for person in ("right", "wrong") for is_yes in (True, False)], 0)
    for (arm, name, index), asked in _chains(study):
        is_yes = said.get(asked) if asked else False
        if is_yes is not None and (arm, name, index) in persons:
            counts[persons[arm, name, index], is_yes] += 1
        if arm in yes and name in place and index < study.first(problems[place[name]]):
            yes[arm][place[name]] += is_yes is True
            unasked[arm][place[name]] |= is_yes is None
    shown = (replace(arm, judge_yes_M=np.where(unasked[arm.name], -1, yes[arm.name])) for arm in arms)
    return tuple(shown), passk.JudgeCounts(
        counts["right", True], counts["right", False], counts["wrong", True], counts["wrong", False]
    )


def told(study: Study) -> str:
    """One line: what the judge has said, and whether a person's judgments calibrate it."""
    said, counts = answers(study), with_verdicts(study, (), study.problems)[1]
    return f"judge: {len(said):,} chains, {sum(said.values()):,} of them right; {counts.in_words()}"


def _chains(study: Study) -> Iterator[tuple[Key, str]]:
    """The right answers that the judge is asked about, each with its question; "" where it is too long for one.

    They are those of the chosen problems, and others that a person has judged.
    """
    judge, persons = study.settings.judge, judged_chains(study)
    problems = {problem.id: problem for problem in study.problems}
    for entry in study.evaluated:
        verdicts = counted(study, entry.name, ["problem_id", "index", "correct"]).to_pylist()
        right = {(row["problem_id"], row["index"]) for row in verdicts if row["correct"]}
        stored = records.read(study.root, "samples", ["problem_id", "index", "text"], {"arm": entry.name})
        for row in stored.to_pylist():
            name, index, text = row["problem_id"], row["index"], row["text"]
            is_chosen = not judge.problems or name in judge.problems or (entry.name, name, index) in persons
            if is_chosen and (name, index) in right:
                asked = QUESTION.format(problems[name].question, text).strip() if len(text) <= judge.longest else ""
                yield (entry.name, name, index), asked


def _folder(study: Study) -> Place:
    """Of what a judge has answered: another one for each judge and way of asking it."""
    judge = study.settings.judge
    endpoint = [judge.endpoint.url, judge.endpoint.model] if judge.endpoint else []
    way = [judge.weights, judge.revision, *endpoint, judge.prompt, judge.max_tokens, study.settings.dtype]
    return study.root / "judge" / schema.digest(way)
