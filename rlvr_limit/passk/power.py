"""How many more problems, or samples of each, would resolve which arm is ahead (metrics.md item 9).

Shapes: M problems, K the largest k both arms have; T runs over t, numbers of samples without a right one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.bands import ROUNDING, few_unlike
from rlvr_limit.passk.curve import checked_counts, pass_curve, pass_curves, refuse_k_beyond_n
from rlvr_limit.passk.extrapolation import fit_beta_binomial
from rlvr_limit.passk.reliability import at_least
from rlvr_limit.types import UserError

MOST_SAMPLES = 1 << 24


@dataclass(frozen=True)
class Power:
    """What it would take to show the sign of base minus RL at k, if the true difference were the measured one.

    difference and error are the mean over problems and its standard error, None (unknown) where all problems agree.
    problems: like these, at the present n; samples: of each of these problems, for both arms; None where no number is
    enough or it is unknown. modelled: n < 2k, so the noise that more samples would remove is that of a fitted
    beta-binomial law, not measured.
    """

    k: int
    difference: float
    error: float | None
    problems: int | None
    samples: int | None
    modelled: bool
    sentence: str


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both arms' counts on the same problems, and their curves up to the K that both have."""

    counts: tuple[tuple[np.ndarray, np.ndarray], ...]
    difference_MK: np.ndarray

    @property
    def M(self) -> int:
        return self.difference_MK.shape[0]

    @property
    def n(self) -> int:
        """The samples per problem of which one asks whether more would do."""
        return max(int(n_M.max()) for n_M, _ in self.counts)


def power_at_k(
    base_n_M: ArrayLike,
    base_c_M: ArrayLike,
    rl_n_M: ArrayLike,
    rl_c_M: ArrayLike,
    k: int,
    *,
    level: float = 0.95,
    power: float = 0.8,
    names: tuple[str, str] = ("base", "RL"),
) -> Power:
    """Problems, or samples per problem, at which a band of this level would exclude 0 with this probability.

    The mean of M paired differences must be z = Phi^-1((1+level)/2) + Phi^-1(power) standard errors from 0. A
    difference varies between problems, which only more problems average out, and by the noise of n samples, for which
    see `noise`. The measured difference is taken for the true one, so the numbers are orders of magnitude. Raises
    UserError where k > n, M < 2, or the arms' problems differ in number.
    """
    pair = _pair(base_n_M, base_c_M, rl_n_M, rl_c_M)
    for n_M, _ in pair.counts:
        refuse_k_beyond_n(n_M, k, f"the power at pass@{k}")
    return _power(pair, k, level, power, names)


def power_of_crossover(
    base_n_M: ArrayLike,
    base_c_M: ArrayLike,
    rl_n_M: ArrayLike,
    rl_c_M: ArrayLike,
    *,
    level: float = 0.95,
    power: float = 0.8,
    names: tuple[str, str] = ("base", "RL"),
) -> Power:
    """What would resolve the crossover: RL's lead at a smaller k and base's at K, the harder of the two to show.

    RL's lead is looked at where it is largest against its error. problems and samples are None also where this sample
    has no such pair of leads. Raises UserError as power_at_k does.
    """
    pair = _pair(base_n_M, base_c_M, rl_n_M, rl_c_M)
    base, rl = names
    mean_K = pair.difference_MK.mean(axis=0)
    error_K = pair.difference_MK.std(axis=0, ddof=1) / math.sqrt(pair.M)
    K = mean_K.size
    early = 1 + int(np.argmax(np.where(mean_K < -ROUNDING, -mean_K / np.maximum(error_K, ROUNDING), -np.inf)))
    leads = [_power(pair, k, level, power, names) for k in (early, K)]
    if not (leads[0].difference < -ROUNDING and leads[1].difference > ROUNDING):
        absent = f"{rl} nowhere ahead" if leads[0].difference >= -ROUNDING else f"{base} not ahead at k = {K}"
        sentence = f"What would resolve a crossover cannot be told from this sample: it has {absent}."
        late = leads[1]
        return Power(K, late.difference, late.error, None, None, late.modelled, sentence)
    harder = max(leads, key=lambda lead: math.inf if lead.problems is None else lead.problems)
    known = [lead.samples for lead in leads if lead.samples is not None]
    samples = max(known) if len(known) == len(leads) else None
    lead = f"{rl}'s lead at k = {early}" if harder is leads[0] else f"{base}'s lead at k = {K}"
    sentence = f"The crossover needs both leads shown, and {lead} is the harder. {harder.sentence}"
    return Power(harder.k, harder.difference, harder.error, harder.problems, samples, harder.modelled, sentence)


def _pair(base_n_M: ArrayLike, base_c_M: ArrayLike, rl_n_M: ArrayLike, rl_c_M: ArrayLike) -> _Pair:
    base, rl = checked_counts(base_n_M, base_c_M), checked_counts(rl_n_M, rl_c_M)
    if base[0].size != rl[0].size or base[0].size < 2:
        raise UserError(
            f"base has {base[0].size} problems and RL has {rl[0].size}: the power of a paired difference needs the "
            "same problems, at least 2"
        )
    K = min(int(base[0].min()), int(rl[0].min()))
    return _Pair((base, rl), pass_curves(*base)[:, :K] - pass_curves(*rl)[:, :K])


def _needed(level: float, power: float) -> float:
    for name, value in (("level", level), ("power", power)):
        if not 0 < value < 1:
            raise UserError(f"{name} is {value}: should be between 0 and 1, such as 0.8")
    return NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(power)


def _power(pair: _Pair, k: int, level: float, power: float, names: tuple[str, str]) -> Power:
    z = _needed(level, power)
    difference_M = pair.difference_MK[:, k - 1]
    difference, variance = float(difference_M.mean()), float(difference_M.var(ddof=1))
    misses = [_misses(n_M, c_M, k) for n_M, c_M in pair.counts]
    modelled = any(2 * k > n_M.min() for n_M, _ in pair.counts)
    now = sum(_mean_noise(miss, k, n_M) for (n_M, _), miss in zip(pair.counts, misses, strict=True))
    between = max(variance - now, 0.0)
    problems = samples = None
    agree = float(np.ptp(difference_M)) <= ROUNDING
    if abs(difference) > ROUNDING:
        problems = max(math.ceil(z**2 * variance / difference**2), _least(difference_M, level))
        if _least(difference_M, level) <= pair.M:
            samples = _fewest(
                pair.n, lambda n: z**2 * (between + sum(noise(miss, k, n) for miss in misses)) <= pair.M * difference**2
            )
    error = None if agree else math.sqrt(variance / pair.M)
    sentence = _sentence(pair, k, difference, error, problems, samples, modelled, power, names)
    return Power(k, difference, error, problems, samples, modelled, sentence)


def _least(difference_M: np.ndarray, level: float) -> int:
    """Problems without which the paired band includes 0 although all agree; 2 where enough differ from one another."""
    if not few_unlike(difference_M[:, None])[0]:
        return 2
    return max(math.ceil(math.log((1 - level) / 2) / -math.log1p(abs(float(difference_M.mean())))), 2)


def _misses(n_M: np.ndarray, c_M: np.ndarray, k: int) -> np.ndarray:
    """[T] mean of (1-p)^t for t = 0..2k: unbiased from the counts where n >= 2k, else of a beta-binomial law."""
    t_T = np.arange(2 * k + 1)
    if n_M.min() >= 2 * k:
        return np.concatenate([[1.0], 1.0 - pass_curve(n_M, c_M)[: 2 * k]])
    if not c_M.any() or (c_M == n_M).all():
        return np.where(t_T == 0, 1.0, float(not c_M.any()))
    return 1.0 - fit_beta_binomial(n_M, c_M, zero_inflated=True).pass_at_k(t_T)


def noise(miss_T: np.ndarray, k: int, n: int) -> float:
    """Mean over problems of the variance of pass@k from n samples, where miss_T[t] is the mean of (1-p)^t, t <= 2k.

    sum_j h(j) q_{2k-j} - q_{2k} with q_t = E[(1-p)^t]: the square of C(n-c, k) / C(n, k) is the chance that two random
    k-subsets are both without a right sample, and they share j samples with the hypergeometric chance h(j).
    """
    tail_J = at_least([n], [k], k)[0]
    share_J = tail_J - np.append(tail_J[1:], 0.0)
    return max(float(share_J @ miss_T[2 * k - np.arange(k + 1)] - miss_T[2 * k]), 0.0)


def _mean_noise(miss_T: np.ndarray, k: int, n_M: np.ndarray) -> float:
    n_N, count_N = np.unique(n_M, return_counts=True)
    return float(np.average([noise(miss_T, k, int(n)) for n in n_N], weights=count_N))


def _fewest(n: int, enough: Callable[[int], bool]) -> int | None:
    """The least number of samples from n on that is enough, or None; what is enough stays so with more."""
    high = n
    while not enough(high):
        high *= 2
        if high > MOST_SAMPLES:
            return None
    low = max(high // 2, n - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _sentence(
    pair: _Pair,
    k: int,
    difference: float,
    error: float | None,
    problems: int | None,
    samples: int | None,
    modelled: bool,
    power: float,
    names: tuple[str, str],
) -> str:
    base, rl = names
    spread = f"standard error {'unknown' if error is None else f'{100 * error:.1f}'}"
    said = f"{base} minus {rl} at k = {k} is {100 * difference:+.1f} points, {spread}"
    alike = f"all {pair.M} problems agree, which tells nothing of problems that do not"
    if problems is None:
        why = "this sample shows no difference to resolve" if error is not None else alike
        return f"{said}: how many problems would show a sign is unknown, for {why}."
    if error is None:
        return f"{said}, for {alike}; {problems:,} problems that agree like these show its sign."
    chance = f"with a chance of {100 * power:g} %"
    if problems <= pair.M:
        return f"{said}: {pair.M} problems like these show its sign {chance}, if it is the true difference."
    more = f"about {problems:,} problems like these (now {pair.M}) would show its sign {chance}"
    if samples is None:
        other = "more samples of these problems would not, for they are too few or differ too much among themselves"
    else:
        by = ", by a fitted beta-binomial law" if modelled else ""
        other = f"or about {samples:,} samples of each of these problems (now {pair.n}{by})"
    return f"{said}. If that is the true difference, {more}{';' if samples is None else ','} {other}."
