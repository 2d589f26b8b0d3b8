"""Data sets by name, for the command line and for configurations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ntktheory.checks import check_choice, complaint
from ntktheory.data.cifar import cifar10, cifar10_jpeg
from ntktheory.data.digits import digits
from ntktheory.data.fashion_mnist import fashion_mnist


@dataclass(frozen=True)
class DataEntry:
    """A data set that can be asked for by name.

    Attributes:
        load: ``load(count, dtype=…, generator=…) -> (inputs [count, …], labels [count])``; with splits
            also ``split=…, data_dir=…, progress=…``.
        description: One line.
        splits: Its parts, the default first, for a data set in the folder of data sets; empty for one
            that is embedded and undivided.
    """

    load: Callable[..., tuple[Tensor, Tensor]]
    description: str
    splits: tuple[str, ...] = ()


DATA: dict[str, DataEntry] = {
    "digits": DataEntry(digits, "1,797 handwritten digits, 1×8×8, embedded in scikit-learn"),
    "cifar10-jpeg": DataEntry(
        cifar10_jpeg,
        "CIFAR-10 recompressed as JPEG, 3×32×32, from cifar10_jpeg.tar.xz",
        ("train", "test"),
    ),
    "cifar10": DataEntry(
        cifar10, "CIFAR-10, 3×32×32, from cifar-10-binary.tar.gz", ("train", "test")
    ),
    "fashion_mnist": DataEntry(
        fashion_mnist, "Fashion-MNIST, 1×28×28, from fashion_mnist/", ("train", "test")
    ),
}


def load_data(
    name: str,
    count: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    data_dir: str | Path | None = None,
    split: str | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Load a data set by name.

    Args:
        name: A key of ``DATA``.
        count: How many samples; None means all.
        dtype: Type of the inputs.
        generator: Draws which samples, without replacement; None takes the first ones.
        data_dir: The folder of data sets; None means the one that the environment variable
            NTKTHEORY_DATA names. Embedded data sets need none.
        split: One of the entry's splits; None means its first, or all where it is undivided.
        progress: Show a progress bar while images are decoded.

    Returns:
        Inputs [count, …] and labels [count].

    Raises:
        ValueError: If the name or the split is unknown, the data are missing or damaged, or there are
            not as many samples.

    Example:
        >>> x, y = load_data("digits", 3)
        >>> x.shape, y.tolist()
        (torch.Size([3, 1, 8, 8]), [0, 1, 2])
    """
    check_choice("data", name, DATA)
    entry = DATA[name]
    if entry.splits:
        split = entry.splits[0] if split is None else split
        where = {"split": split, "data_dir": data_dir, "progress": progress}
        return entry.load(count, dtype=dtype, generator=generator, **where)
    if split is not None:
        raise ValueError(
            complaint(
                "split", f"None for {name}, which is undivided", repr(split), "Draw parts by count."
            )
        )
    return entry.load(count, dtype=dtype, generator=generator)
