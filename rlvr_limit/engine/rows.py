"""Samples in the making, and what a window is told of the rows they sit in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernels.draw import Rules
from rlvr_limit.engine.programs import Rows
from rlvr_limit.engine.requests import STOP_TOKENS, Request
from rlvr_limit.engine.scheduler import TRASH, Seat
from rlvr_limit.types import Stop


@dataclass
class Live:
    """A sample in the making; ended once it has no slot any more.

    window are its last tokens, those whose keys and values are not filed, at least one.
    """

    request: Request
    seat: Seat
    window: list[int]
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logp_model: list[float] = field(default_factory=list)
    ended: bool = False

    def why_stopped(self) -> Stop | None:
        """Whether the tokens so far are all, and why; the tail behind a stop string is cut."""
        keep = self.request.stop(tuple(self.tokens)) if self.request.stop else None
        if keep is not None:
            del self.tokens[keep:], self.logp[keep:], self.logp_model[keep:]
            return Stop.STOP_STRING
        if self.tokens[-1] in self.request.sampling.stop_tokens:
            return Stop.EOS
        return Stop.LENGTH if len(self.tokens) >= self.request.limit(self.seat.index) else None


def table(who: Sequence[Live | None], guesses: Sequence[Sequence[int]], window: int, page: int) -> Rows:
    """The rows of a window; guesses, one list a row, are what may follow its known tokens."""

    def column(value: Callable[[Live], object], idle: object, dtype: type) -> np.ndarray:
        return np.array([idle if state is None else value(state) for state in who], dtype)

    def filed_in(state: Live) -> int:
        at = state.seat.filed // page
        return state.seat.pages[at] if at < len(state.seat.pages) else TRASH

    def stops(state: Live) -> tuple[int, ...]:
        return (*state.request.sampling.stop_tokens, *[-1] * STOP_TOKENS)[:STOP_TOKENS]

    i32, f32 = np.int32, np.float32
    tokens = np.full((len(who), window), -1, i32)
    for row, (state, guess) in enumerate(zip(who, guesses, strict=True)):
        known = [*(state.window if state else [0]), *guess]
        tokens[row, : len(known)] = known
    return Rows(
        live_B=column(lambda s: True, False, bool),
        token_BW=tokens,
        known_B=column(lambda s: len(s.window), 1, i32),
        length_B=column(lambda s: len(s.request.prompt_ids) - 1 + s.seat.filed, 0, i32),
        # The first of a sample's own tokens is its prompt's last one.
        generated_B=column(lambda s: s.seat.filed, 0, i32),
        limit_B=column(lambda s: s.request.limit(s.seat.index), 0, i32),
        page_B=column(filed_in, TRASH, i32),
        offset_B=column(lambda s: s.seat.filed % page, 0, i32),
        key_B2=column(lambda s: s.request.key, (0, 0), np.uint32),
        index_B=column(lambda s: s.seat.index, 0, i32),
        stops_BE=column(stops, (-1,) * STOP_TOKENS, i32),
        rules=Rules(
            column(lambda s: s.request.sampling.temperature, 1.0, f32),
            column(lambda s: s.request.sampling.top_p, 1.0, f32),
            column(lambda s: s.request.sampling.top_k, 0, i32),
            column(lambda s: s.request.sampling.min_p, 0.0, f32),
        ),
    )
