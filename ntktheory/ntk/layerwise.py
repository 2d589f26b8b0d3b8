"""The layerwise engine: every layer's input, and the cotangents of its output, in C backward passes.

One forward pass gives every input, and C backward passes *to the layer outputs only* give every
cotangent; ``rules.py`` makes them into blocks of the Jacobian. The passes are ``torch.func``
transforms of ``model_fn``, so they may be vmapped over parameters. Batches may be trees of tensors
whose leaves all have the sample axis first.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ntktheory.calls import METADATA, Watch, call_name, tensors_in, writes_in_place
from ntktheory.checks import UnsupportedModule, complaint
from ntktheory.functional import ModelFn, Params, batch_size, take
from ntktheory.ntk.rules import Factors, LayerCall, bias_block, read_call, weight_block


class RulesDisagree(UnsupportedModule):
    """The layer rules do not give the derivative of this network."""


OnLayer = Callable[[LayerCall, Tensor, Tensor], Tensor]


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
        The factors in call order. Cost: one forward and C backward passes, one forward pass of two
        samples, and the memory of C cotangents per layer output.

    Raises:
        RulesDisagree: If a layer does not see the samples in their order.
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
    _check_order(model_fn, params, x, layers, inputs)
    return [Factors(layers.calls[i], inputs[i], cotangents[i]) for i in keep]


def _check_order(
    model_fn: ModelFn, params: Params, x: Any, layers: Plan, made: dict[int, Tensor]
) -> None:
    """Check that every layer sees the first and the last sample in their places.

    A network that sorts its batch inside, say, would give each sample another's rows. Under an outer
    ``vmap`` nothing can be compared.

    Args:
        model_fn: The network.
        params: Its parameters.
        x: The batch.
        layers: Its plan.
        made: Inputs of the calls, by their place in the plan.

    Raises:
        RulesDisagree: If an input differs from that of the two samples alone.
    """
    if any(torch._C._functorch.is_functorch_wrapped_tensor(a) for a in made.values()):
        return
    n = batch_size(x)
    ends = [0, n - 1][: min(n, 2)]
    alone: list[Tensor] = []

    def note(call: LayerCall, a: Tensor, result: Tensor) -> Tensor:
        alone.append(a.clone() if layers.writes_in_place else a)
        return result

    _observe(model_fn, params, torch.utils._pytree.tree_map(lambda leaf: leaf[ends], x), note)
    for i, a in made.items():
        seen, expected = a[ends].double(), alone[i].double()
        gap = torch.linalg.vector_norm(seen - expected)
        eps = torch.finfo(a.dtype).eps if a.is_floating_point() else 0.0
        if not bool(gap <= eps**0.5 * torch.linalg.vector_norm(expected)):
            raise RulesDisagree(
                complaint(
                    "model",
                    "a network that keeps the order of its samples",
                    f"another order at the layer of {layers.calls[i].names()[0]!r}",
                    'Use engine="jacobian".',
                )
            )


def block(name: str, made: Iterable[Factors]) -> Tensor:
    """Return ``∂f_c(x_n)/∂θ`` of one parameter as [N, C, p], summed over all of its uses."""
    parts = [weight_block(f) for f in made if f.call.weight == name]
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
        operands = Counter(names[id(t)] for t in tensors_in(args, kwargs) if id(t) in names)
        layer = read_call(func, short, args, kwargs, names, n, result) if operands else None
        if layer is None:
            watched.elsewhere.update(operands)
            return result
        call, a = layer
        watched.elsewhere.update(operands - Counter(call.names()))
        return on_layer(call, a, result)

    with Watch(handle):
        watched.outputs = model_fn(params, x)
    return watched
