"""Finite laws with rational weights: integer numerators over one total.

Sums are integers, so that "is this information zero" has an exact answer; floats enter only in the
logarithms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ntktheory.checks import complaint

Array = np.ndarray[Any, Any]
FITS = 2**62
"""Totals below this are summed in int64, others as Python integers."""


@dataclass(frozen=True)
class Law:
    """A finite law: outcome i has probability ``numerators[i] / total``.

    Attributes:
        numerators: Non-negative integers, [N]; int64, or Python integers if the total is too large.
        total: Their sum.
    """

    numerators: Array
    total: int


def law(weights: Sequence[Fraction | int]) -> Law:
    """Return the law of given probabilities, which must sum to one exactly.

    Args:
        weights: Probabilities as ``Fraction`` (or ints); floats do not sum to one exactly.

    Returns:
        The law.

    Raises:
        TypeError: If a weight is no rational.
        ValueError: If there are none, one is negative, or they do not sum to one.

    Example:
        >>> law([Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]).numerators
        array([3, 2, 1])
    """
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, Fraction | int):
            raise TypeError(
                complaint(
                    "weights",
                    "Fractions",
                    type(weight).__name__,
                    "Write Fraction(1, 3), not 0.333.",
                )
            )
        if weight < 0:
            raise ValueError(
                complaint("weights", "non-negative", weight, "They are probabilities.")
            )
    whole = sum(map(Fraction, weights), Fraction(0))
    if whole != 1:
        raise ValueError(
            complaint("weights", "summing to one, exactly", f"a sum of {whole}", "Divide by it.")
        )
    total = math.lcm(*(Fraction(w).denominator for w in weights))
    return counted([int(w * total) for w in weights])


def counted(numerators: Sequence[int]) -> Law:
    """Return the law proportional to non-negative integers, not all 0."""
    total = sum(map(int, numerators))
    if total <= 0 or min(numerators) < 0:
        raise ValueError(
            complaint("numerators", "non-negative, not all 0", f"a sum of {total}", "Count again.")
        )
    return Law(np.array(numerators, dtype=np.int64 if total < FITS else object), total)


def uniform(n: int) -> Law:
    """Return the uniform law over n outcomes."""
    return counted([1] * n)


def pushed(labels: Array, over: Law) -> Law:
    """Return the law of a function of the outcome.

    Args:
        labels: Its values, [N] integers.
        over: The law of the outcome.

    Returns:
        The law of the values that occur with positive probability, in ascending order.
    """
    held = over.numerators != 0
    labels, numerators = labels[held], over.numerators[held]
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order[0]] - 1))
    return Law(np.add.reduceat(numerators[order], starts), over.total)


def entropy_bits(of: Law) -> float:
    """Return ``Σ p log2(1/p)``; exactly 0.0 if one outcome has all the weight.

    Example:
        >>> entropy_bits(uniform(8)), entropy_bits(law([Fraction(1), Fraction(0)]))
        (3.0, 0.0)
    """
    held = [int(w) for w in of.numerators if w]
    if len(held) == 1:
        return 0.0
    values, counts = np.unique(np.array(held, dtype=of.numerators.dtype), return_counts=True)
    return math.fsum(
        int(count) * (int(w) / of.total) * math.log2(Fraction(of.total, int(w)))
        for w, count in zip(values, counts, strict=True)
    )
