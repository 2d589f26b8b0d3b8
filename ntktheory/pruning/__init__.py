"""Masks, scorers and the pruning loop."""

from ntktheory.pruning.budgets import layer_counts
from ntktheory.pruning.controls import reinitialise, shuffle_masks
from ntktheory.pruning.health import LayerHealth, MaskHealth, mask_health
from ntktheory.pruning.iterative import PruneResult, prune
from ntktheory.pruning.mask_files import load_masks, mask_notes, save_masks
from ntktheory.pruning.mask_sets import (
    count_kept,
    difference,
    intersection,
    jaccard,
    layer_density,
    overlap,
    total_density,
    union,
)
from ntktheory.pruning.masks import apply_masks, carried_masks
from ntktheory.pruning.rounds import Round
from ntktheory.pruning.scorers import SCORERS, Scorer, register_scorer
from ntktheory.pruning.scoring import score
from ntktheory.pruning.torch_prune import from_torch_prune, to_torch_prune

__all__ = [
    "SCORERS",
    "LayerHealth",
    "MaskHealth",
    "PruneResult",
    "Round",
    "Scorer",
    "apply_masks",
    "carried_masks",
    "count_kept",
    "difference",
    "from_torch_prune",
    "intersection",
    "jaccard",
    "layer_counts",
    "layer_density",
    "load_masks",
    "mask_health",
    "mask_notes",
    "overlap",
    "prune",
    "register_scorer",
    "reinitialise",
    "save_masks",
    "score",
    "shuffle_masks",
    "to_torch_prune",
    "total_density",
    "union",
]
