"""The batched sampler: requests go in, finished samples stream out (host side)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from rlvr_limit.engine import programs
from rlvr_limit.mesh import mesh_of
from rlvr_limit.model import ModelConfig, Params
from rlvr_limit.scheduler import Admission, Scheduler
from rlvr_limit.types import Sample, SamplingParams, Stop, UserError

REFERENCE_ROWS = 64
STOP_TOKENS = 4


@dataclass(frozen=True)
class EngineConfig:
    """Shapes of the compiled programs.

    slots samples are alive at once; a window is the number of steps between two looks of the host; prompts hold at
    most prompt_places tokens and are prefilled prefill_rows at a time; prefix_rows prompts are held at once.
    reference mode always runs tiles of 64 rows, so that samples are bitwise the same for any number of slots.
    """

    slots: int = 256
    window: int = 8
    prompt_places: int = 16
    prefill_rows: int = 16
    prefix_rows: int = 64
    reference: bool = False


@dataclass(frozen=True)
class Request:
    """Draw samples `indices` of one prompt. key comes from prompt_key.

    stop, if given, looks at the drained tokens of a sample and returns how many of them to keep, or None to go on.
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    key: tuple[int, int]
    indices: tuple[int, ...]
    sampling: SamplingParams
    stop: Callable[[tuple[int, ...]], int | None] | None = None


def prompt_key(seed: int, stream: str, prompt: str) -> tuple[int, int]:
    """The random key of a rendered prompt in a stream: what a sample is decides its numbers, never where it ran."""
    digests = hashlib.sha256(stream.encode()).digest()[:8] + hashlib.sha256(prompt.encode()).digest()[:8]
    key = jax.random.key(seed, impl="threefry2x32")
    for word in np.frombuffer(digests, ">u4"):
        key = jax.random.fold_in(key, int(word))
    first, second = np.asarray(jax.random.key_data(key))
    return int(first), int(second)


@dataclass
class _Live:
    """A sample in the making."""

    request: Request
    index: int
    tokens: list[int]
    logp: list[float]
    logp_model: list[float]


class Engine:
    """Draws samples from one decoder; parameters can be swapped without compiling again."""

    def __init__(self, params: Params, model: ModelConfig, config: EngineConfig, max_tokens: int):
        """max_tokens bounds every request's own limit and sizes the cache."""
        self.model, self.config, self.max_tokens = model, config, max_tokens
        self.rows = REFERENCE_ROWS if config.reference else config.slots
        self.tiles = -(-config.slots // self.rows)
        windows = -(-max_tokens // config.window)
        self._places = config.prompt_places + windows * config.window
        self.live = 0
        self._lie = programs.places_on(mesh_of(jax.tree.map(jnp.asarray, params)), model, self.rows)
        self._prefill, self._window = programs.compile_for(self._lie)
        self.load(params)

    def load(self, params: Params) -> None:
        """Swaps the weights; shapes and dtypes must be those of the first ones, so nothing is compiled again."""
        self._params = params

    def generate(self, requests: Iterable[Request]) -> Iterator[Sample]:
        """Yields samples as they finish, in no particular order. Raises UserError for a prompt or limit too long."""
        c = self.config
        known: dict[int, Request] = {}

        def work() -> Iterator[tuple[int, Iterable[int]]]:
            for number, request in enumerate(requests):
                self._check(request)
                known[number] = request
                yield number, request.indices

        scheduler = Scheduler(c.slots, c.prefix_rows, work())
        caches = [self._empty(self.rows, self._places, self._lie.cache) for _ in range(self.tiles)]
        # One spare row takes what the unused rows of a prefill call write.
        prefixes = self._empty(c.prefix_rows + 1, c.prompt_places, self._lie.prefixes)
        tables = [_empty_table(self.rows) for _ in range(self.tiles)]
        live: dict[int, _Live] = {}
        while True:
            prefills, admissions = scheduler.admit()
            if not admissions and not live:
                return
            prefixes = self._fill_prefixes(prefixes, [(row, known[request]) for row, request in prefills])
            for admission in admissions:
                request = known[admission.work.request]
                _write_admission(tables[admission.slot // self.rows], admission.slot % self.rows, admission, request)
                live[admission.slot] = _Live(request, admission.work.index, [], [], [])
            self.live = len(live)
            for tile, table in enumerate(tables):
                if not table["live_B"].any():
                    continue
                # Copied, since on CPU a device reads the host's memory, and may be at it after another has finished.
                sent = programs.Slots(**{name: value.copy() for name, value in table.items()})
                slots = jax.device_put(sent, self._lie.slots)
                caches[tile], drawn = self._window(self._params, self.model, c.window, caches[tile], prefixes, slots)
                for slot, sample in self._drain(tile, table, drawn, live):
                    scheduler.release(slot)
                    yield sample

    def _empty(self, rows: int, places: int, lie: NamedSharding) -> programs.KeyValues:
        # Made where it lies: the cache of all slots need not fit on one device.
        return jax.jit(programs.empty_cache, static_argnums=(0, 1, 2), out_shardings=lie)(self.model, rows, places)

    def _check(self, request: Request) -> None:
        where = f"problem {request.problem_id}"
        if not 1 <= len(request.prompt_ids) <= self.config.prompt_places:
            raise UserError(
                f"{where}: the prompt has {len(request.prompt_ids)} tokens, the engine holds 1 to "
                f"{self.config.prompt_places} (engine.prompt_places)"
            )
        unknown = next((token for token in request.prompt_ids if not 0 <= token < self.model.vocab_size), None)
        if unknown is not None:
            known = f"0 to {self.model.vocab_size - 1}"
            raise UserError(f"{where}: prompt token {unknown} is not in the model's vocabulary, {known}")
        if not 1 <= request.sampling.max_tokens <= self.max_tokens:
            raise UserError(f"{where}: max_tokens {request.sampling.max_tokens} is not in 1 to {self.max_tokens}")
        if len(request.sampling.stop_tokens) > STOP_TOKENS:
            raise UserError(f"{where}: more than {STOP_TOKENS} stop tokens")
        if not request.sampling.temperature >= 0:
            raise UserError(f"{where}: temperature {request.sampling.temperature} is not 0 or more")
        if not 0 < request.sampling.top_p <= 1:
            raise UserError(f"{where}: top_p {request.sampling.top_p} is not above 0 and at most 1")

    def _fill_prefixes(self, prefixes: programs.KeyValues, wanted: list[tuple[int, Request]]) -> programs.KeyValues:
        c = self.config
        for start in range(0, len(wanted), c.prefill_rows):
            tokens = np.zeros((c.prefill_rows, c.prompt_places), np.int32)
            rows = np.full(c.prefill_rows, c.prefix_rows, np.int32)
            for i, (row, request) in enumerate(wanted[start : start + c.prefill_rows]):
                tokens[i, : len(request.prompt_ids)] = request.prompt_ids
                rows[i] = row
            prefixes = self._prefill(self._params, self.model, prefixes, tokens, rows)
        return prefixes

    def _drain(
        self, tile: int, table: dict[str, np.ndarray], drawn: programs.Drawn, live: dict[int, _Live]
    ) -> Iterator[tuple[int, Sample]]:
        """Appends a window's tokens to the live samples; yields those that are finished and frees their rows."""
        token, logp, logp_model, valid = (np.asarray(x).T for x in drawn)
        counts = valid.sum(axis=1)
        table["admit_B"][:] = False
        table["length_B"] += self.config.window
        table["generated_B"] += self.config.window
        table["token_B"][:] = token[:, -1]
        for row in np.flatnonzero(table["live_B"]):
            slot, n = tile * self.rows + int(row), int(counts[row])
            state = live[slot]
            state.tokens += token[row, :n].tolist()
            state.logp += logp[row, :n].tolist()
            state.logp_model += logp_model[row, :n].tolist()
            stop = _why_stopped(state)
            if stop is not None:
                table["live_B"][row] = False
                del live[slot]
                yield (
                    slot,
                    Sample(
                        state.request.problem_id,
                        state.index,
                        tuple(state.tokens),
                        tuple(state.logp),
                        tuple(state.logp_model),
                        stop,
                    ),
                )


def _why_stopped(state: _Live) -> Stop | None:
    keep = state.request.stop(tuple(state.tokens)) if state.request.stop else None
    if keep is not None:
        del state.tokens[keep:], state.logp[keep:], state.logp_model[keep:]
        return Stop.STOP_STRING
    if state.tokens[-1] in state.request.sampling.stop_tokens:
        return Stop.EOS
    return Stop.LENGTH if len(state.tokens) >= state.request.sampling.max_tokens else None


def _empty_table(rows: int) -> dict[str, np.ndarray]:
    i32 = partial(np.zeros, rows, np.int32)
    return {
        "live_B": np.zeros(rows, bool),
        "admit_B": np.zeros(rows, bool),
        "row_B": i32(),
        "token_B": i32(),
        "length_B": i32(),
        "generated_B": i32(),
        "limit_B": i32(),
        "key_B2": np.zeros((rows, 2), np.uint32),
        "index_B": i32(),
        "temperature_B": np.ones(rows, np.float32),
        "top_p_B": np.ones(rows, np.float32),
        "stops_BE": np.full((rows, STOP_TOKENS), -1, np.int32),
    }


def _write_admission(table: dict[str, np.ndarray], row: int, admission: Admission, request: Request) -> None:
    """The last prompt token is fed by the first decoding step, so that prefill needs no logits."""
    sampling = request.sampling
    stops = (*sampling.stop_tokens, *[-1] * STOP_TOKENS)[:STOP_TOKENS]
    values = {
        "live_B": True,
        "admit_B": True,
        "row_B": admission.row,
        "token_B": request.prompt_ids[-1],
        "length_B": len(request.prompt_ids) - 1,
        "generated_B": 0,
        "limit_B": sampling.max_tokens,
        "key_B2": request.key,
        "index_B": admission.work.index,
        "temperature_B": sampling.temperature,
        "top_p_B": sampling.top_p,
        "stops_BE": stops,
    }
    for name, value in values.items():
        table[name][row] = value
