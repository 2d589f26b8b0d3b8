"""Scorers: pure functions of (model_fn, params, masks, x, …); larger = keep. One file each."""

from ntktheory.pruning.scorers.path_edge import path_edge
from ntktheory.pruning.scorers.px import px
from ntktheory.pruning.scorers.px_bound import px_bound
from ntktheory.pruning.scorers.synflow_l2 import synflow_l2
from ntktheory.pruning.scorers.t_sq import t_sq

__all__ = ["path_edge", "px", "px_bound", "synflow_l2", "t_sq"]
