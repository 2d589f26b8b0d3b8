"""Machine-checked theory of pruning at initialisation."""

from ntktheory.checks import NumericalError, UnsupportedModule
from ntktheory.estimators import (
    Verdict,
    check_mean,
    check_same_distribution,
    min_detectable_bias,
    min_samples,
    ntk_sap_objective,
)
from ntktheory.functional import FunctionalModel, functional
from ntktheory.information import effective_parameter_count
from ntktheory.ntk import empirical_ntk, ntk_trace
from ntktheory.paths import PathBounds, path_bounds
from ntktheory.pruning import apply_masks

__all__ = [
    "FunctionalModel",
    "NumericalError",
    "PathBounds",
    "UnsupportedModule",
    "Verdict",
    "apply_masks",
    "check_mean",
    "check_same_distribution",
    "effective_parameter_count",
    "empirical_ntk",
    "functional",
    "min_detectable_bias",
    "min_samples",
    "ntk_sap_objective",
    "ntk_trace",
    "path_bounds",
]
