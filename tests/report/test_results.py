"""What a report is drawn from: results that contradict themselves are refused, counts fall into the right bins."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_limit.report import Example, tables, write
from rlvr_limit.report.analysis import BINS, analyse, histogram
from rlvr_limit.report.further import further_tables
from rlvr_limit.report.results import check
from rlvr_limit.report.style import spread
from rlvr_limit.report.words import not_resolved, summary
from rlvr_limit.types import UserError
from tests.support.counted_arms import BASE, RL, SHARP, arm, study


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (study([BASE, RL, RL]), "'rl' occurs more than once"),
        (study([BASE, dataclasses.replace(RL, c_M=SHARP + 1)]), "arm rl, problem p0: c_M is 17 of n = 16"),
        (study([BASE, dataclasses.replace(RL, c_M=SHARP / 2)]), "c_M is float64"),
        (study([BASE, dataclasses.replace(RL, no_answer_M=SHARP[1:])]), r"no_answer_M is int64 of shape \(23,\)"),
        (study([BASE, dataclasses.replace(RL, entropy=float("nan"))]), "entropy is nan"),
        (study([BASE, RL], control_of={"rl": "none"}), "'none'"),
        (study([BASE, RL], control_of={"rl": "base"}), "neither the base"),
        (study([BASE, RL], perplexity={("base", "rl"): np.array([1.0, np.inf])}), r"perplexity \(base, rl\)"),
        (study([BASE, RL], training={"rl": [{"reward": 1.0}]}), "training run rl: a row has no 'step'"),
        (study([BASE, RL], examples=(Example("p99", "rl", 0, "", True, "eos"),)), "no problem 'p99'"),
        (study([BASE, RL], problems=(("p0", "q", 2.0),) * 1), "guess rate 2.0"),
    ],
)
def test_a_study_that_contradicts_itself_is_one_clear_line(bad, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        write(bad, tmp_path / "never")
    assert "\n" not in str(error.value) and not (tmp_path / "never").exists()


@given(st.lists(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1))
@settings(max_examples=60, deadline=None)
def test_histogram_bins_are_exact_at_their_edges(counts):
    n_M, c_M = np.array(counts).T
    by_hand = [0] * len(BINS)
    for n, c in counts:
        share = Fraction(c, n)
        by_hand[next(b for b in range(11) if share <= Fraction(b, 10)) if share < 1 else 11] += 1
    assert histogram(n_M, c_M).tolist() == by_hand and sum(by_hand) == len(counts)


MINERVA = {
    "base": (93, 52, 17, 23, 16, 19, 13, 7, 10, 11, 8, 3),
    "rl": (113, 33, 12, 9, 7, 4, 5, 6, 6, 9, 21, 47),
}
"""Fig. 5 of Yue et al. 2025: Qwen2.5-7B and SimpleRL-Zoo 7B on Minerva, 128 samples of 272 problems."""


@pytest.mark.parametrize("published", MINERVA.values(), ids=MINERVA)
def test_published_histogram_of_minerva_is_found_from_counts_at_either_edge_of_its_bins(published):
    """0 and 128 of 128 are bins of their own: without the last one, (.9, 1] would hold 11 and 68 problems."""
    for edge in (lambda b: 128 * (b - 1) // 10 + 1, lambda b: min(128 * b // 10, 127)):
        c_M = np.repeat([0, *map(edge, range(1, 11)), 128], published)
        assert len(c_M) == 272 and histogram(np.full(272, 128), c_M).tolist() == list(published)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.01, 0.2))
def test_spread_keeps_order_and_gap_and_moves_only_what_must(wanted, gap):
    placed = spread(wanted, gap)
    order = np.argsort(wanted, kind="stable")
    assert np.all(np.diff(placed[order]) >= gap - 1e-9)
    assert np.mean(placed) == pytest.approx(np.mean(wanted), abs=1e-9)
    if np.all(np.diff(np.sort(wanted)) > gap):
        np.testing.assert_allclose(placed, wanted, atol=1e-12)


RAGGED = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=5
)


@settings(max_examples=20)
@given(RAGGED)
def test_arms_with_any_numbers_of_samples_have_curves_as_far_as_every_problem_goes(counts):
    base_n_M, rl_n_M, base_c_M, rl_c_M = np.array(counts).T
    pairs = (("base", base_n_M, base_c_M), ("rl", rl_n_M, rl_c_M))
    arms = [dataclasses.replace(arm(name, np.minimum(c_M, n_M), name), n_M=n_M) for name, n_M, c_M in pairs]
    shown = study(arms)
    check(shown)
    found = analyse(shown)
    for one in arms:
        k = int(one.n_M.min())
        assert len(found.curves[one.name].mean_K) == k
        some = [math.comb(n - c, k) / math.comb(n, k) for n, c in zip(one.n_M.tolist(), one.c_M.tolist(), strict=True)]
        assert found.curves[one.name].mean_K[-1] == pytest.approx(1 - np.mean(some), abs=1e-12)
    assert len(found.comparisons[0].difference.mean_K) == min(base_n_M.min(), rl_n_M.min())
    assert further_tables(shown, found) and not_resolved(shown, found) and summary(shown, found)
    for table in (tables.headline, tables.differences, tables.support, tables.efficiency, tables.rates):
        assert len(table(shown, found).rows) in (1, 2)
