"""Budgets by their definition: slow, in floats, and sharing nothing with ``budgets.py``."""

from collections.abc import Mapping, Sequence
from math import prod


def erk_densities(shapes: Mapping[str, Sequence[int]], count: float) -> dict[str, float]:
    """Return ERK's densities, by the published loop.

    Layer l gets ``ε · Σ axes / Π axes``; ε makes the total ``count``. While a density is above 1, the
    layer with the highest is made dense and ε is computed anew from the others.
    """
    dense: set[str] = set()
    raw = {name: sum(shape) / prod(shape) for name, shape in shapes.items()}
    while True:
        rest = [name for name in shapes if name not in dense]
        left = count - sum(prod(shapes[name]) for name in dense)
        wanted = sum(raw[name] * prod(shapes[name]) for name in rest)
        epsilon = left / wanted if rest else 0.0
        highest = max(rest, key=lambda name: raw[name], default=None)
        if highest is None or epsilon * raw[highest] <= 1:
            return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        dense.add(highest)


def clipped_shares(
    weights: Sequence[float], least: Sequence[int], most: Sequence[int], count: int
) -> list[float]:
    """Return ``clip(λ r, a, b)`` that add up to ``count``, with λ found by bisection."""

    def at(factor: float) -> list[float]:
        return [min(max(factor * r, a), b) for r, a, b in zip(weights, least, most, strict=True)]

    low, high = 0.0, max((b / r for r, b in zip(weights, most, strict=True) if r > 0), default=0.0)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < count else (low, middle)
    return at(high)
