"""The findings in plain English. The numbers choose each sentence, so an unexpected result is said as plainly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from rlvr_limit import passk
from rlvr_limit.report.analysis import (
    ANSWER_ONLY,
    MARGINAL,
    METRICS,
    RULES,
    Comparison,
    Findings,
    condition_fields,
    fewest_samples,
    share_of_samples,
)
from rlvr_limit.report.results import ArmProgress, ArmResults, Interim, Results, is_of_run
from rlvr_limit.report.text import NOT_RECORDED, join, percent, points, sentence, shortened, values_at
from rlvr_limit.types import UNKNOWN

MANY_TRUNCATED = 0.05
SHOWN_LINES = 3
"""So many lines of what is not resolved stand open beside the figure."""


def interim(interim: Interim) -> list[str]:
    """What an interim page is, how much of the study it shows, and what to beware of."""
    arms = interim.arms
    wanted, drawn, graded = (sum(getattr(arm, name) for arm in arms) for name in ("wanted", "drawn", "graded"))
    lines = [
        f"Written {interim.written}, when {graded:,} of {wanted:,} samples ({percent(graded / wanted)}) were drawn and "
        "graded. The study is not complete, and every number here may move."
    ]
    if drawn > graded:
        lines.append(f"Samples without a verdict yet: {drawn - graded:,}. They count neither as right nor as wrong.")
    absent = [f"{arm.label} ({_without(arm, interim.problems)})" for arm in arms if not arm.is_shown]
    if absent:
        lines.append(f"Not drawn, because a curve needs a graded sample of every problem: {join(absent)}.")
    if any(arm.is_shown and arm.graded < arm.wanted for arm in arms):
        lines.append("The curve of an arm ends at the fewest samples that any problem has.")
    if any(arm.is_shown and arm.drawn < arm.wanted and arm.fewest < arm.most for arm in arms):
        lines.append("Long answers end last: of an arm that is being drawn, those on record lean to short answers.")
    return lines


def _without(arm: ArmProgress, problems: int) -> str:
    return f"no sample yet of {arm.without} of {problems} problems" if arm.drawn else "no sample yet"


def summary(results: Results, findings: Findings) -> list[str]:
    """The headline: the last RL arm (or else the first arm) against the base, and where the curves cross.

    Of a base that is alone, its own pass@k.
    """
    base, arm = results.arm(results.base), results.arm(findings.headline)

    def solved(who: ArmResults, at: int) -> str:
        return percent(findings.curves[who.name].mean_K[at - 1])

    if not findings.comparisons:
        ks = dict.fromkeys((1, len(findings.curves[base.name].mean_K)))
        return [
            sentence(f"{base.label} solves {join(f'{solved(base, at)} of the problems at k = {at}' for at in ks)}.")
        ]
    k = findings.ks(base.name, arm.name)[-1]
    lines = [
        f"At k = 1 {arm.label} solves {solved(arm, 1)} of the problems and {base.label} {solved(base, 1)}; "
        f"at k = {k} it is {solved(arm, k)} against {solved(base, k)}.",
        findings.against_base[arm.name].crossover.sentence,
        _order(results, findings, arm, k),
    ]
    return [sentence(line) for line in lines]


def other_arms(results: Results, findings: Findings) -> list[str]:
    """How pass@1 and pass@n move over the RL arms, what distillation does, and what guessing would reach."""
    lines = []
    trained = results.trained
    if len(trained) > 1:
        k = findings.ks(*(arm.name for arm in trained))[-1]
        curves = [findings.curves[arm.name].mean_K for arm in trained]
        first, last = (" \u2192 ".join(percent(curve_K[at - 1]) for curve_K in curves) for at in (1, k))
        lines.append(
            f"Over the RL arms in the order listed ({join(arm.label for arm in trained)}) "
            f"pass@1 goes {first} and pass@{k} goes {last}."
        )
    for comparison in findings.comparisons:
        if comparison.first != results.base:
            ks = dict.fromkeys((1, findings.ks(comparison.first, comparison.second)[-1]))
            shown = join(f"{_points_and_band(comparison.difference, k)} at k = {k}" for k in ks)
            lines.append(f"{comparison.title(results)} is {shown}, 95 % paired bands.")
    guess = findings.guess(results.base)
    if guess:
        own = f", with the answers that {results.label(results.base)} gives anyway,"
        by = own if findings.guess_K is None else ""
        lines.append(f"Guessing alone{by} would reach {percent(guess.guess_K[-1])} at k = {len(guess.guess_K)}.")
    return [sentence(line) for line in lines]


def _points_and_band(band: passk.Band, k: int) -> str:
    value, low, high = map(points, values_at(band, k))
    return f"{value} points ({low} to {high})"


def _order(results: Results, findings: Findings, arm: ArmResults, k: int) -> str:
    """Who leads at either end, and what that means for the question; none of the four outcomes is the default."""
    base = results.label(results.base)
    pair = next(c for c in findings.comparisons if {c.first, c.second} == {results.base, arm.name})
    ends = {at: pair.leader(at) for at in (1, k)}
    if None in ends.values():
        unclear = join(f"k = {at}" for at, leader in ends.items() if leader is None)
        return f"Which of the two is ahead at {unclear} is not resolved by these problems."
    few, many = ends[1] == arm.name, ends[k] == arm.name
    return {
        (
            True,
            False,
        ): f"So {arm.label} is better with few tries and {base} with many: the order that the paper reports.",
        (False, True): f"The order is the reverse of the paper's: {base} is ahead with few tries and {arm.label} with "
        "many.",
        (True, True): f"{arm.label} is ahead at both ends, so the paper's loss at large k does not show here.",
        (False, False): f"{base} is ahead at both ends: {arm.label} lost ground with few tries as well as with many.",
    }[few, many]


def not_resolved(results: Results, findings: Findings) -> list[str]:
    """What the numbers cannot tell, one line each, in the order of _kinds."""
    return [line for lines in _kinds(results, findings) for line in lines]


def _kinds(results: Results, findings: Findings, progress: Sequence[str] = ()) -> list[list[str]]:
    """The lines by kind; first what changes how the finding may be read, last what is known of the bands themselves."""
    return [
        [*_unknown_conditions(results), *_unlike_conditions(results), *_equal_weights(results)],
        [*progress, *_unlike_samples(results), *_cut_or_ungraded(results)],
        open_signs(results, findings),
        [_guessing(results, findings)],
        _runs(results, findings),
        [_unsolved(results)],
        [f"What it would take: {power.sentence}" for power in findings.powers.values()],
        _many_bands(findings),
        list(findings.coverage),
    ]


def first_lines(results: Results, findings: Findings) -> tuple[list[str], list[str]]:
    """(the lines of not_resolved, and of an interim page, that stand beside the figure; those that fold)."""
    return first_of_each(_kinds(results, findings, interim(results.interim) if results.interim else ()))


def first_of_studies(studies: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The same of several studies on one page, each with results and findings."""
    return first_of_each(
        [
            [f"{name}: {line}" for line in open_signs(study["results"], study["findings"])]
            for name, study in studies.items()
        ]
    )


def first_of_each(kinds: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """(at most SHOWN_LINES lines, the rest), both in order: the first line of each kind comes before any second one."""
    ranked = [(kind, place) for kind, lines in enumerate(kinds) for place in range(len(lines))]
    ranked.sort(key=lambda found: found[::-1])
    parts = (ranked[:SHOWN_LINES], ranked[SHOWN_LINES:])
    shown, rest = ([kinds[kind][place] for kind, place in sorted(part)] for part in parts)
    return shown, rest


def _many_bands(findings: Findings) -> list[str]:
    looked = sum(len(findings.ks(comparison.first, comparison.second)) for comparison in findings.comparisons)
    if not looked:
        return []
    return [
        f"Each band is for one k and one pair. {looked} of them were looked at, with no correction for that: if no arm "
        "differed from another, about one in twenty would still exclude 0."
    ]


def open_signs(results: Results, findings: Findings) -> list[str]:
    """Differences and crossovers that are not resolved."""
    if not findings.comparisons:
        return ["One arm alone: what reinforcement changes is not asked here."]
    unclear: dict[str, list[Comparison]] = {}
    for comparison in findings.comparisons:
        ks = findings.ks(comparison.first, comparison.second)
        at = [k for k in ks if comparison.leader(k) is None]
        where = "at any k looked at" if at == ks else f"at k = {join(at or ks)}"
        if at:
            unclear.setdefault(where, []).append(comparison)
    lines = [
        f"{sentence(join(c.title(results) for c in pairs))}: not resolved {where}; the 95 % band includes 0 there."
        for where, pairs in unclear.items()
    ] or ["Every paired difference looked at has a 95 % band that excludes 0."]
    for name, beside in findings.against_base.items():
        if beside.crossover.verdict == "not resolved" and results.arm(name).group == "rl":
            lines.append(sentence(beside.crossover.sentence))
    return lines


def _unsolved(results: Results) -> str:
    n = fewest_samples(results.arms, lambda arm: arm.reach_M)
    counts = join(f"{arm.label}: {int((~arm.solved_M).sum())}" for arm in results.arms)
    return (
        f"A problem with no right answer is not a problem that cannot be solved: after {n} wrong samples its success "
        f"rate may still be up to {percent(passk.unsolved_bound(n))} (95 %, about 3/n). "
        f"Problems without a right answer, of {len(results.problems)}, by arm: {counts}."
    )


def _guessing(results: Results, findings: Findings) -> str:
    known, base = findings.guess(results.base), results.label(results.base)
    if known is None:
        unknown = sum(guess is None for _, _, guess in results.problems)
        return (
            f"How much of this is guessing is not known: {unknown} of {len(results.problems)} problems "
            "have no guess rate, so no baseline is drawn."
        )
    solved_K = findings.curves[results.base].mean_K
    k, guess, solved = len(solved_K), known.guess_K[len(solved_K) - 1], solved_K[-1]
    own = f"A policy that answers with what {base} answers to other problems"
    policy = own if findings.guess_K is None else "A policy that only guesses"
    return (
        f"{policy} reaches {percent(guess)} at k = {k}, where {base} reaches {percent(solved)}; "
        "a right answer shows that the answer was found, not that the reasoning was right."
        + (" Guessing could explain more than half of that." if guess > solved / 2 else "")
    )


def _runs(results: Results, findings: Findings) -> list[str]:
    if findings.algorithms:
        said = [found.sentence for found in findings.algorithms.values()]
        return [*said, "All other bands of this page are over problems, and say nothing about other runs."]
    runs = "How the arms were trained is not recorded here"
    if results.seed is not None:
        runs = f"One seed (seed {results.seed}): every trained arm comes from a single training run"
    return [
        f"{runs}. The bands say how the curves would move with other problems of the same kind; they say nothing about "
        "other training runs."
    ]


def _equal_weights(results: Results) -> list[str]:
    return [
        f"{sentence(a.label)} and {b.label} have the same weights (equal SHA-256): one model twice."
        for a, b in combinations(results.arms, 2)
        if a.weights_sha256 and a.weights_sha256 == b.weights_sha256
    ]


def _unknown_conditions(results: Results) -> list[str]:
    silent = {
        field: [arm.label for arm in results.arms if arm.conditions.get(field) == UNKNOWN]
        for field in condition_fields(results)
    }
    everywhere = len(results.arms)
    unknown = [field + f" for {join(arms)}" * (len(arms) < everywhere) for field, arms in silent.items() if arms]
    if not unknown:
        return []
    return [f"Unknown, as the files of the samples do not say it, and so not compared: {join(unknown)}."]


def _unlike_conditions(results: Results) -> list[str]:
    unlike = [
        _values(results, field)
        for field, differs in condition_fields(results).items()
        if differs and field != "weights" and len({arm.conditions.get(field) for arm in results.arms} - {UNKNOWN}) > 1
    ]
    if not unlike:
        return []
    return [
        f"The arms differ in these recorded conditions: {join(unlike)}. Where that is more than the model itself, a "
        "difference between the curves may come from there."
    ]


def _values(results: Results, field: str) -> str:
    """A condition with its values and the arms that have each."""
    by_value: dict[str, list[str]] = {}
    for arm in results.arms:
        by_value.setdefault(arm.conditions.get(field, NOT_RECORDED), []).append(arm.label)
    lines = [f"{shortened(value, 40)} for {join(arms)}" for value, arms in by_value.items()]
    return f"{field} ({'; '.join(lines)})"


def _unlike_samples(results: Results) -> list[str]:
    lines = []
    low, high = fewest_samples(results.arms), max(int(arm.n_M.max()) for arm in results.arms)
    if low != high:
        lines.append(f"Samples per problem range from {low} to {high}; each curve ends at the fewest its arm has.")
    stages: dict[tuple[int, int], list[str]] = {}
    for arm in results.arms:
        if arm.second:
            stages.setdefault((int(arm.n_M[0]), arm.second.n), []).append(arm.label)
    for (first, n), labels in sorted(stages.items()):
        who = "Every arm" if len(labels) == len(results.arms) else sentence(join(labels))
        lines.append(
            f"{who} was sampled adaptively: {first} samples of every problem, and {n} where none of these was right. "
            f"Beyond k = {first} the curve is estimated from both stages without bias, and a problem counts as solved "
            "by either; every other number is of the first stage alone."
        )
    return lines


def _cut_or_ungraded(results: Results) -> list[str]:
    cut, ungraded = (
        {arm.label: share_of_samples(arm, getattr(arm, column)) or 0 for arm in results.arms}
        for column in ("truncated_M", "ungraded_M")
    )
    lines = []
    if who := _shares(cut, above=MANY_TRUNCATED):
        lines.append(f"{who} were cut at the length limit before they could end; such a curve is a lower bound.")
    if who := _shares(ungraded, above=0):
        lines.append(
            f"{who} have no verdict: the grader ran out of time or could not read them. They count as not right; "
            "such a curve is a lower bound."
        )
    return lines


def _shares(by_arm: Mapping[str, float], above: float) -> str:
    """The arms whose share is above a bound, each with it; "" if there is none."""
    shares = [f"{percent(share)} of {label}'s answers" for label, share in by_arm.items() if share > above]
    return join(shares) if shares else ""


def size(results: Results) -> str:
    """M and n as a caption says them."""
    return f"M = {len(results.problems)} problems, {samples(results)}"


def samples(results: Results) -> str:
    """n as a caption says it."""
    low, high = fewest_samples(results.arms), max(int(arm.n_M.max()) for arm in results.arms)
    more = max((arm.second.n for arm in results.arms if arm.second), default=0)
    adaptive = f", up to {more} where none of these is right" if more else ""
    n = low if low == high else f"{low} to {high}"
    return f"n = {n} samples each{adaptive}"


def guess_sources(findings: Findings) -> list[str]:
    """What each guess rate of the page is."""
    meaning = {
        RULES: "the chance that a policy that knows nothing else is right.",
        MARGINAL: "how often a problem's right answer appears among the arm's answers to other problems, matched as "
        "text, and numbers by their value. An answer written differently is missed: the true rate, and with it the "
        "correction, may be higher.",
        ANSWER_ONLY: "the share of right answers of the arm that was asked to answer without reasoning.",
    }
    sources = dict.fromkeys(guess.source for guess in findings.guesses)
    return [f"{sentence(source)}: {meaning[source]}" for source in sources]


def training_notes(results: Results) -> list[str]:
    """What each training run recorded, and which arms have no run."""
    lines = []
    runs = {run: rows for run, rows in results.training.items() if rows}
    for run, rows in runs.items():
        recorded = dict.fromkeys(name for row in rows for name in row if name != "step")
        unseen = [name for name in recorded if name not in METRICS]
        also = f" In training.csv but not drawn: {', '.join(unseen)}." if unseen else ""
        lines.append(f"{run}: {len(rows)} rows of {join(recorded or ['steps only'])}.{also}")
    # The base may go by its stage's name instead.
    trained = [arm for arm in results.arms if arm.name != results.base]
    without = [arm.label for arm in trained if not any(is_of_run(arm.name, run) for run in runs)]
    if without:
        lines.append(f"Missing: no training rows under the name of {join(without)}.")
    return lines
