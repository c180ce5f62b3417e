"""Log-probabilities of given tokens without holding the whole vocabulary for every position."""

from kernels.token_logprob.reference import token_logprob

__all__ = ["token_logprob"]
