"""The data sets of No Free Prune's toy: a few points of {±1}^d with labels ±1, all of them.

A loss that is a mean over the points does not see their order, so a data set is a multiset: counts of
the 2·2^d points (input, label). With six points in three dimensions there are 54,264.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.information.laws import Law, counted

MOST = 2_000_000
"""More data sets than this are refused: they would not fit a machine's memory when trained at once."""


@dataclass(frozen=True)
class ToyData:
    """Every data set, with its weight.

    Attributes:
        inputs: The inputs {±1}^d, [2^d, d] float64.
        counts: How often each input occurs with label −1 and with +1, [2, 2^d, N] int64.
        law: The law of the data sets: multinomial, or uniform without replacement.
        samples: Points per data set.
    """

    inputs: Tensor
    counts: Tensor
    law: Law
    samples: int

    def __len__(self) -> int:
        """Return N, the number of data sets."""
        return self.counts.shape[2]

    def repeated(self, times: int) -> "ToyData":
        """Return the data sets several times over, for as many inits at once.

        Example:
            >>> len(toy_data(1, 1).repeated(3))
            12
        """
        law = Law(np.tile(self.law.numerators, times), self.law.total * times)
        return ToyData(self.inputs, self.counts.repeat(1, 1, times), law, self.samples)

    def part(self, index: Tensor) -> "ToyData":
        """Return some data sets, under the law given that the data set is one of them."""
        numerators = self.law.numerators[index.numpy()]
        law = Law(numerators, int(numerators.sum()))
        return ToyData(self.inputs, self.counts[:, :, index], law, self.samples)

    def points(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the points themselves, in one order: by label (−1 first), then input.

        Args:
            start: First data set.
            stop: The one after the last; None = all that follow.

        Returns:
            Inputs [n, samples, d] and labels ±1 [n, samples], float64.
        """
        flat = self.counts[:, :, start:stop].flatten(0, 1).T
        kinds = torch.arange(flat.shape[1]).expand_as(flat)
        drawn = torch.repeat_interleave(kinds.flatten(), flat.flatten())
        drawn = drawn.view(len(flat), self.samples)
        number = len(self.inputs)
        return self.inputs[drawn % number], 2.0 * (drawn // number).double() - 1


def toy_data(samples: int = 6, dimension: int = 3, *, replacement: bool = True) -> ToyData:
    """Return every data set of the toy with its exact probability.

    With replacement, each point is an input drawn uniformly from {±1}^d with a uniform label ±1,
    independently: multiset c has probability ``samples! / Π c! / (2·2^d)^samples``. Without replacement
    the inputs are distinct and the labels still free. (The paper does not say which.)

    Args:
        samples: Points per data set.
        dimension: d.
        replacement: Whether an input can occur twice.

    Returns:
        The data sets.

    Raises:
        ValueError: If a number is not a positive int, there are not enough inputs, or more than
            2,000,000 data sets.

    Example:
        >>> len(toy_data()), len(toy_data(replacement=False)), toy_data().law.total == 16**6
        (54264, 1792, True)
    """
    for name, value in (("samples", samples), ("dimension", dimension)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(complaint(name, "a positive integer", repr(value), "Choose a few."))
    number = 2**dimension
    if not replacement and samples > number:
        raise ValueError(
            complaint(
                "samples", f"at most {number}", samples, "Inputs are distinct without replacement."
            )
        )
    found = (
        math.comb(2 * number + samples - 1, samples)
        if replacement
        else math.comb(number, samples) * 2**samples
    )
    if found > MOST:
        raise ValueError(
            complaint(
                "samples", f"few: at most {MOST:,} data sets", f"{found:,}", "Take fewer points."
            )
        )
    inputs = torch.tensor(list(product((-1.0, 1.0), repeat=dimension)), dtype=torch.float64)
    rows = _multisets(2 * number, samples) if replacement else _distinct(number, samples)
    flat = torch.tensor(list(rows))
    counts = torch.zeros(len(flat), 2 * number, dtype=torch.long).scatter_add_(
        1, flat, torch.ones_like(flat)
    )
    ways = [1] * len(flat)
    if replacement:
        factorials = [math.factorial(c) for c in range(samples + 1)]
        ways = [
            factorials[-1] // math.prod(factorials[c] for c in row if c) for row in counts.tolist()
        ]
    return ToyData(inputs, counts.T.reshape(2, number, -1).contiguous(), counted(ways), samples)


def _multisets(kinds: int, samples: int) -> Iterator[tuple[int, ...]]:
    """Yield the multisets of points in ascending order (stars and bars)."""
    for bars in combinations(range(kinds + samples - 1), samples):
        yield tuple(bar - i for i, bar in enumerate(bars))


def _distinct(number: int, samples: int) -> Iterator[tuple[int, ...]]:
    """Yield the sets of points with distinct inputs."""
    for inputs in combinations(range(number), samples):
        for labels in product((0, 1), repeat=samples):
            yield tuple(i + number * label for i, label in zip(inputs, labels, strict=True))
