"""What training changed, and what comes without it: format, controls, sharpening, problem by problem."""

from __future__ import annotations

import csv
import functools
import importlib.resources
import itertools
from collections.abc import Iterator

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.analysis import Findings, fewest_samples, share_of_samples
from rlvr_limit.report.results import ArmResults, Results
from rlvr_limit.report.text import DASH, ResultTable, by_arm, percent, percent_and_band, points

NOT_MEASURED = "not measured"

USES_GIVEN = (
    " Every number used once: the share of samples whose steps take each given number once and besides only results of "
    "earlier steps, whether their arithmetic and the target are right or not."
)

LEAST_EFFECTIVE = 10
"""Samples that an estimate must be worth to be told."""

BUDGETS = (1, 4, 16, 64)
"""Multiples of what a trained arm's pass@1 costs."""

OVER = 1.1
"""How far over a budget answers may be, or arms of nearly one length could not be held against each other."""


def learned_tables(results: Results, findings: Findings) -> list[ResultTable]:
    """Every table that the data allow."""
    tables = (
        _beside_paper(results, findings),
        _format(results),
        _answers(results),
        _controls(results),
        _sharper(results),
        _matched_budget(results),
        _changes(results),
    )
    return list(itertools.chain(*tables))


@functools.cache
def papers_numbers() -> tuple[dict[str, str], ...]:
    """Rows of paper.csv: config, benchmark, arm, k, percent and where it stands in v5 of the paper."""
    text = importlib.resources.files("rlvr_limit.report").joinpath("paper.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _beside_paper(results: Results, findings: Findings) -> Iterator[ResultTable]:
    said = [row for row in papers_numbers() if (row["config"], row["benchmark"]) == (results.study, results.benchmark)]
    rows = []
    for row in said:
        k, arm = int(row["k"]), next((arm for arm in results.arms if arm.name == row["arm"]), None)
        here = arm and k <= len(findings.curves[arm.name].mean_K)
        measured = percent_and_band(findings.curves[arm.name], k) if here else NOT_MEASURED
        rows.append([arm.label if arm else row["arm"], f"pass@{k}", f"{row['percent']} %", row["where"], measured])
    if rows:
        yield ResultTable(
            "Beside the paper",
            "Yue et al. 2025, numbers of v2 to v5; those of figures were read off their vectors, within 0.1 points. "
            "Measured here: on this page's problems, with its 95 % population band.",
            ["arm", "metric", "the paper", "where", "measured here"],
            rows,
        )


def _format(results: Results) -> Iterator[ResultTable]:
    arms = [arm for arm in results.arms if arm.no_answer_M is not None]
    uses = any(arm.uses_given_M is not None for arm in arms)

    def cells(arm: ArmResults) -> Iterator[str]:
        read_M = arm.n_M - arm.no_answer_M
        yield percent(read_M.sum() / arm.n_M.sum())
        yield percent(np.mean(arm.c_M / arm.n_M))
        some_M = read_M > 0
        yield percent(np.mean(arm.c_M[some_M] / read_M[some_M])) if some_M.any() else DASH
        if uses:
            share = share_of_samples(arm, arm.uses_given_M)
            yield DASH if share is None else percent(share)

    if uses or any(arm.no_answer_M.any() for arm in arms):
        yield by_arm(
            "Format and solving",
            "Share of samples that hold an answer at all, pass@1, and pass@1 among those samples, mean over problems "
            "with one: who learns the format alone gains in the first two and not in the third." + USES_GIVEN * uses,
            ["readable", "pass@1", "pass@1 where readable", *["every number used once"] * uses],
            arms,
            cells,
        )


def _answers(results: Results) -> Iterator[ResultTable]:
    arms = [arm for arm in results.arms if arm.votes_M is not None and arm.entropy is not None]
    if arms:
        yield by_arm(
            "Entropy of tokens and of answers",
            "Nats. A token's: mean over all that were drawn. An answer's: over classes of equal answers of a problem, "
            "with Miller's correction, mean over problems. The two can move apart.",
            ["a token", "an answer"],
            arms,
            lambda arm: (f"{arm.entropy:.3f}", f"{passk.answer_entropy(arm.votes_M).mean():.3f}"),
        )


def _controls(results: Results) -> Iterator[ResultTable]:
    """What arms gain that were not rewarded for being right, beside each arm that was."""
    controls = [arm for arm in results.arms if arm.group == "control"]
    trained = [arm for arm in results.arms if arm.group == "rl"]
    if not controls or not trained:
        return
    base = results.arm(results.base)
    ks = sorted({1, min(arm.pass_MK.shape[1] for arm in (base, *controls, *trained))})

    def cells(arm: ArmResults) -> Iterator[str]:
        for k in ks:
            base_M, control_M = base.pass_MK[:, k - 1], arm.pass_MK[:, k - 1]
            yield points(float(np.mean(control_M - base_M)))
            for other in trained:
                share = passk.gain_share(base_M, other.pass_MK[:, k - 1], control_M)
                yield _share_and_interval(share) if share else "undefined"

    header = [name for k in ks for name in (f"gain, k = {k}", *(f"of {arm.label}\u2019s" for arm in trained))]
    yield by_arm(
        "How much of the gain controls reach",
        f"pass@k less that of {base.label}, in points, and as a share of what each trained arm gains, with its 95 % "
        "interval over problems; undefined where that gain itself is not told from 0.",
        header,
        controls,
        cells,
    )


def _share_and_interval(share: passk.GainShare) -> str:
    value, low, high = (f"{100 * x:.0f}".replace("-", "\u2212") for x in (share.share, share.low, share.high))
    return f"{value} %\n{low} to {high}"


def _sharper(results: Results) -> Iterator[ResultTable]:
    """What could be had without training, by sampling likelier answers."""
    arms = [arm for arm in results.arms if arm.sharpened]
    if not arms:
        return

    def cells(arm: ArmResults) -> Iterator[str]:
        for each in arm.sharpened:
            worth = float(np.median(each.effective_M))
            said = percent(each.rate_M.mean()) if worth >= LEAST_EFFECTIVE else "not resolved"
            yield f"{said}\n{worth:.1f} of {fewest_samples((arm,))}"

    yield by_arm(
        "Sharpened without training",
        "pass@1 if whole answers y were drawn from p(y)^\u03b1, which makes likely answers likelier and needs no "
        "reward: the recorded samples weighed anew. Below it, how many samples the estimate is worth, median over "
        f"problems; below {LEAST_EFFECTIVE} it is not told.",
        [f"\u03b1 = {each.alpha:g}" for each in arms[0].sharpened],
        arms,
        cells,
    )


def _matched_budget(results: Results) -> Iterator[ResultTable]:
    """What the base and answers from its p^alpha solve by vote for the tokens of a trained arm's pass@1."""
    base = results.arm(results.base)
    trained = [arm for arm in results.arms if arm.group == "rl" and arm.spent_M is not None]
    untrained = [
        arm
        for arm in results.arms
        if arm.votes_M and arm.spent_M is not None
        if arm is base or (arm.drawn_M is not None and arm.weights_sha256 == base.weights_sha256)
    ]
    beside = [list(_for_its_tokens(arm, trained)) for arm in untrained]
    if trained and untrained:
        yield ResultTable(
            "Without training, for the tokens of pass@1",
            "The answer that most of k answers give, k as many as a multiple of the tokens of a trained arm's pass@1 "
            "affords, a tenth over it allowed; below it how many points that is from this pass@1, 95 % paired band. "
            "Tokens are all that were drawn, proposals thrown away among them. Last: the first of k = 1, 3, 5, 9, 17 "
            "and so on whose mean is no lower. A dash: not one answer, or more than there are.",
            ["for", "its answer", "pass@1 to reach", *(f"{times} \u00d7" for times in BUDGETS), "as good at"],
            [row for rows in zip(*beside, strict=True) for row in rows],
        )


def _for_its_tokens(arm: ArmResults, trained: list[ArmResults]) -> Iterator[list[str]]:
    """A row beside each trained arm."""
    n, cost = fewest_samples((arm,)), float(arm.spent_M.mean())
    tried = [k for k in (1, *(2**i + 1 for i in range(1, n.bit_length()))) if k <= n]
    afforded = {other.name: [int(OVER * times * other.spent_M.mean() / cost) for times in BUDGETS] for other in trained}
    ks = sorted({k for k in (*tried, *itertools.chain(*afforded.values())) if 1 <= k <= n})
    voted_MK = passk.maj_at_k(arm.votes_M, ks)
    voted_MK[:, 0] = arm.c_M / arm.n_M
    voted_K = voted_MK.mean(axis=0)
    for other in trained:
        aim_M, aim_cost = other.c_M / other.n_M, float(other.spent_M.mean())
        ahead = passk.paired_band(voted_MK, np.tile(aim_M[:, None], len(ks)))
        cells = {
            k: f"maj@{k}: {percent(voted)}\n{points(low)} to {points(high)}"
            for k, voted, low, high in zip(ks, voted_K, ahead.low_K, ahead.high_K, strict=True)
        }
        good = next((k for k in tried if voted_K[ks.index(k)] >= aim_M.mean()), None)
        said, tokens = f"maj@{good}" if good else f"not up to maj@{tried[-1]}", (good or tried[-1]) * cost
        yield [
            f"{arm.label} for {other.label}",
            f"{cost:,.1f} tokens",
            f"{percent(aim_M.mean())}\n{aim_cost:,.1f} tokens",
            *(cells.get(k, DASH) for k in afforded[other.name]),
            f"{said}\n{tokens:,.0f} tokens, {tokens / aim_cost:.1f} \u00d7",
        ]


def _changes(results: Results) -> Iterator[ResultTable]:
    base = results.arm(results.base)
    once, again = passk.halves(base.n_M, base.c_M)
    same = passk.transitions(once, again)
    for arm in results.arms:
        if arm.group != "rl" or not np.array_equal(arm.n_M, base.n_M) or base.n_M.min() < 40:
            continue
        moved = passk.transitions(once, passk.halves(arm.n_M, arm.c_M)[1])
        rows = [
            [name, *(f"{there}\n({alike})" for there, alike in zip(moved[i], same[i], strict=True))]
            for i, name in enumerate(passk.BINS)
        ]
        yield ResultTable(
            f"From {base.label} to {arm.label}, problem by problem",
            f"Problems by the success rate of {base.label} (rows) and of {arm.label} (columns), each from one half of "
            f"its samples. In brackets: {base.label} against its own other half, which is what chance alone moves.",
            [base.label, *passk.BINS],
            rows,
        )
