"""The share of a gain that a control reaches, against a scan of t tests."""

import numpy as np
import pytest
from scipy import stats

from rlvr_limit.passk import gain_share


def rates(seed: int, problems: int, gain: float, share: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    base_M = rng.uniform(0.1, 0.4, problems)
    arm_M, control_M = (base_M + x + rng.normal(0, 0.1, problems) for x in (gain, share * gain))
    return base_M, arm_M, control_M


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_holds_the_shares_that_a_t_test_cannot_tell_from_the_gain(seed: int) -> None:
    base_M, arm_M, control_M = rates(seed, 40, gain=0.2, share=0.3)
    found = gain_share(base_M, arm_M, control_M)
    assert found.share == pytest.approx((control_M - base_M).mean() / (arm_M - base_M).mean())
    for r, p in ((found.low, 0.05), (found.high, 0.05)):
        left_M = (control_M - base_M) - r * (arm_M - base_M)
        assert stats.ttest_1samp(left_M, 0).pvalue == pytest.approx(p, abs=1e-9)


def test_the_interval_covers_the_true_share_as_often_as_it_says() -> None:
    found = [gain_share(*rates(seed, 30, gain=0.15, share=0.5)) for seed in range(300)]
    inside = np.mean([each is not None and each.low <= 0.5 <= each.high for each in found])
    # Three standard errors of 300 trials.
    assert abs(inside - 0.95) < 3 * (0.95 * 0.05 / 300) ** 0.5


def test_the_share_of_a_gain_that_is_not_resolved_is_unknown_and_an_arms_own_share_is_one() -> None:
    base_M, arm_M, control_M = rates(0, 30, gain=0.0, share=0.0)
    assert gain_share(base_M, arm_M, control_M) is None
    base_M, arm_M, _ = rates(0, 30, gain=0.3, share=0.0)
    same = gain_share(base_M, arm_M, arm_M)
    assert (same.share, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
