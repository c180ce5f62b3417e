"""Composed functions: h(g(f(3141))), one step a function. Procedural; how deep is a parameter.

A function moves the symbols of a string to other places and replaces each by a table, in which some symbols share an
image: a wrong step can end in the right string. The functions are drawn by seed and told nowhere: they are learnt from
demonstrations, of shallow problems in which each of them stands at each place.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase

from rlvr_limit.grading.composition import CompositionAnswer
from rlvr_limit.settings import CompositionConfig
from rlvr_limit.tokenizer import TextTokenizer, word_tokenizer
from rlvr_limit.types import Problem, not_allowed

Symbols = tuple[int, ...]


@dataclass(frozen=True)
class Function:
    """A string's symbol at place i becomes table[string[places[i]]]."""

    name: str
    places: Symbols
    table: Symbols

    def __call__(self, string: Symbols) -> Symbols:
        return tuple(self.table[string[place]] for place in self.places)


def functions(config: CompositionConfig, seed: int) -> tuple[Function, ...]:
    """The functions of a seed, called a, b, c and so on."""
    rng = random.Random(f"composition/{seed}")

    def table() -> Symbols:
        images = rng.sample(range(config.symbols), config.symbols)
        for symbol in rng.choices(range(config.symbols), k=config.shared):
            images[symbol] = images[symbol - 1]
        return tuple(images)

    return tuple(
        Function(name, tuple(rng.sample(range(config.length), config.length)), table())
        for name in ascii_lowercase[: config.functions]
    )


def tokenizer(config: CompositionConfig) -> TextTokenizer:
    """One token per function, symbol and sign."""
    return word_tokenizer(
        (*ascii_lowercase[: config.functions], *map(str, range(config.symbols)), ",", ":"), "composition"
    )


def problems(config: CompositionConfig, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(evaluation problems, training problems), disjoint by hash, chosen by seed: as many of each depth as there are.

    A chain has no function twice. UserError where a depth has too few problems.
    """
    known, words = functions(config, seed), tokenizer(config)
    held_out: list[Problem] = []
    training: list[Problem] = []
    for depth in config.depths:
        if depth > config.functions:
            raise not_allowed("task.depths", depth, f"at most {config.functions}, as no chain has a function twice")
        rng = random.Random(f"composition/{seed}/{depth}")
        wanted = {True: config.eval_problems, False: config.train_problems}
        found: dict[bool, dict[str, Problem]] = {True: {}, False: {}}
        for _ in range(64 * sum(wanted.values())):
            if all(len(found[held]) == wanted[held] for held in wanted):
                break
            chain, string = rng.sample(known, depth), tuple(rng.choices(range(config.symbols), k=config.length))
            problem = _problem(chain, string, words, config)
            held = int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:4], "big") % config.one_in == 0
            if len(found[held]) < wanted[held]:
                found[held][problem.id] = problem
        for held, name in ((True, "eval_problems"), (False, "train_problems")):
            if len(found[held]) < wanted[held]:
                raise not_allowed(
                    f"task.{name}", wanted[held], f"at most {len(found[held])}: so many have depth {depth}"
                )
        held_out += found[True].values()
        training += found[False].values()
    return held_out, training


def _problem(chain: list[Function], string: Symbols, words: TextTokenizer, config: CompositionConfig) -> Problem:
    names, given = "".join(function.name for function in reversed(chain)), _written(string)
    prompt = f"{' '.join(names)} {given} :"
    steps = []
    for function in chain:
        string = function(string)
        steps.append(f"{function.name} {_written(string)}")
    name = f"depth{len(chain)}/{names}-{given.replace(' ', '.')}"
    question = f"{'('.join(names)}({given}{')' * len(chain)}"
    guess_rate = config.symbols**-config.length
    return Problem(name, question, prompt, words.encode(prompt), CompositionAnswer(tuple(steps)), guess_rate)


def _written(string: Symbols) -> str:
    return " ".join(map(str, string))


def demonstrations(
    config: CompositionConfig, seed: int, training: list[Problem], right: float, rng: random.Random
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[()]]]:
    """Endless (prompt ids, answer ids, no images): a share `right` without an error, in the rest one symbol of one step
    is another one, and the steps behind it follow from that.
    """
    words, known = tokenizer(config), {function.name: function for function in functions(config, seed)}
    while True:
        problem = rng.choice(training)
        steps: tuple[str, ...] = problem.answer.steps
        if rng.random() >= right:
            steps = _with_an_error(steps, known, config.symbols, rng)
        yield problem.prompt_ids, (*words.encode(" , ".join(steps)), words.eos_id), ()


def _with_an_error(
    steps: tuple[str, ...], known: dict[str, Function], symbols: int, rng: random.Random
) -> tuple[str, ...]:
    at = rng.randrange(len(steps))
    name, *written = steps[at].split()
    string = [int(symbol) for symbol in written]
    place = rng.randrange(len(string))
    string[place] = (string[place] + rng.randrange(1, symbols)) % symbols
    changed = [f"{name} {_written(tuple(string))}"]
    for step in steps[at + 1 :]:
        string = known[step[0]](tuple(string))
        changed.append(f"{step[0]} {_written(string)}")
    return (*steps[:at], *changed)
