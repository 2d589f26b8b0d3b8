"""Masks, scorers and the pruning loop."""

from ntktheory.pruning.budgets import layer_counts
from ntktheory.pruning.iterative import PruneResult, prune
from ntktheory.pruning.mask_files import load_masks, mask_notes, save_masks
from ntktheory.pruning.masks import apply_masks, carried_masks
from ntktheory.pruning.rounds import Round
from ntktheory.pruning.scorers import SCORERS, Scorer, register_scorer
from ntktheory.pruning.scoring import score

__all__ = [
    "SCORERS",
    "PruneResult",
    "Round",
    "Scorer",
    "apply_masks",
    "carried_masks",
    "layer_counts",
    "load_masks",
    "mask_notes",
    "prune",
    "register_scorer",
    "save_masks",
    "score",
]
