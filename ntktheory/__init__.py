"""Machine-checked theory of pruning at initialisation."""

from ntktheory.checks import NumericalError, UnsupportedModule
from ntktheory.functional import FunctionalModel, functional
from ntktheory.ntk import empirical_ntk, ntk_trace
from ntktheory.paths import PathBounds, path_bounds

__all__ = [
    "FunctionalModel",
    "NumericalError",
    "PathBounds",
    "UnsupportedModule",
    "empirical_ntk",
    "functional",
    "ntk_trace",
    "path_bounds",
]
