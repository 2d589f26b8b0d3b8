"""Scorers: pure functions, one file each; larger = keep. ``SCORERS`` holds them by name."""

from ntktheory.pruning.scorers import published as _published  # noqa: F401  # fills SCORERS
from ntktheory.pruning.scorers.path_edge import path_edge
from ntktheory.pruning.scorers.px import px
from ntktheory.pruning.scorers.px_bound import px_bound
from ntktheory.pruning.scorers.registry import SCORERS, Scorer, register_scorer
from ntktheory.pruning.scorers.synflow_l2 import synflow_l2
from ntktheory.pruning.scorers.t_sq import t_sq

__all__ = [
    "SCORERS",
    "Scorer",
    "path_edge",
    "px",
    "px_bound",
    "register_scorer",
    "synflow_l2",
    "t_sq",
]
