"""The tables of the report: what each shows, and what it says of itself wherever it is shown.

Shape suffix: K runs over k = 1..n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlvr_limit import passk
from rlvr_limit.report.analysis import (
    AgainstBase,
    Comparison,
    Findings,
    GuessBaseline,
    condition_fields,
    powers_of_four,
    share_and_wilson,
    share_of_samples,
)
from rlvr_limit.report.results import ArmProgress, ArmResults, Interim, Results, SecondOpinion
from rlvr_limit.report.text import (
    DASH,
    NOT_RECORDED,
    ResultTable,
    by_arm,
    percent,
    percent_and_band,
    points_and_band,
    signed_percent,
)

UNDEFINED = "undefined"
UNLIKE = "\u2260 "
BAND_BELOW = "Below each number: its 95 % population band"


def headline(results: Results, findings: Findings) -> ResultTable:
    """pass@k at the k of interest, guess-corrected at the largest where guess rates are known, and the crossing."""
    ks = findings.ks()
    known = findings.guess(results.base) is not None

    def cells(arm: ArmResults) -> Iterable[str]:
        yield from (percent_and_band(findings.curves[arm.name], k) for k in ks)
        if known:
            yield signed_percent(findings.guess(arm.name).corrected_K[ks[-1] - 1])
        if findings.comparisons:
            yield _crossing(findings.against_base.get(arm.name))

    corrected = [f"guess-corrected pass@{ks[-1]}"] if known else []
    crossing = [f"crossing {results.label(results.base)}"] if findings.comparisons else []
    return by_arm(
        "pass@k, percent, with 95 % population bands",
        f"{BAND_BELOW}, percent.",
        [*(f"pass@{k}" for k in ks), *corrected, *crossing],
        results.arms,
        cells,
    )


def algorithm(results: Results, findings: Findings, name: str) -> ResultTable:
    """pass@k of an algorithm and of each of its runs, what the base has more, and how far runs lie apart."""
    found, base = findings.algorithms[name], results.label(results.base)
    runs = results.algorithms[name]
    labels = [*map(results.label, runs), f"{name}, {len(runs)} runs"]
    curves = [*(findings.curves[run] for run in runs), found.curve]
    ks = findings.ks(results.base, *runs)
    rows = [[label, *(percent_and_band(curve, k) for k in ks)] for label, curve in zip(labels, curves, strict=True)]
    rows += [
        [f"{base} minus {label}", *(points_and_band(band, k) for k in ks)]
        for label, band in zip(labels, [*found.differences, found.difference], strict=True)
    ]
    rows.append(["standard deviation between runs, points", *(f"{100 * found.deviation_K[k - 1]:.1f}" for k in ks)])
    return ResultTable(
        name,
        "Below each number its 95 % band: of a run over problems, of the algorithm (marked) over runs and problems. "
        "Of the deviation between runs the noise of problems and samples is taken out. Simulated with 3 to 10 runs on "
        "32 and 96 problems, bands over both hold the algorithm's truth in 91.6 to 99.6 %, one run's in 21 to 99.",
        ["", *(f"pass@{k}" for k in ks)],
        rows,
        tuple(row[0].endswith(labels[-1]) for row in rows),
    )


def progress(interim: Interim) -> ResultTable:
    """How far every arm is, drawn or not."""

    def cells(arm: ArmProgress) -> Iterable[str]:
        yield arm.label
        yield f"{arm.graded:,} of {arm.wanted:,}\n{percent(arm.graded / arm.wanted)}"
        yield f"to k = {arm.fewest}" if arm.is_shown else "none"
        yield str(arm.fewest) if arm.fewest == arm.most else f"{arm.fewest} to {arm.most}"
        yield f"{arm.without} of {interim.problems}"
        yield f"{arm.drawn - arm.graded:,}"

    header = ["arm", "graded samples", "curve", "of a problem", "problems without any", "without a verdict yet"]
    marked = tuple(arm.graded < arm.wanted for arm in interim.arms)
    return ResultTable("What is there", "", header, [list(cells(arm)) for arm in interim.arms], marked)


def overview(studies: Mapping[str, Mapping[str, Any]]) -> ResultTable:
    """pass@1, pass@k at the largest k and the crossing of every arm of several studies, such as temperatures."""
    rows = []
    exact = bool(studies) and all(study["results"].exact_chains for study in studies.values())
    for name, study in studies.items():
        results, findings = study["results"], study["findings"]
        k = findings.ks()[-1]
        for arm in results.arms:
            first, last = (percent_and_band(findings.curves[arm.name], at) for at in (1, k))
            cells = [f"{name}\n{arm.label}", first, str(k), last, _crossing(findings.against_base.get(arm.name))]
            if exact:
                review = findings.chains[arm.name]
                cells += [percent(review.low_K[0]), percent(review.low_K[k - 1]), f"{review.wrong:,}"]
            rows.append(cells)
    header = ["", "pass@1", "k", "pass@k", "crossing its base"]
    header += ["CoT-Pass@1", "CoT-Pass@k", "right answers by wrong chains"] if exact else []
    return ResultTable("Side by side", f"{BAND_BELOW}, percent.", header, rows)


def _crossing(beside: AgainstBase | None) -> str:
    """The crossover in a few words; a k is given only where it is resolved."""
    if beside is None:
        return DASH
    crossover = beside.crossover
    if crossover.verdict != "resolved":
        return {"never below": "base never below"}.get(crossover.verdict, crossover.verdict)
    return f"k = {crossover.k}\n{crossover.low or 'beyond n'}\u2013{crossover.high or 'beyond n'}"


def guesses(results: Results, findings: Findings) -> ResultTable:
    """Corrected pass@k of every arm by every guess rate that is known, with the raw value and what guessing reaches."""

    def cell(guess: GuessBaseline, k: int) -> str:
        raw, alone = findings.curves[guess.arm].mean_K[k - 1], guess.guess_K[k - 1]
        return f"{signed_percent(guess.corrected_K[k - 1])}\n{100 * raw:.1f} / {100 * alone:.1f}"

    ks = findings.ks()
    return ResultTable(
        "Guessing",
        "Guess-corrected; below each number: raw pass@k / guessing, percent.",
        ["arm", "guessing by", *(f"pass@{k}" for k in ks)],
        [[results.label(guess.arm), guess.source, *(cell(guess, k) for k in ks)] for guess in findings.guesses],
    )


def guessable(results: Results, findings: Findings) -> ResultTable:
    """pass@k of every arm without the problems that can be guessed, with the value on all problems."""

    def cell(name: str, k: int) -> str:
        left_K, all_K = findings.guessable.curves[name], findings.curves[name].mean_K
        return f"{percent(left_K[k - 1])}\n{percent(all_K[k - 1])} on all"

    ks = findings.ks()
    header = ["without guessable problems", *(f"pass@{k}" for k in ks)]
    rows = [[results.label(name), *(cell(name, k) for k in ks)] for name in findings.guessable.curves]
    return ResultTable("Guessable problems", "", header, rows)


def chains(results: Results, findings: Findings) -> ResultTable:
    """What was said of the chains behind right answers, and CoT-Pass@k, or both its bounds, beside pass@k."""

    def cells(arm: ArmResults) -> Iterable[str]:
        review, curve_K = findings.chains[arm.name], findings.curves[arm.name].mean_K
        # Beside the arm and not in columns of their own: on a narrow screen these would push the bounds out of sight.
        unjudged = "" if results.exact_chains else f", {review.unjudged:,} not judged"
        yield f"{arm.label}\n{review.right:,} right, {review.wrong:,} wrong{unjudged}"
        for k in ks:
            ends = percent(review.low_K[k - 1]), percent(review.high_K[k - 1])
            yield f"{ends[0] if results.exact_chains else ' to '.join(ends)}\n{percent(curve_K[k - 1])} pass@{k}"

    ks = findings.chain_ks()
    bounds, source = ", lower to upper", "what was said in review/rare_wins.csv of the chains behind its right answers"
    if results.exact_chains:
        bounds, source = "", "its right answers, by whether every step of their chains is right"
    return ResultTable(
        "CoT-Pass@k",
        f"CoT-Pass@k{bounds}; below it: pass@k. Below an arm: {source}.",
        ["arm", *(f"CoT-Pass@{k}" for k in ks)],
        [list(cells(results.arm(name))) for name in findings.chains],
    )


def judged_chains(results: Results, findings: Findings) -> ResultTable:
    """CoT-Pass@k by a judge model: corrected with its bounds, and below as the judge said."""

    def cells(name: str) -> Iterable[str]:
        problems, curves = findings.judged[name]
        yield f"{results.label(name)}\n{problems:,} problems"
        for k in ks:
            judged = f"{percent(curves.judged_K[k - 1])} as judged"
            if curves.low_K is None:
                yield f"not calibrated\n{judged}"
                continue
            middle = DASH if curves.corrected_K is None else percent(curves.corrected_K[k - 1])
            yield f"{middle}\n{percent(curves.low_K[k - 1])} to {percent(curves.high_K[k - 1])}; {judged}"

    ks = powers_of_four(min(len(curves.judged_K) for _, curves in findings.judged.values()))
    return ResultTable(
        "CoT-Pass@k by a judge model",
        "Corrected for the judge's errors; below it: bounds, and as the judge said.",
        ["arm", *(f"CoT-Pass@{k}" for k in ks)],
        [list(cells(name)) for name in findings.judged],
    )


def rare_wins(results: Results, findings: Findings) -> ResultTable:
    """Problems that an arm solves rarely, and how many of them by a right chain of thought."""

    def cells(arm: ArmResults) -> Iterable[str]:
        rare = findings.rare[arm.name]
        return map(str, (rare.problems, rare.valid, rare.invalid, rare.problems - rare.valid - rare.invalid))

    header = [f"right in 0 to {passk.RARE_PERCENT} %", "a chain is right", "no chain is right", "not known"]
    return by_arm("Problems that are rarely solved", "", header, results.arms, cells)


def differences(results: Results, findings: Findings) -> ResultTable:
    """Every paired difference at the k of interest, in points; "?" marks a band that includes 0."""

    def cell(comparison: Comparison, k: int) -> str:
        if k > len(comparison.difference.mean_K):
            return DASH
        mark = " ?" if comparison.leader(k) is None else ""
        return points_and_band(comparison.difference, k, mark)

    ks = sorted({k for c in findings.comparisons for k in findings.ks(c.first, c.second)})
    return ResultTable(
        "Paired differences of pass@k, points, with 95 % paired bands (?: the band includes 0)",
        "Below each number: its 95 % paired band. A question mark: the band includes 0.",
        ["points", *(f"k = {k}" for k in ks)],
        [[pair.title(results), *(cell(pair, k) for k in ks)] for pair in findings.comparisons],
    )


def support(results: Results, findings: Findings) -> ResultTable:
    """Counts and ratios of every arm beside the base."""
    header = ["arm beside base", "both", "base only", "arm only", "neither", "SRR", "NDR", "SDS", "NSCR"]
    rows = []
    for name, beside in findings.against_base.items():
        cells, s = ["n differs"] * 8, beside.support
        if s is not None:
            cells = [str(len(group)) for group in (s.both, s.base_only, s.rl_only, s.neither)]
            ratios = (s.srr, s.ndr, s.sds, s.nscr)
            cells += [UNDEFINED if ratio is None else f"{ratio:.3f}".replace("-", "\u2212") for ratio in ratios]
        rows.append([results.label(name), *cells])
    return ResultTable("Who solves what", "", header, rows)


def efficiency(results: Results, findings: Findings) -> ResultTable:
    """pass@1, pass@k and Delta_SE of every arm, as in Table 3 and Fig. 8 of Yue et al. 2025, v5; the base first."""
    k = findings.delta_se_k

    def cells(arm: ArmResults) -> Iterable[str]:
        curve, beside = findings.curves[arm.name], findings.against_base.get(arm.name)
        yield from (percent_and_band(curve, at) if at <= len(curve.mean_K) else DASH for at in (1, k))
        yield points_and_band(beside.delta_se_band, 1) if beside else DASH

    gap = f"\u0394SE: pass@{k} of {results.label(results.base)} minus pass@1 of the arm, points; lower is better"
    return by_arm(
        f"Sampling efficiency ({gap})",
        f"{gap}. {BAND_BELOW}; below \u0394SE: its 95 % paired band.",
        ["pass@1", f"pass@{k}", "\u0394SE"],
        results.arms,
        cells,
    )


def entropy(results: Results, findings: Findings) -> ResultTable:
    """Temperature, entropy and pass@k of every arm, as in Figs. 17 and 18 of Yue et al. 2025, v5."""
    k = findings.ks()[-1]

    def cells(arm: ArmResults) -> Iterable[str]:
        yield arm.conditions.get("temperature", NOT_RECORDED)
        yield _or_not_recorded(arm.entropy, "{:.4f}".format)
        yield from (percent_and_band(findings.curves[arm.name], at) for at in (1, k))

    header = ["temperature", "entropy, nats a token", "pass@1", f"pass@{k}"]
    return by_arm("Temperature and entropy", "Below pass@k: its 95 % population band.", header, results.arms, cells)


def _or_not_recorded(value: float | None, shown: Callable[[float], str]) -> str:
    return NOT_RECORDED if value is None else shown(value)


def rates(results: Results, findings: Findings) -> ResultTable:
    """What the answers look like: truncated, without an answer, long, repeated, uncertain."""

    def cells(arm: ArmResults) -> Iterable[str]:
        yield f"{int(arm.n_M.sum()):,}"
        for count_M in (arm.truncated_M, arm.no_answer_M, arm.ungraded_M, arm.unreadable_M):
            yield _or_not_recorded(share_of_samples(arm, count_M), percent)
        yield _or_not_recorded(arm.mean_tokens, "{:.1f}".format)
        yield _or_not_recorded(arm.duplicate_rate, percent)
        yield _or_not_recorded(arm.entropy, "{:.3f}".format)

    named = ["samples", "truncated", "no answer", "no verdict", "unreadable"]
    header = [*named, "mean tokens", "duplicates", "entropy, nats per token"]
    below = "Unreadable answers are some of those without a verdict."
    return by_arm("Answers cut short or without a verdict", below, header, results.arms, cells)


def second_opinions(results: Results, findings: Findings) -> ResultTable:
    """How far a second grader agrees, and pass@1 as it sees it."""
    return _opinions(
        results,
        findings,
        "By the grader of the paper's authors",
        "A second opinion that counts nowhere else: the rules of the published code. It takes the last number for the "
        "answer where nothing is boxed, and numbers within 0.01 %, x/100 and 100x for equal.",
        lambda arm: arm.second_opinion,
    )


def own_opinions(results: Results, findings: Findings) -> ResultTable:
    """The same of the verdicts that came with the samples."""
    return _opinions(
        results,
        findings,
        "By those who drew the samples",
        "The verdicts that came with the files, on as many samples as have one; they count nowhere else.",
        lambda arm: arm.own_opinion,
    )


def _opinions(
    results: Results, findings: Findings, title: str, below: str, opinion: Callable[[ArmResults], SecondOpinion | None]
) -> ResultTable:
    def cells(arm: ArmResults) -> Iterable[str]:
        said = opinion(arm)
        yield percent(said.agreement)
        yield from (f"{count:,}" for count in (said.both, said.only_first, said.only_second))
        yield percent(float(findings.curves[arm.name].mean_K[0]))
        yield percent(said.pass_1)

    header = ["agreement", "right by both", "only by ours", "only by theirs", "pass@1", "pass@1 by theirs"]
    return by_arm(title, below, header, [arm for arm in results.arms if opinion(arm)], cells)


def contamination(results: Results, findings: Findings) -> ResultTable:
    """What arms that are asked a question's beginning make of it, beside those that are asked all of it."""

    def cells(arm: ArmResults) -> Iterable[str]:
        yield f"{100 * arm.asked_first:g} %" if arm.asked_first else "all"
        for count_M in (arm.completed_M, arm.c_M):
            if count_M is None:
                yield DASH
                continue
            rate, low, high = share_and_wilson(arm, count_M)
            yield f"{percent(rate)}\n{100 * low:.1f}\u2013{100 * high:.1f}"

    below = "Below each number: its 95 % Wilson interval, percent."
    return by_arm("Contamination audit", below, ["asked", "completed", "right answer"], results.arms, cells)


def conditions(results: Results, findings: Findings) -> ResultTable:
    """One row per condition, marked where the arms differ in it; the weights' hash last, shortened."""
    rows = {
        field: (differs, [arm.conditions.get(field, NOT_RECORDED) for arm in results.arms])
        for field, differs in condition_fields(results).items()
    }
    hashes = [arm.weights_sha256[:12] or NOT_RECORDED for arm in results.arms]
    rows["weights SHA-256 (first 12)"] = len({arm.weights_sha256 for arm in results.arms}) > 1, hashes
    return ResultTable(
        "Conditions (\u2260: not the same in every arm)",
        "",
        ["condition", *(arm.label for arm in results.arms)],
        [[(UNLIKE if differs else "") + name, *cells] for name, (differs, cells) in rows.items()],
        marked=tuple(differs for differs, _ in rows.values()),
        numbers=False,
    )


def versions(results: Results, findings: Findings) -> ResultTable:
    return ResultTable(
        "Versions", "", ["what", "version"], [[name, version] for name, version in results.versions.items()]
    )


def timings(results: Results, findings: Findings) -> ResultTable:
    rows = [*results.timings.items(), ("total", sum(results.timings.values()))]
    return ResultTable("Time taken", "", ["stage", "seconds"], [[stage, f"{seconds:,.1f}"] for stage, seconds in rows])
