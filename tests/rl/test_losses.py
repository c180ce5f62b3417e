"""Losses of tokens against loops over their papers' equations, and their gradients against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.models.log_probs import AnswerRows
from rlvr_limit.rl import losses

LENGTHS, PLACES, START = (4, 1, 6, 3, 5), 8, 2
ANSWER = (np.arange(PLACES) >= START) & (np.arange(PLACES) < START + np.array(LENGTHS)[:, None])
PLAIN = rl.Objective(clip_low=0.2, clip_high=0.28)
OBJECTIVES = {
    "plain": PLAIN,
    "penalty": replace(PLAIN, kl=0.7),
    "importance": replace(PLAIN, importance_cap=1.1),
    "all": replace(PLAIN, kl=0.7, importance_cap=1.1),
}


def arrays(objective: rl.Objective, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(log-probs of the policy, the rest of a batch) in float64, the ratio far from 1 in both directions."""
    rng = np.random.default_rng(seed)

    def numbers(deviation: float) -> np.ndarray:
        return np.where(ANSWER, rng.normal(0, deviation, ANSWER.shape), 0.0)

    logp = np.where(ANSWER, rng.uniform(-3, -0.1, ANSWER.shape), 0.0)
    found = {
        "behaviour_BT": logp + numbers(0.4),
        "advantage_BT": numbers(1.0),
        "weight_BT": np.where(ANSWER, rng.uniform(0.1, 1, ANSWER.shape), 0.0),
    }
    if objective.kl:
        found["reference_BT"] = logp + numbers(0.5)
    if objective.importance_cap:
        found["proximal_BT"] = found["behaviour_BT"] + numbers(0.2)
    return logp, found


def batch_of(found: dict[str, np.ndarray]) -> rl.PolicyBatch:
    return rl.PolicyBatch(AnswerRows(np.zeros(ANSWER.shape, np.int32), ANSWER), **found)


def slow_objective(logp: np.ndarray, found: dict[str, np.ndarray], objective: rl.Objective) -> np.ndarray:
    """Each token by the equations, in float64."""
    out = np.zeros(ANSWER.shape)
    for i, t in zip(*np.nonzero(ANSWER), strict=True):
        behaviour, a = found["behaviour_BT"][i, t], found["advantage_BT"][i, t]
        proximal = found["proximal_BT"][i, t] if "proximal_BT" in found else behaviour
        ratio = math.exp(logp[i, t] - proximal)
        bounded = min(max(ratio, 1 - objective.clip_low), 1 + objective.clip_high)
        gain = min(ratio * a, bounded * a)
        if objective.importance_cap:
            gain *= min(math.exp(proximal - behaviour), objective.importance_cap)
        out[i, t] = -gain
        if "reference_BT" in found:
            other = found["reference_BT"][i, t]
            out[i, t] += objective.kl * (math.exp(other) / math.exp(logp[i, t]) - (other - logp[i, t]) - 1)
    return out


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_of_a_token_is_its_equation(name: str):
    objective = OBJECTIVES[name]
    logp, found = arrays(objective)
    small = {key: value.astype(np.float32) for key, value in found.items()}
    mine = losses.token_objective(jnp.asarray(logp, jnp.float32), batch_of(small), objective)
    assert mine.dtype == jnp.float32
    exact = slow_objective(
        logp.astype(np.float32).astype(np.float64), {k: v.astype(np.float64) for k, v in small.items()}, objective
    )
    np.testing.assert_allclose(mine, exact, rtol=1e-6, atol=1e-6)
    assert np.all(np.asarray(mine)[~ANSWER] == 0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_of_a_loss_equals_finite_differences_and_is_zero_where_the_clip_holds(name: str):
    objective = OBJECTIVES[name]
    logp, found = arrays(objective)
    # A derivative across the clip's corner is not one number; none of these tokens lies within a step of it.
    step = 1e-6

    def slow(logp: np.ndarray) -> float:
        return float(np.sum(found["weight_BT"] * slow_objective(logp, found, objective)))

    with jax.enable_x64(True):
        batch = batch_of({key: jnp.asarray(value) for key, value in found.items()})

        def loss(logp: jax.Array) -> jax.Array:
            return jnp.sum(batch.weight_BT * losses.token_objective(logp, batch, objective))

        value, gradient = jax.value_and_grad(loss)(jnp.asarray(logp))
    assert gradient.dtype == np.float64 and value == pytest.approx(slow(logp), rel=1e-12)
    expected = np.zeros(ANSWER.shape)
    for i, t in zip(*np.nonzero(ANSWER), strict=True):
        ahead, behind = logp.copy(), logp.copy()
        ahead[i, t] += step
        behind[i, t] -= step
        expected[i, t] = (slow(ahead) - slow(behind)) / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)
    ratio = np.exp(logp - found.get("proximal_BT", found["behaviour_BT"]))
    a = found["advantage_BT"]
    held = ANSWER & (((ratio > 1.28) & (a > 0)) | ((ratio < 0.8) & (a < 0)))
    assert ((ratio > 1.28) & held).sum() > 0 and ((ratio < 0.8) & held).sum() > 0 and (ANSWER & ~held).sum() > 5
    if not objective.kl:
        np.testing.assert_array_equal(np.asarray(gradient) != 0, ANSWER & ~held)


GSPO = rl.Objective(clip_low=0.03, clip_high=0.04, ratio="sequence")
CISPO = rl.Objective(clip_low=1.0, clip_high=0.3, ratio="weight")


def loss_and_gradient(logp: np.ndarray, batch: rl.PolicyBatch, objective: rl.Objective) -> tuple[float, np.ndarray]:
    with jax.enable_x64(True):
        batch = jax.tree.map(jnp.asarray, batch)
        total = lambda x: jnp.sum(batch.weight_BT * losses.token_objective(x, batch, objective))  # noqa: E731
        value, gradient = jax.value_and_grad(total)(jnp.asarray(logp))
    return float(value), np.asarray(gradient)


def slow_gspo(logp: np.ndarray, behaviour: np.ndarray, advantage: np.ndarray) -> tuple[float, np.ndarray]:
    """Eqs. 5 and 7 of arXiv 2507.18071, and eq. 10, the gradient: of each answer whose ratio is not clipped,
    s A / |y| of every token."""
    total, gradient = 0.0, np.zeros(logp.shape)
    for i in range(len(LENGTHS)):
        ys = np.flatnonzero(ANSWER[i])
        s = (np.exp(logp[i, ys].sum()) / np.exp(behaviour[i, ys].sum())) ** (1 / len(ys))
        a = advantage[i, ys[0]]
        clipped = min(max(s, 1 - GSPO.clip_low), 1 + GSPO.clip_high)
        total -= min(s * a, clipped * a) / len(LENGTHS)
        if s * a <= clipped * a:
            gradient[i, ys] = -s * a / len(ys) / len(LENGTHS)
    return total, gradient


def whole_answers(objective: rl.Objective, aggregation: str, shift: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """arrays() with one advantage an answer, an algorithm's weights, and a policy that has moved as a whole."""
    logp, found = arrays(objective)
    found["advantage_BT"] = np.where(ANSWER, np.array([1.0, -0.7, 1.3, -1.1, 0.6])[:, None], 0.0)
    moved = np.linspace(-shift, shift, len(LENGTHS))[:, None]
    found["behaviour_BT"] = np.where(ANSWER, logp - moved + 0.1 * (found["behaviour_BT"] - logp), 0.0)
    weight = losses.token_weights(ANSWER, np.ones(len(LENGTHS), bool), aggregation, 10)
    return logp, found | {"weight_BT": weight.astype(np.float64)}


def test_gspo_is_its_papers_loss_and_gradient_with_one_ratio_an_answer():
    logp, found = whole_answers(GSPO, "answer", 0.1)
    value, gradient = loss_and_gradient(logp, batch_of(found), GSPO)
    expected, slope = slow_gspo(logp, found["behaviour_BT"], found["advantage_BT"])
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-9)
    held = ~slope.any(axis=1)
    assert 0 < held.sum() < len(LENGTHS), "the clip must hold some answers and not others"


@pytest.mark.parametrize("places", [8, 24])
def test_gspo_has_one_ratio_an_answer_also_where_a_row_holds_several(places: int):
    logp, found = whole_answers(GSPO, "answer", 0.1)
    batch = batch_of(found)
    prompts = np.arange(len(LENGTHS))[:, None] * np.ones((1, PLACES), np.int32)
    batch = batch.replace(rows=batch.rows._replace(tokens_BT=prompts.astype(np.int32)))
    # The log-probs go through packing as one of the arrays of a batch.
    parts = rl.microbatches(batch.replace(reference_BT=logp), 1, places)
    assert len(parts) < len(LENGTHS)
    total, taught = 0.0, []
    for part in parts:
        value, gradient = loss_and_gradient(part.reference_BT, part.replace(reference_BT=None), GSPO)
        total += value
        taught += gradient[part.rows.answer_BT].tolist()
    expected, slope = slow_gspo(logp, found["behaviour_BT"], found["advantage_BT"])
    assert total == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(sorted(taught), sorted(slope[ANSWER]), rtol=1e-6, atol=1e-9)


def test_cispo_is_its_papers_loss_and_its_gradient_flows_through_every_token():
    """Eqs. 4 and 5 of arXiv 2506.13585: the clipped weight is a constant, so that no token is without a gradient."""
    logp, found = whole_answers(CISPO, "token", 0.5)
    value, gradient = loss_and_gradient(logp, batch_of(found), CISPO)
    total, slope, tokens = 0.0, np.zeros(ANSWER.shape), sum(LENGTHS)
    for i, t in zip(*np.nonzero(ANSWER), strict=True):
        weight = min(math.exp(logp[i, t]) / math.exp(found["behaviour_BT"][i, t]), 1.3)
        total -= weight * found["advantage_BT"][i, t] * logp[i, t] / tokens
        slope[i, t] = -weight * found["advantage_BT"][i, t] / tokens
    assert value == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(gradient != 0, ANSWER)
    ratio = np.exp(logp - found["behaviour_BT"])
    assert (ANSWER & (ratio > 1.3)).any() and (ANSWER & (ratio < 0.7)).any()


@pytest.mark.parametrize("objective", [GSPO, CISPO], ids=["gspo", "cispo"])
def test_one_ratio_an_answer_and_detached_weights_are_finite_where_policies_are_far_apart(objective: rl.Objective):
    edge = np.array([0.0, -1.0, -101.0, -np.inf], np.float32)
    logp, behaviour = (x.ravel()[:, None] for x in np.meshgrid(edge, edge))
    ones = np.ones(logp.shape, np.float32)
    batch = rl.PolicyBatch(AnswerRows(ones.astype(np.int32), ones.astype(bool)), behaviour, ones, ones)
    value, gradient = loss_and_gradient(logp, batch, objective)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_on_policy_a_good_token_is_made_likelier_and_a_bad_one_less():
    logp = np.where(ANSWER, -1.0, 0.0).astype(np.float32)
    for sign in (1, -1):
        advantage = np.where(ANSWER, sign, 0).astype(np.float32)
        batch = batch_of({"behaviour_BT": logp, "advantage_BT": advantage, "weight_BT": ANSWER.astype(np.float32)})
        gradient = jax.grad(lambda x, b=batch: jnp.sum(b.weight_BT * losses.token_objective(x, b, PLAIN)))(logp)
        np.testing.assert_allclose(gradient, -advantage, rtol=1e-6)


def test_clip_higher_lets_a_good_token_grow_further():
    logp = jnp.full((1, 1), math.log(1.25))
    one = jnp.ones((1, 1))
    batch = rl.PolicyBatch(AnswerRows(one, one), jnp.zeros((1, 1)), one, one)
    moves = [
        float(jax.grad(lambda x, o=o: losses.token_objective(x, batch, o).sum())(logp)[0, 0])
        for o in (rl.Objective(0.2, 0.2), rl.Objective(0.2, 0.28))
    ]
    assert moves[0] == 0 and moves[1] == pytest.approx(-1.25)


def test_k3_is_never_below_zero_zero_at_the_reference_and_draws_towards_it():
    d = np.linspace(-3, 3, 61)
    reference = np.full(61, -2.0)
    with jax.enable_x64(True):
        found = np.asarray(losses.k3(jnp.asarray(reference - d), jnp.asarray(reference)))
        gradient = np.asarray(jax.vmap(jax.grad(losses.k3))(jnp.asarray(reference - d), jnp.asarray(reference)))
    np.testing.assert_allclose(found, np.exp(d) - d - 1, rtol=1e-9, atol=1e-12)
    assert np.all(found >= 0) and found[30] == 0
    # d > 0: the policy likes the token less than the reference does, and minimising raises its log-prob.
    assert np.all(np.sign(gradient) == -np.sign(np.round(d, 9)))


def test_mean_of_k3_over_the_policys_own_tokens_is_the_kl_divergence():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), 2)
    exact = float(np.sum(p * np.log(p / q)))
    found = float(np.sum(p * np.asarray(losses.k3(jnp.log(p), jnp.log(q)))))
    assert found == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
@pytest.mark.parametrize("sign", [1, 0, -1])
def test_numbers_at_the_edge_leave_every_gradient_finite_and_none_where_the_weight_is_0(objective, sign):
    """Each of two policies 100 nats from the other, or with no chance of a token at all, on either side."""
    edge = np.array([0.0, -1.0, -101.0, -np.inf], np.float32)
    logp, behaviour, proximal, reference = (jnp.asarray(x.ravel()[None]) for x in np.meshgrid(edge, edge, edge, edge))
    weight = np.where(np.arange(logp.size) % 2, 0.5, 0.0).astype(np.float32)[None]
    batch = rl.PolicyBatch(
        AnswerRows(np.zeros(logp.shape, np.int32), np.ones(logp.shape, bool)),
        behaviour,
        np.full(logp.shape, sign, np.float32),
        weight,
        reference_BT=reference if objective.kl else None,
        proximal_BT=proximal if objective.importance_cap else None,
    )
    total = lambda x: jnp.sum(batch.weight_BT * losses.token_objective(x, batch, objective))  # noqa: E731
    value, gradient = jax.value_and_grad(total)(jnp.asarray(logp))
    assert np.isfinite(value) and np.isfinite(gradient).all() and not np.asarray(gradient)[weight == 0].any()
    if not sign and not objective.kl:
        assert not np.asarray(gradient).any()


def test_k3_is_bounded_and_still_draws_away_from_what_the_reference_never_says():
    reference, logp = jnp.array([-1.0, -101.0, -jnp.inf, -jnp.inf]), jnp.array([-101.0, -1.0, -1.0, -jnp.inf])
    found, gradient = jax.vmap(jax.value_and_grad(losses.k3))(logp, reference)
    np.testing.assert_allclose(found, [math.exp(20) - 21, 99, 999, 0], rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("value_clip", [0.0, 0.3])
def test_value_loss_is_its_equation_and_its_gradient_equals_finite_differences(value_clip: float):
    objective = replace(PLAIN, value_clip=value_clip, value_coefficient=0.5)
    rng = np.random.default_rng(1)
    value, before, target = (np.where(ANSWER, rng.normal(size=ANSWER.shape), 0.0) for _ in range(3))

    def slow(value: np.ndarray) -> np.ndarray:
        out = np.zeros(ANSWER.shape)
        for i, t in zip(*np.nonzero(ANSWER), strict=True):
            error = (value[i, t] - target[i, t]) ** 2
            if value_clip:
                near = min(max(value[i, t], before[i, t] - value_clip), before[i, t] + value_clip)
                error = max(error, (near - target[i, t]) ** 2)
            out[i, t] = 0.5 * error
        return out

    with jax.enable_x64(True):
        zeros = np.zeros(ANSWER.shape)
        given = {"behaviour_BT": zeros, "advantage_BT": zeros, "weight_BT": zeros}
        batch = batch_of({k: jnp.asarray(v) for k, v in (given | {"value_BT": before, "return_BT": target}).items()})
        found = losses.value_objective(jnp.asarray(value), batch, objective)
        gradient = jax.grad(lambda v: losses.value_objective(v, batch, objective).sum())(jnp.asarray(value))
    np.testing.assert_allclose(found, slow(value), rtol=1e-12, atol=1e-15)
    step = 1e-6
    expected = np.zeros(ANSWER.shape)
    for i, t in zip(*np.nonzero(ANSWER), strict=True):
        ahead, behind = value.copy(), value.copy()
        ahead[i, t] += step
        behind[i, t] -= step
        expected[i, t] = (slow(ahead) - slow(behind)).sum() / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)
    assert not value_clip or np.any(ANSWER & (np.asarray(gradient) == 0))


def test_weights_are_the_aggregations_equations_and_leave_out_prompts_padding_and_masked_answers():
    kept = np.array([True, True, False, True, True])
    ones = {name: losses.token_weights(ANSWER, kept, name, 10) for name in ("answer", "token", "constant")}
    tokens = sum(length for length, keep in zip(LENGTHS, kept, strict=True) if keep)
    for i, t in np.ndindex(ANSWER.shape):
        counts = ANSWER[i, t] and kept[i]
        assert ones["answer"][i, t] == pytest.approx(1 / LENGTHS[i] / 4 if counts else 0.0, rel=1e-6)
        assert ones["token"][i, t] == pytest.approx(1 / tokens if counts else 0.0, rel=1e-6)
        assert ones["constant"][i, t] == pytest.approx(1 / 10 / 5 if counts else 0.0, rel=1e-6)
    assert ones["answer"].sum() == pytest.approx(1) and ones["token"].sum() == pytest.approx(1)
    for name in ones:
        assert np.all(losses.token_weights(ANSWER, np.zeros(5, bool), name, 10) == 0)


@pytest.mark.parametrize(("rows", "places"), [(1, 8), (2, 9), (1, 16)])
def test_a_mean_over_tokens_weighs_all_tokens_of_a_step_alike_however_microbatches_cut_it(rows: int, places: int):
    """Eq. 8 of DAPO, its sum over all answers of a step, transcribed; the mean of microbatches' means is another."""
    _, found = arrays(PLAIN)
    found["weight_BT"] = losses.token_weights(ANSWER, np.ones(5, bool), "token", 10)
    parts = rl.microbatches(batch_of(found), rows, places)
    total = means = 0.0
    for part in parts:
        assert {*np.unique(part.weight_BT)} <= {np.float32(0), np.float32(1 / sum(LENGTHS))}
        total += np.sum(part.weight_BT.astype(np.float64) * part.advantage_BT)
        means += np.mean(part.advantage_BT[part.rows.answer_BT]) / len(parts)
    ends = [START + length for length in LENGTHS]
    summed = sum(found["advantage_BT"][i, t] for i, end in enumerate(ends) for t in range(START, end))
    assert len(parts) > 1 and total == pytest.approx(summed / sum(LENGTHS), rel=1e-6)
    assert abs(means - total) > 1e-3


def test_loss_does_not_see_what_stands_outside_answers_or_in_masked_ones():
    logp, found = arrays(OBJECTIVES["penalty"])
    kept = np.array([True, False, True, True, True])
    found["weight_BT"] = losses.token_weights(ANSWER, kept, "answer", 10).astype(np.float64)

    def loss(logp: np.ndarray, found: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
        batch = batch_of({key: jnp.asarray(value, jnp.float32) for key, value in found.items()})
        total = lambda x: jnp.sum(batch.weight_BT * losses.token_objective(x, batch, OBJECTIVES["penalty"]))  # noqa: E731
        value, gradient = jax.value_and_grad(total)(jnp.asarray(logp, jnp.float32))
        return float(value), np.asarray(gradient)

    counted = ANSWER & kept[:, None]
    value, gradient = loss(logp, found)
    rng = np.random.default_rng(3)
    other = {name: np.where(counted, x, rng.normal(size=x.shape)) for name, x in found.items() if name != "weight_BT"}
    again, gradient_again = loss(np.where(counted, logp, -0.5), other | {"weight_BT": found["weight_BT"]})
    assert again == value and np.all(gradient[~counted] == 0) and np.all(gradient_again[~counted] == 0)
    np.testing.assert_array_equal(gradient, gradient_again)


def test_constant_divisor_does_not_prefer_short_wrong_answers_but_the_mean_of_each_does():
    """Dr.GRPO's point: per token, a long answer's weight must not be less than a short one's."""
    kept = np.ones(5, bool)
    each = losses.token_weights(ANSWER, kept, "answer", 10)[:, START]
    assert each[1] > each[2]
    for name in ("token", "constant"):
        assert np.ptp(losses.token_weights(ANSWER, kept, name, 10)[:, START]) == 0


def test_other_ranks_and_dtypes_are_refused():
    logp, found = arrays(PLAIN)
    batch = batch_of({key: value.astype(np.float32) for key, value in found.items()})
    for wrong in (logp.astype(np.float16), logp[0].astype(np.float32), logp[:, :3].astype(np.float32)):
        with pytest.raises(AssertionError):
            losses.token_objective(jnp.asarray(wrong), batch, PLAIN)
    with pytest.raises(AssertionError):
        losses.token_weights(ANSWER, np.ones(5, bool), "sum", 10)
