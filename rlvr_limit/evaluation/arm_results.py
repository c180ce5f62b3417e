"""One arm's samples and verdicts, as they are on record, reduced to what a page draws of it.

Shapes: M problems, S samples of the arm.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit import passk, records, report
from rlvr_limit.evaluation import entropy_matching
from rlvr_limit.evaluation.adaptive import samples_wanted, second_stage
from rlvr_limit.evaluation.review import (
    Judged,
    chains_of,
    own_opinion,
    reference,
    right_on_base_tests,
    second_opinion,
)
from rlvr_limit.settings import COMPARED
from rlvr_limit.study import comparability
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.verdicts import counted
from rlvr_limit.tasks.questions import completes
from rlvr_limit.types import Problem, Status, Stop

EXAMPLES = 64
"""Stored samples kept for the page per problem and arm, right and other ones in turns."""

ANSWERS = 12
"""Answers listed per problem and arm, those that were read most often."""


def arm_results(
    study: Study, entry: EvaluatedArm, problems: list[Problem], judged: Judged | None
) -> tuple[report.ArmProgress, report.ArmResults | None, list[report.Example]]:
    """How far an arm is, and what its graded samples show; None where a problem has none yet."""
    n, place = study.first(problems[0]), {problem.id: i for i, problem in enumerate(problems)}
    columns = ["problem_id", "index", "stop", "text", "logp_model", "logp"]
    samples = records.read(study.root, "samples", columns, {"arm": entry.name})
    columns = ["problem_id", "index", "correct", "status", "extracted", "detail"]
    verdicts = counted(study, entry.name, columns)
    progress = _progress(study, entry, problems, samples, verdicts)
    # Both tables come sorted by (problem, index); once they hold the same keys, their rows stand side by side.
    samples, verdicts = _graded(first_rows(samples, n, place), first_rows(verdicts, n, place))
    if not progress.is_shown:
        return progress, None, []
    problem_S = np.array([place[name] for name in samples["problem_id"].to_pylist()])
    correct_S = verdicts["correct"].to_numpy()
    stop_S, status_S = (np.array(column.to_pylist()) for column in (samples["stop"], verdicts["status"]))
    length_S = pc.list_value_length(samples["logp_model"]).to_numpy()

    def count_M(mask_S: np.ndarray) -> np.ndarray:
        return np.bincount(problem_S[mask_S], minlength=len(problems))

    n_M = count_M(np.ones(len(problem_S), bool))
    has_tokens = study.setups[entry.arm].model is not None
    drawn_M = entropy_matching.drawn_tokens(study, entry, n, place)
    entropy = entropy_matching.entropy_of(samples) if has_tokens and drawn_M is None else None
    chains_right_M, chains_wrong_M = chains_of(entry.name, verdicts, judged, place)
    said = list(zip(problem_S.tolist(), samples["text"].to_pylist(), strict=True))
    distinct = len(set(said))
    marginal_M, votes_M = _marginal_rates_and_votes(study, problems, problem_S, verdicts)
    uses = study.task.uses_given
    uses_S = np.array([uses(problems[i], text) for i, text in said], bool) if uses else None
    base_S = right_on_base_tests(problems, verdicts)
    share = study.settings.arms[entry.arm].asked_first
    completed_S = np.array([completes(problems[i].question, share, text) for i, text in said], bool) if share else None
    c_M, second = count_M(correct_S), second_stage(study, entry, problems)
    if second and np.any(second.n_M != np.where(c_M == 0, second.n - n_M, 0)):
        second = None  # there is more to draw: the curve ends with the first stage
    arm = report.ArmResults(
        name=entry.name,
        label=entry.label,
        group=entry.group,
        n_M=n_M,
        c_M=c_M,
        truncated_M=None if (stop_S == Stop.UNKNOWN).any() else count_M(stop_S == Stop.LENGTH),
        no_answer_M=count_M(status_S == Status.NO_ANSWER),
        uses_given_M=count_M(uses_S) if uses else None,
        ungraded_M=count_M(np.isin(status_S, (Status.TIMEOUT, Status.ERROR))),
        unreadable_M=count_M(status_S == Status.ERROR),
        mean_tokens=float(length_S.mean()) if has_tokens else None,
        duplicate_rate=1 - distinct / len(problem_S),
        entropy=entropy and entropy.mean,
        entropy_error=entropy and entropy.error,
        conditions=_imported_conditions(study, entry, n_M) if study.imported else _conditions(study, entry, n),
        weights_sha256=study.weights_sha256(entry),
        marginal_M=marginal_M,
        answers_M=frequent_answers(problem_S, verdicts, len(problems)),
        votes_M=votes_M,
        tokens_M=np.bincount(problem_S, weights=length_S, minlength=len(problems)) / n_M if has_tokens else None,
        drawn_M=drawn_M,
        chains_right_M=chains_right_M,
        chains_wrong_M=chains_wrong_M,
        base_tests_M=count_M(base_S) if base_S is not None else None,
        asked_first=share,
        completed_M=count_M(completed_S) if share else None,
        second=second,
        second_opinion=second_opinion(study, entry.name, verdicts),
        own_opinion=own_opinion(study, entry.name, verdicts),
        sharpened=entropy_matching.sharpened_rates(study, entry, problem_S, correct_S, samples),
    )
    return progress, arm, examples_of_arm(entry.name, problem_S, samples, verdicts)


def _progress(
    study: Study, entry: EvaluatedArm, problems: list[Problem], samples: pa.Table, verdicts: pa.Table
) -> report.ArmProgress:
    n = samples_wanted(study, entry)
    wanted = {problem.id: n(problem) for problem in problems}

    def keys(table: pa.Table) -> set[tuple[str, int]]:
        pairs = zip(table["problem_id"].to_pylist(), table["index"].to_pylist(), strict=True)
        return {(name, index) for name, index in pairs if index < wanted.get(name, 0)}

    drawn = keys(samples)
    graded = drawn & keys(verdicts)
    counts = Counter(name for name, _ in graded)
    each = [counts[problem.id] for problem in problems]
    return report.ArmProgress(
        entry.label, sum(wanted.values()), len(drawn), sum(each), min(each), max(each), each.count(0)
    )


def _graded(samples: pa.Table, verdicts: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The samples that have a verdict, and the verdicts whose sample is there: one may have come after the other."""
    if all(samples[name].equals(verdicts[name]) for name in ("problem_id", "index")):
        return samples, verdicts
    keys = [list(zip(*(table[name].to_pylist() for name in ("problem_id", "index")), strict=True))
            for table in (samples, verdicts)]  # fmt: skip
    both = set(keys[0]) & set(keys[1])
    kept = (pa.array([key in both for key in some], pa.bool_()) for some in keys)
    return tuple(table.filter(mask) for table, mask in zip((samples, verdicts), kept, strict=True))


def first_rows(table: pa.Table, n: int, problems: Iterable[str]) -> pa.Table:
    """The rows of these problems; of a folder that holds more samples than asked for, the first n of each."""
    here = pc.is_in(table["problem_id"], value_set=pa.array(list(problems), pa.large_string()))
    return table.filter(pc.and_(here, pc.less(table["index"], n)))


def _marginal_rates_and_votes(
    study: Study, problems: list[Problem], problem_S: np.ndarray, verdicts: pa.Table
) -> tuple[np.ndarray | None, tuple[passk.Votes, ...] | None]:
    """Guess rates from the arm's answers to other problems, and its samples by answer.

    Answers are equal where their spelling is. None twice where references are no texts (tests of programs; Countdown,
    unless an arm is sharpened: metrics.md item 30); guess rates are None too where the task has rates of its own. Right
    for a problem are its reference and whatever the grader has accepted for it, so that other spellings count.
    """
    references = [reference(problem) for problem in problems]
    if None in references and not (study.task.inline and any(arm.sharpen for arm in study.settings.arms.values())):
        return None, None
    spelling = functools.cache(study.task.spelling)
    answers = [spelling(text) for text in verdicts["extracted"].to_pylist()]
    correct, places = verdicts["correct"].to_pylist(), problem_S.tolist()
    votes = tuple(passk.count_votes(len(problems), places, answers, correct))
    if all(problem.guess_rate is not None for problem in problems):
        return None, votes
    accepted = [{spelling(text)} for text in references]
    for place, answer, is_right in zip(places, answers, correct, strict=True):
        if is_right:
            accepted[place].add(answer)
    return passk.marginal_rates(accepted, places, answers), votes


def examples_of_arm(arm: str, problem_S: np.ndarray, samples: pa.Table, verdicts: pa.Table) -> list[report.Example]:
    """EXAMPLES samples of each problem: right and other ones in turns while there are both, the lowest index first."""
    correct_S = verdicts["correct"].to_numpy()
    kept = []
    for problem in range(problem_S.max() + 1):
        mine = np.flatnonzero(problem_S == problem)
        right, other = mine[correct_S[mine]], mine[~correct_S[mine]]
        half = EXAMPLES // 2
        right, other = right[: max(half, EXAMPLES - len(other))], other[: max(half, EXAMPLES - len(right))]
        turns = [(2 * i, int(j)) for i, j in enumerate(right)] + [(2 * i + 1, int(j)) for i, j in enumerate(other)]
        kept += [j for _, j in sorted(turns)]
    columns = [samples[name].take(pa.array(kept)) for name in ("problem_id", "index", "text", "stop", "logp")]
    columns += [verdicts[name].take(pa.array(kept)) for name in ("correct", "extracted", "status")]
    return [
        report.Example(name, arm, index, text, right, stop, extracted, float(np.sum(logp)) if logp else None, status)
        for name, index, text, stop, logp, right, extracted, status in zip(
            *(column.to_pylist() for column in columns), strict=True
        )
    ]


def frequent_answers(problem_S: np.ndarray, verdicts: pa.Table, problems: int) -> tuple[report.Answers, ...]:
    """Of each problem the answers read most often, and how many others there are."""
    counts: list[Counter[tuple[str, bool]]] = [Counter() for _ in range(problems)]
    texts, correct = verdicts["extracted"].to_pylist(), verdicts["correct"].to_pylist()
    for problem, *answer in zip(problem_S.tolist(), texts, correct, strict=True):
        counts[problem][tuple(answer)] += 1
    shown = []
    for count in counts:
        listed = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:ANSWERS]
        rest = count.total() - sum(samples for _, samples in listed)
        answers = tuple((text, samples, int(right)) for (text, right), samples in listed)
        shown.append((answers, (len(count) - len(listed), rest)))
    return tuple(shown)


def _conditions(study: Study, entry: EvaluatedArm, n: int) -> dict[str, str]:
    setup, values = study.setups[entry.arm], comparability.conditions_of(study, entry).values
    arm = study.settings.arms[study.source(entry).arm]
    asked = records.read_manifest(study.root)["conditions"]["asked"][entry.arm]
    said = {
        "samples per problem": f"{n}, and more where none is right" if setup.sampling.adaptive else str(n),
        "temperature": values["temperature"],
        "top-p": values["top_p"],
        **({"top-k": values["top_k"]} if setup.sampling.top_k else {}),
        **({"min-p": values["min_p"]} if setup.sampling.min_p else {}),
        "max new tokens": str(setup.sampling.max_tokens),
        "stop tokens": " ".join(map(str, setup.stop_tokens)) or values["eos"],
        "questions": values["question"],
        "problems and references": values["benchmark"],
        **({"images": values["images"]} if any(p.images for p in setup.problems) else {}),
        "prompts": asked["prompts_sha256"][:12],
        "grader": values["grader"],
        "engine": values["engine"],
        "dtype": values["dtype"],
    }
    if arm.endpoint:
        weights = f"unknown (endpoint, {arm.endpoint.model})"
        return said | {"prompt template": arm.prompt, "endpoint": arm.endpoint.url, "weights": weights}
    if setup.model.context:
        said["context"] = str(setup.model.context)
        said["most new tokens of the longest prompt"] = str(asked["shortest_limit"])
    if setup.folder:
        said["prompt template"] = study.settings.arms[entry.arm].prompt
        # A folder or file is what it is, whatever revision a hub name would have been fetched at.
        local = Path(arm.weights).expanduser().exists()
        said["weights"] = arm.weights if local else f"{arm.weights} {arm.revision}".strip()
    return said


def _imported_conditions(study: Study, entry: EvaluatedArm, n_M: np.ndarray) -> dict[str, str]:
    arm, values = study.imported.arms[entry.name], comparability.conditions_of(study, entry).values
    least, most = int(n_M.min()), int(n_M.max())
    said = {"samples per problem": str(most) if least == most else f"{least} to {most}"}
    model = {"model": arm.recorded["model"]} if "model" in arm.recorded else {}
    return said | model | {name: values[name] for name in COMPARED}
