"""Machine-checked theory of pruning at initialisation."""

from ntktheory.checks import NumericalError, UnsupportedModule
from ntktheory.functional import FunctionalModel, functional
from ntktheory.ntk import empirical_ntk, ntk_trace

__all__ = [
    "FunctionalModel",
    "NumericalError",
    "UnsupportedModule",
    "empirical_ntk",
    "functional",
    "ntk_trace",
]
