"""What a round of pruning leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Round:
    """One round, in plain numbers.

    Attributes:
        density: Fraction of the prunable weights kept after it.
        threshold: The lowest score of a weight that was kept.
        kept: Layer -> kept weights.
        per_layer: Layer -> fraction of its weights kept; 1 for a layer of none.
        minimum: The lowest score of a weight that could have been kept.
        median: The median of those scores; the lower one of two.
        maximum: The highest.
        nonzero: How many of those scores are not 0. Where it is less than what was kept, the last ones
            were kept by index alone.
        mass: Layer -> its share of ``Σ|score|`` over those weights; 0 if all are 0.
        seconds: Time that the round took, scoring included.
    """

    density: float
    threshold: float
    kept: Mapping[str, int]
    per_layer: Mapping[str, float]
    minimum: float
    median: float
    maximum: float
    nonzero: int
    mass: Mapping[str, float]
    seconds: float


def summarised(
    scores: Mapping[str, Tensor],
    candidates: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    seconds: float,
) -> Round:
    """Return the summary of a round.

    Args:
        scores: Layer -> scores.
        candidates: Layer -> bool mask of the weights that could be kept.
        masks: Layer -> bool mask of those that were.
        seconds: Time.

    Returns:
        The summary. Cost: linear in the number of weights.
    """
    eligible = {
        name: s.flatten() if bool(candidates[name].all()) else s[candidates[name]]
        for name, s in scores.items()
    }
    flat = torch.cat([s.cpu() for s in eligible.values()])
    sums = {
        name: float(torch.linalg.vector_norm(s, 1, dtype=torch.float64))
        for name, s in eligible.items()
    }
    total = sum(sums.values())
    kept = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    lowest = [
        float(s.masked_fill(~masks[name], torch.inf).min())
        for name, s in scores.items()
        if kept[name]
    ]
    return Round(
        density=sum(kept.values()) / sum(m.numel() for m in masks.values()),
        threshold=min(lowest),
        kept=kept,
        per_layer={n: kept[n] / m.numel() if m.numel() else 1.0 for n, m in masks.items()},
        minimum=float(flat.min()),
        median=float(flat.median()),
        maximum=float(flat.max()),
        nonzero=int(flat.count_nonzero()),
        mass={name: s / total if total else 0.0 for name, s in sums.items()},
        seconds=seconds,
    )
