"""Stochastic estimators, and the evidence by which they are judged."""

from ntktheory.estimators.diagonal import hutchinson_diagonal
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
from ntktheory.estimators.output_probes import output_probe_trace
from ntktheory.estimators.verdict import Verdict
from ntktheory.estimators.xtrace import xtrace

__all__ = [
    "Estimate",
    "Verdict",
    "check_mean",
    "check_same_distribution",
    "hutchinson_diagonal",
    "hutchinson_frobenius",
    "hutchinson_trace",
    "hutchpp_trace",
    "min_detectable_bias",
    "min_samples",
    "ntk_sap_objective",
    "output_probe_trace",
    "xtrace",
]
