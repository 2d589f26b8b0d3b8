"""Which samples, in which order, and of which type."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import complaint

T = TypeVar("T")


def choose(total: int, count: int | None, generator: torch.Generator | None) -> Tensor:
    """Choose samples: a smaller choice is the start of a larger one.

    Args:
        total: How many there are.
        count: How many to choose; None means all.
        generator: Draws them without replacement; None takes the first ones.

    Returns:
        Their indices [count].

    Raises:
        ValueError: If ``count`` is not between 1 and ``total``.

    Example:
        >>> choose(10, 3, None).tolist()
        [0, 1, 2]
    """
    if count is not None and (type(count) is not int or not 1 <= count <= total):
        raise ValueError(
            complaint(
                "count", f"an integer between 1 and {total}", repr(count), "Ask for fewer images."
            )
        )
    order = torch.arange(total) if generator is None else torch.randperm(total, generator=generator)
    return order[:count]


def in_turn(classes: Sequence[Sequence[T]]) -> list[tuple[T, int]]:
    """Return the members of all classes with their class: the first of each, then the second, ….

    So the start of the list is balanced, as far as the classes are.

    Args:
        classes: The members of each class; None is no member.

    Returns:
        Pairs (member, index of its class).

    Example:
        >>> in_turn(["ab", "x", "klm"])
        [('a', 0), ('x', 1), ('k', 2), ('b', 0), ('l', 2), ('m', 2)]
    """
    rounds = zip_longest(*classes)
    return [(m, c) for members in rounds for c, m in enumerate(members) if m is not None]


def as_images(pixels: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Return pixels 0…255 as numbers from 0 to 1, or as they are.

    Args:
        pixels: Whole numbers 0…255, uint8, of any shape.
        dtype: A floating-point type, for numbers in [0, 1]; or ``torch.uint8``, for 0…255.

    Returns:
        A tensor of that shape and type.

    Raises:
        ValueError: If ``dtype`` is neither.

    Example:
        >>> as_images(np.array([0, 51, 255], dtype=np.uint8), torch.float64).tolist()
        [0.0, 0.2, 1.0]
    """
    if dtype != torch.uint8 and not dtype.is_floating_point:
        raise ValueError(
            complaint("dtype", "a floating-point type or torch.uint8", dtype, "Convert afterwards.")
        )
    tensor = torch.from_numpy(pixels)
    return tensor if dtype == torch.uint8 else tensor.to(dtype).div_(255)
