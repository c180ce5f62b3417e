"""Guesses change how fast a sample is drawn and nothing else: right or wrong, taken up at any window or dropped."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings
from rlvr_limit.engine import programs
from rlvr_limit.engine.engine import Engine, EngineRun
from rlvr_limit.engine.requests import EngineStats, Request
from rlvr_limit.engine.scheduler import Sequence
from rlvr_limit.engine.speculation import (
    LONG_NGRAM,
    MAX_INDEXED,
    MAX_KEPT,
    SHORT_NGRAM,
    NgramProposer,
    SpeculationPolicy,
)
from rlvr_limit.models.decoder import Params, parameter_specs
from rlvr_limit.settings import MeshConfig
from rlvr_limit.types import Stop
from tests.support.engine_requests import (
    CONFIG,
    LONGEST,
    MODEL,
    asked,
    compilations,
    draw,
    hold_within_rounding,
)
from tests.support.numpy_decoder import random_params
from tests.support.reference_engine import Reference, reference_samples

# Too few pages for all sequences, so that samples are preempted within windows.
DRAFT = replace(CONFIG, max_num_seqs=4, speculative_tokens=4 * CONFIG.steps_per_call, cache_tokens=160)
Guess = Callable[[NgramProposer, Sequence, int], list[int]]


def requests(samples: int = 3) -> list[Request]:
    """Every kind of stop, prompts of all lengths, and one long sample that is alone in the end."""
    return asked(samples)[::2]


@pytest.fixture(scope="module")
def params() -> Params:
    return jax.tree.map(jnp.asarray, random_params(MODEL, seed=3))


@pytest.fixture(scope="module")
def engine(params: Params) -> Engine:
    return Engine(params, MODEL, DRAFT, LONGEST)


@pytest.fixture(scope="module")
def references(params: Params) -> dict[tuple[str, int], Reference]:
    found = [r for request in requests() for r in reference_samples(params, MODEL, request)]
    assert {r.sample.stop for r in found} == set(Stop) - {Stop.UNKNOWN}
    return {(r.sample.problem_id, r.sample.index): r for r in found}


def told(references: dict[tuple[str, int], Reference], wrong: float) -> Guess:
    """Guesses from what is known to come, each token another one with some probability."""
    rng, of_request = np.random.default_rng(0), requests()

    def guess(self: NgramProposer, seq: Sequence, most: int) -> list[int]:
        right = references[of_request[seq.group.number].problem_id, seq.index].sample.tokens
        drawn = len(self._samples[self._numbers[seq]]) - len(self._prompt) if seq in self._numbers else 0
        following = right[drawn : drawn + most]
        return [t if rng.random() >= wrong else int(rng.integers(MODEL.vocab_size)) for t in following]

    return guess


def verify_by(monkeypatch: pytest.MonkeyPatch, share: float, guess: Guess | None = None) -> None:
    """Windows are verified at random, whatever it takes; guesses are the proposer's own, or those of `guess`."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(SpeculationPolicy, "should_propose", lambda *_: True)
    monkeypatch.setattr(SpeculationPolicy, "should_verify", lambda *_: rng.random() < share)
    if guess:
        monkeypatch.setattr(NgramProposer, "propose", guess)


@pytest.mark.parametrize(("share", "wrong"), [(1.0, 0.0), (0.6, 0.3), (1.0, 1.0)])
def test_samples_of_verified_windows_are_those_of_whole_causal_passes_within_rounding(
    engine: Engine, references, monkeypatch: pytest.MonkeyPatch, share: float, wrong: float
):
    verify_by(monkeypatch, share, told(references, wrong))
    drawn, stats = draw(engine, requests())
    hold_within_rounding(drawn, references)
    guessed, accepted, preempted = stats[-1].proposed, stats[-1].accepted, stats[-1].preempted
    print(f"{len(stats)} windows, {accepted} of {guessed} guesses right, {preempted} samples preempted")
    assert guessed > 200 and preempted > 0
    assert accepted == guessed if wrong == 0 else 0 < accepted < (1 - wrong / 2) * guessed


def test_samples_guess_one_another(engine: Engine, references, monkeypatch: pytest.MonkeyPatch):
    verify_by(monkeypatch, 1.0)
    drawn, stats = draw(engine, requests())
    hold_within_rounding(drawn, references)
    print(f"{stats[-1].accepted} of {stats[-1].proposed} guesses right")
    assert stats[-1].accepted > 20


@pytest.mark.slow
def test_guesses_change_no_sample_on_two_shards(params: Params, references, monkeypatch: pytest.MonkeyPatch):
    verify_by(monkeypatch, 0.7, told(references, 0.2))
    wide = replace(DRAFT, max_num_seqs=16, buckets=(4,), speculative_tokens=16 * DRAFT.steps_per_call)
    mesh = make_mesh(MeshConfig(data=2))
    spread = jax.device_put(params, parameter_shardings(parameter_specs(MODEL), mesh))
    drawn, stats = draw(Engine(spread, MODEL, replace(wide, cache_tokens=256), LONGEST), requests())
    hold_within_rounding(drawn, references)
    assert stats[-1].accepted > 100 and {m.rows for m in stats} == {4, 16}


def test_a_program_is_compiled_once_whether_guesses_are_verified_or_not(
    monkeypatch: pytest.MonkeyPatch,
):
    other = replace(MODEL, vocab_size=21, layers=1)
    engine = Engine(jax.tree.map(jnp.asarray, random_params(other)), other, DRAFT, LONGEST)
    verify_by(monkeypatch, 0.5)
    stats: list[EngineStats] = []
    with compilations() as names:
        list(engine.generate(requests(), stats.append))
        assert {"jit(verify_window)", "jit(decode_window)"} < set(names) and len(set(names)) == len(names)
        first = len(names)
        list(engine.generate(requests(2)))
    assert stats[-1].proposed > 0 and len(names) == first


def test_only_buckets_whose_windows_hold_as_many_tokens_as_a_draft_are_verified(params: Params):
    def verified(**change) -> tuple[int, ...]:
        config = replace(CONFIG, buckets=(1, 4), **change)
        return Engine(params, MODEL, config, LONGEST).shapes.verify_buckets

    assert verified() == verified(speculative_tokens=3) == ()
    assert (
        verified(speculative_tokens=4) == (1,)
        and verified(speculative_tokens=63) == (1, 4)
        and verified(speculative_tokens=64) == (1, 4, 16)
    )


runs = st.lists(st.integers(0, 2), max_size=40)


@given(st.lists(runs, min_size=1, max_size=5), runs, st.integers(0, 12))
def test_a_guess_is_what_followed_the_first_occurrence_of_the_longest_known_suffix(samples, prompt, most):
    prompt = (prompt + [7, 7, 7])[-LONG_NGRAM:]
    proposer = NgramProposer(prompt)
    for number, tokens in enumerate(samples):
        proposer.extend(number, tokens)
    proposer.index_new()

    def following(known: list[int]) -> list[int] | None:
        """What stands behind the suffix where it occurs first, by search through all samples."""
        for n in (LONG_NGRAM, SHORT_NGRAM):
            for tokens in ([*prompt, *sample] for sample in samples):
                for at in range(max(n, SHORT_NGRAM), len(tokens)):
                    if len(known) >= n and tokens[at - n : at] == known[-n:]:
                        return tokens[at:]
        return None

    for number, tokens in enumerate(samples):
        known, found = [*prompt, *tokens], []
        while len(found) < most and (more := following([*known, *found])):
            found += more[: most - len(found)]
        assert proposer.propose(number, most) == found


def test_the_first_sample_is_guessed_from_its_own_repetitions_and_a_new_one_from_the_first():
    proposer = NgramProposer([9, 9, 9])
    proposer.extend("a", [1, 2, 3, 4, 1, 2, 3])
    proposer.index_new()
    assert proposer.propose("a", 3) == [4, 1, 2]
    assert proposer.propose("new", 4) == [1, 2, 3, 4]


def test_what_is_kept_and_listed_of_ended_samples_is_bounded():
    proposer, rng = NgramProposer([5] * LONG_NGRAM), np.random.default_rng(0)
    length = MAX_KEPT // 10
    for number in range(15):
        proposer.extend(number, rng.integers(50, size=length).tolist())
        proposer.end(number)
    assert sum(map(len, proposer._samples)) <= MAX_KEPT
    proposer.extend("live", [*range(60, 80)] * 2)
    listed = []
    for _ in range(2 * MAX_KEPT // MAX_INDEXED):
        proposer.index_new()
        listed.append(sum(proposer._indexed))
    assert max(np.diff(listed)) <= MAX_INDEXED + SHORT_NGRAM
    assert len(proposer._first) <= 2 * (MAX_KEPT + 40)
    assert proposer.propose("live", 2) == [60, 61]


def verified_windows(
    seconds: Callable[[bool], float], right: float, windows: int = 400, guessed: int = 56
) -> list[bool]:
    """Which of many windows of 8 rows and 8 tokens are verified."""
    policy, found = SpeculationPolicy(8), []
    for _ in range(windows):
        found.append(policy.should_verify(8, 8, guessed, 64))
        policy.record_time(8, found[-1], seconds(found[-1]))
        policy.record_accepted(guessed, int(right * guessed))
    return found


def test_verifying_is_kept_where_it_is_faster_and_dropped_where_it_is_not():
    # Decoding takes 1 s for 64 tokens. Verifying draws 8 tokens and the right guesses.
    assert sum(verified_windows(lambda verified: 0.3 if verified else 1.0, right=0.9)) > 390
    assert sum(verified_windows(lambda verified: 0.3 if verified else 1.0, right=0.1)) < 30
    assert sum(verified_windows(lambda verified: 1.2 if verified else 1.0, right=0.9)) < 30
    assert not any(verified_windows(lambda verified: 0.1, right=1.0, guessed=0))


def test_what_is_lost_to_verifying_where_it_does_not_pay_is_little():
    for verifying in (0.3, 0.6, 1.0, 2.0):
        for right in (0.0, 0.1, 0.3):
            found = verified_windows(lambda verified, v=verifying: v if verified else 1.0, right)
            took = sum(verifying if verified else 1.0 for verified in found)
            tokens = sum(8 + 56 * right if verified else 64 for verified in found)
            assert tokens / took > 0.95 * 64, (verifying, right)


def test_guesses_are_looked_for_rarely_where_there_are_none_and_always_where_they_pay():
    def looks(guessed: int) -> list[bool]:
        policy, found = SpeculationPolicy(8), []
        policy.record_time(8, False, 1.0)
        for _ in range(160):
            found.append(policy.should_propose(8, 8, 64))
            if found[-1]:
                policy.record_proposed(8, guessed)
                policy.record_accepted(guessed, guessed)
        return found

    assert all(looks(56)) and sum(looks(0)[40:]) == 30
    # After a time without, they are found again as soon as there are some.
    policy = SpeculationPolicy(8)
    policy.record_time(8, False, 1.0)
    for _ in range(40):
        policy.record_proposed(8, 0)
    assert not policy.should_propose(8, 8, 64)
    policy.record_proposed(8, 56)
    assert policy.should_propose(8, 8, 64)


def test_windows_known_in_part_are_verified_sooner():
    policy = SpeculationPolicy(8)
    policy.record_time(8, False, 1.0)
    policy.record_time(8, True, 0.5)
    policy.record_accepted(10, 10)
    assert not policy.should_verify(8, 8, 30, 64) and policy.should_verify(8, 8, 30, 48)


def test_a_window_that_was_slow_once_is_tried_again():
    policy = SpeculationPolicy(8)
    policy.record_time(8, False, 1.0)
    policy.record_accepted(10, 10)
    policy.record_time(8, True, 10.0)
    assert not policy.should_verify(8, 8, 56, 64)
    for _ in range(300):
        policy.record_time(8, False, 1.0)
        policy.record_accepted(10, 10)
    assert policy.should_verify(8, 8, 56, 64)


def test_a_window_that_was_disturbed_does_not_end_verifying():
    def seconds(turn: int) -> float:
        return 5.0 if turn == 20 else 0.3

    policy, verified = SpeculationPolicy(8), []
    for turn in range(40):
        verified.append(policy.should_verify(8, 8, 56, 64))
        policy.record_time(8, verified[-1], seconds(turn) if verified[-1] else 1.0)
        policy.record_accepted(56, 50)
    assert all(verified[1:])


def test_verifying_copies_no_pages():
    engine = Engine(random_params(MODEL), MODEL, DRAFT, LONGEST)
    run = EngineRun(engine, [])
    rows = engine.shapes.verify_buckets[-1]
    idle = engine.call_inputs([None] * rows, [[]] * rows, [[]] * engine.shapes.shards)
    lowered = programs.verify_window.lower(engine.params, engine.program_spec(rows), run._pool, *idle)
    shapes = {"f32[" + ",".join(map(str, x.shape)) + "]" for pair in run._pool for x in pair}
    made = re.findall(r"= (f32\[[\d,]+\])\S* copy\(", lowered.compile().as_text())
    assert made and not shapes & set(made)
