"""Stochastic estimators, and the evidence by which they are judged."""

from ntktheory.estimators.evidence import (
    check_mean,
    check_same_distribution,
    min_detectable_bias,
    min_samples,
)
from ntktheory.estimators.ntk_sap import ntk_sap_objective
from ntktheory.estimators.verdict import Verdict

__all__ = [
    "Verdict",
    "check_mean",
    "check_same_distribution",
    "min_detectable_bias",
    "min_samples",
    "ntk_sap_objective",
]
