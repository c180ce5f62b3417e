"""One token from a distribution and one uniform number."""

from kernels.categorical.reference import inverse_cdf
