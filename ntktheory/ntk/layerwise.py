"""The layerwise engine: every layer's input, and the cotangents of its output, in C backward passes.

One forward pass gives every input, and C backward passes *to the layer outputs only* give every
cotangent; ``rules.py`` makes them into rows of the Jacobian. The passes are ``torch.func``
transforms of ``model_fn``, so they may be vmapped over parameters. Batches may be trees of tensors
whose leaves all have the sample axis first.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ntktheory.calls import METADATA, Watch, call_name, sound, tensors_in, writes_in_place
from ntktheory.checks import UnsupportedModule, complaint
from ntktheory.functional import (
    FunctionalModel,
    ModelFn,
    Params,
    batch_size,
    check_network,
    take,
)
from ntktheory.ntk.products import products_by_onednn
from ntktheory.ntk.rules import Factors, LayerCall, bias_rows, read_call, weight_rows


class RulesDisagree(UnsupportedModule):
    """The layer rules do not give the derivative of this network."""


ORDER_SAMPLES = 8  # samples that are run in another order
GROUP_BYTES = 1 << 24  # cotangents of several outputs at a time, while they fit in a cache

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


@dataclass
class Run:
    """What one run of a network showed.

    Attributes:
        outputs: f(x).
        calls: The calls of layers, in order.
        elsewhere: Parameters used outside of layers.
        writes_in_place: Whether some call writes into a tensor.
    """

    outputs: Tensor
    calls: list[LayerCall] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    writes_in_place: bool = False


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
    noted, runs = _watched(model_fn)
    for n in range(1, min(batch_size(x), 2) + 1):
        noted(params, take(x, 0, n))
    return _plan_of(runs, params)


def checked_plan(
    model: FunctionalModel, params: Params, x: Tensor, argument: str = "x"
) -> tuple[Tensor, Plan]:
    """Check that a network is a function of each sample, and make its plan from the same runs.

    Args:
        model: The network.
        params: The parameters to run it with.
        x: The batch.
        argument: The name of ``x`` in error messages.

    Returns:
        The outputs on the first and last samples, and the plan.

    Raises:
        ValueError: As ``check_network``.
    """
    noted, runs = _watched(model.model_fn)
    outputs = check_network(replace(model, model_fn=noted), params, x, argument)
    return outputs, _plan_of(runs, params)


def _watched(model_fn: ModelFn) -> tuple[ModelFn, list[Run]]:
    """Return a network that notes what every run of it shows, and the list of those notes."""
    runs: list[Run] = []

    def noted(params: Params, x: Any, buffers: Params | None = None) -> Tensor:
        calls: list[LayerCall] = []

        def note(call: LayerCall, a: Tensor, result: Tensor) -> Tensor:
            calls.append(call)
            return result

        run = _observe(model_fn, params, x, note)
        runs.append(replace(run, calls=calls))
        return run.outputs

    return noted, runs


def _plan_of(runs: list[Run], params: Params) -> Plan:
    """Return the plan of a network from a first run on one sample and a last one on two."""
    first, last = runs[0], runs[-1]
    if len(first.calls) != len(last.calls):
        return Plan((), frozenset(params))
    merged = [
        replace(c, batched=c.batched and d.batched)
        for c, d in zip(first.calls, last.calls, strict=True)
    ]
    unbatched = {name for c in merged if not c.batched for name in c.names()}
    elsewhere = first.elsewhere | last.elsewhere | unbatched
    return Plan(tuple(merged), frozenset(elsewhere), last.writes_in_place)


@dataclass(frozen=True)
class Sweep:
    """One forward pass of a batch, ready to be differentiated output by output.

    Attributes:
        calls: The layer calls that use a wanted parameter, by their place in the plan.
        inputs: Their inputs [N, …]; for "scale" x̂, for "embedding" the indices.
        outputs: f(x), [N, C].
        pullback: Cotangents of the calls' outputs from a cotangent of f.
        products: Entered around the passes.
    """

    calls: dict[int, LayerCall]
    inputs: dict[int, Tensor]
    outputs: Tensor
    pullback: Callable[[Tensor], tuple[dict[int, Tensor]]]
    products: Callable[[], AbstractContextManager[None]]

    def factors(self) -> Iterator[list[Factors]]:
        """Differentiate every output: as many at a time as stay small, or one large one at a time.

        Yields:
            The factors of every call, in call order, for the next group of outputs.
        """
        n, c = self.outputs.shape
        per_output = n * sum(prod(call.output) for call in self.calls.values())
        size = max(1, GROUP_BYTES // max(1, per_output * self.outputs.element_size()))
        basis = torch.eye(c, dtype=self.outputs.dtype, device=self.outputs.device)

        def pull(e: Tensor) -> dict[int, Tensor]:
            return self.pullback(e.expand(self.outputs.shape))[0]

        for first in range(0, c, size):
            group = basis[first : first + size]
            with self.products():
                if len(group) > 1:
                    gs = torch.func.vmap(pull)(group)
                else:
                    gs = {i: g.unsqueeze(0) for i, g in pull(group[0]).items()}
            yield [Factors(call, self.inputs[i], gs.pop(i)) for i, call in self.calls.items()]


def sweep(
    model_fn: ModelFn, params: Params, x: Any, layers: Plan, wanted: Collection[str]
) -> Sweep:
    """Run the network once, keeping what is needed to differentiate with respect to layer outputs.

    Args:
        model_fn: The network.
        params: Its parameters (masks already multiplied in).
        x: The batch.
        layers: The plan of this network.
        wanted: Names of the parameters to differentiate; all of them covered by the plan.

    Returns:
        The sweep. Cost: one forward pass, and one of two samples.

    Raises:
        RulesDisagree: If a layer does not see the samples in their order.
    """
    calls = {i: call for i, call in enumerate(layers.calls) if set(call.names()) & set(wanted)}
    n = batch_size(x)
    some = next(iter(params.values()))
    zeros = {i: some.new_zeros(()).expand(n, *call.output) for i, call in calls.items()}

    runs: list[Run] = []

    def tapped(taps: dict[int, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
        inputs: dict[int, Tensor] = {}
        seen: list[LayerCall] = []

        def tap(call: LayerCall, a: Tensor, result: Tensor) -> Tensor:
            i = len(seen)
            seen.append(call)
            if i not in taps or result.shape != taps[i].shape:
                return result
            inputs[i] = a.clone() if layers.writes_in_place else a
            return result + taps[i]

        run = _observe(model_fn, params, x, tap)
        runs.append(replace(run, calls=seen))
        return run.outputs, inputs

    products = products_by_onednn if all(call.is_vector for call in layers.calls) else nullcontext
    with products():
        outputs, pullback, inputs = torch.func.vjp(tapped, zeros, has_aux=True)  # type: ignore[misc]
    _check_calls(layers, runs[-1])
    _check_order(model_fn, params, x, layers, inputs)
    return Sweep(calls, inputs, outputs, pullback, products)


def _check_calls(layers: Plan, run: Run) -> None:
    """Check that a run called the planned layers: a network may choose them by its data.

    Raises:
        RulesDisagree: If it called others.
    """
    same = len(run.calls) == len(layers.calls) and all(
        replace(seen, batched=planned.batched) == planned
        for seen, planned in zip(run.calls, layers.calls, strict=True)
    )
    if not same or not run.elsewhere <= layers.elsewhere:
        raise RulesDisagree(
            complaint(
                "model",
                "a network that calls the same layers for all data",
                "other layers for this batch",
                'Use engine="jacobian".',
            )
        )


def factors(
    model_fn: ModelFn, params: Params, x: Any, layers: Plan, wanted: Collection[str]
) -> list[Factors]:
    """Return input and all cotangents of every call that uses a wanted parameter, in call order.

    Args:
        model_fn: The network.
        params: Its parameters (masks already multiplied in).
        x: The batch.
        layers: The plan of this network.
        wanted: Names of the parameters to differentiate; all of them covered by the plan.

    Returns:
        The factors. Memory: C cotangents per layer output.

    Raises:
        RulesDisagree: If a layer does not see the samples in their order.
    """
    groups = list(sweep(model_fn, params, x, layers, wanted).factors())
    return [
        Factors(uses[0].call, uses[0].a, torch.cat([f.g for f in uses]))
        for uses in zip(*groups, strict=True)
    ]


def _check_order(
    model_fn: ModelFn, params: Params, x: Any, layers: Plan, made: dict[int, Tensor]
) -> None:
    """Check that every layer sees the samples in their places.

    A network that sorts its batch inside, say, would give each sample another's rows. One sample alone
    and a few in another order must give the inputs that they give in the batch. Under an outer ``vmap``
    nothing can be compared.

    Args:
        model_fn: The network.
        params: Its parameters.
        x: The batch.
        layers: Its plan.
        made: Inputs of the calls, by their place in the plan.

    Raises:
        RulesDisagree: If an input differs.
    """
    if any(torch._C._functorch.is_functorch_wrapped_tensor(a) for a in made.values()):
        return
    n = batch_size(x)
    shuffled = random.Random(0).sample(range(n), min(n, ORDER_SAMPLES))
    for picks in ([n // 2], shuffled)[: min(n, 2)]:
        alone: list[Tensor] = []

        def note(call: LayerCall, a: Tensor, result: Tensor, alone: Any = alone) -> Tensor:
            alone.append(a.clone() if layers.writes_in_place else a)
            return result

        _observe(model_fn, params, _picked(x, picks), note)
        for i, a in made.items():
            if i >= len(alone) or not _close(a[picks], alone[i]):
                raise RulesDisagree(
                    complaint(
                        "model",
                        "a network that keeps the order of its samples",
                        f"another order at the layer of {layers.calls[i].names()[0]!r}",
                        'Use engine="jacobian".',
                    )
                )


def _picked(x: Any, picks: list[int]) -> Any:
    return torch.utils._pytree.tree_map(lambda leaf: leaf[picks], x)


def _close(seen: Tensor, expected: Tensor) -> bool:
    """Say whether two inputs of a layer are the same but for rounding."""
    if seen.shape != expected.shape:
        return False
    eps = torch.finfo(seen.dtype).eps if seen.is_floating_point() else 0.0
    seen, expected = seen.double(), expected.double()
    gap = torch.linalg.vector_norm(seen - expected)
    return bool(gap <= eps**0.5 * torch.linalg.vector_norm(expected))


def block(name: str, made: Iterable[Factors]) -> Tensor:
    """Return ``∂f_c(x_n)/∂θ`` of one parameter as [C, N, p], summed over all of its uses."""
    uses = [f for f in made if name in f.call.names()]
    calls, inputs = [f.call for f in uses], [f.a for f in uses]
    by_output = [rows(name, calls, inputs, gs) for gs in zip(*(f.g for f in uses), strict=True)]
    return torch.stack(by_output) if len(by_output) > 1 else by_output[0].unsqueeze(0)


def rows(
    name: str, calls: Sequence[LayerCall], inputs: Sequence[Tensor], gs: Sequence[Tensor]
) -> Tensor:
    """Return one output's ``∂f(x_n)/∂θ`` of one parameter as [N, p], summed over its uses.

    Args:
        name: The parameter.
        calls: The calls that use it.
        inputs: Their inputs [N, …].
        gs: Their cotangents [N, …].

    Returns:
        The rows.
    """
    parts = []
    for call, a, g in zip(calls, inputs, gs, strict=True):
        parts += [weight_rows(call, a, g)] if call.weight == name else []
        parts += [bias_rows(call, g)] if call.bias == name else []
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _observe(model_fn: ModelFn, params: Params, x: Any, on_layer: OnLayer) -> Run:
    """Run the network and hand every layer call over; ``on_layer`` returns the result to go on with."""
    names = {id(p): name for name, p in params.items()}
    n = batch_size(x)
    run = Run(next(iter(params.values())))

    def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        short = call_name(func)
        result = sound(func, short)(*args, **kwargs)
        if short in METADATA:
            return result
        run.writes_in_place |= writes_in_place(short, args, kwargs, result)
        operands = Counter(names[id(t)] for t in tensors_in(args, kwargs) if id(t) in names)
        layer = read_call(func, short, args, kwargs, names, n, result) if operands else None
        if layer is None:
            run.elsewhere.update(operands)
            return result
        call, a = layer
        run.elsewhere.update(operands - Counter(call.names()))
        return on_layer(call, a, result)

    with Watch(handle):
        run.outputs = model_fn(params, x)
    return run
