"""What programs take on a device beside their arguments, by arithmetic: shapes are chosen before anything is compiled.

Each formula names the largest arrays that live at once; its factors were fitted to what XLA's compilers report for an
H200, a v5e and a CPU (memory_analysis) at the shapes of 0.5B and 7B models, and err to the safe side: the scorer of a
7B model at 17,728 tokens takes 1.7 GB of an H200 by cuDNN's attention and 8.6 by plain XLA's, and 7.6 are expected.
tests/planning/test_fitting.py holds them against the compiler. Bytes are of one device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp

from kernels.attention.reference import LONG_ROW, QUERY_BLOCK
from rlvr_limit.models.decoder import ModelConfig, parameter_count
from rlvr_limit.models.log_probs import MAX_LIVE_LOGITS

F32 = 4
SCORE = 3 * F32
"""Bytes of a score of attention: itself, its exponential and its weight, which XLA:CPU keeps in float32 in any case."""


class BackwardPass(NamedTuple):
    """What a device goes over at once in an update."""

    tokens: int
    keys: int  # that the last token of a row sees
    images: int = 0
    patches: int = 0  # of each, padded


@dataclass(frozen=True)
class Factors:
    """Copies of the named arrays that live at once."""

    logits: float  # float32 logits of a window's rows
    recent: float  # keys and values of the window that is being drawn, all layers
    hidden: float  # float32 hidden units of a feed-forward layer, in a pass over whole prompts
    scored: float  # the same in the scorer's pass
    prompt: float  # keys and values of prompts, all layers
    scored_kv: float  # the same in the scorer's pass
    softmax: float  # float32 logits of the scorer that live at once, with what their softmax takes
    table: float  # the float32 embedding and its gradient
    activations: float  # bytes of each of the 7 hidden units and 10 states of a layer that a backward pass keeps, / 2
    can_remat: bool  # XLA:CPU merges what is computed again with the first time
    keeps_scores: bool  # of short rows, for the backward pass: kernels/attention/cpu.py


FACTORS = {
    "cuda": Factors(3.3, 5.3, 2.6, 2.6, 4.0, 4.0, 0.15, 1.3, 1.25, True, False),
    "tpu": Factors(9.0, 5.3, 1.35, 1.6, 4.0, 4.0, 1.6, 1.3, 1.25, True, False),
    "cpu": Factors(1.3, 5.3, 3.5, 4.5, 1.0, 1.0, 1.6, 2.8, 1.65, False, True),
}


@dataclass(frozen=True)
class Footprint:
    """The arithmetic for one model whose matrices are cut `tensor` times, and `fsdp` times more, on one platform."""

    model: ModelConfig
    tensor: int
    platform: str
    fsdp: int = 1

    def decode_window(self, rows: int, steps: int) -> float:
        """A window of so many steps over so many rows of this device."""
        logits = self._factors.logits * rows * self.model.vocab_size * F32
        # What fsdp has cut XLA puts together before the first step, and keeps to the last.
        whole = self._layers if self.fsdp > 1 else 0
        return logits + self._factors.recent * rows * steps * self._token_kv + whole

    def prefill(self, prompts: int, length: int) -> float:
        """A batch of prompts padded to so many tokens; before it, perhaps, an image that fills one of them."""
        seen = self.model.width * (self._itemsize + F32) if self.model.vision else 0
        layers = self._factors.hidden * self._hidden + self._factors.prompt * self._token_kv
        return max(prompts * length * (layers + seen), self.tower(length) if self.model.vision else 0)

    def tower(self, tokens: int) -> float:
        """An image of so many tokens through the vision tower; it attends with some queries at a time."""
        v = self.model.vision
        patches = tokens * v.merge**2
        scores = 3 * QUERY_BLOCK * v.heads / self.tensor
        hidden = v.patch_size + 8 * v.width + 2 * self._factors.hidden * v.ffn_width / self.tensor
        return patches * F32 * (scores + hidden)

    def scorer(self, tokens: int) -> float:
        """Log-probs of so many tokens of a device, logits computed some at a time."""
        f = self._factors
        layers = f.scored * self._hidden + f.scored_kv * self._token_kv
        return tokens * layers + f.softmax * F32 * min(MAX_LIVE_LOGITS, tokens * self.model.vocab_size)

    def gradient(self, over: BackwardPass, remat: str, max_live_logits: int, trains_vision: bool = True) -> float:
        """A backward pass of a device, beside parameters and gradient sums in float32."""
        m, f = self.model, self._factors
        remat = remat if f.can_remat else "none"
        ffn, heads = m.ffn_width / self.tensor, m.heads / self.tensor
        layer = self._kept(ffn, m.width, remat) + self._kept_scores(heads, over.keys)
        table = f.table * m.vocab_size * m.width * F32 / self.tensor
        working = 11 * ffn if f.can_remat else 0
        if self.fsdp > 1:
            # Put together for use: the unembedding, the layer in hand and the one after it.
            table += (m.vocab_size * m.width * self._itemsize / self.tensor) + 2 * self._layers / m.layers
        decoder = table + over.tokens * (working + m.layers * layer) + self._logits(over.tokens, max_live_logits)
        if not over.images:
            return decoder
        working = over.images * self.tower(over.patches // m.vision.merge**2)
        if not trains_vision:
            return max(decoder, working)
        # The tower's own pass back comes when the decoder's is over, and ends in a gradient in float32.
        seeing = parameter_count(m) - parameter_count(replace(m, vision=None))
        return self._tower_kept(over, remat) + max(decoder, working + seeing * F32 / self.tensor)

    def _tower_kept(self, over: BackwardPass, remat: str) -> float:
        """What the tower keeps of a pass over images."""
        v = self.model.vision
        full, heads, window = len(v.full_layers), v.heads / self.tensor, (v.window_side * v.merge) ** 2
        layer = self._kept(v.ffn_width / self.tensor, v.width, remat)
        # So many places of windows are there for each patch, with queries, keys, values and outputs once more.
        spread = v.window_side if remat == "none" else 0
        windows = spread * (0.4 * self._kept(0, v.width, remat) + self._kept_scores(heads, window))
        patch = v.layers * layer + full * self._kept_scores(heads, over.patches) + (v.layers - full) * windows
        return over.images * over.patches * patch

    def _kept(self, ffn: float, width: float, remat: str) -> float:
        """What is kept of a layer for each of its tokens, but for scores."""
        whole = self._factors.activations * (14 * ffn + 20 * width)
        units = {"none": whole, "products": 10 * ffn + 2 * width, "layers": 2 * width}[remat]
        # In bfloat16; float32 takes twice as much on accelerators, on a CPU hardly more.
        return units if self.platform == "cpu" else units * self._itemsize / 2

    def _kept_scores(self, heads: float, keys: int) -> float:
        """The same of scores: rows that are longer are attended, and computed again, in blocks."""
        return SCORE * heads * keys if self._factors.keeps_scores and keys <= LONG_ROW else 0

    def _logits(self, tokens: int, most: int) -> float:
        """Float32 logits of so many tokens, at most so many at a time, with what their softmax takes."""
        return 1.6 * F32 * min(most, tokens * self.model.vocab_size)

    @property
    def _factors(self) -> Factors:
        return FACTORS[self.platform]

    @property
    def _itemsize(self) -> int:
        return jnp.dtype(self.model.dtype).itemsize

    @property
    def _layers(self) -> float:
        """The weights of all layers that this device multiplies with."""
        m = replace(self.model, vision=None)
        tables = (1 if m.tied_embedding else 2) * m.vocab_size * m.width
        return (parameter_count(m) - tables) * self._itemsize / self.tensor

    @property
    def _hidden(self) -> float:
        return self.model.ffn_width * F32 / self.tensor

    @property
    def _token_kv(self) -> float:
        """Keys and values of a token in all layers."""
        cut = self.tensor if self.model.kv_heads % self.tensor == 0 else 1
        return 2 * self.model.layers * self.model.kv_heads * self.model.head_width * self._itemsize / cut
