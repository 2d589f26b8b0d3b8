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
from ntktheory.ntk import (
    NTKOperator,
    NTKSpectrum,
    SpectralDensity,
    TrainingComparison,
    Trajectory,
    compare_with_training,
    empirical_ntk,
    expected_trace_at_init,
    explain_ntk,
    infinite_width_nngp,
    infinite_width_ntk,
    label_alignment,
    linearized_predict,
    ntk_spectrum,
    ntk_to_file,
    ntk_trace,
    spectral_density,
    spectral_distance,
)
from ntktheory.paths import PathBounds, path_bounds
from ntktheory.pruning import apply_masks

__all__ = [
    "FunctionalModel",
    "NTKOperator",
    "NTKSpectrum",
    "NumericalError",
    "PathBounds",
    "SpectralDensity",
    "TrainingComparison",
    "Trajectory",
    "UnsupportedModule",
    "Verdict",
    "apply_masks",
    "check_mean",
    "check_same_distribution",
    "compare_with_training",
    "effective_parameter_count",
    "empirical_ntk",
    "expected_trace_at_init",
    "explain_ntk",
    "functional",
    "infinite_width_nngp",
    "infinite_width_ntk",
    "label_alignment",
    "linearized_predict",
    "min_detectable_bias",
    "min_samples",
    "ntk_sap_objective",
    "ntk_spectrum",
    "ntk_to_file",
    "ntk_trace",
    "path_bounds",
    "spectral_density",
    "spectral_distance",
]
