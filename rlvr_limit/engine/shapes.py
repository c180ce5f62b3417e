"""Sizes of the engine's arrays, from its config and mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import jax
from jax.sharding import AbstractMesh, Mesh

from kernels.decode_attention import Tiling, tiling
from rlvr_limit.distributed.mesh import platform_of, row_devices
from rlvr_limit.engine.cache import Pool, empty_pool
from rlvr_limit.engine.scheduler import CacheShape
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.settings import EngineConfig

REFERENCE_ROWS = 64
MIN_PREFILL = 64
SHORTER, CPU_SHORTER = 0.25, 0.75
"""A prompt is padded to lengths that are so far apart: on a CPU padding takes as long as tokens do."""
DEFAULT_SEQS, DEFAULT_PREFILL = 256, 16
LOOKAHEAD = 8
"""Requests that are read before they are needed, so that the last ones can be drawn longest first."""
LEAST_BUCKET = 8

SLOW_WEIGHTS = 2**28
"""Bytes of weights from which on a CPU's window takes about as long as its compiling: more batch sizes then pay."""
MIN_PAGE = 16
"""On pages shorter than a vector of a CPU, XLA rounds a row's sums otherwise for other numbers of rows."""


@dataclass(frozen=True)
class PlanSizes:
    """Lengths of the lists of a decode attention plan, of one shard."""

    rows: int
    items: int  # own pages of the rows
    visits: int  # pages of prompts that a tile's rows read together
    tile: int  # rows of a tile
    group: int  # visits come in multiples of this


def plan_sizes(rows: int, pages: int, prompt_pages: int, max_listed: int, tiling: Tiling) -> PlanSizes:
    """Sizes that suffice for any `rows` samples on a shard of so many pages.

    A prompt has at most prompt_pages pages; one of up to max_listed pages may be listed once for each of its rows.
    """
    tile = next(t for t in (64, 32, 16, 8, 4, 2, 1) if t <= tiling.tile and rows % t == 0)
    in_groups = -(-prompt_pages // tiling.group) * tiling.group
    return PlanSizes(rows, pages + rows * max_listed, rows * in_groups, tile, tiling.group)


@dataclass(frozen=True, kw_only=True)
class EngineShapes(CacheShape):
    """Sizes of the cache, and what programs are compiled for. Rows are those of all shards together."""

    buckets: tuple[int, ...]  # numbers of rows, rising
    prefill_lengths: tuple[int, ...]  # that prompts are padded to, rising
    min_shared_prefix: int  # tokens of a prompt that is visited by its rows together; others are listed for each row
    tiling: Tiling

    def plan(self, rows: int) -> PlanSizes:
        """Sizes of the plan of a call of so many rows."""
        longest = self.prefill_lengths[-1] // self.page_size
        max_listed = min(-(-self.min_shared_prefix // self.page_size), longest)
        return plan_sizes(rows // self.shards, self.pages, longest, max_listed, self.tiling)

    def rows_for(self, running: int) -> int:
        """The smallest bucket that holds so many samples of every shard."""
        return next(rows for rows in self.buckets if rows >= running * self.shards)

    def padded(self, prefix_tokens: int) -> int:
        """What a prompt is padded to; it depends on nothing but the prompt."""
        return next(length for length in self.prefill_lengths if length > prefix_tokens)

    def holds(self, prompt_length: int, max_tokens: int) -> bool:
        """Whether one sample, its prompt and its longest answer, fits a shard that is otherwise empty."""
        own = own_pages(max_tokens, self.steps_per_call, self.page_size)
        return own - (-(prompt_length - 1) // self.page_size) <= self.pages - 1

    def token_bytes(self, model: ModelConfig) -> int:
        """Bytes of cache that a token takes in all layers."""
        leaves = jax.tree.leaves(self.abstract_pool(model))
        return sum(x.size * x.dtype.itemsize for x in leaves) // (self.shards * self.pages * self.page_size)

    def abstract_pool(self, model: ModelConfig) -> Pool:
        """Shapes and dtypes of all pages."""
        size = self.shards * self.pages, self.page_size
        return jax.eval_shape(lambda: empty_pool(model, *size))


def own_pages(max_tokens: int, steps_per_call: int, page_size: int) -> int:
    """Most pages that a sample's own tokens take; those of its last call are not cached."""
    return -(-((-(-max_tokens // steps_per_call) - 1) * steps_per_call) // page_size)


def segment_engine_config(config: EngineConfig, max_prompt_len: int) -> EngineConfig:
    """The config where a prompt may be a prompt with most of its answer, and no two are the same."""
    prefix_rows = max(config.prefix_rows, config.max_num_seqs)
    return replace(config, max_prompt_len=max_prompt_len, prefix_rows=prefix_rows)


def by_default(config: EngineConfig) -> EngineConfig:
    """The config with plain values where it leaves sizes to be chosen and nobody has."""
    return replace(
        config, max_num_seqs=config.max_num_seqs or DEFAULT_SEQS, prefill_rows=config.prefill_rows or DEFAULT_PREFILL
    )


def halved(config: EngineConfig) -> EngineConfig:
    """The config with half of the sequences, the cache and the prompts at once, for a device that had no room."""
    config = by_default(config)
    num_seqs = max(1, config.max_num_seqs // 2)
    return replace(
        config,
        max_num_seqs=num_seqs,
        cache_tokens=config.cache_tokens // 2,
        prefill_rows=max(1, config.prefill_rows // 2),
        buckets=tuple(rows for rows in config.buckets if rows <= num_seqs),
    )


def batch_sizes(num_seqs: int, groups: int, platform: str, weights: int) -> tuple[int, ...]:
    """Batch sizes for the end of a run, when few samples are left; a CPU computes each row, others read the weights."""
    cut = 2 if platform == "cpu" else 4
    sizes = [num_seqs]
    while sizes[0] // cut >= LEAST_BUCKET * groups and sizes[0] % (cut * groups) == 0:
        sizes.insert(0, sizes[0] // cut)
    if platform == "cpu" and weights >= SLOW_WEIGHTS:
        sizes += [rows // 4 * 3 for rows in sizes if rows % (4 * groups) == 0 and rows > LEAST_BUCKET * groups]
    return tuple(sorted(sizes))


def shapes_of(config: EngineConfig, mesh: Mesh | AbstractMesh, max_tokens: int) -> EngineShapes:
    """The sizes of an engine for answers of up to max_tokens."""
    shards, steps, suited = row_devices(mesh), config.steps_per_call, tiling(platform_of(mesh))
    # Whole calls, and what the kernel takes, or attention would be in plain XLA.
    whole = math.lcm(steps, suited.page)
    page = -(-max(config.page_size, MIN_PAGE) // whole) * whole
    max_num_seqs = -(-config.max_num_seqs // shards)
    wanted = [*(rows for rows in config.buckets if rows <= config.max_num_seqs), config.max_num_seqs]
    buckets = sorted({-(-rows // shards) * shards for rows in ([REFERENCE_ROWS] if config.reference else wanted)})
    prefills = [-(-config.max_prompt_len // page) * page]
    shorter = CPU_SHORTER if platform_of(mesh) == "cpu" else SHORTER
    while prefills[0] > max(MIN_PREFILL, page) and prefills[0] * shorter >= max(MIN_PREFILL, page):
        prefills.insert(0, min(prefills[0] - page, math.ceil(prefills[0] * shorter / page) * page))
    if config.cache_tokens:
        pages = config.cache_tokens // page // shards
    else:
        own = own_pages(max_tokens, steps, page)
        # A page for the call that a sample is in, room for one more prompt than prefix_rows, and the null page.
        pages = max_num_seqs * own + (config.prefix_rows + 1) * (prefills[-1] // page) + max_num_seqs + 1
    return EngineShapes(
        shards=shards,
        max_num_seqs=max_num_seqs,
        pages=pages,
        page_size=page,
        steps_per_call=steps,
        lookahead=LOOKAHEAD,
        buckets=tuple(buckets),
        prefill_lengths=tuple(prefills),
        min_shared_prefix=config.min_shared_prefix if suited.lists_prompts else 1,
        tiling=suited,
    )
