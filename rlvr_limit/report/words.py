"""The findings in plain English. The numbers choose each sentence, so an unexpected result is said as plainly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.analysis import Comparison, Findings, shares
from rlvr_limit.report.results import ArmResults, Results

MANY_TRUNCATED = 0.05


def percent(share: float) -> str:
    """A share as "12.3 %"; what is above 0 never reads as 0, what is below 1 never as 100."""
    if 0 < share < 0.0005:
        return "below 0.1 %"
    return "above 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def signed_percent(share: float) -> str:
    """A share that may be below 0, as what is corrected for guessing may be, or nan where it is undefined.

    Where guessing reaches nearly all, the corrected share falls without bound and its size says nothing.
    """
    if np.isnan(share):
        return "undefined"
    if share < -1:
        return "below \u2212100 %"
    return f"\u2212{percent(-share)}" if share <= -0.0005 else percent(max(share, 0.0))


def points(difference: float) -> str:
    """A difference of shares in percentage points."""
    return signed(100 * difference)


def signed(value: float) -> str:
    """A number with one decimal and its sign, a true minus; what rounds to 0 has none."""
    return f"{value:+.1f}".replace("-", "\u2212") if abs(value) >= 0.05 else "0.0"


def join(names: Iterable[object]) -> str:
    """a, b and c; with semicolons where a name has a comma of its own."""
    texts = [str(name) for name in names]
    if any("," in text for text in texts):
        return "; ".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]


def with_band(band: passk.Band, k: int) -> str:
    low, high = points(band.low_K[k - 1]), points(band.high_K[k - 1])
    return f"{points(band.mean_K[k - 1])} points ({low} to {high})"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def summary(results: Results, found: Findings) -> list[str]:
    """The headline: the last RL arm (or else the first arm) against the base, and where the curves cross."""
    base, arm = results.arm(results.base), results.arm(found.headline)
    k = found.ks(base.name, arm.name)[-1]
    one, many = ({name: percent(found.curves[name].mean_K[at - 1]) for name in (base.name, arm.name)} for at in (1, k))
    said = [
        f"At k = 1 {arm.label} solves {one[arm.name]} of the problems and {base.label} {one[base.name]}; "
        f"at k = {k} it is {many[arm.name]} against {many[base.name]}.",
        found.against_base[arm.name].crossover.sentence,
        _pattern(results, found, arm, k),
    ]
    return [sentence(text) for text in said]


def other_arms(results: Results, found: Findings) -> list[str]:
    """How pass@1 and pass@n move over the RL arms, what distillation does, and what guessing would reach."""
    said = []
    trained = [arm for arm in results.arms if arm.group == "rl" and arm.name != results.base]
    if len(trained) > 1:
        k = found.ks(*(arm.name for arm in trained))[-1]
        one, many = (" \u2192 ".join(percent(found.curves[a.name].mean_K[at - 1]) for a in trained) for at in (1, k))
        said.append(
            f"Over the RL arms in the order listed ({join(arm.label for arm in trained)}) "
            f"pass@1 goes {one} and pass@{k} goes {many}."
        )
    said += [_lift(results, found, comparison) for comparison in found.comparisons if comparison.first != results.base]
    guess = found.guess(results.base)
    if guess:
        by = "" if found.guess_K is not None else f", with the answers that {results.label(results.base)} gives anyway,"
        said.append(f"Guessing alone{by} would reach {percent(guess.guess_K[-1])} at k = {len(guess.guess_K)}.")
    return [sentence(text) for text in said]


def _pattern(results: Results, found: Findings, arm: ArmResults, k: int) -> str:
    """Who leads at either end, and what that means for the question; None of the four outcomes is the default."""
    base = results.label(results.base)
    matching = [c for c in found.comparisons if {c.first, c.second} == {results.base, arm.name}]
    ends = [matching[0].leader(at) for at in (1, k)]
    if None in ends:
        open_ks = [f"k = {at}" for at, leader in zip((1, k), ends, strict=True) if leader is None]
        return f"Which of the two is ahead at {join(dict.fromkeys(open_ks))} is not resolved by these problems."
    if ends == [arm.name, results.base]:
        return f"So {arm.label} is better with few tries and {base} with many: the order that the paper reports."
    if ends == [results.base, arm.name]:
        return f"The order is the reverse of the paper's: {base} is ahead with few tries and {arm.label} with many."
    if ends[0] == arm.name:
        return f"{arm.label} is ahead at both ends, so the paper's loss at large k does not show here."
    return f"{base} is ahead at both ends: {arm.label} lost ground with few tries as well as with many."


def _lift(results: Results, found: Findings, comparison: Comparison) -> str:
    ks = found.ks(comparison.first, comparison.second)
    shown = [f"{with_band(comparison.difference, k)} at k = {k}" for k in dict.fromkeys((1, ks[-1]))]
    return f"{comparison.title(results)} is {join(shown)}, 95 % paired bands."


def not_resolved(results: Results, found: Findings) -> list[str]:
    """What the numbers cannot tell, one line each."""
    looked = sum(len(found.ks(comparison.first, comparison.second)) for comparison in found.comparisons)
    lines = open_signs(results, found)
    lines += [f"What it would take: {power.sentence}" for power in found.powers.values()]
    lines.append(
        f"Each band is for one k and one pair. {looked} of them were looked at, with no correction for that: if no arm "
        "differed from another, about one in twenty would still exclude 0."
    )
    lines += found.coverage
    lines += [_unsolved(results), _guessing(results, found), _one_seed(results), *_conditions(results)]
    lines += _cut_or_ungraded(results)
    return [line for line in lines if line]


def open_signs(results: Results, found: Findings) -> list[str]:
    """Differences and crossovers that are not resolved."""
    lines = []
    unclear: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
    for comparison in found.comparisons:
        ks = found.ks(comparison.first, comparison.second)
        at = tuple(k for k in ks if comparison.leader(k) is None)
        if at:
            unclear.setdefault((len(at) == len(ks), at), []).append(comparison.title(results))
    for (everywhere, at), titles in unclear.items():
        of = "at any k looked at" if everywhere else f"at k = {join(at)}"
        lines.append(f"{sentence(join(titles))}: not resolved {of}; the 95 % band includes 0 there.")
    lines = lines or ["Every paired difference looked at has a 95 % band that excludes 0."]
    for name, beside in found.against_base.items():
        if beside.crossover.verdict == "not resolved" and results.arm(name).group == "rl":
            lines.append(sentence(beside.crossover.sentence))
    return lines


def _unsolved(results: Results) -> str:
    n = min(int(arm.reach_M.min()) for arm in results.arms)
    counts = join(f"{arm.label}: {int((~arm.solved_M).sum())}" for arm in results.arms)
    return (
        f"A problem with no right answer is not a problem that cannot be solved: after {n} wrong samples its success "
        f"rate may still be up to {percent(passk.unsolved_bound(n))} (95 %, about 3/n). "
        f"Problems without a right answer, of {len(results.problems)}, by arm: {counts}."
    )


def _guessing(results: Results, found: Findings) -> str:
    known = found.guess(results.base)
    if known is None:
        unknown = sum(guess is None for _, _, guess in results.problems)
        return (
            f"How much of this is guessing is not known: {unknown} of {len(results.problems)} problems "
            "have no guess rate, so no baseline is drawn."
        )
    k = len(found.curves[results.base].mean_K)
    guess, solved = known.guess_K[k - 1], found.curves[results.base].mean_K[-1]
    policy = "A policy that only guesses"
    if found.guess_K is None:
        policy = f"A policy that answers with what {results.label(results.base)} answers to other problems"
    text = (
        f"{policy} reaches {percent(guess)} at k = {k}, where {results.label(results.base)} "
        f"reaches {percent(solved)}; a right answer shows that the answer was found, not that the reasoning was right."
    )
    return text + (" Guessing could explain more than half of that." if guess > solved / 2 else "")


def _one_seed(results: Results) -> str:
    runs = "How the arms were trained is not recorded here"
    if results.seed is not None:
        runs = f"One seed (seed {results.seed}): every trained arm comes from a single training run"
    return (
        f"{runs}. The bands say how the curves would move with other problems of the same kind; they say nothing about "
        "other training runs."
    )


def _conditions(results: Results) -> list[str]:
    lines = []
    for a, b in combinations(results.arms, 2):
        if a.weights_sha256 and a.weights_sha256 == b.weights_sha256:
            lines.append(f"{sentence(a.label)} and {b.label} have the same weights (equal SHA-256): one model twice.")
    unlike = [field for field in condition_fields(results) if field_differs(results, field)]
    if unlike:
        lines.append(
            f"The arms differ in these recorded conditions: {join(_values(results, field) for field in unlike)}. Where "
            "that is more than the model itself, a difference between the curves may come from there."
        )
    ns = sorted({(int(arm.n_M.min()), int(arm.n_M.max())) for arm in results.arms})
    if len(ns) > 1 or ns[0][0] != ns[0][1]:
        low, high = min(n for n, _ in ns), max(n for _, n in ns)
        lines.append(f"Samples per problem range from {low} to {high}; each curve ends at the fewest its arm has.")
    stages = {(int(arm.n_M[0]), arm.second.n) for arm in results.arms if arm.second}
    for first, n in sorted(stages):
        of = [arm.label for arm in results.arms if arm.second and (arm.n_M[0], arm.second.n) == (first, n)]
        who = "Every arm" if len(of) == len(results.arms) else sentence(join(of))
        lines.append(
            f"{who} was sampled adaptively: {first} samples of every problem, and {n} where none of these was right. "
            f"Beyond k = {first} the curve is estimated from both stages without bias, and a problem counts as solved "
            "by either; every other number is of the first stage alone."
        )
    return lines


def _values(results: Results, field: str) -> str:
    """A condition with its values and the arms that have each."""
    by_value: dict[str, list[str]] = {}
    for arm in results.arms:
        by_value.setdefault(arm.conditions.get(field, "not recorded"), []).append(arm.label)
    short = {value: value if len(value) <= 40 else value[:39] + "\u2026" for value in by_value}
    return f"{field} ({'; '.join(f'{short[value]} for {join(arms)}' for value, arms in by_value.items())})"


def _cut_or_ungraded(results: Results) -> list[str]:
    lines = []
    for name, share in shares(results).items():
        if share.truncated is not None and share.truncated > MANY_TRUNCATED:
            lines.append(
                f"{percent(share.truncated)} of {results.label(name)}'s answers were cut at the length limit before "
                "they could end; its curve is a lower bound."
            )
        if share.ungraded:
            lines.append(
                f"{percent(share.ungraded)} of {results.label(name)}'s answers have no verdict: the grader ran out of "
                "time or failed on them. They count as not right; its curve is a lower bound."
            )
    return lines


def cache_errors(results: Results) -> list[str]:
    """What an 8-bit cache did to each arm that was sampled with one."""
    return [f"{sentence(arm.label)}: {arm.cache_error.in_words()}." for arm in results.arms if arm.cache_error]


def condition_fields(results: Results) -> list[str]:
    """The names of all recorded conditions, in the order in which they first appear."""
    return list(dict.fromkeys(field for arm in results.arms for field in arm.conditions))


def field_differs(results: Results, field: str) -> bool:
    return len({arm.conditions.get(field) for arm in results.arms}) > 1


def size(results: Results) -> str:
    """M and n as a caption says them."""
    return f"M = {len(results.problems)} problems, {samples(results)}"


def samples(results: Results) -> str:
    """n as a caption says it."""
    low, high = (int(reduce([reduce(arm.n_M) for arm in results.arms])) for reduce in (np.min, np.max))
    more = max((arm.second.n for arm in results.arms if arm.second), default=0)
    adaptive = f", up to {more} where none of these is right" if more else ""
    n = low if low == high else f"{low} to {high}"
    return f"n = {n} samples each{adaptive}"
