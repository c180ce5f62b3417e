"""pass@k for every k, its bands, the crossover of two arms, what each arm can solve: from counts (n, c).

The metrics that need more than counts say so: votes.py takes answers, budget_curve lengths, guessing.py judged chains.
"""

from rlvr_limit.passk.adaptive import SecondStageCounts, two_stage_curves
from rlvr_limit.passk.bands import (
    Band,
    GainShare,
    coverage_caveats,
    fixed_band,
    gain_share,
    paired_band,
    population_band,
    wilson,
)
from rlvr_limit.passk.crossover import Crossover, crossover
from rlvr_limit.passk.curve import (
    BudgetCurve,
    auc_log_k,
    avg_at_n,
    bayes_at_n,
    budget_curve,
    delta_se,
    guess_corrected,
    guess_curve,
    pass_at_k,
    pass_curve,
    pass_curves,
    pass_hat_curves,
    posterior_curves,
)
from rlvr_limit.passk.entropy import Sharpened, answer_entropy
from rlvr_limit.passk.extrapolation import BetaBinomial, fit_beta_binomial
from rlvr_limit.passk.guessing import (
    RARE_PERCENT,
    JudgeCounts,
    JudgedCurves,
    RareWins,
    chain_bounds,
    judged_curves,
    marginal_rates,
    rare_wins,
    rarely_right,
)
from rlvr_limit.passk.power import Power, power_at_k, power_of_crossover
from rlvr_limit.passk.reliability import at_least, cover_at_tau, g_pass_at_k, mg_pass_at_k, posterior_cover
from rlvr_limit.passk.runs import (
    AlgorithmRuns,
    RunSpread,
    algorithm,
    algorithm_band,
    algorithm_paired_band,
    run_spread,
    runs_to_resolve,
)
from rlvr_limit.passk.support import BINS, Support, expected_support, halves, support, transitions, unsolved_bound
from rlvr_limit.passk.votes import Votes, count_votes, maj_at_k
