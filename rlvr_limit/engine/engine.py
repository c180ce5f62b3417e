"""The batched sampler: requests go in, finished samples stream out (host side)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.decode_attention import Plan
from rlvr_limit.engine import plans, programs
from rlvr_limit.engine.drawing import Rules
from rlvr_limit.engine.requests import STOP_TOKENS, EngineConfig, Request, check
from rlvr_limit.engine.shapes import Shapes, shapes_of
from rlvr_limit.mesh import mesh_of
from rlvr_limit.model import ModelConfig, Params
from rlvr_limit.scheduler import TRASH, Job, Round, Scheduler, Seat
from rlvr_limit.types import Sample, Stop, UserError

MOVED_PAGES = 8
"""Pages of a sample that go to the host or back in one call."""


class Moment(NamedTuple):
    """The engine at the start of a window: live samples and the rows of the programs they run in, pages held, tokens
    whose keys and values are in use (a prompt's once) or attended to (a prompt's by each of its samples), prompts
    prefilled and samples set back so far."""

    live: int
    rows: int
    pages: int
    tokens: int
    attended: int
    prefills: int
    set_back: int


@dataclass
class _Live:
    """A sample in the making; ended once it has no slot any more."""

    request: Request
    seat: Seat
    last: int
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logp_model: list[float] = field(default_factory=list)
    generated: int = 0
    ended: bool = False


class _Landed(NamedTuple):
    """What a window drew in each of its rows, on the host."""

    rows: list[_Live | None]
    tokens: np.ndarray
    logp: np.ndarray
    logp_model: np.ndarray
    counts: np.ndarray


class Engine:
    """Draws samples from one decoder; parameters can be swapped without compiling again."""

    def __init__(self, params: Params, model: ModelConfig, config: EngineConfig, max_tokens: int):
        """max_tokens bounds every request's own limit and, where config.cache_tokens is 0, sizes the cache."""
        self.model, self.config, self.max_tokens = model, config, max_tokens
        self._mesh = mesh_of(jax.tree.map(jnp.asarray, params))
        self.shapes: Shapes = shapes_of(config, self._mesh, max_tokens)
        self._is_compiled = False
        self._layout = self.layout(self.shapes.buckets[-1])
        self.load(params)

    def load(self, params: Params) -> None:
        """Swaps the weights; shapes and dtypes must be those of the first ones, so nothing is compiled again."""
        self._params = params

    def generate(self, requests: Iterable[Request], watch: Callable[[Moment], None] | None = None) -> Iterator[Sample]:
        """Yields samples as they finish, in no particular order. Raises UserError for a prompt or limit too long.

        Results of a window are handed out while the device works at the next. watch is told of every window.
        """
        run = _Run(self, requests)
        if not self._is_compiled:
            run.compile()
            self._is_compiled = True
        behind: list[_Landed] = []
        while True:
            run.next_round()
            if watch and run.scheduler.live:
                watch(run.moment())
            flights = run.dispatch()
            for landed in behind:
                yield from run.finish(landed)
            if not flights:
                return
            behind = [run.land(*flight) for flight in flights]

    def layout(self, rows: int) -> programs.Layout:
        """What a window of so many rows is compiled for."""
        tile = self.shapes.plan(rows).tile
        return programs.Layout(self._mesh, self.model, self.config.window, tile)

    def check(self, request: Request) -> None:
        """Raises UserError where a request cannot be drawn."""
        check(request, self.config.prompt_places, self.max_tokens, self.model.vocab_size)
        if not self.shapes.holds(request):
            raise UserError(
                f"problem {request.problem_id}: the cache holds {self.shapes.pages - 1} pages of {self.shapes.page} "
                f"tokens on a shard, too few for one sample of {request.sampling.max_tokens} tokens "
                "(engine.cache_tokens)"
            )


class _Run:
    """One pass over requests: the pool of pages, who lies where in it, and what was set back."""

    def __init__(self, engine: Engine, requests: Iterable[Request]):
        self.engine, self.shapes = engine, engine.shapes
        self._known: dict[int, Request] = {}
        self._live: dict[int, _Live] = {}
        self._saved: dict[int, list[programs.Pool]] = {}
        self._prefills = self._set_back = 0
        self.scheduler = Scheduler(self.shapes.scheduler, self._jobs(requests))
        self._layout = engine._layout
        self._pool = programs.new_pool(self._layout, self.shapes.shards * self.shapes.pages, self.shapes.page)

    def _jobs(self, requests: Iterable[Request]) -> Iterator[Job]:
        for number, request in enumerate(requests):
            self.engine.check(request)
            self._known[number] = request
            yield Job(number, len(request.prompt_ids) - 1, request.sampling.max_tokens, request.indices)

    def compile(self) -> None:
        """Compiles every program for every bucket and prompt length; jit finds them in its cache when it is called."""
        params, shapes = self.engine._params, self.shapes
        for rows in shapes.buckets:
            nobody = self._sent(rows, [[]] * shapes.shards)[1]
            programs.decode_window.lower(params, self.engine.layout(rows), self._pool, *nobody).compile()
        for places in shapes.prefills:
            programs.prefill.lower(params, self._layout, self._pool, *self._prompts([], places)).compile()
        at = next(self._moved(0, [TRASH]))
        saved = jax.tree.map(lambda x: jax.ShapeDtypeStruct((at.size, *x.shape[1:]), x.dtype), self._pool)
        programs.read_pages.lower(self._layout, self._pool, at).compile()
        programs.write_pages.lower(self._layout, self._pool, at, saved).compile()

    def next_round(self) -> None:
        """Seats samples; saves, prefills and puts back pages as the scheduler says."""
        todo: Round = self.scheduler.next_round()
        for seat, pages in todo.set_back:
            self._saved[id(seat)] = self._read(seat.shard, pages)
        self._set_back += len(todo.set_back)
        self._prefill(todo.prefills)
        for seat in todo.resumed:
            self._write(seat.shard, seat.pages, self._saved.pop(id(seat)))
        for seat in todo.admitted:
            request = self._known[seat.request]
            # The last prompt token is fed by the first decoding step, so that prefill needs no logits.
            self._live[id(seat)] = _Live(request, seat, request.prompt_ids[-1])

    def moment(self) -> Moment:
        """What the scheduler holds now."""
        seats = [seat for seats in self.scheduler.seats for seat in seats]
        prompts = {seat.request for seat in seats}
        tokens = sum(seat.filed for seat in seats) + sum(self.scheduler.job(p).shared for p in prompts)
        attended = sum(seat.filed + self.scheduler.job(seat.request).shared for seat in seats)
        rows = sum(self.shapes.rows_for(n) for n in self._chunks())
        return Moment(len(seats), rows, self.scheduler.held, tokens, attended, self._prefills, self._set_back)

    def _chunks(self) -> list[int]:
        """Live samples of the fullest shard, cut into what one window holds."""
        most, most_rows = max(map(len, self.scheduler.seats)), self.shapes.buckets[-1] // self.shapes.shards
        return [min(most_rows, most - start) for start in range(0, most, most_rows)]

    def dispatch(self) -> list[tuple[list[_Live | None], programs.Drawn]]:
        """Starts a window over all live samples: (who sits in each row, what will be drawn)."""
        shards = [plans.seated(seats) for seats in self.scheduler.seats]
        flights, start = [], 0
        for count in self._chunks():
            rows = self.shapes.rows_for(count)
            part = [seats[start : start + count] for seats in shards]
            start += count
            flights.append(self._start(rows, part))
        self.scheduler.window_done()
        return flights

    def _start(self, rows: int, shards: list[list[Seat]]) -> tuple[list[_Live | None], programs.Drawn]:
        who, sent = self._sent(rows, shards)
        layout = self.engine.layout(rows)
        self._pool, drawn = programs.decode_window(self.engine._params, layout, self._pool, *sent)
        return who, drawn

    def _sent(self, rows: int, shards: list[list[Seat]]) -> tuple[list[_Live | None], tuple[programs.Rows, Plan]]:
        """Who sits in each row of a window, and what the window is sent."""
        sizes = self.shapes.plan(rows)
        plan = plans.plan_of(shards, self.scheduler, sizes, self._is_grouped)
        seats = [seat for part in shards for seat in [*part, *[None] * (sizes.rows - len(part))]]
        who = [self._live[id(seat)] if seat else None for seat in seats]
        return who, jax.tree.map(self._placed, (self._table(who), plan))

    def _placed(self, x: np.ndarray) -> jax.Array:
        return jax.device_put(x, self._layout.place(x.shape, "rows"))

    def _is_grouped(self, request: int) -> bool:
        return self.scheduler.job(request).shared >= self.engine.config.group_from

    def _table(self, who: list[_Live | None]) -> programs.Rows:
        page = self.shapes.page

        def column(value: Callable[[_Live], object], idle: object, dtype: type) -> np.ndarray:
            return np.array([idle if state is None else value(state) for state in who], dtype)

        def filed_in(state: _Live) -> int:
            at = state.seat.filed // page
            return state.seat.pages[at] if at < len(state.seat.pages) else TRASH

        def stops(state: _Live) -> tuple[int, ...]:
            return (*state.request.sampling.stop_tokens, *[-1] * STOP_TOKENS)[:STOP_TOKENS]

        i32, f32 = np.int32, np.float32
        return programs.Rows(
            live_B=column(lambda s: True, False, bool),
            token_B=column(lambda s: s.last, 0, i32),
            length_B=column(lambda s: len(s.request.prompt_ids) - 1 + s.seat.filed, 0, i32),
            generated_B=column(lambda s: s.generated, 0, i32),
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

    def land(self, who: list[_Live | None], drawn: programs.Drawn) -> _Landed:
        """Waits for a window and frees the slots of what ended in it."""
        tokens, logp, logp_model, valid = (np.asarray(x).T for x in drawn[:4])
        goes_on = np.asarray(drawn.live_B)
        counts = valid.sum(axis=1)
        for row, state in enumerate(who):
            if state is None or state.ended:
                continue
            state.generated += int(counts[row])
            state.last = int(tokens[row, -1])
            if not goes_on[row]:
                self._end(state)
        return _Landed(who, tokens, logp, logp_model, counts)

    def finish(self, landed: _Landed) -> Iterator[Sample]:
        """Appends what a window drew to its samples; yields those that are finished."""
        for row, state in enumerate(landed.rows):
            if state is None or id(state.seat) not in self._live:
                continue
            n = int(landed.counts[row])
            state.tokens += landed.tokens[row, :n].tolist()
            state.logp += landed.logp[row, :n].tolist()
            state.logp_model += landed.logp_model[row, :n].tolist()
            stop = _why_stopped(state)
            if stop is None:
                continue
            if not state.ended:
                self._end(state)
            del self._live[id(state.seat)]
            tokens, logp, logp_model = tuple(state.tokens), tuple(state.logp), tuple(state.logp_model)
            yield Sample(state.request.problem_id, state.seat.index, tokens, logp, logp_model, stop)

    def _end(self, state: _Live) -> None:
        state.ended = True
        self._saved.pop(id(state.seat), None)
        self.scheduler.release(state.seat)

    def _prefill(self, wanted: list[tuple[int, list[list[int]]]]) -> None:
        engine, r = self.engine, self.engine.config.prefill_rows
        by_places: dict[int, list[tuple[int, list[list[int]]]]] = {}
        for request, pages in wanted:
            if pages[0]:
                by_places.setdefault(self.shapes.places_for(self._known[request]), []).append((request, pages))
        for places, prompts in by_places.items():
            for start in range(0, len(prompts), r):
                sent = self._prompts(prompts[start : start + r], places)
                self._pool = programs.prefill(engine._params, self._layout, self._pool, *sent)
        self._prefills += len(wanted)

    def _prompts(self, prompts: list[tuple[int, list[list[int]]]], places: int) -> tuple[np.ndarray, jax.Array]:
        """Tokens of up to prefill_rows prompts of at most `places` tokens, and their pages on each shard."""
        r = self.engine.config.prefill_rows
        tokens = np.zeros((r, places), np.int32)
        filed = np.full((self.shapes.shards, r, places // self.shapes.page), TRASH, np.int32)
        for i, (request, pages) in enumerate(prompts):
            ids = self._known[request].prompt_ids
            tokens[i, : len(ids)] = ids
            filed[:, i, : len(pages[0])] = pages
        return tokens, self._placed(filed)

    def _read(self, shard: int, pages: list[int]) -> list[programs.Pool]:
        return [jax.device_get(programs.read_pages(self._layout, self._pool, at)) for at in self._moved(shard, pages)]

    def _write(self, shard: int, pages: list[int], saved: list[programs.Pool]) -> None:
        for at, part in zip(self._moved(shard, pages[: MOVED_PAGES * len(saved)]), saved, strict=True):
            self._pool = programs.write_pages(self._layout, self._pool, at, part)

    def _moved(self, shard: int, pages: list[int]) -> Iterator[np.ndarray]:
        for start in range(0, len(pages), MOVED_PAGES):
            part = pages[start : start + MOVED_PAGES]
            at = np.full((self.shapes.shards, MOVED_PAGES), TRASH, np.int32)
            at[shard, : len(part)] = part
            yield at


def _why_stopped(state: _Live) -> Stop | None:
    keep = state.request.stop(tuple(state.tokens)) if state.request.stop else None
    if keep is not None:
        del state.tokens[keep:], state.logp[keep:], state.logp_model[keep:]
        return Stop.STOP_STRING
    if state.tokens[-1] in state.request.sampling.stop_tokens:
        return Stop.EOS
    return Stop.LENGTH if len(state.tokens) >= state.request.limit(state.seat.index) else None
