"""Attention of one new token a row over keys and values that lie in pages, own and shared."""

from kernels.decode_attention.plan import EMPTY, Partial, Plan
from kernels.decode_attention.reference import decode_attention

__all__ = ["EMPTY", "Partial", "Plan", "decode_attention"]
