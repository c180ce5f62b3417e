"""Chains over suffixes leave p^alpha as it is and reach it: against all answers written out, by table and by engine."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.metropolis import log_ratio, sharpened
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.engine.shapes import segment_engine_config
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.settings import EngineConfig, Sharpen
from rlvr_limit.types import Sample, SamplingParams, Stop
from tests.support.numpy_decoder import in_float64, numpy_log_softmax, random_params

END, VOCABULARY, LONGEST = 0, 3, 3
STEPS = 16
ALPHA = 2.0
Answer = tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """A model as a function from what stands behind the prompt to log-probs [V], and its answers."""

    logp: Callable[[Answer], np.ndarray]
    longest: int
    vocabulary: int

    def answers(self, longest: int) -> list[Answer]:
        """All that end within so many tokens, or are cut there."""
        some = itertools.chain(*(itertools.product(range(self.vocabulary), repeat=n) for n in range(1, longest + 1)))
        return [y for y in some if END not in y[:-1] and (y[-1] == END or len(y) == longest)]

    def sample(self, answer: Answer, temperature: float) -> Sample:
        """The answer with its log-probs."""
        rows = [self.logp(answer[:i]) for i in range(len(answer))]
        drawn = [row / temperature - np.log(np.exp(row / temperature).sum()) for row in rows]
        model, own = (tuple(float(r[t]) for r, t in zip(x, answer, strict=True)) for x in (rows, drawn))
        return Sample("p", 0, answer, own, model, Stop.EOS if answer[-1] == END else Stop.LENGTH)

    def generate(self, requests: Iterable[Request], watch: object = None) -> Iterator[Sample]:
        """What the engine does, for a prompt of one token."""
        for request in requests:
            kept = request.prompt_ids[1:]
            for index in request.indices:
                rng, new = np.random.default_rng([*request.key, index]), ()
                while len(new) < request.sampling.max_tokens and END not in new:
                    p = np.exp(self.logp((*kept, *new)) / request.sampling.temperature)
                    new += (int(np.searchsorted(np.cumsum(p / p.sum()), rng.random())),)
                whole = self.sample((*kept, *new), request.sampling.temperature)
                at = len(kept)
                own = replace(whole, tokens=new, logp=whole.logp[at:], logp_model=whole.logp_model[at:])
                yield replace(own, problem_id=request.problem_id, index=index)


def table() -> Table:
    def logp(before: Answer) -> np.ndarray:
        return np.log(np.random.default_rng([7, *before]).dirichlet(np.ones(VOCABULARY)))

    return Table(functools.cache(logp), LONGEST, VOCABULARY)


def power(model: Table, alpha: float) -> np.ndarray:
    """p^alpha / Z over all answers."""
    p = np.array([np.exp(alpha * sum(model.sample(y, 1.0).logp_model)) for y in model.answers(model.longest)])
    return p / p.sum()


Ratio = Callable[[Sample, Sample, int, float], float]


def kernel(model: Table, alpha: float, ratio: Ratio) -> np.ndarray:
    """[from, to] chances of a step, by going through all cuts and all suffixes."""
    answers = model.answers(model.longest)
    states = [model.sample(y, 1 / alpha) for y in answers]
    step = np.zeros((len(states), len(states)))
    for (i, old), (j, new) in itertools.product(enumerate(states), repeat=2):
        for cut in range(len(old.tokens)):
            if new.tokens[:cut] == old.tokens[:cut] and len(new.tokens) > cut:
                proposed = np.exp(sum(new.logp[cut:])) / len(old.tokens)
                step[i, j] += proposed * min(1.0, np.exp(ratio(old, new, cut, alpha)))
    return step + np.diag(1 - step.sum(axis=1))


def chi_square(model: Table, samples: Iterable[Sample], p: np.ndarray) -> float:
    """The p-value of answers; those of fewer than 5 expected are put together."""
    places = {y: i for i, y in enumerate(model.answers(model.longest))}
    counts = np.bincount([places[s.tokens] for s in samples], minlength=len(places))
    expected = p * counts.sum()
    rare = expected < 5
    counts, expected = (np.append(x[~rare], x[rare].sum()) for x in (counts, expected))
    kept = expected > 0
    return float(stats.chi2.sf(((counts - expected)[kept] ** 2 / expected[kept]).sum(), kept.sum() - 1))


def asked(model: Table, n: int, alpha: float) -> Request:
    sampling = SamplingParams(1 / alpha, max_tokens=model.longest, stop_tokens=(END,))
    return Request("p", (1,), prompt_key(5, "eval", "p"), range(n), sampling)


def start(model: Table) -> np.ndarray:
    """What chains begin with: token by token at temperature 1 / alpha."""
    return np.array([np.exp(sum(model.sample(y, 1 / ALPHA).logp)) for y in model.answers(model.longest)])


def hold_power(model: Table, drawn: list[Sample]) -> None:
    """p^alpha, which so many steps reach but for less than can be seen, and not what chains begin with."""
    p = power(model, ALPHA)
    left = start(model) @ np.linalg.matrix_power(kernel(model, ALPHA, log_ratio), STEPS) - p
    assert np.abs(left).sum() < 0.01
    assert chi_square(model, drawn, p) > 1e-3 > chi_square(model, drawn, start(model))


def test_a_step_is_in_detailed_balance_with_p_to_the_alpha() -> None:
    model = table()
    p, step = power(model, ALPHA), kernel(model, ALPHA, log_ratio)
    flow = p[:, None] * step
    np.testing.assert_allclose(flow, flow.T, atol=1e-14)
    assert len({len(y) for y in model.answers(LONGEST)}) == LONGEST  # or the cut's chance would not show


@pytest.mark.parametrize("left_out", ["the cut's chance", "what proposals are drawn from", "alpha"])
def test_without_any_of_its_parts_a_step_is_not(left_out: str) -> None:
    def wrong(old: Sample, new: Sample, kept: int, alpha: float) -> float:
        right = log_ratio(old, new, kept, alpha)
        model, drawn = (sum(getattr(new, x)[kept:]) - sum(getattr(old, x)[kept:]) for x in ("logp_model", "logp"))
        parts = {
            "the cut's chance": np.log(len(old.tokens) / len(new.tokens)),
            "what proposals are drawn from": -drawn,
            "alpha": (alpha - 1) * model,
        }
        return right - parts[left_out]

    model = table()
    p = power(model, ALPHA)
    assert np.abs(p @ kernel(model, ALPHA, wrong) - p).max() > 1e-3


@pytest.mark.parametrize("block", [0, 2])
def test_chains_come_to_p_to_the_alpha(block: int) -> None:
    model, n = table(), 800
    drawn = list(sharpened(model.generate, Sharpen(ALPHA, STEPS, block), n)([asked(model, n, ALPHA)]))
    assert sorted(s.index for s in drawn) == list(range(n))
    hold_power(model, drawn)


def test_a_few_steps_are_where_exactly_so_many_steps_lead() -> None:
    model, n = table(), 3000
    drawn = list(sharpened(model.generate, Sharpen(ALPHA, 1), n)([asked(model, n, ALPHA)]))
    assert chi_square(model, drawn, start(model) @ kernel(model, ALPHA, log_ratio)) > 1e-3
    assert chi_square(model, drawn, power(model, ALPHA)) < 1e-3


def test_a_chain_depends_on_its_key_and_index_alone_and_tells_what_it_took() -> None:
    model, taken = table(), []

    def counting(requests: Iterable[Request], watch: object = None) -> Iterator[Sample]:
        for sample in model.generate(requests):
            taken.append(len(sample.tokens))
            yield sample

    how = Sharpen(ALPHA, 4, 2)
    together = list(sharpened(counting, how, 40)([asked(model, 40, ALPHA)]))
    apart = list(sharpened(model.generate, how, 1)([replace(asked(model, 40, ALPHA), indices=range(39, -1, -1))]))
    assert together == sorted(apart, key=lambda s: s.index)
    assert sum(s.drawn for s in together) == sum(taken) > 2 * sum(len(s.tokens) for s in together)
    assert [s.logp_model for s in together] == [model.sample(s.tokens, 1 / ALPHA).logp_model for s in together]
    assert [s.stop for s in together] == [model.sample(s.tokens, 1 / ALPHA).stop for s in together]


@pytest.mark.slow
@pytest.mark.parametrize("block", [0, 2])
def test_the_engine_draws_p_to_the_alpha_of_a_decoder(block: int) -> None:
    config = ModelConfig(vocab_size=4, width=16, layers=2, heads=2, kv_heads=1, head_width=8, ffn_width=32)
    params = random_params(config, 8)
    weights = in_float64(params)
    model, n = (
        Table(functools.cache(lambda before: numpy_log_softmax(weights, config, [1, *before])[-1]), LONGEST, 4),
        2000,
    )
    shapes = segment_engine_config(EngineConfig(max_num_seqs=256, steps_per_call=2, max_prompt_len=1), 1 + LONGEST)
    engine = Engine(jax.tree.map(jnp.asarray, params), config, shapes, LONGEST)
    drawn = list(sharpened(engine.generate, Sharpen(ALPHA, STEPS, block), n)([asked(model, n, ALPHA)]))
    hold_power(model, drawn)
    for sample in drawn[:50]:
        exact = model.sample(sample.tokens, 1 / ALPHA)
        np.testing.assert_allclose(sample.logp_model, exact.logp_model, atol=1e-5)
        np.testing.assert_allclose(sample.logp, exact.logp, atol=1e-5)
