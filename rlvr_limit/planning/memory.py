"""What programs take on a device beside their arguments, by arithmetic: shapes are chosen before anything is compiled.

Each formula names the largest arrays that live at once; its factors were fitted to what XLA's compilers report for an
H200, a v5e and a CPU (memory_analysis) at the shapes of 0.5B and 7B models, and err to the safe side.
tests/planning/test_fitting.py holds them against the compiler. Bytes are of one device.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from kernels.attention.reference import QUERY_BLOCK
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.models.log_probs import MAX_LIVE_LOGITS

F32 = 4
KEPT_SCORES = 512
"""Scores of a token that are kept for the backward pass: longer rows are attended, and computed again, in blocks."""


@dataclass(frozen=True)
class Factors:
    """Copies of the named arrays that live at once."""

    logits: float  # float32 logits of a window's rows
    recent: float  # keys and values of the window that is being drawn, all layers
    hidden: float  # float32 hidden units of a feed-forward layer, in a pass over whole prompts
    scored: float  # the same in the scorer's pass
    prompt: float  # keys and values of prompts, all layers
    table: float  # the float32 embedding and its gradient
    activations: float  # what a backward pass keeps of a layer, beside an accelerator's in the same dtype
    can_remat: bool  # XLA:CPU merges what is computed again with the first time


FACTORS = {
    "cuda": Factors(3.3, 5.3, 1.35, 1.6, 4.0, 1.3, 1.0, True),
    "tpu": Factors(9.0, 5.3, 1.35, 1.6, 4.0, 1.3, 1.0, True),
    "cpu": Factors(1.3, 5.3, 3.5, 4.5, 1.0, 2.8, 2.1, False),
}


@dataclass(frozen=True)
class Footprint:
    """The arithmetic for one model whose matrices are cut `tensor` times, on one platform."""

    model: ModelConfig
    tensor: int
    platform: str

    def decode_window(self, rows: int, steps: int) -> float:
        """A window of so many steps over so many rows of this device."""
        logits = self._factors.logits * rows * self.model.vocab_size * F32
        return logits + self._factors.recent * rows * steps * self._token_kv

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
        layers = self._factors.scored * self._hidden + self._factors.prompt * self._token_kv
        return tokens * layers + self._logits(tokens, MAX_LIVE_LOGITS)

    def gradient(self, tokens: int, remat: str, max_live_logits: int) -> float:
        """A backward pass over so many tokens of a device, beside parameters and gradient sums in float32."""
        m, f = self.model, self._factors
        ffn, heads = m.ffn_width / self.tensor, m.heads / self.tensor
        kept = {
            "none": 14 * ffn + 20 * m.width + 8 * heads * KEPT_SCORES,
            "products": 10 * ffn + 2 * m.width,
            "layers": 2 * m.width,
        }[remat if f.can_remat else "none"]
        # In bfloat16; float32 keeps almost twice as much, and XLA:CPU keeps float32 in any case.
        kept *= max(f.activations, self._itemsize / 2)
        table = f.table * m.vocab_size * m.width * F32 / self.tensor
        working = 11 * ffn if f.can_remat else 0
        return table + tokens * (working + m.layers * kept) + self._logits(tokens, max_live_logits)

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
    def _hidden(self) -> float:
        return self.model.ffn_width * F32 / self.tensor

    @property
    def _token_kv(self) -> float:
        """Keys and values of a token in all layers."""
        cut = self.tensor if self.model.kv_heads % self.tensor == 0 else 1
        return 2 * self.model.layers * self.model.kv_heads * self.model.head_width * self._itemsize / cut
