"""Data sets by name, for the command line and for configurations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.data.digits import digits


@dataclass(frozen=True)
class DataEntry:
    """A data set that can be asked for by name.

    Attributes:
        load: ``load(count, dtype=…, generator=…) -> (inputs [count, …], labels [count])``.
        description: One line.
    """

    load: Callable[..., tuple[Tensor, Tensor]]
    description: str


DATA: dict[str, DataEntry] = {
    "digits": DataEntry(digits, "1,797 handwritten digits, 1×8×8, embedded in scikit-learn"),
}


def load_data(
    name: str,
    count: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Load a data set by name.

    Args:
        name: A key of ``DATA``.
        count: How many samples; None means all.
        dtype: Type of the inputs.
        generator: Draws which samples, without replacement; None takes the first ones.

    Returns:
        Inputs [count, …] and labels [count].

    Raises:
        ValueError: If the name is unknown, or there are not as many samples.

    Example:
        >>> x, y = load_data("digits", 3)
        >>> x.shape, y.tolist()
        (torch.Size([3, 1, 8, 8]), [0, 1, 2])
    """
    check_choice("data", name, DATA)
    return DATA[name].load(count, dtype=dtype, generator=generator)
