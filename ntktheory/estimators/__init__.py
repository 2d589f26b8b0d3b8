"""Stochastic estimators, and the evidence by which they are judged."""

from ntktheory.estimators.diagonal import hutchinson_diagonal
from ntktheory.estimators.difference_bias import (
    FiniteDifferenceBias,
    finite_difference_bias,
    sigma_for_bias,
)
from ntktheory.estimators.estimate import Estimate
from ntktheory.estimators.evidence import (
    check_mean,
    check_same_distribution,
    min_detectable_bias,
    min_samples,
)
from ntktheory.estimators.frobenius import hutchinson_frobenius
from ntktheory.estimators.hutchinson import hutchinson_trace
from ntktheory.estimators.hutchpp import hutchpp_trace
from ntktheory.estimators.ntk_sap import ntk_sap_objective
from ntktheory.estimators.ntk_sap_draws import Draw, sample_draws
from ntktheory.estimators.ntk_sap_score import (
    ScoreEstimate,
    ntk_sap_score,
    realization_scores,
)
from ntktheory.estimators.output_probes import output_probe_trace
from ntktheory.estimators.stability import MaskStability, mask_stability
from ntktheory.estimators.verdict import Verdict
from ntktheory.estimators.xtrace import xtrace

__all__ = [
    "Draw",
    "Estimate",
    "FiniteDifferenceBias",
    "MaskStability",
    "ScoreEstimate",
    "Verdict",
    "check_mean",
    "check_same_distribution",
    "finite_difference_bias",
    "hutchinson_diagonal",
    "hutchinson_frobenius",
    "hutchinson_trace",
    "hutchpp_trace",
    "mask_stability",
    "min_detectable_bias",
    "min_samples",
    "ntk_sap_objective",
    "ntk_sap_score",
    "output_probe_trace",
    "realization_scores",
    "sample_draws",
    "sigma_for_bias",
    "xtrace",
]
