"""Guesses of what a sample goes on with, from other samples of its problem, and whether verifying them pays. No jax."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable

LONG, SHORT = 8, 3
"""Tokens of the two suffixes that are looked up, the long one first."""
KEPT = 2**17
"""Tokens of a problem's ended samples that are looked into."""
AT_ONCE = 2**11
"""Tokens that are listed in one go, so that the device does not wait long where thousands have been drawn before."""
MARGIN = 1.1
"""How much more a verified window must be expected to draw in the same time."""
WEIGHT = 0.3
SLOWER = 0.1
"""Weight of a window that took longer than those before, counted as twice as long at most."""
FORGET = 0.99
LOOKS = 4
"""Where guesses were too few to pay, they are looked for before one window of so many."""


class Siblings:
    """The samples of one problem, and where each of their short runs of tokens occurred first.

    The first occurrence has the longest way to go: samples that do as others did follow the same one.
    """

    def __init__(self, prompt: Iterable[int]):
        """Guesses for the first tokens of a sample look at the end of its prompt."""
        self._prompt = array("i", [*prompt][-LONG:])
        self._samples: list[array] = []
        self._numbers: dict[Hashable, int] = {}
        self._listed: list[int] = []
        self._behind: dict[int, None] = {}
        self._ended = 0
        self._first: dict[int, tuple[int, int]] = {}

    def extend(self, sample: Hashable, tokens: Iterable[int]) -> None:
        """A live sample has gone on."""
        number = self._numbers.get(sample)
        if number is None:
            number = self._numbers[sample] = len(self._samples)
            self._samples.append(self._prompt[:])
            self._listed.append(SHORT)
        self._samples[number].extend(tokens)
        self._behind[number] = None

    def end(self, sample: Hashable) -> None:
        """A sample is finished: it is kept where there is room."""
        number = self._numbers.pop(sample, None)
        if number is None:
            return
        self._ended += len(self._samples[number])
        if self._ended > KEPT:
            self._ended -= len(self._samples[number])
            self._samples[number] = array("i")
            self._behind.pop(number, None)

    def guess(self, sample: Hashable, most: int) -> list[int]:
        """Up to `most` tokens that followed where the end of the sample, and of what is guessed so far, came first."""
        tail = self._samples[self._numbers[sample]] if sample in self._numbers else self._prompt
        tail, found = tail[-LONG:], []
        while len(found) < most:
            number, at = self._first.get(_run(tail, LONG)) or self._first.get(_run(tail, SHORT)) or (0, 0)
            more = self._samples[number][at : at + most - len(found)] if at else None
            if not more:
                break
            found += more
            tail = (tail + more)[-LONG:]
        return found

    def list_new(self) -> None:
        """Lists what has been drawn since, AT_ONCE tokens at most. A run is listed once a token follows it."""
        left = AT_ONCE
        while self._behind and left > 0:
            number = next(iter(self._behind))
            tokens, start = self._samples[number], self._listed[number]
            end = min(len(tokens), start + left)
            for at in range(start, end):
                for n in (LONG, SHORT):
                    if at >= n:
                        self._first.setdefault(_run(tokens[at - n : at], n), (number, at))
            self._listed[number] = max(start, end)
            left -= end - start
            if end >= len(tokens):
                del self._behind[number]


def _run(tokens: array, n: int) -> int:
    # Two runs of one hash are taken for the same: a guess may be wrong.
    return hash((n, *tokens[-n:]))


class Pace:
    """Whether a window over so many rows is better verified than decoded, from what both have taken so far."""

    def __init__(self, window: int):
        self._window = window
        self._share = 0.5
        self._found = float(window)
        self._turn = 0
        self._decoding: dict[int, float] = {}
        self._verifying: dict[int, float] = {}
        self._since: dict[int, int] = {}

    def looks(self, rows: int, live: int, decoded: int) -> bool:
        """Whether guesses are to be looked for: where as many as there were lately would pay; else now and then."""
        self._turn += 1
        return self._turn % LOOKS == 0 or self.pays(rows, live, int(self._found * live), decoded)

    def found(self, live: int, guessed: int) -> None:
        """So many guesses were found for `live` samples."""
        self._found = _mixed(self._found, guessed / live)

    def pays(self, rows: int, live: int, guessed: int, decoded: int) -> bool:
        """Whether `live` samples in a program of `rows` rows, with so many guesses in all, are to be verified.

        decoded is how many tokens decoding would draw: fewer than live windows where some are known in part.

        Before it was tried, verifying is taken to last as long as one step of decoding, which it is where the time
        goes into reading weights.
        """
        decoding = self._decoding.get(rows)
        if decoding is None:
            return False
        forgotten = FORGET ** self._since.get(rows, 0)
        verifying = max(forgotten * self._verifying.get(rows, 0.0), decoding / self._window)
        expected = (live + self._share * guessed) / verifying
        return expected > MARGIN * decoded / decoding

    def took(self, rows: int, verified: bool, seconds: float) -> None:
        """A window has taken so long. One that was slow for other reasons is forgotten in time, and tried again."""
        known = self._verifying if verified else self._decoding
        old = known.get(rows, seconds)
        # What disturbs a window makes it slower and never faster: one that took longer says little.
        known[rows] = _mixed(old, seconds) if seconds < old else old + SLOWER * (min(seconds, 2 * old) - old)
        self._since[rows] = 0 if verified else self._since.get(rows, 0) + 1

    def saw(self, guessed: int, right: int) -> None:
        """So many of the guesses of a window were right, whether they were verified or decoding drew the same."""
        if guessed:
            self._share = _mixed(self._share, right / guessed)


def _mixed(old: float, new: float) -> float:
    return (1 - WEIGHT) * old + WEIGHT * new
