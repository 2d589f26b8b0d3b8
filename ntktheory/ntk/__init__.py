"""Exact empirical neural tangent kernels: values, traces, spectra, dynamics, infinite width."""

from ntktheory.ntk.alignment import label_alignment
from ntktheory.ntk.comparison import TrainingComparison, compare_with_training
from ntktheory.ntk.density import SpectralDensity, spectral_density
from ntktheory.ntk.dynamics import Trajectory, linearized_predict
from ntktheory.ntk.explain import explain_ntk
from ntktheory.ntk.infinite_width import (
    expected_trace_at_init,
    infinite_width_nngp,
    infinite_width_ntk,
)
from ntktheory.ntk.kernel import empirical_ntk
from ntktheory.ntk.operator import NTKOperator
from ntktheory.ntk.spectrum import NTKSpectrum, ntk_spectrum, spectral_distance
from ntktheory.ntk.to_file import ntk_to_file
from ntktheory.ntk.trace import ntk_trace

__all__ = [
    "NTKOperator",
    "NTKSpectrum",
    "SpectralDensity",
    "TrainingComparison",
    "Trajectory",
    "compare_with_training",
    "empirical_ntk",
    "expected_trace_at_init",
    "explain_ntk",
    "infinite_width_nngp",
    "infinite_width_ntk",
    "label_alignment",
    "linearized_predict",
    "ntk_spectrum",
    "ntk_to_file",
    "ntk_trace",
    "spectral_density",
    "spectral_distance",
]
