"""The batched sampler: requests go in, finished samples stream out (host side)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.decode_attention import Plan
from rlvr_limit.distributed.mesh import mesh_of, placed
from rlvr_limit.engine import plans, programs
from rlvr_limit.engine.requests import Request, check
from rlvr_limit.engine.rows import Live, table
from rlvr_limit.engine.scheduler import TRASH, Job, Round, Scheduler, Seat
from rlvr_limit.engine.shapes import Shapes, shapes_of
from rlvr_limit.engine.speculation import Pace, Siblings
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import Sample, UserError

MOVED_PAGES = 8
"""Pages of a sample that go to the host or back in one call."""


class Moment(NamedTuple):
    """The engine at the start of a window: live samples and the rows of the programs they run in, pages held, tokens
    whose keys and values are in use (a prompt's once) or attended to (a prompt's by each of its samples); so far:
    prompts prefilled, samples set back, guesses that were verified and those of them that were right."""

    live: int
    rows: int
    pages: int
    tokens: int
    attended: int
    prefills: int
    set_back: int
    guessed: int
    accepted: int


class _Flight(NamedTuple):
    """A window under way: who sits in each row, how many of its tokens were known and what was guessed to follow."""

    who: list[Live | None]
    known: list[int]
    guesses: list[list[int]]
    verified: bool
    drawn: programs.Drawn


class _Landed(NamedTuple):
    """What a window drew in each of its rows, on the host: counts_B new tokens from place first_B on."""

    who: list[Live | None]
    first_B: np.ndarray
    counts_B: np.ndarray
    token_BW: np.ndarray
    logp_BW: np.ndarray
    logp_model_BW: np.ndarray


class Engine:
    """Draws samples from one decoder; parameters can be swapped without compiling again."""

    def __init__(self, params: Params, model: ModelConfig, config: EngineConfig, max_tokens: int):
        """max_tokens bounds every request's own limit and, where config.cache_tokens is 0, sizes the cache."""
        self.model, self.config, self.max_tokens = model, config, max_tokens
        self._mesh = mesh_of(jax.tree.map(jnp.asarray, params))
        self.shapes: Shapes = shapes_of(config, self._mesh, max_tokens)
        self._is_compiled = False
        self._pace = Pace(config.steps_per_call)
        self._layout = self.layout(self.shapes.buckets[-1])
        self.load(params)

    def load(self, params: Params) -> None:
        """Swaps the weights; shapes and dtypes must be those of the first ones, so nothing is compiled again."""
        self._params = params

    @property
    def params(self) -> Params:
        """The weights that it samples from."""
        return self._params

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
            began = perf_counter()
            is_quiet = run.next_round()
            if watch and run.scheduler.live:
                watch(run.moment())
            flights = run.dispatch()
            for sample in (sample for landed in behind for sample in run.finish(landed)):
                is_quiet = False
                yield sample
            if not flights:
                return
            behind = [run.land(flight) for flight in flights]
            # Windows in which the caller was given samples tell nothing of the device.
            if is_quiet and len(flights) == 1:
                self._pace.took(len(flights[0].who), flights[0].verified, perf_counter() - began)

    def layout(self, rows: int) -> programs.Layout:
        """What a window of so many rows is compiled for."""
        tile = self.shapes.plan(rows).tile
        return programs.Layout(self._mesh, self.model, self.config.steps_per_call, tile, self.config.cache_dtype)

    def check(self, request: Request) -> None:
        """Raises UserError where a request cannot be drawn."""
        check(request, self.config.max_prompt_len, self.max_tokens, self.model.vocab_size)
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
        self._siblings: dict[int, Siblings] = {}
        self._live: dict[int, Live] = {}
        self._saved: dict[int, list[programs.Pool]] = {}
        self._prefills = self._set_back = self._guessed = self._accepted = 0
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
            nobody = self._sent([None] * rows, [()] * rows, [[]] * shapes.shards)
            programs.decode_window.lower(params, self.engine.layout(rows), self._pool, *nobody).compile()
            if rows not in shapes.verified:
                continue
            # Called once with nobody in it: a first call takes longer, which would speak against verifying.
            for program in (programs.decode_window, programs.verify_window):
                self._pool, drawn = program(params, self.engine.layout(rows), self._pool, *nobody)
                jax.block_until_ready(drawn)
        for places in shapes.prefills:
            programs.prefill.lower(params, self._layout, self._pool, *self._prompts([], places)).compile()
        at = next(self._moved(0, [TRASH]))
        saved = jax.tree.map(lambda x: jax.ShapeDtypeStruct((at.size, *x.shape[1:]), x.dtype), self._pool)
        programs.read_pages.lower(self._layout, self._pool, at).compile()
        programs.write_pages.lower(self._layout, self._pool, at, saved).compile()

    def next_round(self) -> bool:
        """Seats samples; saves, prefills and puts back pages as the scheduler says. True where none were."""
        todo: Round = self.scheduler.next_round()
        for number in todo.ended:
            del self._known[number]
            self._siblings.pop(number, None)
        for seat, pages in todo.set_back:
            self._saved[id(seat)] = self._read(seat.shard, pages)
        self._set_back += len(todo.set_back)
        self._prefill(todo.prefills)
        for seat in todo.resumed:
            self._write(seat.shard, seat.pages, self._saved.pop(id(seat)))
        for seat in todo.admitted:
            request = self._known[seat.request]
            # The last prompt token is fed by the first decoding step, so that prefill needs no logits.
            self._live[id(seat)] = Live(request, seat, [request.prompt_ids[-1]])
            if self.shapes.verified and seat.request not in self._siblings:
                self._siblings[seat.request] = Siblings(request.prompt_ids)
        return not (todo.set_back or todo.prefills or todo.resumed)

    def moment(self) -> Moment:
        """What the scheduler holds now."""
        seats = [seat for seats in self.scheduler.seats for seat in seats]
        prompts = {seat.request for seat in seats}
        tokens = sum(seat.filed for seat in seats) + sum(self.scheduler.job(p).shared for p in prompts)
        attended = sum(seat.filed + self.scheduler.job(seat.request).shared for seat in seats)
        rows = sum(self.shapes.rows_for(n) for n in self._chunks())
        so_far = self._prefills, self._set_back, self._guessed, self._accepted
        return Moment(len(seats), rows, self.scheduler.held, tokens, attended, *so_far)

    def _chunks(self) -> list[int]:
        """Live samples of the fullest shard, cut into what one window holds."""
        most, most_rows = max(map(len, self.scheduler.seats)), self.shapes.buckets[-1] // self.shapes.shards
        return [min(most_rows, most - start) for start in range(0, most, most_rows)]

    def dispatch(self) -> list[_Flight]:
        """Starts a window over all live samples."""
        shards = [plans.seated(seats) for seats in self.scheduler.seats]
        flights, start = [], 0
        for count in self._chunks():
            rows = self.shapes.rows_for(count)
            flights.append(self._start(rows, [seats[start : start + count] for seats in shards]))
            start += count
        return flights

    def _start(self, rows: int, shards: list[list[Seat]]) -> _Flight:
        seats = [seat for part in shards for seat in [*part, *[None] * (rows // self.shapes.shards - len(part))]]
        who = [self._live[id(seat)] if seat else None for seat in seats]
        guesses, is_verified = [[] for _ in who], False
        pace, left = self.engine._pace, [self.shapes.window + 1 - len(state.window) for state in who if state]
        if rows in self.shapes.verified and pace.looks(rows, len(left), sum(left)):
            guesses = self._guesses(who)
            guessed = sum(map(len, guesses))
            pace.found(len(left), guessed)
            is_verified = pace.pays(rows, len(left), guessed, sum(left))
        program = programs.verify_window if is_verified else programs.decode_window
        sent = self._sent(who, guesses if is_verified else [()] * rows, shards)
        self._pool, drawn = program(self.engine._params, self.engine.layout(rows), self._pool, *sent)
        if not is_verified:
            self.scheduler.window_done(seat for part in shards for seat in part)
        return _Flight(who, [len(state.window) if state else 1 for state in who], guesses, is_verified, drawn)

    def _guesses(self, who: list[Live | None]) -> list[list[int]]:
        """What may follow in the window of each row."""
        for request in {state.seat.request for state in who if state}:
            self._siblings[request].list_new()
        window = self.shapes.window
        return [
            self._siblings[state.seat.request].guess(state.seat, window - len(state.window)) if state else []
            for state in who
        ]

    def _sent(
        self, who: list[Live | None], guesses: Sequence[Sequence[int]], shards: list[list[Seat]]
    ) -> tuple[programs.Rows, Plan]:
        """What a window is sent of its rows."""
        plan = plans.plan_of(shards, self.scheduler, self.shapes.plan(len(who)), self._is_grouped)
        rows = table(who, guesses, self.shapes.window, self.shapes.page)
        return self._placed((rows, plan))

    def _placed(self, tree: Any) -> Any:
        """Host arrays where they lie on the mesh. A single device takes them with the call, which costs far less."""
        if self._layout.mesh.size == 1:
            return tree
        return placed(tree, jax.tree.map(lambda x: self._layout.place(x.shape, "rows"), tree))

    def _is_grouped(self, request: int) -> bool:
        return self.scheduler.job(request).shared >= self.shapes.group_from

    def land(self, flight: _Flight) -> _Landed:
        """Waits for a window and frees the slots of what ended in it."""
        tokens, logp, logp_model, valid = (np.asarray(x).T for x in flight.drawn[:4])
        goes_on = np.asarray(flight.drawn.live_B)
        first, counts = np.array(flight.known) - 1, valid.sum(axis=1)
        guessed = right = 0
        for row, state in enumerate(flight.who):
            if state is None or state.ended:
                continue
            new = tokens[row, first[row] : first[row] + counts[row]].tolist()
            guessed += len(flight.guesses[row])
            right += _equal(flight.guesses[row], new)
            self._go_on(state, new, flight.verified)
            if not goes_on[row]:
                self._end(state)
        self.engine._pace.saw(guessed, right)
        self._guessed += guessed * flight.verified
        self._accepted += right * flight.verified
        return _Landed(flight.who, first, counts, tokens, logp, logp_model)

    def _go_on(self, state: Live, new: list[int], verified: bool) -> None:
        window = self.shapes.window
        state.window += new
        if len(state.window) > window:
            state.window = state.window[window:]
            if verified:
                self.scheduler.window_done([state.seat])
        if self.shapes.verified:
            self._siblings[state.seat.request].extend(state.seat, new)

    def finish(self, landed: _Landed) -> Iterator[Sample]:
        """Appends what a window drew to its samples; yields those that are finished."""
        for row, state in enumerate(landed.who):
            if state is None or id(state.seat) not in self._live:
                continue
            new = slice(landed.first_B[row], landed.first_B[row] + landed.counts_B[row])
            state.tokens += landed.token_BW[row, new].tolist()
            state.logp += landed.logp_BW[row, new].tolist()
            state.logp_model += landed.logp_model_BW[row, new].tolist()
            stop = state.why_stopped()
            if stop is None:
                continue
            if not state.ended:
                self._end(state)
            del self._live[id(state.seat)]
            tokens, logp, logp_model = tuple(state.tokens), tuple(state.logp), tuple(state.logp_model)
            yield Sample(state.request.problem_id, state.seat.index, tokens, logp, logp_model, stop)

    def _end(self, state: Live) -> None:
        state.ended = True
        self._saved.pop(id(state.seat), None)
        self.scheduler.release(state.seat)
        if self.shapes.verified:
            self._siblings[state.seat.request].end(state.seat)

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

    def _prompts(self, prompts: list[tuple[int, list[list[int]]]], places: int) -> tuple[np.ndarray, Any]:
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


def _equal(guess: list[int], new: list[int]) -> int:
    """How many tokens of a guess are those that were drawn, up to the first that is not."""
    return next(
        (i for i, pair in enumerate(zip(guess, new, strict=False)) if pair[0] != pair[1]), min(len(guess), len(new))
    )
