"""Scikit-learn's handwritten digits: 1,797 real images that need no download."""

import torch
from torch import Tensor

from ntktheory.data.selection import choose


def digits(
    count: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Load 8×8 images of handwritten digits.

    Args:
        count: How many; None means all 1,797.
        dtype: Type of the images.
        generator: Draws which images, without replacement; None takes the first ones.

    Returns:
        Images [count, 1, 8, 8] with pixels in [0, 1], and labels 0…9 [count].

    Raises:
        ValueError: If ``count`` is not between 1 and 1,797.

    Source:
        UCI "Optical Recognition of Handwritten Digits", test part, as shipped by scikit-learn.

    Example:
        >>> images, labels = digits(5)
        >>> images.shape, labels.tolist()
        (torch.Size([5, 1, 8, 8]), [0, 1, 2, 3, 4])
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = choose(len(bunch.target), count, generator)
    images = torch.from_numpy(bunch.images).to(dtype).unsqueeze(1) / 16
    return images[chosen], torch.from_numpy(bunch.target)[chosen]
