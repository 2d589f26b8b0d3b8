"""Masks as sets of kept weights: how many, and what two of them share."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ntktheory.checks import check_masks, complaint

Masks = Mapping[str, Tensor]


def count_kept(masks: Masks) -> int:
    """Return how many weights all masks together keep.

    Raises:
        TypeError: If the masks are no mapping, or one is not a tensor.
        ValueError: If an entry is not 0 or 1.

    Example:
        >>> count_kept({"a": torch.tensor([True, False]), "b": torch.tensor([True])})
        2
    """
    check_masks(masks, masks, binary=True, optional=False)
    return sum(int(mask.count_nonzero()) for mask in masks.values())


def total_density(masks: Masks) -> float:
    """Return kept weights ÷ weights, of all masks together.

    Raises:
        TypeError: If the masks are no mapping, or one is not a tensor.
        ValueError: If the masks have no entries, or one is not 0 or 1.
    """
    kept = count_kept(masks)
    numel = sum(mask.numel() for mask in masks.values())
    if numel == 0:
        raise ValueError(complaint("masks", "those of some weights", "none", "Add one."))
    return kept / numel


def layer_density(masks: Masks) -> dict[str, float]:
    """Return name -> kept weights ÷ weights of that mask.

    Raises:
        TypeError: If the masks are no mapping, or one is not a tensor.
        ValueError: If a mask has no entries, or one is not 0 or 1.

    Example:
        >>> layer_density({"a": torch.tensor([True, False]), "b": torch.tensor([True])})
        {'a': 0.5, 'b': 1.0}
    """
    check_masks(masks, masks, binary=True, optional=False)
    return {name: total_density({name: mask}) for name, mask in masks.items()}


def overlap(a: Masks, b: Masks) -> float:
    """Return ``|A∩B| ÷ min(|A|, |B|)``: 1 if one keeps all that the other does.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If the masks have other names or shapes, or one keeps nothing.

    Example:
        >>> overlap({"a": torch.tensor([1, 1, 0])}, {"a": torch.tensor([0, 1, 1])})
        0.5
    """
    smaller = min(count_kept(a), count_kept(b))
    if smaller == 0:
        raise ValueError(
            complaint("masks", "some that keep a weight", "none kept", "0 ÷ 0 is no overlap.")
        )
    return count_kept(intersection(a, b)) / smaller


def jaccard(a: Masks, b: Masks) -> float:
    """Return ``|A∩B| ÷ |A∪B|``; 1 if neither keeps anything.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If the masks have other names or shapes.

    Example:
        >>> jaccard({"a": torch.tensor([1, 1, 0])}, {"a": torch.tensor([0, 1, 0])})
        0.5
    """
    either = count_kept(union(a, b))
    return count_kept(intersection(a, b)) / either if either else 1.0


def union(a: Masks, b: Masks) -> dict[str, Tensor]:
    """Return masks that keep what ``a`` or ``b`` keeps.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If the masks have other names or shapes.
    """
    return _combined(a, b, torch.logical_or)


def intersection(a: Masks, b: Masks) -> dict[str, Tensor]:
    """Return masks that keep what both ``a`` and ``b`` keep.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If the masks have other names or shapes.
    """
    return _combined(a, b, torch.logical_and)


def difference(a: Masks, b: Masks) -> dict[str, Tensor]:
    """Return masks that keep what ``a`` keeps and ``b`` does not.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If the masks have other names or shapes.

    Example:
        >>> difference({"a": torch.tensor([1, 1, 0])}, {"a": torch.tensor([0, 1, 1])})
        {'a': tensor([ True, False, False])}
    """
    return _combined(a, b, lambda p, q: p & ~q)


def _combined(
    a: Masks, b: Masks, operation: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    if set(a) != set(b):
        raise ValueError(
            complaint(
                "masks",
                f"of the same layers, {', '.join(sorted(a))}",
                ", ".join(sorted(b)) or "none",
                "Compare masks of one network.",
            )
        )
    check_masks(a, a, binary=True)
    check_masks(b, a, binary=True)
    return {name: operation(mask.bool(), b[name].bool()) for name, mask in a.items()}
