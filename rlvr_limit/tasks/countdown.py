"""Countdown: reach a target from given numbers. Procedural, split by hash, with the exact success rate of guessing.

The rules: two numbers that are there are replaced by their sum, positive difference or product, each result between 1
and max_value, until one number is left. The *random legal policy* takes every legal move with equal chance; its chance
to end on a target is computed exactly, by summing over all ways to play.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from rlvr_limit.grading.countdown import OPERATORS, CountdownAnswer
from rlvr_limit.images import Image
from rlvr_limit.settings import CountdownConfig
from rlvr_limit.tasks.drawn_numbers import draw
from rlvr_limit.tasks.pictures import END, PAD, START, with_pads
from rlvr_limit.tokenizer import TextTokenizer, word_tokenizer
from rlvr_limit.types import Problem, UserError

State = tuple[int, ...]

SEEN = f"{START} {PAD} {END}"
"""An image in words."""


@dataclass(frozen=True)
class Move:
    """a op b = result, and the sorted numbers that are there afterwards."""

    a: int
    op: str
    b: int
    result: int
    after: State

    def text(self) -> str:
        """The step as it stands in an answer."""
        return f"{self.a} {self.op} {self.b} = {self.result}"


@dataclass
class Game:
    """Legal moves and exact outcome chances under one config, remembered as they are computed."""

    config: CountdownConfig
    _moves: dict[State, tuple[Move, ...]] = field(default_factory=dict)
    _outcomes: dict[State, dict[int, float]] = field(default_factory=dict)

    def moves(self, state: State) -> tuple[Move, ...]:
        """All legal moves from a sorted tuple of numbers; equal numbers in different places count separately."""
        if state not in self._moves:
            moves = []
            for i, j in itertools.combinations(range(len(state)), 2):
                small, large = state[i], state[j]
                rest = state[:i] + state[i + 1 : j] + state[j + 1 :]
                for op, apply in OPERATORS.items():
                    result = apply(large, small)
                    if 1 <= result <= self.config.max_value:
                        moves.append(Move(large, op, small, result, tuple(sorted((*rest, result)))))
            self._moves[state] = tuple(moves)
        return self._moves[state]

    def outcomes(self, state: State) -> dict[int, float]:
        """Chance of each last number under the random legal policy, exactly (up to float64 rounding)."""
        if len(state) == 1:
            return {state[0]: 1.0}
        if state not in self._outcomes:
            moves, total = self.moves(state), {}
            for move in moves:
                for target, chance in self.outcomes(move.after).items():
                    total[target] = total.get(target, 0.0) + chance / len(moves)
            self._outcomes[state] = total
        return self._outcomes[state]

    def play(self, state: State, target: int | None, rng: random.Random) -> list[Move]:
        """One way to play: by the random legal policy, or by that policy given that it ends on target."""
        played = []
        while len(state) > 1 and (moves := self.moves(state)):
            chances = None if target is None else [self.outcomes(m.after).get(target, 0.0) for m in moves]
            move = rng.choices(moves, chances)[0]
            played.append(move)
            state = move.after
        return played


def tokenizer(config: CountdownConfig) -> TextTokenizer:
    """One token per number and sign, and where numbers are seen those around an image."""
    words = (*OPERATORS, "=", ",", "->", ":", *map(str, range(config.max_value + 1)))
    return word_tokenizer((*words, *((START, PAD, END) if config.seen else ())), "countdown")


def problems(game: Game, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(evaluation problems, training problems), disjoint by hash, chosen by seed. UserError if there are too few."""
    config, words = game.config, tokenizer(game.config)
    rng = random.Random(f"countdown/{seed}")
    sets = list(itertools.combinations_with_replacement(range(config.low, config.high + 1), config.numbers))
    rng.shuffle(sets)
    held_out: list[tuple[str, State, int, float]] = []
    training: list[tuple[str, State, int, float]] = []
    for numbers in sets:
        outcomes = game.outcomes(numbers)
        for target in config.targets:
            chance = outcomes.get(target, 0.0)
            name = f"{'-'.join(map(str, numbers))}={target}"
            held = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % config.one_in == 0
            if 0 < chance <= (config.guess_max if held else config.train_guess_max):
                (held_out if held else training).append((name, numbers, target, chance))
    for name, wanted, there, limit in (
        ("eval_problems", config.eval_problems, held_out, "guess_max"),
        ("train_problems", config.train_problems, training, "train_guess_max"),
    ):
        if len(there) < wanted:
            raise UserError(f"task.{name} is {wanted}, but only {len(there)} problems pass task.{limit}")
    chosen = rng.sample(held_out, config.eval_problems), rng.sample(training, config.train_problems)
    evaluated, taught = ([_problem(config, *each, words) for each in half] for half in chosen)
    return evaluated, taught


def _problem(
    config: CountdownConfig, name: str, numbers: State, target: int, chance: float, words: TextTokenizer
) -> Problem:
    prompt = f"{SEEN if config.seen else ' '.join(map(str, numbers))} -> {target} :"
    question = f"Use {', '.join(map(str, numbers))} once each to make {target}"
    ids = words.encode(prompt)
    images = (draw(numbers, len(str(config.high))),) if config.seen else ()
    if images:
        ids = with_pads(ids, words.token_id(PAD), images, f"problem {name}")
    return Problem(name, question, prompt, ids, CountdownAnswer(numbers, target), chance, images)


def demonstrations(
    game: Game, training: list[Problem], right: float, rng: random.Random
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[Image, ...]]]:
    """Endless (prompt ids, answer ids, images): a share `right` plays to the target, the rest by the random policy."""
    words = tokenizer(game.config)
    while True:
        problem = rng.choice(training)
        answer: CountdownAnswer = problem.answer
        target = answer.target if rng.random() < right else None
        text = " , ".join(move.text() for move in game.play(answer.numbers, target, rng))
        yield problem.prompt_ids, (*words.encode(text), words.eos_id), problem.images
