"""Fashion-MNIST: 28×28 grey images of clothes in ten classes."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.data.archive import damaged
from ntktheory.data.idx import read_idx
from ntktheory.data.location import find
from ntktheory.data.selection import as_images, choose

FOLDER = "fashion_mnist"
PREFIXES = {"train": "train", "test": "t10k"}


def fashion_mnist(
    count: int | None = None,
    *,
    split: str = "train",
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    data_dir: str | Path | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images, in its own order.

    The folder of data sets holds ``fashion_mnist/`` with the four idx files, ``train-images-idx3-ubyte``
    and so on, gzipped (``.gz``) or not; ``download("fashion_mnist")`` puts them there.

    Args:
        count: How many images; None means all of the split.
        split: "train" or "test".
        dtype: A floating-point type, for pixels in [0, 1]; or ``torch.uint8``, for 0…255.
            ``standardise`` shifts and scales them.
        generator: Draws which images, without replacement; None takes the first ones.
        data_dir: The folder of data sets; None means the one that NTKTHEORY_DATA names.
        progress: Not used here: there is nothing to decode.

    Returns:
        Images [count, 1, 28, 28] and labels 0…9 [count].

    Raises:
        ValueError: If the data are missing or damaged, or an argument does not fit.

    Cost: Memory for the split, 47 MB, whatever the count; then the images asked for.

    Source:
        Xiao, Rasul and Vollgraf 2017, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
        Learning Algorithms*.
    """
    check_choice("split", split, PREFIXES)
    images_path, labels_path = (
        _file(f"{PREFIXES[split]}-{kind}-ubyte", data_dir)
        for kind in ("images-idx3", "labels-idx1")
    )
    pixels, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if pixels.shape[1:] != (28, 28):
        raise ValueError(
            damaged(images_path, f"images of shape {list(pixels.shape[1:])}, not [28, 28]")
        )
    if len(labels) != len(pixels) or labels.max() > 9:
        reason = f"{len(labels)} labels up to {labels.max()} for {len(pixels)} images of 10 classes"
        raise ValueError(damaged(labels_path, reason))
    chosen = choose(len(pixels), count, generator).numpy()
    images = as_images(pixels[chosen], dtype).unsqueeze(1)
    return images, torch.from_numpy(labels[chosen].astype(np.int64))


def _file(name: str, data_dir: str | Path | None) -> Path:
    candidates = [f"{FOLDER}/{name}.gz", f"{FOLDER}/{name}"]
    return find("fashion_mnist", candidates, data_dir, 'download("fashion_mnist") fetches it.')
