"""Exact empirical neural tangent kernels and their traces."""

from ntktheory.ntk.kernel import empirical_ntk
from ntktheory.ntk.trace import ntk_trace

__all__ = ["empirical_ntk", "ntk_trace"]
