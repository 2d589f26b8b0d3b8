"""Inputs and cotangents of Linear and convolution layers, and the Jacobian blocks they make.

For one layer with (unfolded) input ``A_n [D, S]`` and output cotangent ``G_nc [O, S]`` — S positions,
S = 1 for a Linear on vectors — the block of the Jacobian is ``∂f_c(x_n)/∂W = G_nc A_nᵀ`` and that of
the bias is ``Σ_s G_nc[:, s]``. Grouped convolutions do this group by group. One forward pass gives
every A, and C backward passes *to the layer outputs only* give every G.

The passes are ``torch.func`` transforms of ``model_fn``, so they may be vmapped over parameters.
Batches may be trees of tensors whose leaves all have the sample axis first.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntktheory.calls import (
    CONVOLUTIONS,
    METADATA,
    Watch,
    bind_convolution,
    bind_linear,
    call_name,
    tensors_in,
    writes_in_place,
)
from ntktheory.functional import ModelFn, Params, batch_size, take

OnLayer = Callable[["LayerCall", Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Window:
    """How a convolution moves its kernel; one entry per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class LayerCall:
    """One call of a Linear or a convolution.

    Attributes:
        weight: Name of the weight, or None if the weight is not itself a parameter.
        bias: Name of the bias, or None.
        output: Shape of the output without the sample axis.
        batched: Whether the input has the sample axis first.
        window: The moving window of a convolution; None for Linear.
    """

    weight: str | None
    bias: str | None
    output: tuple[int, ...]
    batched: bool
    window: Window | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names of this call's parameters."""
        return tuple(name for name in (self.weight, self.bias) if name is not None)


@dataclass(frozen=True)
class Plan:
    """Which parameters the layer rules cover, found on one sample.

    Attributes:
        calls: The calls of layers, in order.
        elsewhere: Parameters that the network also uses in some other way.
        writes_in_place: Whether some call writes into a tensor, perhaps into a layer's input.
    """

    calls: tuple[LayerCall, ...]
    elsewhere: frozenset[str]
    writes_in_place: bool = False

    def covered(self) -> set[str]:
        """Return the parameters whose every use is the weight or bias of a listed call."""
        return {name for call in self.calls for name in call.names()} - self.elsewhere

    def used(self) -> set[str]:
        """Return the parameters that the network uses at all."""
        return {name for call in self.calls for name in call.names()} | self.elsewhere

    def single_use(self) -> set[str]:
        """Return the covered parameters that appear in one call only, once."""
        counts = Counter(name for call in self.calls for name in call.names())
        return {name for name in self.covered() if counts[name] == 1}


@dataclass(frozen=True)
class Factors:
    """A layer call with its inputs ``a`` [N, ...] and cotangents ``g`` [C, N, *output]."""

    call: LayerCall
    a: Tensor
    g: Tensor

    def input_columns(self) -> Tensor:
        """Return A as [N, groups, D, S], unfolded for convolutions."""
        if self.call.window is not None:
            return unfold(self.a, self.call.window).unflatten(1, (self.call.window.groups, -1))
        n, d = self.a.shape[0], self.a.shape[-1]
        return self.a.reshape(n, 1, -1, d).transpose(2, 3)

    def cotangent_columns(self) -> Tensor:
        """Return G as [N, C, groups, O, S]."""
        g = self.g.transpose(0, 1)
        if self.call.window is not None:
            return g.flatten(3).unflatten(2, (self.call.window.groups, -1))
        n, c, o = g.shape[0], g.shape[1], g.shape[-1]
        return g.reshape(n, c, 1, -1, o).transpose(3, 4)


def unfold(x: Tensor, window: Window) -> Tensor:
    """Return the patches of ``x`` [N, D, *spatial] that a convolution sees, [N, D·kernel, S].

    Row ``d·|kernel| + k`` meets entry ``weight[:, d].flatten(1)[:, k]``. Any number of axes.
    """
    rank = len(window.kernel)
    pads = [p for pair in reversed(window.padding) for p in pair]
    x = F.pad(x, pads) if any(pads) else x
    for axis, dilation in enumerate(window.dilation):
        extent = dilation * (window.kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, extent, window.stride[axis])[..., ::dilation]
    taps, spatial = range(2 + rank, 2 + 2 * rank), range(2, 2 + rank)
    return x.permute(0, 1, *taps, *spatial).flatten(1, 1 + rank).flatten(2)


def plan(model_fn: ModelFn, params: Params, x: Any) -> Plan:
    """List a network's layer calls by running it on the first sample and on the first two.

    A rule needs the sample axis first: a call that shows one sample, then two, on its first axis.
    The parameters of every other call count as used elsewhere.

    Args:
        model_fn: The network.
        params: Its parameters.
        x: A batch.

    Returns:
        The plan; it covers nothing if the calls depend on the number of samples.
    """
    runs = []
    for n in range(1, min(batch_size(x), 2) + 1):
        calls: list[LayerCall] = []

        def note(call: LayerCall, a: Tensor, result: Tensor, calls: Any = calls) -> Tensor:
            calls.append(call)
            return result

        watched = _observe(model_fn, params, take(x, 0, n), note)
        runs.append((calls, watched.elsewhere))
    (first, elsewhere), (second, also) = runs[0], runs[-1]
    if len(first) != len(second):
        return Plan((), frozenset(params))
    merged = [
        replace(c, batched=c.batched and d.batched) for c, d in zip(first, second, strict=True)
    ]
    unbatched = {name for c in merged if not c.batched for name in c.names()}
    elsewhere |= also | unbatched
    return Plan(tuple(merged), frozenset(elsewhere), watched.writes_in_place)


def factors(
    model_fn: ModelFn, params: Params, x: Any, layers: Plan, wanted: frozenset[str]
) -> list[Factors]:
    """Return input and cotangents of every call that uses a wanted parameter.

    Args:
        model_fn: The network.
        params: Its parameters (masks already multiplied in).
        x: The batch.
        layers: The plan of this network.
        wanted: Names of the parameters to differentiate; all of them covered by the plan.

    Returns:
        The factors in call order. Cost: two forward and C backward passes, and the memory of C
        cotangents per layer output.
    """
    keep = [i for i, call in enumerate(layers.calls) if set(call.names()) & wanted]
    n = batch_size(x)
    some = next(iter(params.values()))
    taps = {i: some.new_zeros((n, *layers.calls[i].output)) for i in keep}

    def tapped(taps: dict[int, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
        inputs: dict[int, Tensor] = {}
        index = itertools.count()

        def tap(call: LayerCall, a: Tensor, result: Tensor) -> Tensor:
            i = next(index)
            if i not in taps:
                return result
            inputs[i] = a.clone() if layers.writes_in_place else a
            return result + taps[i]

        return _observe(model_fn, params, x, tap).outputs, inputs

    outputs, pullback, inputs = torch.func.vjp(tapped, taps, has_aux=True)  # type: ignore[misc]
    basis = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    cotangents = torch.func.vmap(lambda e: pullback(e.expand(outputs.shape))[0])(basis)
    return [Factors(layers.calls[i], inputs[i], cotangents[i]) for i in keep]


def weight_block(f: Factors) -> Tensor:
    """Return ``∂f_c(x_n)/∂W = G_nc A_nᵀ``, shape [N, C, O, D] with O all output channels."""
    a, g = f.input_columns(), f.cotangent_columns()
    n, c, groups, o, s = g.shape
    blocks = g.transpose(1, 2).reshape(n, groups, c * o, s) @ a.transpose(2, 3)
    return blocks.unflatten(2, (c, o)).transpose(1, 2).flatten(2, 3)


def bias_block(f: Factors) -> Tensor:
    """Return ``∂f_c(x_n)/∂b = Σ_s G_nc[:, s]``, shape [N, C, O]."""
    return f.cotangent_columns().sum(-1).flatten(2)


def block(name: str, made: Iterable[Factors]) -> Tensor:
    """Return ``∂f_c(x_n)/∂θ`` of one parameter as [N, C, p], summed over all of its uses."""
    parts = [weight_block(f).flatten(2) for f in made if f.call.weight == name]
    parts += [bias_block(f) for f in made if f.call.bias == name]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


@dataclass
class _Watched:
    """What one run showed: outputs, parameters used outside of layers, writes in place."""

    outputs: Tensor
    elsewhere: set[str]
    writes_in_place: bool


def _observe(model_fn: ModelFn, params: Params, x: Any, on_layer: OnLayer) -> _Watched:
    """Run the network and hand every layer call over; ``on_layer`` returns the result to go on with."""
    names = {id(p): name for name, p in params.items()}
    n = batch_size(x)
    watched = _Watched(next(iter(params.values())), set(), False)

    def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        short = call_name(func)
        if short in METADATA:
            return result
        watched.writes_in_place |= writes_in_place(short, args, kwargs, result)
        used = {names[id(t)] for t in tensors_in(args, kwargs) if id(t) in names}
        bound = _bind(short, args, kwargs) if used else None
        if bound is None:
            watched.elsewhere.update(used)
            return result
        a = bound["input"]
        call = _layer_call(bound, CONVOLUTIONS.get(short, 0), names, n, result)
        watched.elsewhere.update(used - set(call.names()))
        if id(a) in names:
            watched.elsewhere.add(names[id(a)])
        return on_layer(call, a, result)

    with Watch(handle):
        watched.outputs = model_fn(params, x)
    return watched


def _bind(short: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    if short == "linear":
        return bind_linear(args, kwargs)
    return bind_convolution(args, kwargs) if short in CONVOLUTIONS else None


def _layer_call(
    bound: dict[str, Any], rank: int, names: dict[int, str], n: int, result: Tensor
) -> LayerCall:
    a = bound["input"]
    weight, bias = names.get(id(bound["weight"])), names.get(id(bound["bias"]))
    batched = a.ndim >= 2 and a.shape[0] == n and (rank == 0 or a.ndim == rank + 2)
    batched &= bound["weight"].ndim == rank + 2
    output = tuple(result.shape[1:])
    if rank == 0:
        return LayerCall(weight, bias, output, batched)
    kernel = tuple(bound["weight"].shape[2:])
    dilation = _tuple(bound["dilation"], rank)
    window = Window(
        kernel,
        _tuple(bound["stride"], rank),
        _padding(bound["padding"], kernel, dilation),
        dilation,
        bound["groups"],
    )
    return LayerCall(weight, bias, output, batched, window)


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value) * (rank // len(value))


def _padding(
    padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    return tuple((p, p) for p in _tuple(padding, len(kernel)))
