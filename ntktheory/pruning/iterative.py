"""Pruning in rounds: score, keep the highest, score again."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.pruning.topk import keep_highest, kept_count

Score = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def prune_in_rounds(
    score: Score, params: Mapping[str, Tensor], densities: Iterable[float]
) -> dict[str, Tensor]:
    """Return nested masks: each round keeps the highest scores among the weights of the last.

    Args:
        score: ``score(masks) -> {name: tensor}``, the scores under the masks so far; larger = keep.
        params: The prunable parameters; all start kept.
        densities: Fraction of their weights kept after each round (see ``schedules.py``).

    Returns:
        Parameter name -> bool mask, with ``max(1, round(density · P))`` kept weights in all; ties go
        by index.

    Raises:
        ValueError: If a density is out of range, or a round keeps more weights than the one before.
        NumericalError: If a score is NaN.
    """
    masks = {name: p.new_ones(p.shape).bool() for name, p in params.items()}
    total = sum(p.numel() for p in params.values())
    for density in densities:
        count, kept = kept_count(density, total), sum(int(m.sum()) for m in masks.values())
        if count > kept:
            raise ValueError(
                complaint("densities", "falling", f"{density} after {kept / total}", "Sort them.")
            )
        scores = score(masks)
        remaining = {
            name: scores[name].masked_fill(~mask, -float("inf")) for name, mask in masks.items()
        }
        masks = keep_highest(remaining, count)
    return masks
