"""Masks as integers, so that a law over masks is a table of numbers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import complaint

LARGEST = 62
"""How many weights fit a code word: a non-negative int64 with a bit to spare."""


def check_code_length(p: int) -> None:
    """Check that a mask of p weights fits a code word.

    Raises:
        ValueError: If p is not in 1…62.
    """
    if not 1 <= p <= LARGEST:
        raise ValueError(
            complaint("P", f"in 1…{LARGEST}, the bits of a code word", p, "Use a smaller network.")
        )


def code_word(mask: Any) -> int:
    """Return ``Σ_j m_j 2^j`` over the weights j in their order, tensors in the order of the mapping.

    Args:
        mask: A bool tensor, a sequence of 0 and 1, or a mapping from names to such tensors.

    Returns:
        The code word.

    Raises:
        ValueError: If an entry is not 0 or 1, or there are none or more than 62.

    Example:
        >>> code_word([1, 0, 1]), code_word({"a": torch.tensor([True]), "b": torch.tensor([True])})
        (5, 3)
    """
    parts = list(mask.values()) if isinstance(mask, Mapping) else [mask]
    flat = [value for part in parts for value in torch.as_tensor(part).flatten().tolist()]
    check_code_length(len(flat))
    if any(value not in (0, 1) for value in flat):
        raise ValueError(
            complaint("mask", "made of 0 and 1", "other entries", "A weight is kept or not.")
        )
    return sum(1 << j for j, value in enumerate(flat) if value)


def code_words(kept: Tensor) -> Tensor:
    """Return the code words of many masks.

    Args:
        kept: Bool masks, [P, ...].

    Returns:
        int64 code words, [...].

    Raises:
        ValueError: If P is not in 1…62.
    """
    check_code_length(kept.shape[0])
    bits = (1 << torch.arange(kept.shape[0])).view(-1, *[1] * (kept.ndim - 1))
    return (kept.long() * bits).sum(0)


def mask_of(code: int, p: int) -> Tensor:
    """Return the mask of a code word, [p] bool.

    Example:
        >>> mask_of(5, 3)
        tensor([ True, False,  True])
    """
    return torch.tensor([bool(code >> j & 1) for j in range(p)])
