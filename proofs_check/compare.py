"""Comparing two computations of one quantity."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-10


def relative_gap(
    value: Tensor | np.ndarray | float, reference: Tensor | np.ndarray | float
) -> float:
    """Return ``max|value − reference| / max|reference|``; 0 if both vanish, inf on a wrong shape."""
    a = torch.as_tensor(value, dtype=torch.float64)
    b = torch.as_tensor(reference, dtype=torch.float64)
    if a.shape != b.shape:
        return float("inf")
    gap, scale = float((a - b).abs().max()), float(b.abs().max())
    if gap == 0:
        return 0.0
    return gap / scale if scale else float("inf")


@dataclass
class Worst:
    """The largest relative gap seen, and where; the first gap above the tolerance is kept as text."""

    tolerance: float = TOLERANCE
    gap: float = 0.0
    where: str = ""
    compared: int = 0
    broken: list[str] = field(default_factory=list)

    def see(self, where: str, value: Tensor | float, reference: Tensor | float) -> float:
        """Compare one value with its reference and return the gap."""
        gap = relative_gap(value, reference)
        self.compared += 1
        if not gap <= self.gap:
            self.gap, self.where = gap, where
        if not gap <= self.tolerance:
            self.broken.append(f"{where}: relative difference {gap:.3e}")
        return gap

    def see_each(
        self, where: str, values: Mapping[str, Tensor], reference: Mapping[str, Tensor]
    ) -> None:
        """Compare two dictionaries entry by entry."""
        if set(values) != set(reference):
            self.broken.append(f"{where}: entries {sorted(values)}, expected {sorted(reference)}")
        for name in set(values) & set(reference):
            self.see(f"{where}, {name}", values[name], reference[name])

    def require(self, where: str, holds: bool) -> None:
        """Note a statement that must be true."""
        self.compared += 1
        if not holds:
            self.broken.append(where)

    @property
    def holds(self) -> bool:
        """Whether nothing broke, and something was compared."""
        return self.compared > 0 and not self.broken

    @property
    def counterexample(self) -> str | None:
        """The first thing that broke."""
        return self.broken[0] if self.broken else None

    def numbers(self) -> dict[str, float | int | str]:
        """Return the numbers for the report."""
        return {
            "comparisons": self.compared,
            "worst_relative_difference": self.gap,
            "worst_at": self.where,
            "tolerance": self.tolerance,
        }
