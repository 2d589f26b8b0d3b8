"""The directional pass: derivatives of sums over paths along a direction (see ``passes.py``)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from ntktheory.paths.gates import Gates
from ntktheory.paths.rules import (
    Norm,
)
from ntktheory.paths.scales import Scaled, magnitude, power, size
from ntktheory.paths.values import Inputs, Powers, Tag, Values, Weights, affine, largest


@dataclass(frozen=True)
class Given:
    """What a directional pass is given: inputs of edges, the direction's exponent, its constants."""

    inputs: Inputs
    exponent: Tensor
    constant: frozenset[str]


class Directional(Values):
    """Carries derivatives: where data meet parameters, the direction enters."""

    directional = True

    def __init__(
        self, weights: Weights, x: Scaled, gates: Gates | None, powers: Powers, given: Given
    ) -> None:
        super().__init__(weights, x, gates, powers)
        self.given, self.inputs = given, iter(given.inputs.entries)

    def _tag_of_parameter(self, name: str) -> Tag:
        tag = super()._tag_of_parameter(name)
        return replace(tag, constant_direction=name in self.given.constant)

    def _term(self, t: Any, data: bool) -> Scaled:
        """Return an operand of a sum; with data, a constant adds nothing, a parameter its direction."""
        tag, term = self.tags.get(t), super()._term(t, data)
        if not data or (tag is not None and tag.data):
            return term
        if tag is None:
            return Scaled(torch.zeros_like(term.mantissa), self.none)
        return self._along(t)

    def _along(self, p: Tensor) -> Scaled:
        """Return the direction at a tensor made of parameters."""
        tangent = forward_ad.unpack_dual(p).tangent
        tangent = torch.zeros_like(p) if tangent is None else tangent
        return Scaled(tangent, self._tag(p).exponent + self.given.exponent)

    def _linear(self, one: Tensor, other: Tensor, apply: Any) -> Scaled:
        if not self._is_data(one):
            return super()._linear(one, other, apply)
        tag, known = self._tag(one), self._tag(other)
        parts = []
        if not tag.zero or self.tags.get(other) is None:
            fixed = self._fixed(other)
            k = magnitude(one, signed=False)
            parts.append((one, fixed, tag.exponent + fixed.exponent + k, k, known.constant))
        if self.tags.get(other) is not None:
            u, along = next(self.inputs), self._along(other)
            k = magnitude(u.mantissa, signed=False)
            parts.append(
                (u.mantissa, along, u.exponent + along.exponent + k, k, known.constant_direction)
            )
        exponent = largest(*(part[2] for part in parts))
        *others, last = (
            apply(x, w.mantissa * power(e - exponent - k), constant)
            for x, w, e, k, constant in parts
        )
        return Scaled(last.add_(others[0]) if others else last, exponent)

    def _fixed(self, t: Any) -> Scaled:
        """Return a factor as it stands, without its direction."""
        tag = self.tags.get(t)
        if tag is None or tag.data:
            return super()._fixed(t)
        return Scaled(forward_ad.unpack_dual(t).primal, tag.exponent)

    def _normalise(
        self, norm: Norm, scale: Tensor, shift: Tensor, gamma: Scaled, beta: Scaled, trained: bool
    ) -> Tensor:
        """Return ``γ·d/σ`` plus the given input of γ times its direction, and β's direction."""
        tag = self._tag(norm.input)
        u, along = Scaled(self.none, self.none), Scaled(torch.zeros_like(scale), self.none)
        first, second = torch.ones_like(scale), torch.zeros_like(scale)
        if trained and norm.weight is not None:
            u, along = next(self.inputs), self._along(norm.weight)
            first, second = (scale, shift) if self.given.inputs.raw else (first, second)
        exponent = largest(
            tag.exponent + gamma.exponent,
            u.exponent + along.exponent,
            along.exponent + size(second),
            beta.exponent + size(beta.mantissa),
        )
        factor = gamma.mantissa * scale * power(tag.exponent + gamma.exponent - exponent)
        constant = beta.mantissa * power(beta.exponent - exponent)
        constant = constant + along.mantissa * second * power(along.exponent - exponent)
        result = affine(norm.input, factor, constant)
        if trained:
            slope = along.mantissa * first * power(u.exponent + along.exponent - exponent)
            result = torch.addcmul(result, u.mantissa, norm.per_channel(slope))
        return self._put(result, Tag(exponent, True))
