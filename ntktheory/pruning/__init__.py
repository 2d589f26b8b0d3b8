"""Masks and scorers for pruning at initialisation."""

from ntktheory.pruning.masks import apply_masks

__all__ = ["apply_masks"]
