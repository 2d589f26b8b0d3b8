"""Values passes with a twist: all in absolute value, or every unit with a factor of its own."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ntktheory.paths.rules import (
    Call,
    Norm,
    bind_layer,
    bind_norm,
)
from ntktheory.paths.scales import Scaled
from ntktheory.paths.values import Powers, Tag, Values, Weights

_SINGLE = (None, "structure", "relu")


class Absolute(Values):
    """The gated network at |θ| on |x|, with exponents 0 and its layers called as they are.

    So that an engine that knows layers by their calls still sees them.
    """

    def _on_layer(self, call: Call) -> Any:
        layer = bind_layer(call)
        data = self._is_data(layer.input) or self._is_data(layer.weight)
        x, w = (self._term(t, data).mantissa for t in (layer.input, layer.weight))
        b = None if layer.bias is None else self._term(layer.bias, data).mantissa
        return self._put(layer.apply(x, w, b), Tag(self.none, data))

    def _linear(self, one: Tensor, other: Tensor, apply: Any) -> Scaled:
        return Scaled(apply(one, self._fixed(other).mantissa, False), self.none)

    def _on_batch_norm(self, call: Call) -> Any:
        norm = bind_norm(call)
        if norm is None:
            return super()._on_batch_norm(call)
        result = F.batch_norm(
            norm.input,
            -norm.mean.abs(),
            norm.variance,
            norm.weight,
            norm.bias,
            False,
            0.0,
            norm.eps,
        )
        return self._put(result, Tag(self.none, True))


class WithFactors(Values):
    """Multiplies every unit at which paths meet by a factor of its own."""

    def __init__(
        self, weights: Weights, x: Scaled, powers: Powers, draw: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(weights, x, None, powers)
        self.draw = draw

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take one call of the network."""
        result, kind = super().handle(func, args, kwargs), Call(func, args, kwargs).kind
        if not isinstance(result, Tensor) or not self._is_data(result) or kind in _SINGLE:
            return result
        factors = self.draw(result)
        if Call(func, args, kwargs).in_place:
            return result.mul_(factors)
        return self._put(result * factors, self.tags.get(result))

    def _normalise(
        self, norm: Norm, scale: Tensor, shift: Tensor, gamma: Scaled, beta: Scaled, trained: bool
    ) -> Tensor:
        """Give the units ``(z − μ)/σ`` a factor too, which tells γ's paths from those of β."""
        factors = self.draw(scale)
        return super()._normalise(norm, factors * scale, factors * shift, gamma, beta, trained)
