"""What a person should look at in the verdicts of a run, and where a second grader differs (metrics.md 22).

CSV files in review/ of the run folder:

disagreements.csv   distinct answers on which the grader and a second one, the authors' rules or math_verify, disagree
changes.csv         samples that were judged otherwise by another version of the grader, or on another reference
rare_wins.csv       every right sample of a problem that an arm solved in 0 to 5 % of its samples, with its chain; a
                    person writes right or wrong into its last column, which is kept when the file is written again
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit import passk, records, report
from rlvr_limit.grading.code.evalplus import EvalPlusTests, passes_base_tests
from rlvr_limit.grading.named import MATH_VERIFY, is_second_opinion, opinions
from rlvr_limit.records.storage import Place
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study, benchmark_of
from rlvr_limit.study.verdicts import counted, references
from rlvr_limit.types import Problem, UserError, not_allowed

LONGEST_CHAIN, SHOWN = 1 << 24, 5
SAMPLE = ("problem_id", "index")
PAST = ", on a reference or under a limit that is past"
JUDGED, JUDGMENTS = "chain_is", ("right", "wrong", "")

Row = dict[str, Any]
Judged = dict[tuple[str, str, int], str]


def write_review(study: Study) -> list[str]:
    """Writes the files and returns what they say in short, one line a finding, disagreements of graders first.

    UserError on a judgment that is none.
    """
    root, grader = study.root, study.task.version
    present = references(study, study.task)
    seconds = {second.version: references(study, second) for second in opinions(study.task.second)}
    if study.imported:
        seconds |= {arm.own: dict.fromkeys(present, "") for arm in study.imported.arms.values() if arm.own}
    folder = root / "review"
    folder.mkdir(exist_ok=True)
    problems = {problem.id: problem for problem in study.problems}
    judged = judgments(folder / "rare_wins.csv")
    by_version: dict[str, Counter] = defaultdict(Counter)
    agreed: dict[str, Counter] = {version: Counter() for version in seconds}
    changed, differing, wins = [], [], []
    for entry in study.evaluated:
        rows = records.read(root, "verdicts", where={"arm": entry.name}).to_pylist()
        now, others = _parted(rows, grader, present)
        for version, against in seconds.items():
            beside, others = _parted(others, version, against)
            by_version[version].update(map(_said, beside))
            counts, answers = disagreements(now, beside, problems)
            agreed[version] += counts
            differing += [{"second": version, "arm": entry.name} | answer for answer in answers]
        by_version[grader].update(map(_said, now))
        for row in others:
            is_past = row["grader"] in (grader, *seconds)
            by_version[row["grader"] + PAST * is_past][_said(row)] += 1
        changed += changes(now, others)
        wins += rare_wins(now, problems, judged)
    _add_chains(root, wins)
    lines = _differences(grader, agreed, differing, folder / "disagreements.csv") if seconds else []
    given = {name: counts for name, counts in sorted(by_version.items()) if counts}
    lines += [f"{name}: {counts.total()} verdicts, {_listed(counts)}" for name, counts in given.items()]
    kinds = Counter(f"{row['was']} to {row['is']}" for row in changed)
    lines.append(f"changed to {grader}: {_listed(kinds)} ({_write(folder / 'changes.csv', changed)})")
    rare = len({(row["arm"], row["problem_id"]) for row in wins})
    written = _write(folder / "rare_wins.csv", wins)
    below = f"solved in 0 to {passk.RARE_PERCENT} % of samples"
    lines.append(f"{below}: {rare} problems of all arms, {len(wins)} samples ({written})")
    return lines


def _differences(grader: str, agreed: Mapping[str, Counter], differing: list[Row], path: Place) -> list[str]:
    """The first disagreements with each second grader, then its agreement by benchmark."""
    lines = [f"answers on which they differ: {len(differing)} ({_write(path, differing)})"]
    for version in agreed:
        for row in [row for row in differing if row["second"] == version][:SHOWN]:
            by = version if row["right_by"] == "second" else grader
            lines.append(
                f"  right by {by} only: {row['extracted']!r} for {row['reference']!r} ({row['problem_id']}, "
                f"{row['samples']} samples)"
            )
    for version, counts in agreed.items():
        lines += [_agreement(grader, version, name, counts) for name in sorted({name for name, *_ in counts})]
    if not any(version.startswith(MATH_VERIFY) for version in agreed):
        lines.append("math_verify: not installed (pip install 'rlvr_limit[math-verify]'), so it was not asked")
    return lines


def changes(now: Iterable[Row], others: Iterable[Row]) -> list[Row]:
    """Samples whose verdict that counts differs in correct or status from one that does not; second opinions aside."""
    present = {_key(row): row for row in now}
    changed = []
    for old in others:
        new = present.get(_key(old))
        if new and _said(old) != _said(new) and not is_second_opinion(old["grader"]):
            changed.append(
                {"arm": old["arm"], "problem_id": old["problem_id"], "index": old["index"], "grader": old["grader"]}
                | {"given_against": "another reference" if old["grader"] == new["grader"] else "another grader"}
                | {"was": _said(old), "is": _said(new)}
                | {"extracted_was": old["extracted"], "extracted": new["extracted"], "detail": new["detail"]}
            )
    return changed


def judged_again(study: Study, entries: Iterable[EvaluatedArm], problems: Container[str]) -> list[str]:
    """For the page: how many verdicts of each arm were given again, and how many of them are other ones now."""
    said, present = [], references(study, study.task)
    for entry in entries:
        given = records.read(study.root, "verdicts", [*SAMPLE, "grader"], {"arm": entry.name})
        graders = [name for name in given["grader"].unique().to_pylist() if not is_second_opinion(name)]
        given = given.filter(pc.is_in(given["grader"], value_set=pa.array(graders, pa.large_string())))
        if given.group_by(list(SAMPLE)).aggregate([]).num_rows == given.num_rows:
            continue  # each sample once, which is seen without a million rows as objects
        rows = records.read(study.root, "verdicts", where={"arm": entry.name, "grader": graders}).to_pylist()
        now, others = _parted((row for row in rows if row["problem_id"] in problems), study.task.version, present)
        if again := {_key(row) for row in now} & {_key(row) for row in others}:
            other = len({_key(row) for row in changes(now, others)})
            said.append(
                f"{entry.label}: {len(again):,} samples were judged again, as a reference, the grader or its time "
                f"limit is another one now; {other:,} verdicts changed. Only the new ones count."
            )
    return said


def _parted(rows: Iterable[Row], grader: str, present: Mapping[str, str]) -> tuple[list[Row], list[Row]]:
    """The verdicts of a grader on present references, and the others."""
    now, others = [], []
    for row in rows:
        counts = row["grader"] == grader and row["against"] == present.get(row["problem_id"])
        (now if counts else others).append(row)
    return now, others


def second_opinion(study: Study, arm: str, verdicts: pa.Table) -> report.SecondOpinion | None:
    """What a second grader says of the samples whose verdicts these are; None while one of them has none by it."""
    second = study.task.second
    if not second:
        return None
    said = _by_sample(counted(study, arm, [*SAMPLE, "correct"], second))
    ours = _by_sample(verdicts)
    return _opinion(second.version, ours, said) if ours.keys() <= said.keys() else None


def own_opinion(study: Study, arm: str, verdicts: pa.Table) -> report.SecondOpinion | None:
    """What those who drew an arm's samples say of those that they judged; None where they judged none."""
    own = study.imported.arms[arm].own if study.imported else ""
    if not own:
        return None
    said = _by_sample(records.read(study.root, "verdicts", [*SAMPLE, "correct"], {"arm": arm, "grader": own}))
    ours = {key: right for key, right in _by_sample(verdicts).items() if key in said}
    return _opinion(own, ours, said) if ours else None


def own_agreement(study: Study) -> list[str]:
    """A line for each arm: how far the verdicts that came with its samples agree with ours."""
    lines = []
    for arm in study.imported.arms if study.imported else ():
        said = own_opinion(study, arm, counted(study, arm, [*SAMPLE, "correct"]))
        lines.append(
            f"{arm}: {said.grader} agrees with {study.task.version} on {100 * said.agreement:.2f} % of "
            f"{said.both + said.only_first + said.only_second + said.neither:,} samples; right by both {said.both:,}, "
            f"by ours only {said.only_first:,}, by theirs only {said.only_second:,}"
            if said
            else f"{arm}: its files have no verdicts on single samples"
        )
    return lines


def _opinion(
    grader: str, ours: Mapping[tuple[str, int], bool], said: Mapping[tuple[str, int], bool]
) -> report.SecondOpinion:
    counts = Counter((right, said[key]) for key, right in ours.items())
    _, problem_S = np.unique([name for name, _ in ours], return_inverse=True)
    theirs_M = np.bincount(problem_S, weights=[said[key] for key in ours]) / np.bincount(problem_S)
    return report.SecondOpinion(
        grader=grader,
        both=counts[True, True],
        only_first=counts[True, False],
        only_second=counts[False, True],
        neither=counts[False, False],
        pass_1=float(theirs_M.mean()),
    )


def _by_sample(verdicts: pa.Table) -> dict[tuple[str, int], bool]:
    names, indices, right = (verdicts[column].to_pylist() for column in (*SAMPLE, "correct"))
    return dict(zip(zip(names, indices, strict=True), right, strict=True))


def disagreements(
    rows: Iterable[Row], second: Iterable[Row], problems: Mapping[str, Problem]
) -> tuple[Counter, list[Row]]:
    """Samples of an arm by (benchmark, right by the grader, right by the second), and the distinct answers on which
    they differ: those that the second alone takes for right first, then by how many samples they decide.

    rows and second are verdicts; samples that have but one of them are left out.
    """
    counts: Counter = Counter()
    answers: Counter = Counter()
    other = {(row["problem_id"], row["index"]): row for row in second}
    for row in rows:
        name, by_second = row["problem_id"], other.get((row["problem_id"], row["index"]))
        if by_second:
            counts[benchmark_of(name), row["correct"], by_second["correct"]] += 1
            if row["correct"] != by_second["correct"]:
                answers[row["correct"], name, row["extracted"], by_second["extracted"], row["status"]] += 1
    order = sorted(answers.items(), key=lambda item: (item[0][0], -item[1], item[0]))
    return counts, [
        {"problem_id": name, "reference": str(problems[name].answer), "extracted": extracted, "status": status}
        | {"extracted_by_second": by_second, "right_by": "grader" if right else "second", "samples": count}
        for (right, name, extracted, by_second, status), count in order
    ]


def _agreement(grader: str, second: str, benchmark: str, counts: Mapping[tuple[str, bool, bool], int]) -> str:
    both, only_first, only_second, neither = (
        counts.get((benchmark, *said), 0) for said in ((True, True), (True, False), (False, True), (False, False))
    )
    total = both + only_first + only_second + neither
    share = f"{100 * (both + neither) / total:.2f} % of {total} samples"
    return (
        f"{benchmark}: {second} agrees with {grader} on {share}; right by both {both}, by {grader} only {only_first}, "
        f"by {second} only {only_second}"
    )


def rare_wins(rows: Iterable[Row], problems: Mapping[str, Problem], judged: Judged) -> list[Row]:
    """The right samples of problems that an arm rarely solved (metrics.md 21), fewest wins first, and any judged ones.

    Fewer than 21 samples show no problem that is rarely solved.
    """
    rows = list(rows)
    drawn = Counter((row["arm"], row["problem_id"]) for row in rows)
    won = Counter((row["arm"], row["problem_id"]) for row in rows if row["correct"])
    rare = {key for key, wins in won.items() if passk.rarely_right([drawn[key]], [wins])[0]}
    wins = []
    for row in rows:
        arm, name, index = key = _key(row)
        if row["correct"] and ((arm, name) in rare or key in judged):
            wins.append(
                {"arm": arm, "problem_id": name, "index": index, "wins": won[arm, name], "samples": drawn[arm, name]}
                | {"question": problems[name].question, "reference": str(problems[name].answer)}
                | {"extracted": row["extracted"], "chain": "", JUDGED: judged.get(key, "")}
            )
    return sorted(wins, key=lambda row: (row["wins"], row["problem_id"], row["index"]))


def judged_chains(study: Study) -> Judged:
    """What a person has written into the run's rare_wins.csv. UserError naming what is no arm or problem of the run."""
    path = study.root / "review" / "rare_wins.csv"
    judged = judgments(path)
    arms, problems = {entry.name for entry in study.evaluated}, {problem.id for problem in study.problems}
    for arm, name, index in judged:
        if arm not in arms or name not in problems:
            raise UserError(f"{path}: arm {arm!r}, problem {name!r}, sample {index} is none of this run")
    return judged


def chains_of(
    arm: str, verdicts: pa.Table, judged: Judged | None, place: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """[M] right answers whose chain was judged right, and judged wrong; None twice where none of the arm's was.

    judged None: the grader judges every chain, and its detail says what is wrong with it.
    """
    counts = {judgment: np.zeros(len(place), np.int64) for judgment in ("right", "wrong")}
    columns = (verdicts[name].to_pylist() for name in ("problem_id", "index", "correct", "detail"))
    for name, index, correct, detail in zip(*columns, strict=True):
        judgment = ("wrong" if detail else "right") if judged is None else judged.get((arm, name, index))
        if judgment and correct:
            counts[judgment][place[name]] += 1
    is_known = judged is None or any(map(np.any, counts.values()))
    return (counts["right"], counts["wrong"]) if is_known else (None, None)


def judgments(path: Place) -> Judged:
    """(arm, problem, sample index) -> right or wrong, as a person wrote it. UserError naming the line of anything else.

    Empty without the file.
    """
    if not path.exists():
        return {}
    judged: Judged = {}
    csv.field_size_limit(LONGEST_CHAIN)
    # A spreadsheet may have written a byte order mark.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if JUDGED not in row:
                raise UserError(f"{path}: no column {JUDGED!r}, commas between columns; there are {', '.join(row)}")
            said = (row.get(JUDGED) or "").strip().lower()
            if said not in JUDGMENTS:
                raise not_allowed(f"{path}:{reader.line_num}: {JUDGED}", said, "right, wrong or nothing")
            if not said:
                continue
            if not (row.get("arm") and row.get("problem_id") and (row.get("index") or "").isdecimal()):
                raise UserError(f"{path}:{reader.line_num}: arm, problem_id and index name no sample")
            judged[row["arm"], row["problem_id"], int(row["index"])] = said
    return judged


def reference(problem: Problem) -> str | None:
    """The reference as text; None where it is no text, so that string rules say nothing."""
    if isinstance(problem.answer, list | tuple):
        return ", ".join(problem.answer)
    return problem.answer if isinstance(problem.answer, str) else None


def _add_chains(root: Place, wins: list[Row]) -> None:
    for arm in {row["arm"] for row in wins}:
        stored = records.read(root, "samples", ["problem_id", "index", "text"], {"arm": arm}).to_pylist()
        texts = {(row["problem_id"], row["index"]): row["text"] for row in stored}
        for row in wins:
            if row["arm"] == arm:
                row["chain"] = texts[row["problem_id"], row["index"]]


def _key(row: Row) -> tuple[str, str, int]:
    return row["arm"], row["problem_id"], row["index"]


def _said(row: Row) -> str:
    return "right" if row["correct"] else "wrong" if row["status"] == "graded" else row["status"]


def _listed(counts: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"


def _write(path: Place, rows: list[Row]) -> str:
    """Writes the rows, or the mere fact that there are none, and returns the path."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys() if rows else ["nothing to look at"])
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return str(path)


def right_on_base_tests(problems: list[Problem], verdicts: pa.Table) -> np.ndarray | None:
    """[S] which samples pass the base tests of HumanEval+ or MBPP+; None where a problem has none."""
    if not all(isinstance(p.answer, EvalPlusTests) and p.answer.inputs()[0] for p in problems):
        return None
    said = zip(verdicts["correct"].to_pylist(), verdicts["detail"].to_pylist(), strict=True)
    return np.array([passes_base_tests(right, detail) for right, detail in said])
