"""Keeping the highest scores: an exact count, ties by index."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ntktheory.checks import NumericalError, complaint


def kept_count(density: float, numel: int) -> int:
    """Return how many of ``numel`` weights a density keeps: ``max(1, round(density · numel))``.

    Halves are rounded to even.

    Raises:
        ValueError: If the density is not in (0, 1], or keeps less than half a weight, or there is none.
    """
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
        raise ValueError(
            complaint(
                "density",
                "a fraction in (0, 1]",
                repr(density),
                "It is the fraction of prunable weights that is kept.",
            )
        )
    if numel == 0:
        raise ValueError(
            complaint(
                "model", "a network with prunable weights", "none", "Its layers must not be empty."
            )
        )
    if density * numel < 0.5:
        raise ValueError(
            complaint(
                "density",
                f"at least {1 / numel:.3g}, one weight of {numel}",
                repr(density),
                "Keep more weights, or prune a larger network.",
            )
        )
    return max(1, round(density * numel))


def keep_highest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return masks that keep exactly ``count`` weights with the highest scores of all tensors.

    Among equal scores those with the smaller index go first, tensors in their order: comparing with a
    threshold would keep or drop a whole class of ties.

    Args:
        scores: Parameter name -> score of each weight; larger = keep.
        count: How many weights to keep.

    Returns:
        Parameter name -> bool mask, on the scores' devices.

    Raises:
        TypeError: If a score is no real number.
        ValueError: If there are no scores, or not as many weights.
        NumericalError: If a score is NaN; the message names the tensor. Inf is a score like others.

    Cost:
        Linear in the number of weights.

    Example:
        >>> keep_highest({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([2.0, 0.0])}, 1)
        {'a': tensor([False,  True]), 'b': tensor([False, False])}
    """
    if not scores:
        raise ValueError(
            complaint("scores", "those of at least one tensor", "none", "Nothing can be pruned.")
        )
    for name, score in scores.items():
        check_real(name, score)
        if bool(torch.isnan(score).any()):
            raise NumericalError(
                complaint(f"score of {name!r}", "a number", "NaN", "Rescale, or use float64.")
            )
    flat = torch.cat([s.detach().flatten().cpu() for s in scores.values()])
    if not 0 <= count <= flat.numel():
        raise ValueError(
            complaint("count", f"between 0 and {flat.numel()}", count, "There are no more weights.")
        )
    kept = _highest(flat, count)
    parts = kept.split([s.numel() for s in scores.values()])
    return {
        name: part.view(score.shape).to(score.device)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def check_real(name: str, score: Tensor) -> None:
    """Check that a score has an order and a size.

    Raises:
        TypeError: If it is bool or complex.
    """
    if score.dtype == torch.bool or score.is_complex():
        raise TypeError(
            complaint(
                f"score of {name!r}",
                "made of real numbers",
                str(score.dtype),
                "Convert it, by .float() for instance.",
            )
        )


def _highest(flat: Tensor, count: int) -> Tensor:
    if count == 0:
        return torch.zeros_like(flat, dtype=torch.bool)
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    kept = flat > threshold
    ties = torch.nonzero(flat == threshold).flatten()
    kept[ties[: count - int(kept.count_nonzero())]] = True
    return kept
