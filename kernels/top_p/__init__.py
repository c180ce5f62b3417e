"""top-p truncation of next-token distributions."""

from kernels.top_p.reference import top_p_mask

__all__ = ["top_p_mask"]
