"""top-k truncation of next-token distributions."""

from kernels.top_k.reference import top_k_mask
