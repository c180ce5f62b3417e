"""pass@k for every k, its bands, the crossover of two arms, and what each arm can solve: all from counts (n, c)."""

from rlvr_limit.passk.bands import Band, fixed_band, paired_band, population_band
from rlvr_limit.passk.caveats import coverage_caveats
from rlvr_limit.passk.crossover import Crossover, crossover
from rlvr_limit.passk.curve import (
    avg_at_n,
    delta_se,
    guess_corrected,
    guess_curve,
    pass_at_k,
    pass_curve,
    pass_curves,
    pass_hat_curves,
    pass_hat_k,
    posterior_curves,
)
from rlvr_limit.passk.guessing import GUESSABLE_BELOW, chain_bounds, guessable, marginal_rates
from rlvr_limit.passk.support import Support, support, unsolved_bound

__all__ = [
    "GUESSABLE_BELOW",
    "Band",
    "Crossover",
    "Support",
    "avg_at_n",
    "chain_bounds",
    "coverage_caveats",
    "crossover",
    "delta_se",
    "fixed_band",
    "guess_corrected",
    "guess_curve",
    "guessable",
    "marginal_rates",
    "paired_band",
    "pass_at_k",
    "pass_curve",
    "pass_curves",
    "pass_hat_curves",
    "pass_hat_k",
    "population_band",
    "posterior_curves",
    "support",
    "unsolved_bound",
]
