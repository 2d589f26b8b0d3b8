"""Information by definition: a loop over data sets, rationals, and nothing else until the logarithm."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from fractions import Fraction
from itertools import product
from math import factorial


def data_sets(samples: int, dimension: int) -> dict[tuple, Fraction]:
    """Return the probability of every multiset of points (x, y), by looping over all sequences."""
    points = [(x, y) for x in product((-1, 1), repeat=dimension) for y in (-1, 1)]
    each = Fraction(1, len(points) ** samples)
    found: dict[tuple, Fraction] = defaultdict(Fraction)
    for drawn in product(points, repeat=samples):
        found[tuple(sorted(drawn))] += each
    return dict(found)


def multinomial(drawn: Sequence[Hashable], kinds: int) -> Fraction:
    """Return the probability of a multiset under uniform draws from ``kinds`` points."""
    ways = factorial(len(drawn))
    for point in set(drawn):
        ways //= factorial(sum(other == point for other in drawn))
    return Fraction(ways, kinds ** len(drawn))


def mutual_information(joint: dict[tuple[Hashable, Hashable], Fraction]) -> float:
    """Return ``Σ P(m, D) log2 P(m, D)/(P(m) P(D))`` in bits."""
    masks: dict[Hashable, Fraction] = defaultdict(Fraction)
    data: dict[Hashable, Fraction] = defaultdict(Fraction)
    for (mask, drawn), weight in joint.items():
        masks[mask] += weight
        data[drawn] += weight
    return math.fsum(
        float(weight) * math.log2(weight / (masks[mask] * data[drawn]))
        for (mask, drawn), weight in joint.items()
        if weight
    )
