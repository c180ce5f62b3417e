"""The nouns every module shares: frozen records and the ranges of their fields; no jax."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any


class UserError(Exception):
    """Bad input: one clear line for the user; the job's door prints it and exits with a code that is not 0."""


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).partition("\n")[0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: the host's, or by XLA's word a device's."""
    said = str(error)
    # XLA:CPU says the second where a program waited for the arguments of another.
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said or "Out of memory allocating" in said


def not_allowed(where: str, value: object, allowed: str) -> UserError:
    """The error of a value that cannot be, to be raised: `sampling.top_p: 1.5 is not in (0, 1]`.

    where names the field, the file and line, or the problem; allowed reads on from "is not".
    """
    return UserError(f"{where}: {value!r} is not {allowed}")


UNKNOWN = "unknown"
"""What nobody recorded of samples that others drew."""


class Stop(enum.StrEnum):
    """Why a sample ended. LENGTH means truncated, which is not the same as wrong; UNKNOWN only others' samples are."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    UNKNOWN = UNKNOWN


class Status(enum.StrEnum):
    """What became of grading. Only GRADED and NO_ANSWER say anything about the sample; the rest are ours to own."""

    GRADED = "graded"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True)
class Problem:
    """One question with its rendered prompt and the reference the grader needs.

    guess_rate is the chance that a policy which only knows the rules is right (metrics.md item 7), if known.
    """

    id: str
    question: str
    prompt: str
    prompt_ids: tuple[int, ...]
    answer: Any
    guess_rate: float | None = None
    images: tuple[Any, ...] = ()  # of rlvr_limit.images, in the order of their places in the prompt

    @property
    def identity(self) -> str:
        """What names a prompt and its random numbers: its text, and what is seen of its images."""
        return "\n".join([self.prompt, *(image.digest for image in self.images)])


@dataclass(frozen=True)
class AtLeast:
    """A range of numbers, as all ranges declared beside a field: `n: Annotated[int, AtLeast(1)] = 8`."""

    least: float

    def __contains__(self, value: float) -> bool:
        return value >= self.least

    def __str__(self) -> str:
        return f"at least {self.least}"


@dataclass(frozen=True)
class Interval:
    """A range of numbers between two ends, with square brackets at an end that belongs to it: "(0, 1]"."""

    text: str

    def __contains__(self, value: float) -> bool:
        low, high = map(float, self.text[1:-1].split(","))
        above = value >= low if self.text[0] == "[" else value > low
        return above and (value <= high if self.text[-1] == "]" else value < high)

    def __str__(self) -> str:
        return f"in {self.text}"


class OneOf(tuple[str, ...]):
    """A range of names."""

    def __new__(cls, *names: str) -> OneOf:
        return super().__new__(cls, names)

    def __str__(self) -> str:
        return f"one of {', '.join(name or repr(name) for name in self)}"


RANGES = (AtLeast, Interval, OneOf)


@dataclass(frozen=True)
class TokenSampling:
    """How a token is drawn: temperature first, then top-k, then top-p of what is left, then min-p."""

    temperature: Annotated[float, AtLeast(0)] = 1.0  # 0: always the likeliest token
    top_p: Annotated[float, Interval("(0, 1]")] = 1.0  # the likeliest tokens that have this probability together
    _: KW_ONLY
    top_k: Annotated[int, AtLeast(0)] = 0  # the k likeliest tokens; 0: all
    min_p: Annotated[float, Interval("[0, 1]")] = 0.0  # tokens of at least min_p times the likeliest one's probability


@dataclass(frozen=True)
class SamplingParams(TokenSampling):
    """How an answer is drawn: its tokens, and where it ends."""

    max_tokens: int = 32
    stop_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One drawn answer. tokens includes the stop token where it was sampled.

    logp is under the distribution it was drawn from (engine/metropolis.py: that of its proposals), logp_model under the
    model at temperature 1; nats, one per token.
    """

    problem_id: str
    index: int
    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    logp_model: tuple[float, ...]
    stop: Stop
    drawn: int = 0  # tokens that were drawn to get it, its own among them; 0: its own alone


@dataclass(frozen=True)
class Verdict:
    """What the grader made of one sample's text."""

    correct: bool
    status: Status
    extracted: str = ""
    detail: str = ""


Grader = Callable[[Problem, str], Verdict]
"""A pure function from a problem and an answer's text to a verdict."""
