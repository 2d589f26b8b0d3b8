"""The values pass: every call replaced by its rule for sums over paths (see ``passes.py``)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntktheory.calls import METADATA, Watch, tensors_in
from ntktheory.checks import UnsupportedModule
from ntktheory.functional import ModelFn, Params
from ntktheory.paths.gated import gated_maximum, gated_relu, value_at_zero
from ntktheory.paths.gates import Gates
from ntktheory.paths.ones_layer import applies_to, ones_layer
from ntktheory.paths.refusal import Refusal, refuse
from ntktheory.paths.rules import (
    WHY,
    Call,
    Layer,
    Norm,
    averaged,
    bind_layer,
    bind_norm,
    negative_slope,
    pool_arguments,
)
from ntktheory.paths.scales import Scaled, magnitude, power, size
from ntktheory.paths.tags import Tags
from ntktheory.paths.windows import POOLS, average_weights, pool_axes


@dataclass(frozen=True)
class Powers:
    """To which power a pass takes gates and fixed edges; ``edge=0`` makes every edge c ≠ 0 a 1."""

    gate: int = 2
    edge: int = 1


@dataclass(frozen=True)
class Weights:
    """The parameters of a path network.

    Attributes:
        theta: Name -> mantissa, not negative.
        exponents: Name -> exponent.
        constant: Names of parameters whose entries are all equal: their layers are plain sums.
    """

    theta: Params
    exponents: Mapping[str, Tensor]
    constant: frozenset[str] = frozenset()


@dataclass
class Inputs:
    """What parameters multiply, in the order of the calls.

    Attributes:
        entries: One scaled tensor per product of data and a parameter. Batch norm's γ has its input z
            there, or what it multiplies itself.
        raw: Whether it is z for batch norm's γ.
        copy: Whether the network writes into its tensors, so that they must be copied.
    """

    entries: list[Scaled]
    raw: bool = True
    copy: bool = True


@dataclass(frozen=True)
class Tag:
    """What is known of a mantissa.

    Attributes:
        exponent: Its exponent.
        data: Whether it depends on data, or on parameters only.
        constant: Whether all of its entries are equal.
        constant_direction: The same for the direction at it.
        zero: Whether it is known to be 0.
    """

    exponent: Tensor
    data: bool
    constant: bool = False
    constant_direction: bool = False
    zero: bool = False


# Kinds of calls whose results have one edge from one unit each.
class Values:
    """Replaces calls by their rules. A rule is a method, named after the kind of call."""

    directional = False

    def __init__(
        self,
        weights: Weights,
        x: Scaled,
        gates: Gates | None,
        powers: Powers,
        collect: Inputs | None = None,
    ) -> None:
        self.weights, self.x, self.powers, self.collect = weights, x, powers, collect
        self.remaining: Iterator[Tensor] | None = None if gates is None else iter(gates)
        self.tags: Tags[Tag] = Tags()
        self.none = torch.zeros((), dtype=x.mantissa.dtype, device=x.mantissa.device)

    def run(self, model_fn: ModelFn, theta: Params) -> Scaled:
        """Run the network."""
        for name, p in theta.items():
            self.tags.put(p, self._tag_of_parameter(name))
        x = self.x.mantissa.view_as(self.x.mantissa)
        self.tags.put(x, Tag(self.x.exponent, True, zero=self.directional))
        try:
            with Watch(self.handle):
                z = model_fn(theta, x)
        except Refusal as refusal:
            raise UnsupportedModule(str(refusal)) from None
        tag = self.tags.get(z)
        return Scaled(z, self.none if tag is None else tag.exponent)

    def _tag_of_parameter(self, name: str) -> Tag:
        return Tag(self.weights.exponents[name], False, name in self.weights.constant)

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take one call of the network."""
        call = Call(func, args, kwargs)
        if call.short in METADATA or all(self.tags.get(t) is None for t in call.tensors()):
            return call.run()
        if call.kind is None:
            refuse(call.short, Values.run.__code__, WHY.get(call.short, ""))
        return getattr(self, f"_on_{call.kind}")(call)

    # --- edges of weight 1 ------------------------------------------------------------------------

    def _on_structure(self, call: Call) -> Any:
        tag = self.tags.get(next(call.tensors()))
        result = call.run()
        if tag is not None:
            for t in tensors_in(result):
                self.tags.put(t, tag)
        return result

    def _on_sum(self, call: Call) -> Any:
        tag = self.tags.get(next(call.tensors()))
        return self._put(call.run(), tag)

    def _on_average(self, call: Call) -> Any:
        tag = self.tags.get(next(call.tensors()))
        result = call.run()
        if self.powers.edge != 1:
            if call.short in POOLS:
                given = pool_arguments(call)
                edges = average_weights(given, pool_axes(call.short, given), result)
            else:
                edges = self.none + 1 / averaged(call)
            result = result * edges ** (self.powers.edge - 1)
        return self._put(result, tag)

    def _on_join(self, call: Call) -> Any:
        given = call.args[0] if call.args else call.kwargs["tensors"]
        data = any(self._is_data(t) for t in given)
        terms = [self._term(t, data) for t in given]
        exponent = largest(*(term.exponent for term in terms))
        aligned = [term.mantissa * power(term.exponent - exponent) for term in terms]
        kwargs = {k: v for k, v in call.kwargs.items() if k != "tensors"}
        return self._put(call.func(aligned, *call.args[1:], **kwargs), Tag(exponent, data))

    def _on_add(self, call: Call) -> Any:
        given = call.given(("input", "other"), alpha=1)
        left, right = given["input"], given["other"]
        data = self._is_data(left) or self._is_data(right)
        a, b = self._term(left, data), self._term(right, data)
        b = Scaled(b.mantissa * self._edge(given["alpha"]), b.exponent)
        if call.in_place:
            left.add_(b.mantissa * power(b.exponent - a.exponent))
            return self._put(left, Tag(a.exponent, data))
        exponent = torch.maximum(a.exponent, b.exponent)
        first = a.mantissa * power(a.exponent - exponent)
        second = power(b.exponent - exponent)
        total = torch.addcmul(first, b.mantissa, second)
        return self._put(total, Tag(exponent, data))

    # --- products ---------------------------------------------------------------------------------

    def _on_multiply(self, call: Call) -> Any:
        given = call.given(("input", "other"), other=None)
        left, right = given["input"], given["other"]
        if self.tags.get(left) is not None and self.tags.get(right) is not None:
            return self._product(left, right)
        if right is None:  # minus
            t, edge = left, self.none + 1
        elif self.tags.get(left) is not None:
            t, edge = left, self._edge(1 / self._plain(right) if "div" in call.short else right)
        else:
            t, edge = right, self._edge(left)
        result = t.mul_(edge) if call.in_place else t * edge
        return self._put(result, self.tags.get(t))

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        """Return data times a parameter, or a parameter times another, entry by entry."""
        one, other = (right, left) if self._is_data(right) else (left, right)
        first, second = self._tag(one), self._tag(other)
        if not first.data:
            return self._put(one * other, Tag(first.exponent + second.exponent, False))
        self._collect(Scaled(one, first.exponent))
        result = self._linear(one, other, lambda x, w, constant: x * w)
        return self._put(result.mantissa, Tag(result.exponent, True))

    def _on_layer(self, call: Call) -> Any:
        layer = bind_layer(call)
        swapped = self._is_data(layer.weight)
        one, other = (layer.weight, layer.input) if swapped else (layer.input, layer.weight)

        def apply(x: Tensor, w: Tensor, constant: bool) -> Tensor:
            if swapped:
                return layer.apply(w, x, None)
            if constant and applies_to(layer):
                return ones_layer(layer, x, w)
            return layer.apply(x, w, None)

        data = self._is_data(one)
        if data and self.tags.get(other) is not None:
            self._collect(Scaled(one, self._tag(one).exponent))
        out = self._linear(one, other, apply)
        if layer.bias is not None:
            out = self._with_bias(layer, out, self._term(layer.bias, data))
        return self._put(out.mantissa, Tag(out.exponent, data))

    def _linear(self, one: Tensor, other: Tensor, apply: Any) -> Scaled:
        """Return ``apply(one, other)``, the size of ``one`` taken into the factor of ``other``."""
        a, b = self._term(one, self._is_data(one)), self._fixed(other)
        constant = self.tags.get(other) is not None and self._tag(other).constant
        k = magnitude(a.mantissa, signed=False)
        out = apply(a.mantissa, b.mantissa * power(-k), constant)
        return Scaled(out, a.exponent + b.exponent + k)

    def _with_bias(self, layer: Layer, out: Scaled, bias: Scaled) -> Scaled:
        shape = bias.mantissa
        if layer.short != "linear":
            spatial = out.mantissa.ndim - (2 if out.mantissa.ndim == layer.weight.ndim else 1)
            shape = shape.view(-1, *[1] * spatial)
        exponent = torch.maximum(out.exponent, bias.exponent + size(bias.mantissa))
        first = power(out.exponent - exponent)
        total = torch.addcmul(shape * power(bias.exponent - exponent), out.mantissa, first)
        return Scaled(total, exponent)

    def _on_batch_norm(self, call: Call) -> Any:
        norm = bind_norm(call)
        if norm is None:
            refuse("batch_norm with the statistics of the batch", Values.run.__code__)
            raise AssertionError
        deviation = norm.inverse_deviation()
        scale, shift = self._edge(deviation), self._edge(norm.mean * deviation)
        gamma = Scaled(torch.ones_like(scale), self.none)
        gamma = gamma if norm.weight is None else self._fixed(norm.weight)
        beta = Scaled(torch.zeros_like(scale), self.none)
        beta = beta if norm.bias is None else self._term(norm.bias, True)
        trained = norm.weight is not None and self.tags.get(norm.weight) is not None
        return self._normalise(norm, scale, shift, gamma, beta, trained)

    def _normalise(
        self, norm: Norm, scale: Tensor, shift: Tensor, gamma: Scaled, beta: Scaled, trained: bool
    ) -> Tensor:
        """Return ``γ·(u + |μ|)/σ + β``, with ``scale`` = 1/σ and ``shift`` = |μ|/σ."""
        tag = self._tag(norm.input)
        if trained and self.collect is not None:
            self._collect(
                Scaled(norm.input, tag.exponent)
                if self.collect.raw
                else _normal_input(norm, Scaled(norm.input, tag.exponent), scale, shift)
            )
        exponent = largest(
            tag.exponent + gamma.exponent,
            gamma.exponent + size(shift),
            beta.exponent + size(beta.mantissa),
        )
        factor = gamma.mantissa * scale * power(tag.exponent + gamma.exponent - exponent)
        constant = gamma.mantissa * shift * power(gamma.exponent - exponent)
        constant = constant + beta.mantissa * power(beta.exponent - exponent)
        return self._put(affine(norm.input, factor, constant), Tag(exponent, True))

    # --- gates ------------------------------------------------------------------------------------

    def _on_relu(self, call: Call) -> Any:
        z = next(call.tensors())
        tag, gate = self._tag(z), self._gate()
        if gate is None:
            return z if call.in_place else self._put(z.clone(), tag)
        slope = abs(negative_slope(call)) ** self.powers.gate
        return self._put(gated_relu(call, z, gate, slope), tag)

    def _on_maximum(self, call: Call) -> Any:
        z = next(call.tensors())
        tag, gate = self._tag(z), self._gate()
        shares = None if gate is None else gate**self.powers.gate
        result = gated_maximum(call, z, gate, shares)
        for t in tensors_in(result):
            self._put(t, tag)
        return result

    def _on_smooth(self, call: Call) -> Any:
        z = next(call.tensors())
        tag, gate = self._tag(z), self._gate()
        open_ = self.none + 1 if gate is None else gate.abs() ** self.powers.gate
        offset = self._term(value_at_zero(call, z), True)
        if call.in_place:
            z.mul_(open_).add_(offset.mantissa * power(-tag.exponent))
            return z
        exponent = torch.maximum(tag.exponent, size(offset.mantissa))
        first = z * open_ * power(tag.exponent - exponent)
        return self._put(first + offset.mantissa * power(-exponent), Tag(exponent, True))

    def _gate(self) -> Tensor | None:
        return None if self.remaining is None else next(self.remaining)

    # --- operands ---------------------------------------------------------------------------------

    def _term(self, t: Any, data: bool) -> Scaled:
        """Return an operand of a sum as it enters: a constant as a fixed edge from a unit of value 1."""
        tag = self.tags.get(t)
        if tag is None:
            return Scaled(self._edge(t), self.none)
        return Scaled(t, tag.exponent)

    def _fixed(self, t: Any) -> Scaled:
        """Return a factor as it stands."""
        return self._term(t, False)

    def _edge(self, c: Any) -> Tensor:
        """Return ``|c|`` to the power of fixed edges."""
        c = self._plain(c)
        return (c != 0).to(c.dtype) if self.powers.edge == 0 else c.abs() ** self.powers.edge

    def _plain(self, c: Any) -> Tensor:
        return torch.as_tensor(c, dtype=self.none.dtype, device=self.none.device)

    def _collect(self, factor: Scaled) -> None:
        if self.collect is not None:
            mantissa = factor.mantissa.clone() if self.collect.copy else factor.mantissa
            self.collect.entries.append(Scaled(mantissa, factor.exponent))

    def _is_data(self, t: Any) -> bool:
        tag = self.tags.get(t)
        return tag is not None and tag.data

    def _tag(self, t: Any) -> Tag:
        return self.tags.get(t) or Tag(self.none, False)

    def _put(self, result: Any, tag: Tag | None) -> Any:
        if tag is not None:
            plain = replace(tag, constant=False, constant_direction=False, zero=False)
            for t in tensors_in(result):
                self.tags.put(t, plain)
        return result


def affine(x: Tensor, factor: Tensor, constant: Tensor) -> Tensor:
    """Return ``factor·x + constant`` per channel, in one pass over x."""
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return F.batch_norm(x, zero, one, factor, constant, False, 0.0, 0.0)


def _normal_input(norm: Norm, u: Scaled, scale: Tensor, shift: Tensor) -> Scaled:
    """Return ``(u + |μ|)/σ``, what γ multiplies."""
    exponent = torch.maximum(u.exponent, size(shift))
    factor, constant = scale * power(u.exponent - exponent), shift * power(-exponent)
    return Scaled(affine(u.mantissa, factor, constant), exponent)


def largest(*exponents: Tensor) -> Tensor:
    """Return the largest of some exponents."""
    return torch.stack(exponents).amax()
