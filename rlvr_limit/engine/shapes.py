"""Sizes of the engine's arrays, from its config and mesh."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh, Mesh

from kernels.decode_attention import Tiling, tiling
from rlvr_limit.distributed.mesh import platform_of, row_devices
from rlvr_limit.engine import plans, scheduler
from rlvr_limit.engine.cache import Pool, empty_pool
from rlvr_limit.engine.requests import Request
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.settings import EngineConfig

REFERENCE_ROWS = 64
SHORTEST_PREFILL = 64
AHEAD = 8
"""Requests that are read before they are needed, so that the last ones can be drawn longest first."""
LEAST_PAGE = 16
"""On pages shorter than a vector of a CPU, XLA rounds a row's sums otherwise for other numbers of rows."""


@dataclass(frozen=True)
class Shapes:
    """pages of `page` tokens on each shard; buckets are rows of all shards together, in rising order.

    group_from: prompts of so many tokens or more are visited, others listed for each of their rows. verified are the
    buckets in which guesses can be verified. prefills are the lengths that prompts are padded to, in
    rising order. cache_dtype is that of EngineConfig.
    """

    shards: int
    slots: int
    page: int
    pages: int
    window: int
    buckets: tuple[int, ...]
    verified: tuple[int, ...]
    prefills: tuple[int, ...]
    group_from: int
    tiling: Tiling
    cache_dtype: str = ""

    @property
    def scheduler(self) -> scheduler.Shapes:
        """What the scheduler is told."""
        return scheduler.Shapes(self.shards, self.slots, self.pages, self.page, self.window, AHEAD)

    def plan(self, rows: int) -> plans.Sizes:
        """Lengths of the plan of a window of so many rows."""
        grouped = -(-self.group_from // self.page)
        longest = self.prefills[-1] // self.page
        return plans.sizes_of(rows // self.shards, self.pages, longest, min(grouped, longest), self.tiling)

    def rows_for(self, live: int) -> int:
        """The smallest bucket that holds so many live samples of every shard."""
        return next(rows for rows in self.buckets if rows >= live * self.shards)

    def places_for(self, request: Request) -> int:
        """The length that a prompt is padded to: it depends on nothing but the prompt."""
        return next(places for places in self.prefills if places >= len(request.prompt_ids))

    def holds(self, request: Request) -> bool:
        """Whether one sample, its prompt and its longest answer, fits a shard that is otherwise empty."""
        own = own_pages(request.sampling.max_tokens, self.window, self.page)
        return own - (-(len(request.prompt_ids) - 1) // self.page) <= self.pages - 1

    def token_bytes(self, model: ModelConfig) -> int:
        """Bytes of cache that a token takes in all layers, its scales included."""
        pages = jax.tree.leaves(self.abstract_pool(model))
        return sum(x.size * x.dtype.itemsize for x in pages) // (self.shards * self.pages * self.page)

    def abstract_pool(self, model: ModelConfig) -> Pool:
        """Shapes and dtypes of all pages."""
        pages = self.shards * self.pages
        return jax.eval_shape(lambda: empty_pool(model, pages, self.page, self.cache_dtype, self.window))


def own_pages(max_tokens: int, window: int, page: int) -> int:
    """Most pages that a sample's own tokens take; its last window is not filed."""
    return -(-((-(-max_tokens // window) - 1) * window) // page)


def shapes_of(config: EngineConfig, mesh: Mesh | AbstractMesh, max_tokens: int) -> Shapes:
    """The sizes of an engine for answers of up to max_tokens."""
    shards = row_devices(mesh)
    page = -(-max(config.page_size, LEAST_PAGE) // config.steps_per_call) * config.steps_per_call
    slots = -(-config.max_num_seqs // shards)
    buckets = (REFERENCE_ROWS,) if config.reference else (*config.buckets, config.max_num_seqs)
    rounded = sorted(
        {-(-rows // shards) * shards for rows in buckets if rows <= config.max_num_seqs or config.reference}
    )
    prefills = [-(-config.max_prompt_len // page) * page]
    while prefills[0] // 4 >= max(SHORTEST_PREFILL, page):
        prefills.insert(0, -(-(prefills[0] // 4) // page) * page)
    if config.cache_tokens:
        pages = config.cache_tokens // page // shards
    else:
        own = own_pages(max_tokens, config.steps_per_call, page)
        # One page for the window that a sample is at, one prompt more than are held, and the trash.
        pages = slots * own + (config.prefix_rows + 1) * (prefills[-1] // page) + slots + 1
    verified = tuple(rows for rows in rounded if rows * config.steps_per_call <= config.speculative_tokens)
    lists = tuple(rounded), verified, tuple(prefills)
    suited = tiling(platform_of(mesh))
    group_from = config.min_shared_prefix if suited.lists_prompts else 1
    return Shapes(shards, slots, page, pages, config.steps_per_call, *lists, group_from, suited, config.cache_dtype)
