"""Masks, scorers and the pruning loop."""

from ntktheory.pruning.masks import apply_masks
from ntktheory.pruning.scorers import SCORERS, Scorer, register_scorer
from ntktheory.pruning.scoring import score

__all__ = ["SCORERS", "Scorer", "apply_masks", "register_scorer", "score"]
