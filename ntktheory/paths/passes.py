"""One pass of a path network: the model's calls, each replaced by its rule for sums over paths.

Every tensor of a pass is a mantissa; its exponent is in its tag. Before a layer multiplies, the size of
its input is taken into the weight's factor, so that mantissas neither grow nor vanish with depth; sums
and concatenations are aligned to the larger exponent. All factors are powers of two: nothing is rounded.

A pass is one of two:

* *values*: the sums over paths that end in a unit. A gate enters to some power, a fixed edge c as
  ``|c|`` to some power; a maximum gathers by its gate, or sums its window where gates are open.
* *directional*: the derivative of such sums along a direction B in the parameters. A unit's tensor is
  the derivative there, and every product of data and a parameter W adds ``u·B_W`` to it, where u comes
  from a list: of a values pass, or of anything else that is to stand before an edge.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor

from ntktheory.calls import METADATA, Watch, tensors_in
from ntktheory.checks import UnsupportedModule
from ntktheory.functional import ModelFn, Params
from ntktheory.paths.gates import Gates, gated_maximum, gated_relu, value_at_zero
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


@dataclass(frozen=True)
class Direction:
    """A direction in the parameters, name -> scaled tensor.

    Attributes:
        by_name: Its entries.
        constant: Names of parameters whose entries are all equal.
    """

    by_name: Mapping[str, Scaled]
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


def run_values(
    model_fn: ModelFn,
    weights: Weights,
    x: Scaled,
    gates: Gates | None,
    powers: Powers,
    collect: Inputs | None = None,
) -> Scaled:
    """Run a values pass.

    Pure, differentiable in ``weights.theta`` (backwards), and vmap-able.

    Args:
        model_fn: The network.
        weights: The parameters of its path network: θ², 1 or |θ|.
        x: The input of its path network, not negative.
        gates: The recorded gates, or None to open them all.
        powers: The powers of gates and fixed edges.
        collect: Takes what parameters multiply.

    Returns:
        The outputs, [N, C].

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    return _Values(weights, x, gates, powers, collect).run(model_fn, weights.theta)


def run_with_factors(
    model_fn: ModelFn,
    weights: Weights,
    x: Scaled,
    powers: Powers,
    draw: Callable[[Tensor], Tensor],
) -> Scaled:
    """Run a values pass with open gates in which every unit is multiplied by a factor of its own.

    Args:
        model_fn: The network.
        weights: The parameters.
        x: The input.
        powers: The powers of fixed edges.
        draw: Returns the factors of a tensor of units.

    Returns:
        The outputs, [N, C]: sums over paths, each with the product of the factors of its units.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    return _WithFactors(weights, x, powers, draw).run(model_fn, weights.theta)


def run_directional(
    model_fn: ModelFn,
    weights: Weights,
    direction: Direction,
    inputs: Inputs,
    like: Tensor,
    gates: Gates | None,
    powers: Powers,
) -> Scaled:
    """Run a directional pass: ``Σ_j B_j ∂z/∂θ_j`` for every output, with ``inputs`` before the edges.

    Args:
        model_fn: The network.
        weights: The parameters at which the derivative is taken.
        direction: B.
        inputs: What parameters multiply.
        like: The batch, for its shape.
        gates: The gates after an edge, or None to open them all.
        powers: The powers of gates and fixed edges.

    Returns:
        The derivative of the outputs, [N, C]. Cost: about one forward pass.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    relative = {name: d.shifted(-weights.exponents[name]) for name, d in direction.by_name.items()}
    sizes = torch.stack([size(d.mantissa) + d.exponent for d in relative.values()])
    common = torch.where(torch.isfinite(sizes.amax()), sizes.amax(), 0.0)
    tangents = {name: d.mantissa * power(d.exponent - common) for name, d in relative.items()}
    zero = Scaled(torch.zeros_like(like), torch.zeros_like(common))
    given = _Given(inputs, common, direction.constant)

    def outputs(theta: Params) -> tuple[Tensor, Tensor]:
        z = _Directional(weights, zero, gates, powers, given).run(model_fn, theta)
        return z.mantissa, z.exponent

    z, _, exponent = torch.func.jvp(outputs, (weights.theta,), (tangents,), has_aux=True)  # type: ignore[misc]
    return Scaled(z, exponent)


def absolute(model_fn: ModelFn) -> Callable[[Params, tuple[Tensor, Gates]], Tensor]:
    """Return ``fn(|θ|, (|x|, gates))``, the network with gates and fixed edges in absolute value."""

    def fixed(params: Params, batch: tuple[Tensor, Gates]) -> Tensor:
        zero = torch.zeros((), dtype=batch[0].dtype, device=batch[0].device)
        weights = Weights(params, dict.fromkeys(params, zero))
        run = _Absolute(weights, Scaled(batch[0], zero), batch[1], Powers(gate=1))
        return run.run(model_fn, params).mantissa

    return fixed


@dataclass(frozen=True)
class _Given:
    """What a directional pass is given: inputs of edges, the direction's exponent, its constants."""

    inputs: Inputs
    exponent: Tensor
    constant: frozenset[str]


@dataclass(frozen=True)
class _Tag:
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
_SINGLE = (None, "structure", "relu")


class _Values:
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
        self.tags: Tags[_Tag] = Tags()
        self.none = torch.zeros((), dtype=x.mantissa.dtype, device=x.mantissa.device)

    def run(self, model_fn: ModelFn, theta: Params) -> Scaled:
        """Run the network."""
        for name, p in theta.items():
            self.tags.put(p, self.tag_of_parameter(name))
        x = self.x.mantissa.view_as(self.x.mantissa)
        self.tags.put(x, _Tag(self.x.exponent, True, zero=self.directional))
        try:
            with Watch(self.handle):
                z = model_fn(theta, x)
        except Refusal as refusal:
            raise UnsupportedModule(str(refusal)) from None
        tag = self.tags.get(z)
        return Scaled(z, self.none if tag is None else tag.exponent)

    def tag_of_parameter(self, name: str) -> _Tag:
        return _Tag(self.weights.exponents[name], False, name in self.weights.constant)

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = Call(func, args, kwargs)
        if call.short in METADATA or all(self.tags.get(t) is None for t in call.tensors()):
            return call.run()
        if call.kind is None:
            refuse(call.short, _Values.run.__code__, WHY.get(call.short, ""))
        return getattr(self, f"on_{call.kind}")(call)

    # --- edges of weight 1 ------------------------------------------------------------------------

    def on_structure(self, call: Call) -> Any:
        tag = self.tags.get(next(call.tensors()))
        result = call.run()
        if tag is not None:
            for t in tensors_in(result):
                self.tags.put(t, tag)
        return result

    def on_sum(self, call: Call) -> Any:
        tag = self.tags.get(next(call.tensors()))
        return self._put(call.run(), tag)

    def on_average(self, call: Call) -> Any:
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

    def on_join(self, call: Call) -> Any:
        given = call.args[0] if call.args else call.kwargs["tensors"]
        data = any(self._is_data(t) for t in given)
        terms = [self._term(t, data) for t in given]
        exponent = _largest(*(term.exponent for term in terms))
        aligned = [term.mantissa * power(term.exponent - exponent) for term in terms]
        kwargs = {k: v for k, v in call.kwargs.items() if k != "tensors"}
        return self._put(call.func(aligned, *call.args[1:], **kwargs), _Tag(exponent, data))

    def on_add(self, call: Call) -> Any:
        given = call.given(("input", "other"), alpha=1)
        left, right = given["input"], given["other"]
        data = self._is_data(left) or self._is_data(right)
        a, b = self._term(left, data), self._term(right, data)
        b = Scaled(b.mantissa * self._edge(given["alpha"]), b.exponent)
        if call.in_place:
            left.add_(b.mantissa * power(b.exponent - a.exponent))
            return self._put(left, _Tag(a.exponent, data))
        exponent = torch.maximum(a.exponent, b.exponent)
        first = a.mantissa * power(a.exponent - exponent)
        second = power(b.exponent - exponent)
        total = torch.addcmul(first, b.mantissa, second)
        return self._put(total, _Tag(exponent, data))

    # --- products ---------------------------------------------------------------------------------

    def on_multiply(self, call: Call) -> Any:
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
            return self._put(one * other, _Tag(first.exponent + second.exponent, False))
        self._collect(Scaled(one, first.exponent))
        result = self._linear(one, other, lambda x, w, constant: x * w)
        return self._put(result.mantissa, _Tag(result.exponent, True))

    def on_layer(self, call: Call) -> Any:
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
        return self._put(out.mantissa, _Tag(out.exponent, data))

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

    def on_batch_norm(self, call: Call) -> Any:
        norm = bind_norm(call)
        if norm is None:
            refuse("batch_norm with the statistics of the batch", _Values.run.__code__)
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
        exponent = _largest(
            tag.exponent + gamma.exponent,
            gamma.exponent + size(shift),
            beta.exponent + size(beta.mantissa),
        )
        factor = gamma.mantissa * scale * power(tag.exponent + gamma.exponent - exponent)
        constant = gamma.mantissa * shift * power(gamma.exponent - exponent)
        constant = constant + beta.mantissa * power(beta.exponent - exponent)
        return self._put(_affine(norm.input, factor, constant), _Tag(exponent, True))

    # --- gates ------------------------------------------------------------------------------------

    def on_relu(self, call: Call) -> Any:
        z = next(call.tensors())
        tag, gate = self._tag(z), self._gate()
        if gate is None:
            return z if call.in_place else self._put(z.clone(), tag)
        slope = abs(negative_slope(call)) ** self.powers.gate
        return self._put(gated_relu(call, z, gate, slope), tag)

    def on_maximum(self, call: Call) -> Any:
        z = next(call.tensors())
        tag, gate = self._tag(z), self._gate()
        shares = None if gate is None else gate**self.powers.gate
        result = gated_maximum(call, z, gate, shares)
        for t in tensors_in(result):
            self._put(t, tag)
        return result

    def on_smooth(self, call: Call) -> Any:
        z = next(call.tensors())
        tag, gate = self._tag(z), self._gate()
        open_ = self.none + 1 if gate is None else gate.abs() ** self.powers.gate
        offset = self._term(value_at_zero(call, z), True)
        if call.in_place:
            z.mul_(open_).add_(offset.mantissa * power(-tag.exponent))
            return z
        exponent = torch.maximum(tag.exponent, size(offset.mantissa))
        first = z * open_ * power(tag.exponent - exponent)
        return self._put(first + offset.mantissa * power(-exponent), _Tag(exponent, True))

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

    def _tag(self, t: Any) -> _Tag:
        return self.tags.get(t) or _Tag(self.none, False)

    def _put(self, result: Any, tag: _Tag | None) -> Any:
        if tag is not None:
            plain = replace(tag, constant=False, constant_direction=False, zero=False)
            for t in tensors_in(result):
                self.tags.put(t, plain)
        return result


class _Absolute(_Values):
    """The gated network at |θ| on |x|, with exponents 0 and its layers called as they are.

    So that an engine that knows layers by their calls still sees them.
    """

    def on_layer(self, call: Call) -> Any:
        layer = bind_layer(call)
        data = self._is_data(layer.input) or self._is_data(layer.weight)
        x, w = (self._term(t, data).mantissa for t in (layer.input, layer.weight))
        b = None if layer.bias is None else self._term(layer.bias, data).mantissa
        return self._put(layer.apply(x, w, b), _Tag(self.none, data))

    def _linear(self, one: Tensor, other: Tensor, apply: Any) -> Scaled:
        return Scaled(apply(one, self._fixed(other).mantissa, False), self.none)

    def on_batch_norm(self, call: Call) -> Any:
        norm = bind_norm(call)
        if norm is None:
            return super().on_batch_norm(call)
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
        return self._put(result, _Tag(self.none, True))


class _WithFactors(_Values):
    """Multiplies every unit at which paths meet by a factor of its own."""

    def __init__(
        self, weights: Weights, x: Scaled, powers: Powers, draw: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(weights, x, None, powers)
        self.draw = draw

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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


class _Directional(_Values):
    """Carries derivatives: where data meet parameters, the direction enters."""

    directional = True

    def __init__(
        self, weights: Weights, x: Scaled, gates: Gates | None, powers: Powers, given: _Given
    ) -> None:
        super().__init__(weights, x, gates, powers)
        self.given, self.inputs = given, iter(given.inputs.entries)

    def tag_of_parameter(self, name: str) -> _Tag:
        tag = super().tag_of_parameter(name)
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
        exponent = _largest(*(part[2] for part in parts))
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
        exponent = _largest(
            tag.exponent + gamma.exponent,
            u.exponent + along.exponent,
            along.exponent + size(second),
            beta.exponent + size(beta.mantissa),
        )
        factor = gamma.mantissa * scale * power(tag.exponent + gamma.exponent - exponent)
        constant = beta.mantissa * power(beta.exponent - exponent)
        constant = constant + along.mantissa * second * power(along.exponent - exponent)
        result = _affine(norm.input, factor, constant)
        if trained:
            slope = along.mantissa * first * power(u.exponent + along.exponent - exponent)
            result = torch.addcmul(result, u.mantissa, norm.per_channel(slope))
        return self._put(result, _Tag(exponent, True))


def _affine(x: Tensor, factor: Tensor, constant: Tensor) -> Tensor:
    """Return ``factor·x + constant`` per channel, in one pass over x."""
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return F.batch_norm(x, zero, one, factor, constant, False, 0.0, 0.0)


def _normal_input(norm: Norm, u: Scaled, scale: Tensor, shift: Tensor) -> Scaled:
    """Return ``(u + |μ|)/σ``, what γ multiplies."""
    exponent = torch.maximum(u.exponent, size(shift))
    factor, constant = scale * power(u.exponent - exponent), shift * power(-exponent)
    return Scaled(_affine(u.mantissa, factor, constant), exponent)


def _largest(*exponents: Tensor) -> Tensor:
    return torch.stack(exponents).amax()
