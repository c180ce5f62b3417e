"""The batched sampler: requests go in, finished samples stream out (host side)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.stages import Lowered

from kernels.decode_attention import DecodePlan
from rlvr_limit.distributed.mesh import mesh_of, placed
from rlvr_limit.engine import programs
from rlvr_limit.engine.cache import Pool
from rlvr_limit.engine.compiling import Ahead
from rlvr_limit.engine.images import ImageEncoder, request_layout
from rlvr_limit.engine.inputs import attention_plan, in_row_order, prompt_inputs, window_inputs
from rlvr_limit.engine.requests import EngineStats, Request, check
from rlvr_limit.engine.scheduler import NULL_PAGE, Scheduler, Sequence, SequenceGroup
from rlvr_limit.engine.shapes import EngineShapes, by_default, shapes_of
from rlvr_limit.models.decoder import ModelConfig, Params, for_inference
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import Sample, Stop, UserError

MOVED_PAGES = 8
"""Pages of a sample that go to the host or back in one call."""


class _Call(NamedTuple):
    """A window that the device is at."""

    rows: list[Sequence | None]
    outputs: programs.WindowOutputs


class _Result(NamedTuple):
    """What a window drew in each of its rows, on the host: counts_B tokens."""

    rows: list[Sequence | None]
    counts_B: np.ndarray
    token_BW: np.ndarray
    logp_BW: np.ndarray
    logp_model_BW: np.ndarray


class Engine:
    """Draws samples from one decoder; parameters can be swapped without compiling again."""

    def __init__(self, params: Params, model: ModelConfig, config: EngineConfig, max_tokens: int):
        """max_tokens bounds every request's own limit and, where config.cache_tokens is 0, sizes the cache.

        params may be the ShapeDtypeStructs of weights that are loaded later: what is expected is compiled meanwhile.
        """
        config = by_default(config)
        self.model, self.config, self.max_tokens = model, config, max_tokens
        self.mesh = mesh_of(params)
        self.shapes: EngineShapes = shapes_of(config, self.mesh, max_tokens)
        self.spec = self.program_spec(self.shapes.buckets[-1])
        self.ahead = Ahead()
        self.images = ImageEncoder(self.spec, self.ahead)
        self.load(params)

    def load(self, params: Params | None, donate: bool = False) -> None:
        """Swaps the weights; shapes and dtypes must be those of the first ones, so nothing is compiled again.

        donate: the caller needs them no more, and those that have to be copied are deleted one by one.
        """
        self.params = None if params is None else for_inference(params, donate)
        self.images.clear()

    def expect(self, prompt_lengths: Iterable[int], samples: int, images: Iterable[Any] = ()) -> None:
        """Begins to compile what so many samples of such prompts need first, and all of these images."""
        shapes = self.shapes
        most = min(shapes.max_num_seqs, shapes.buckets[-1] // shapes.shards)
        self.begin_window(shapes.rows_for(min(most, -(-samples // shapes.shards))))
        images = list(images)
        self.images.begin(self.params, images)
        for length in {shapes.padded(tokens - 1) for tokens in prompt_lengths if tokens > 1}:
            self.begin_prefill(length, bool(images))

    def generate(
        self, requests: Iterable[Request], watch: Callable[[EngineStats], None] | None = None
    ) -> Iterator[Sample]:
        """Yields samples as they finish, in no particular order. Raises UserError for a prompt or limit too long.

        Results of a window are handed out while the device works at the next. watch is told of every window.
        """
        run = EngineRun(self, requests)
        results: list[_Result] = []
        while True:
            run.schedule()
            if watch and run.scheduler.num_running:
                watch(run.stats())
            calls = run.start()
            for result in results:
                yield from run.postprocess(result)
            if not calls:
                return
            results = [run.collect(call) for call in calls]

    def program_spec(self, rows: int) -> programs.ProgramSpec:
        """What a window of so many rows is compiled for."""
        tile = self.shapes.plan(rows).tile
        return programs.ProgramSpec(self.mesh, self.model, self.shapes.steps_per_call, tile)

    def begin_window(self, rows: int) -> None:
        """Begins to compile windows of so many rows, unless that has begun."""
        params = self.params

        def lower() -> Lowered:
            idle = self.call_inputs([None] * rows, [[]] * self.shapes.shards)
            return programs.decode_window.lower(params, self.program_spec(rows), self._abstract_pool(), *idle)

        self.ahead.begin(("decode", rows), lower)

    def begin_prefill(self, length: int, sees: bool) -> None:
        """The same for prompts that are padded to so many tokens, with images or without."""
        params = self.params

        def lower() -> Lowered:
            return programs.prefill.lower(params, self.spec, self._abstract_pool(), *self.prompts([], length, sees))

        self.ahead.begin(("prefill", length, sees), lower)

    def _abstract_pool(self) -> Pool:
        def lies(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.spec.sharding(x.shape, *programs.CACHE_AXES))

        return jax.tree.map(lies, self.shapes.abstract_pool(self.model))

    def call_inputs(
        self, rows: list[Sequence | None], shards: list[list[Sequence]]
    ) -> tuple[programs.WindowInputs, DecodePlan]:
        """What a window is sent of its rows."""
        shapes = self.shapes
        plan = attention_plan(shards, shapes.page_size, shapes.plan(len(rows)), shapes.min_shared_prefix)
        return self.on_mesh((window_inputs(rows, shapes), plan))

    def on_mesh(self, tree: Any) -> Any:
        """Host arrays where they lie on the mesh. A single device takes them with the call, which costs far less."""
        if self.spec.mesh.size == 1:
            return tree
        return placed(tree, jax.tree.map(lambda x: self.spec.sharding(x.shape, "rows"), tree))

    def prompts(self, groups: list[SequenceGroup], length: int, sees: bool) -> tuple[np.ndarray, Any, Any]:
        """What prefill is sent of up to prefill_rows prompts of at most `length` tokens."""
        r = self.config.prefill_rows
        tokens, pages = prompt_inputs(groups, r, length, self.shapes)
        return tokens, self.on_mesh(pages), self.images.seen(self.params, groups, r, length) if sees else None

    def check(self, request: Request) -> None:
        """Raises UserError where a request cannot be drawn."""
        check(request, self.config.max_prompt_len, self.max_tokens, self.model.vocab_size)
        if not self.shapes.holds(len(request.prompt_ids), request.sampling.max_tokens):
            raise UserError(
                f"problem {request.problem_id}: the cache has {self.shapes.pages - 1} pages of {self.shapes.page_size} "
                f"tokens on a shard, too few for one sample of {request.sampling.max_tokens} tokens "
                "(engine.cache_tokens)"
            )


class EngineRun:
    """One pass over requests: the pool of pages, and who holds which of them."""

    def __init__(self, engine: Engine, requests: Iterable[Request]):
        self.engine, self.shapes = engine, engine.shapes
        self.scheduler = Scheduler(self.shapes, self._groups(requests))
        self._prefills = self._preempted = 0
        self._pool = programs.new_pool(engine.spec, self.shapes.shards * self.shapes.pages, self.shapes.page_size)

    def _groups(self, requests: Iterable[Request]) -> Iterator[SequenceGroup]:
        for number, request in enumerate(requests):
            self.engine.check(request)
            # The last prompt token is fed by the first decode step, so that prefill needs no logits.
            prefix_tokens, max_tokens = len(request.prompt_ids) - 1, request.sampling.max_tokens
            layout = request_layout(request, self.engine.spec)
            yield SequenceGroup(number, prefix_tokens, max_tokens, request.indices, request, layout)

    def schedule(self) -> None:
        """Asks the scheduler who runs next; saves, prefills and writes back pages as it says; compiles what is new."""
        todo = self.scheduler.schedule()
        self._begin_programs(todo.prefills)
        for seq, pages in todo.preempted:
            blocks = self._page_blocks(seq.shard, pages)
            seq.saved = [jax.device_get(programs.read_pages(self.engine.spec, self._pool, at)) for at in blocks]
        self._preempted += len(todo.preempted)
        self._prefill(todo.prefills)
        for seq in todo.resumed:
            blocks = self._page_blocks(seq.shard, seq.pages[: MOVED_PAGES * len(seq.saved)])
            for at, saved in zip(blocks, seq.saved, strict=True):
                self._pool = programs.write_pages(self.engine.spec, self._pool, at, saved)
            seq.saved = []
        for seq in todo.admitted:
            seq.last = seq.group.request.prompt_ids[-1]
        for rows in {self.shapes.rows_for(n) for n in self._chunks()}:
            self.engine.ahead.wait(("decode", rows))

    def _begin_programs(self, prefills: list[SequenceGroup]) -> None:
        """Begins to compile what is to be called next, all at once."""
        engine, shapes = self.engine, self.shapes
        for group in prefills:
            if group.prefix_tokens:
                engine.begin_prefill(shapes.padded(group.prefix_tokens), group.layout is not None)
                engine.images.begin(engine.params, group.request.images)
        needed = {shapes.rows_for(n) for n in self._chunks()}
        # Where rows are empty, fewer of them will do before long.
        smaller = [rows for rows in shapes.buckets if rows < min(needed, default=0)]
        if max(map(len, self.scheduler.running)) < shapes.max_num_seqs:
            needed.update(smaller[-1:])
        for rows in needed:
            engine.begin_window(rows)

    def stats(self) -> EngineStats:
        """What the scheduler holds now."""
        running = [seq for part in self.scheduler.running for seq in part]
        tokens = sum(seq.cached_tokens for seq in running)
        return EngineStats(
            running=len(running),
            rows=sum(self.shapes.rows_for(n) for n in self._chunks()),
            pages=self.scheduler.pages_in_use,
            tokens=tokens + sum(group.prefix_tokens for group in {seq.group for seq in running}),
            attended=tokens + sum(seq.group.prefix_tokens for seq in running),
            prefills=self._prefills,
            preempted=self._preempted,
            encoded=self.engine.images.encoded,
        )

    def _chunks(self) -> list[int]:
        """Running samples of the fullest shard, cut into what one window holds."""
        most, most_rows = max(map(len, self.scheduler.running)), self.shapes.buckets[-1] // self.shapes.shards
        return [min(most_rows, most - start) for start in range(0, most, most_rows)]

    def start(self) -> list[_Call]:
        """Starts a window over all running samples."""
        shards = [in_row_order(sequences) for sequences in self.scheduler.running]
        calls, start = [], 0
        for count in self._chunks():
            rows = self.shapes.rows_for(count)
            calls.append(self._start(rows, [sequences[start : start + count] for sequences in shards]))
            start += count
        return calls

    def _start(self, row_count: int, shards: list[list[Sequence]]) -> _Call:
        each = row_count // self.shapes.shards
        rows = [seq for part in shards for seq in (*part, *[None] * (each - len(part)))]
        inputs = self.engine.call_inputs(rows, shards)
        spec = self.engine.program_spec(row_count)
        self._pool, outputs = programs.decode_window(self.engine.params, spec, self._pool, *inputs)
        self.scheduler.mark_cached(seq for part in shards for seq in part)
        return _Call(rows, outputs)

    def collect(self, call: _Call) -> _Result:
        """Waits for a window and releases the samples that ended in it."""
        tokens, logp, logp_model, valid = (np.asarray(x).T for x in call.outputs[:4])
        goes_on = np.asarray(call.outputs.live_B)
        counts = valid.sum(axis=1)
        for row, seq in enumerate(call.rows):
            if seq is None or seq.is_released:
                continue
            seq.last = int(tokens[row, counts[row] - 1])
            if not goes_on[row]:
                self._release(seq)
        return _Result(call.rows, counts, tokens, logp, logp_model)

    def postprocess(self, result: _Result) -> Iterator[Sample]:
        """Appends what a window drew to its samples; yields those that are finished."""
        for row, seq in enumerate(result.rows):
            if seq is None or seq.stop is not None:
                continue
            new = slice(result.counts_B[row])
            seq.tokens += result.token_BW[row, new].tolist()
            seq.logp += result.logp_BW[row, new].tolist()
            seq.logp_model += result.logp_model_BW[row, new].tolist()
            seq.stop = _why_stopped(seq)
            if seq.stop is None:
                continue
            if not seq.is_released:
                self._release(seq)
            tokens, logp, logp_model = tuple(seq.tokens), tuple(seq.logp), tuple(seq.logp_model)
            yield Sample(seq.group.request.problem_id, seq.index, tokens, logp, logp_model, seq.stop)

    def _release(self, seq: Sequence) -> None:
        seq.is_released, seq.saved = True, []
        self.scheduler.release(seq)

    def _prefill(self, groups: list[SequenceGroup]) -> None:
        r = self.engine.config.prefill_rows
        # What a prompt is padded to depends on nothing but the prompt.
        alike: dict[tuple[int, bool], list[SequenceGroup]] = defaultdict(list)
        for group in groups:
            if group.prefix_tokens:
                alike[self.shapes.padded(group.prefix_tokens), group.layout is not None].append(group)
        for (length, sees), members in alike.items():
            self.engine.ahead.wait(("prefill", length, sees))
            for start in range(0, len(members), r):
                inputs = self.engine.prompts(members[start : start + r], length, sees)
                self._pool = programs.prefill(self.engine.params, self.engine.spec, self._pool, *inputs)
        self._prefills += len(groups)

    def _page_blocks(self, shard: int, pages: list[int]) -> Iterator[np.ndarray]:
        """Pages of a shard as arguments of read_pages and write_pages, MOVED_PAGES at a time."""
        for start in range(0, len(pages), MOVED_PAGES):
            part = pages[start : start + MOVED_PAGES]
            at = np.full((self.shapes.shards, MOVED_PAGES), NULL_PAGE, np.int32)
            at[shard, : len(part)] = part
            yield at


def _why_stopped(seq: Sequence) -> Stop | None:
    """Why the tokens so far are all, or None; what comes after a stop string is cut."""
    request = seq.group.request
    keep = request.stop(tuple(seq.tokens)) if request.stop else None
    if keep is not None:
        del seq.tokens[keep:], seq.logp[keep:], seq.logp_model[keep:]
        return Stop.STOP_STRING
    if seq.tokens[-1] in request.sampling.stop_tokens:
        return Stop.EOS
    return Stop.LENGTH if len(seq.tokens) >= request.limit(seq.index) else None
