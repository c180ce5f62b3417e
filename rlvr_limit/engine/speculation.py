"""Guesses of what a sample goes on with, from other samples of its problem, and whether verifying them pays. No jax."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable

LONG_NGRAM, SHORT_NGRAM = 8, 3
"""Tokens of the two suffixes that are looked up, the long one first."""
MAX_KEPT = 2**17
"""Tokens of a problem's finished samples that are looked into."""
MAX_INDEXED = 2**11
"""Tokens that are indexed in one go, so that the device does not wait long where thousands have been drawn before."""
MARGIN = 1.1
"""How much more a verified window must be expected to draw in the same time."""
WEIGHT = 0.3
"""Of the last window in the running means."""
SLOW_WEIGHT = 0.1
"""Of a window that took longer than those before, counted as twice as long at most."""
FORGET = 0.99
PROPOSE_EVERY = 4
"""Where guesses were too few to pay, they are looked for before one window of so many."""


class NgramProposer:
    """The samples of one problem, and where each of their short runs of tokens occurred first.

    The first occurrence has the longest way to go: samples that do as others did follow the same one.
    """

    def __init__(self, prompt: Iterable[int]):
        """Guesses for the first tokens of a sample look at the end of its prompt."""
        self._prompt = array("i", [*prompt][-LONG_NGRAM:])
        self._samples: list[array] = []
        self._numbers: dict[Hashable, int] = {}  # of the live samples
        self._indexed: list[int] = []  # tokens of each sample
        self._to_index: dict[int, None] = {}  # samples that have gone on since
        self._finished_tokens = 0
        self._first: dict[int, tuple[int, int]] = {}  # hash of a run -> (sample, place of the token that followed)

    def extend(self, sample: Hashable, tokens: Iterable[int]) -> None:
        """A live sample has gone on."""
        number = self._numbers.get(sample)
        if number is None:
            number = self._numbers[sample] = len(self._samples)
            self._samples.append(self._prompt[:])
            self._indexed.append(SHORT_NGRAM)
        self._samples[number].extend(tokens)
        self._to_index[number] = None

    def end(self, sample: Hashable) -> None:
        """A sample is finished: it is kept where there is room."""
        number = self._numbers.pop(sample, None)
        if number is None:
            return
        length = len(self._samples[number])
        if self._finished_tokens + length > MAX_KEPT:
            self._samples[number] = array("i")
            self._to_index.pop(number, None)
        else:
            self._finished_tokens += length

    def propose(self, sample: Hashable, most: int) -> list[int]:
        """Up to `most` tokens that followed where the end of the sample, with what is guessed so far, came first."""
        tail = self._samples[self._numbers[sample]] if sample in self._numbers else self._prompt
        tail, guess = tail[-LONG_NGRAM:], []
        while len(guess) < most:
            first = self._first.get(_run_hash(tail, LONG_NGRAM)) or self._first.get(_run_hash(tail, SHORT_NGRAM))
            number, at = first or (0, 0)
            more = self._samples[number][at : at + most - len(guess)] if at else None
            if not more:
                break
            guess += more
            tail = (tail + more)[-LONG_NGRAM:]
        return guess

    def index_new(self) -> None:
        """Indexes what has been drawn since, MAX_INDEXED tokens at most. A run is indexed once a token follows it."""
        left = MAX_INDEXED
        while self._to_index and left > 0:
            number = next(iter(self._to_index))
            tokens, start = self._samples[number], self._indexed[number]
            end = min(len(tokens), start + left)
            for at in range(start, end):
                for n in (LONG_NGRAM, SHORT_NGRAM):
                    if at >= n:
                        self._first.setdefault(_run_hash(tokens[at - n : at], n), (number, at))
            self._indexed[number] = max(start, end)
            left -= end - start
            if end >= len(tokens):
                del self._to_index[number]


def _run_hash(tokens: array, n: int) -> int:
    # Two runs of one hash are taken for the same: a guess may be wrong.
    return hash((n, *tokens[-n:]))


class SpeculationPolicy:
    """Whether a window over so many rows is better verified than decoded, from what both have taken so far."""

    def __init__(self, steps_per_call: int):
        self._steps = steps_per_call
        self._accepted_share = 0.5
        self._proposed = float(steps_per_call)  # guesses a sample, lately
        self._turn = 0
        self._decode_seconds: dict[int, float] = {}
        self._verify_seconds: dict[int, float] = {}
        self._since_verified: dict[int, int] = {}

    def should_propose(self, rows: int, live: int, decoded: int) -> bool:
        """Whether guesses are to be looked for: where as many as there were lately would pay; else now and then."""
        self._turn += 1
        return self._turn % PROPOSE_EVERY == 0 or self.should_verify(rows, live, int(self._proposed * live), decoded)

    def record_proposed(self, live: int, proposed: int) -> None:
        """So many guesses were found for `live` samples."""
        self._proposed = _mean(self._proposed, proposed / live)

    def should_verify(self, rows: int, live: int, proposed: int, decoded: int) -> bool:
        """Whether `live` samples in a program of `rows` rows, with so many guesses in all, are to be verified.

        decoded is how many tokens decoding would draw: fewer than live windows where some are known in part. Before it
        was tried, verifying is taken to last as long as one step of decoding, as where the time goes into reading
        weights.
        """
        decoding = self._decode_seconds.get(rows)
        if decoding is None:
            return False
        forgotten = FORGET ** self._since_verified.get(rows, 0)
        verifying = max(forgotten * self._verify_seconds.get(rows, 0.0), decoding / self._steps)
        expected = (live + self._accepted_share * proposed) / verifying
        return expected > MARGIN * decoded / decoding

    def record_time(self, rows: int, verified: bool, seconds: float) -> None:
        """A window has taken so long. One that was slow for other reasons is forgotten in time, and tried again."""
        known = self._verify_seconds if verified else self._decode_seconds
        old = known.get(rows, seconds)
        # What disturbs a window makes it slower and never faster: one that took longer says little.
        known[rows] = _mean(old, seconds) if seconds < old else old + SLOW_WEIGHT * (min(seconds, 2 * old) - old)
        self._since_verified[rows] = 0 if verified else self._since_verified.get(rows, 0) + 1

    def record_accepted(self, proposed: int, accepted: int) -> None:
        """So many of a window's guesses were right, whether they were verified or decoding drew the same."""
        if proposed:
            self._accepted_share = _mean(self._accepted_share, accepted / proposed)


def _mean(old: float, new: float) -> float:
    return (1 - WEIGHT) * old + WEIGHT * new
