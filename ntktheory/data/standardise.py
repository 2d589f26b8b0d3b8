"""Channels of mean 0 and standard deviation 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ntktheory.checks import check_batch, complaint

CHUNK = 256  # samples in float64 at a time


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every channel, over samples and positions.

    The variance is divided by the number of pixels, not by one less.

    Args:
        images: [N, channels, height, width], of any real type.

    Returns:
        Means and standard deviations, [channels] each, float64.

    Raises:
        TypeError: If ``images`` is not a tensor of real numbers.
        ValueError: If it is empty or has not four axes.
        NumericalError: If it holds NaN or Inf.

    Cost: Two passes, 256 samples at a time in float64.

    Example:
        >>> mean, std = channel_statistics(torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2))
        >>> mean.tolist(), std.tolist()
        ([1.0], [1.0])
    """
    _check_images(images)
    pixels, chunks = images[:, 0].numel(), images.split(CHUNK)
    mean = sum((c.double().sum((0, 2, 3)) for c in chunks), torch.zeros(())) / pixels
    centred = (c.double() - mean[:, None, None] for c in chunks)
    variance = sum((c.square().sum((0, 2, 3)) for c in centred), torch.zeros(())) / pixels
    return mean, variance.sqrt()


def standardise(
    images: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
) -> Tensor:
    """Return ``(images − mean) / std``, channel by channel.

    Take both from the training images, also for the test images.

    Args:
        images: [N, channels, height, width], of a floating-point type.
        mean: One number per channel.
        std: One positive number per channel.

    Returns:
        Tensor like ``images``.

    Raises:
        TypeError: If ``images`` is not a tensor of real numbers.
        ValueError: If it is empty, has not four axes or no floating-point type; or if there is not one
            mean and one positive deviation per channel.
        NumericalError: If it holds NaN or Inf.

    Example:
        >>> x = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)
        >>> standardise(x, *channel_statistics(x)).flatten().tolist()
        [-1.0, 1.0]
    """
    _check_images(images)
    channels = images.shape[1]
    shift, scale = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, std))
    fits = shift.shape == scale.shape == (channels,) and bool((scale > 0).all())
    if not fits or not images.is_floating_point():
        raise ValueError(
            complaint(
                "mean and std",
                f"{channels} numbers each, std positive, for images of a floating-point type",
                f"{shift.tolist()} and {scale.tolist()} for {images.dtype}",
                "Take them from channel_statistics.",
            )
        )
    shift, scale = (v.to(images)[:, None, None] for v in (shift, scale))
    return (images - shift) / scale


def _check_images(images: Tensor) -> None:
    check_batch("images", images)
    if images.ndim != 4:
        raise ValueError(
            complaint(
                "images",
                "of shape [N, channels, height, width]",
                list(images.shape),
                "Reshape them.",
            )
        )
