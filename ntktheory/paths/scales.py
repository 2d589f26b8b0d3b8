"""Numbers as mantissa times power of two, so that products over many layers stay in range.

A path network multiplies sums of squares, layer after layer: on a deep network its outputs pass 1e308.
Powers of two are exact, so that carrying them apart changes no rounding. Exponents are 0-dim tensors of
the mantissa's dtype, whole numbers, constant under differentiation.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaled:
    """A tensor ``mantissa · 2^exponent``, with one exponent for all entries."""

    mantissa: Tensor
    exponent: Tensor

    def value(self) -> Tensor:
        """Return the plain tensor; entries that do not fit its dtype are infinite or 0."""
        first = (self.exponent / 2).floor()
        plain = self.mantissa * torch.exp2(first) * torch.exp2(self.exponent - first)
        return torch.where(self.mantissa == 0, self.mantissa, plain)

    def sum(self) -> "Scaled":
        """Return the sum of the entries, 0-dim."""
        return Scaled(self.mantissa.sum(), self.exponent)

    def times(self, other: "Scaled") -> "Scaled":
        """Return the product of two tensors, entry by entry."""
        return Scaled(self.mantissa * other.mantissa, self.exponent + other.exponent)

    def shifted(self, exponent: Tensor | float) -> "Scaled":
        """Return this times ``2^exponent``."""
        return Scaled(self.mantissa, self.exponent + exponent)

    def log10(self) -> float:
        """Return the decimal logarithm of a positive 0-dim number, a Python float."""
        mantissa = float(self.mantissa)
        if not mantissa > 0:
            return -math.inf if mantissa == 0 else math.nan
        return math.log10(mantissa) + float(self.exponent) * math.log10(2)


def power(exponent: Tensor) -> Tensor:
    """Return ``2^exponent``, exact for whole numbers; at most the dtype's largest power but eight."""
    return torch.exp2(exponent.clamp(max=_limit(exponent.dtype)))


def magnitude(x: Tensor, *, signed: bool = True) -> Tensor:
    """Return the whole k with ``2^(k−1) ≤ max |x| < 2^k``; 0 if x is 0. Not differentiated."""
    if x.numel() == 0:
        return x.new_zeros(())
    x = x.detach()
    exponent = torch.frexp((x.abs() if signed else x).amax())[1]
    return exponent.to(x.dtype).clamp(min=-_limit(x.dtype))


def size(x: Tensor) -> Tensor:
    """Return ``magnitude(x)``, but −∞ if x is 0."""
    if x.numel() == 0:
        return x.new_full((), -torch.inf)
    return torch.where((x.detach() != 0).any(), magnitude(x), -torch.inf)


def _limit(dtype: torch.dtype) -> float:
    """Return the largest exponent whose power, and its inverse, are ordinary numbers: 1016 or 120."""
    return math.log2(torch.finfo(dtype).max) - 8


def unscaled(x: Tensor) -> Scaled:
    """Return a plain tensor with exponent 0."""
    return Scaled(x, torch.zeros((), dtype=x.dtype, device=x.device))


def normalised(x: Tensor) -> Scaled:
    """Return a tensor with its largest entry between ½ and 1 (or all zeros)."""
    k = magnitude(x)
    return Scaled(x * power(-k), k)


def squared(x: Tensor) -> Scaled:
    """Return x², which need not fit the dtype."""
    small = normalised(x)
    return Scaled(small.mantissa.square(), 2 * small.exponent)


def total(terms: Iterable[Scaled]) -> Scaled:
    """Return the sum of 0-dim terms, aligned to the largest."""
    listed = list(terms)
    mantissa = torch.stack([term.mantissa for term in listed])
    exponent = torch.stack([term.exponent for term in listed])
    sizes = exponent + torch.frexp(mantissa.detach())[1].to(exponent.dtype)
    largest = torch.where(mantissa != 0, sizes, -torch.inf).amax()
    largest = torch.where(torch.isfinite(largest), largest, 0.0)
    return Scaled((mantissa * power(exponent - largest)).sum(), largest)


def dot(a: Mapping[str, Scaled], b: Mapping[str, Scaled]) -> Scaled:
    """Return ``Σ_name ⟨a, b⟩``."""
    return total(a[name].times(b[name]).sum() for name in a)


def presentable(values: Mapping[str, Scaled]) -> dict[str, Tensor]:
    """Return plain tensors, all divided by one power of two if the largest does not fit the dtype.

    They are the values themselves unless the largest entry of all is outside of ``[2^−k, 2^k]``, where
    k is half the dtype's largest exponent.
    """
    largest = torch.stack([v.exponent + size(v.mantissa) for v in values.values()]).amax()
    limit = _limit(largest.dtype) // 2
    common = torch.where(torch.isfinite(largest) & (largest.abs() > limit), largest, 0.0)
    return {name: v.shifted(-common).value() for name, v in values.items()}
