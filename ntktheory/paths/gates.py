"""Recording the gates of a network, and running it again with those gates.

A piecewise linear network with its gates held fixed is a sum over paths. The gates are read and
replayed at the network's calls of torch functions, so that ``nn.ReLU``, ``F.relu`` and ``Tensor.relu_``
are alike and no model is edited. The calls form an allow-list (``rules.py``).

Gates are those by which PyTorch differentiates: 0 at ReLU's kink, the slope at that of a leaky ReLU, the
index that max pooling saves, and equal shares among the largest entries of ``amax``. So the trace and
its bounds speak of the same derivative also where f has a kink.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntktheory.calls import METADATA, Watch, tensors_in
from ntktheory.checks import NumericalError, UnsupportedModule, complaint
from ntktheory.functional import ModelFn, Params
from ntktheory.paths.refusal import Refusal, refuse
from ntktheory.paths.rules import (
    INPLACE_AT,
    MATRIX_PRODUCTS,
    WHY,
    Call,
    axes_of_maximum,
    bind_layer,
    bind_norm,
    negative_slope,
    pool_arguments,
    trains,
)
from ntktheory.paths.tags import Tags
from ntktheory.paths.windows import POOLS, count_ties, pool_axes, sum_windows, take_indices

REPLAY_TOLERANCE = 1e-10
Gates = list[Tensor]
Observer = Callable[[Call, Tensor], None]
DATA, INDEX = "data", "index"
Origin = Counter[str]


@dataclass(frozen=True)
class Recording:
    """One run of a network, as its paths see it.

    Attributes:
        outputs: f(x), [N, C].
        gates: One tensor for every gated call in order. ReLU: True where its input is positive. Max
            pooling and ``max``: the index of the entry that won. ``amax``: the entry's share, 1 ÷ the
            number of largest entries. Smooth functions: ``(φ(z) − φ(0))/z``.
        slopes: The same, with ``φ'(z)`` for smooth functions.
        uses: How often each parameter meets the data.
        head: (weight name, input) of the Linear whose output is f(x) itself, if there is one.
        chain: The steps of the network if each works on the last one's result alone, else None.
        multiply_adds: Multiplications of its layers in one forward pass.
        writes: Whether a call writes into its argument.
    """

    outputs: Tensor
    gates: Gates
    slopes: Gates
    uses: Counter[str]
    head: tuple[str, Tensor] | None
    chain: list["Step"] | None
    multiply_adds: int
    writes: bool


@dataclass(frozen=True)
class Step:
    """One step of a chain: a call, with the shape of its input, and the names of its parameters."""

    call: Call
    shape: tuple[int, ...]
    weight: str | None = None
    bias: str | None = None


def record(
    model_fn: ModelFn,
    params: Params,
    x: Tensor,
    *,
    smooth: bool = False,
    observe: Observer | None = None,
) -> Recording:
    """Run a network and record its gates.

    Pure, and vmap-able over ``params``.

    Args:
        model_fn: ``model_fn(params, x) -> [N, C]``.
        params: Its parameters (masks already multiplied in).
        x: The batch.
        smooth: Whether smooth activations are taken, each with its two gates.
        observe: Called as ``observe(call, h)`` before data meet a parameter in a product: h is what the
            parameter multiplies (for batch norm ``(z − μ)/σ``).

    Returns:
        The recording.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    recorder = _Recorder(params, x, smooth, observe)
    try:
        with Watch(recorder.handle):
            outputs = model_fn(params, x)
    except Refusal as refusal:
        raise UnsupportedModule(str(refusal)) from None
    head = recorder.last
    return Recording(
        outputs,
        recorder.gates,
        recorder.slopes,
        recorder.uses,
        head[:2] if head is not None and head[2] is outputs else None,
        recorder.chain if recorder.tip is outputs else None,
        recorder.multiply_adds,
        recorder.writes,
    )


def replay(model_fn: ModelFn) -> Callable[[Params, tuple[Tensor, Gates | None]], Tensor]:
    """Return the network with fixed gates, ``fn(params, (x, gates)) -> [N, C]``.

    Every gated call is made linear by the gate recorded for it; with ``gates=None`` every gate is open:
    a ReLU passes all, and a maximum sums its window. The result is affine in x and in every parameter
    that is used once.
    """

    def fixed(params: Params, batch: tuple[Tensor, Gates | None]) -> Tensor:
        x, gates = batch
        with Watch(_Replay(gates).handle):
            return model_fn(params, x)

    return fixed


def check_replay(model_fn: ModelFn, params: Params, x: Tensor, recording: Recording) -> int:
    """Check that the network with its recorded gates gives f(x) again, to 1e-10 relative.

    Returns:
        The number of kinks: gates decided by a pre-activation of exactly 0, or by a tie.

    Raises:
        NumericalError: If it does not.
    """
    run = _Replay(recording.gates, count_kinks=True)
    with Watch(run.handle):
        again = model_fn(params, x)
    gap = float((again - recording.outputs).abs().max())
    scale = float(recording.outputs.abs().max())
    if not gap <= REPLAY_TOLERANCE * scale:
        raise NumericalError(
            complaint(
                "model",
                "a network that its gates replay",
                f"outputs that differ by {gap:.1e}",
                "Use float64, and a network that is the same function at every call.",
            )
        )
    return run.kinks


class _Replay:
    """Runs gated calls with recorded gates."""

    def __init__(self, gates: Gates | None, count_kinks: bool = False) -> None:
        self._remaining = None if gates is None else iter(gates)
        self._count = count_kinks
        self.kinks = 0

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = Call(func, args, kwargs)
        if call.kind not in ("relu", "maximum", "smooth"):
            return call.run()
        z = next(call.tensors())
        gate = None if self._remaining is None else next(self._remaining)
        if self._count and gate is not None:
            self.kinks += _kinks(call, z)
        if call.kind == "relu":
            return gated_relu(call, z, gate, negative_slope(call))
        if call.kind == "maximum":
            return gated_maximum(call, z, gate, gate)
        if gate is None:
            return z
        offset = value_at_zero(call, z)
        return z.mul_(gate).add_(offset) if call.in_place else z * gate + offset


def gated_relu(call: Call, z: Tensor, gate: Tensor | None, slope: float) -> Tensor:
    """Return z where the gate is on, and ``slope·z`` elsewhere; with gate None, z."""
    if gate is None:
        return z
    if slope == 0:  # as numbers of one byte gates multiply at several times the speed of bools
        factor = gate.view(torch.uint8)
    else:
        sides = torch.tensor([1.0, slope], dtype=z.dtype, device=z.device)
        factor = torch.where(gate, sides[0], sides[1])
    return z.mul_(factor) if call.in_place else z * factor


def gated_maximum(call: Call, z: Tensor, gate: Tensor | None, shares: Tensor | None) -> Any:
    """Return the winner of every window by the recorded gate; with gate None, the window's sum.

    Args:
        call: The call.
        z: What to choose from.
        gate: The recorded gate.
        shares: For ``amax``, the weights of the entries, made from the gate.

    Returns:
        What the call returns, indices included where it returns them.
    """
    if call.short in POOLS:
        d = POOLS[call.short]
        if gate is None:
            return _as_returned(call, sum_windows(z, pool_axes(call.short, pool_arguments(call))))
        return _as_returned(call, take_indices(z, gate, d), gate)
    axes, keepdim = axes_of_maximum(call) or ((), False)
    if gate is None:
        return _as_returned(call, z.sum(axes, keepdim=keepdim))
    if call.short == "amax" and shares is not None:
        return (z * shares).sum(axes, keepdim=keepdim)
    values = z.gather(axes[0], gate)
    return _as_returned(call, values if keepdim else values.squeeze(axes[0]), gate)


def value_at_zero(call: Call, z: Tensor) -> float:
    """Return φ(0) of a smooth function."""
    return float(_smooth(call)(torch.zeros((), dtype=torch.float64)))


def _smooth(call: Call) -> Callable[[Tensor], Tensor]:
    """Return the function of one tensor that a smooth call applies, out of place."""
    kwargs = {k: v for k, v in call.kwargs.items() if k not in ("input", "inplace")}
    name = call.short.removesuffix("_")
    func = getattr(F, name, None) or getattr(torch, name)
    at = INPLACE_AT.get(name)
    others = [value for i, value in enumerate(call.args) if i > 0 and i != at]
    return lambda z: func(z, *others, **kwargs)


def _smooth_gates(call: Call, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(φ(z) − φ(0))/z``, which is φ'(0) at 0, and ``φ'(z)``."""
    value, slope = torch.func.jvp(_smooth(call), (z,), (torch.ones_like(z),))  # type: ignore[misc]
    secant = (value - value_at_zero(call, z)) / torch.where(z == 0, 1.0, z)
    return torch.where(z == 0, slope, secant), slope


def _as_returned(call: Call, values: Tensor, indices: Tensor | None = None) -> Any:
    """Return values alone, or with indices where the call returns both."""
    if call.short == "max":
        return torch.return_types.max((values, values if indices is None else indices))
    if call.short.endswith("_with_indices"):
        return values, values if indices is None else indices
    return values


def _kinks(call: Call, z: Tensor) -> int:
    """Count the gates of a call that are decided by an exact zero or by a tie."""
    if call.kind == "smooth":
        return 0
    if call.kind == "relu":
        return int((z == 0).sum())
    if call.short in POOLS:
        largest = _winners(call, z)[1]
        return count_ties(z, largest, pool_axes(call.short, pool_arguments(call)))
    axes = (axes_of_maximum(call) or ((), False))[0]
    return int(((z == z.amax(axes, keepdim=True)).sum(axes) > 1).sum())


def _winners(call: Call, z: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Return (gate, largest entries, what the call returns) of a maximum."""
    if call.short in POOLS:
        d = POOLS[call.short]
        given = pool_arguments(call)
        if "output_size" in given:
            pool = getattr(F, f"adaptive_max_pool{d}d_with_indices")
            values, indices = pool(z, given["output_size"])
        else:
            pool = getattr(F, f"max_pool{d}d_with_indices")
            names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
            values, indices = pool(z, *(given[name] for name in names))
        return indices, values, _as_returned(call, values, indices)
    axes, keepdim = axes_of_maximum(call) or ((), False)
    if call.short == "max":
        result = call.run()
        return result[1] if keepdim else result[1].unsqueeze(axes[0]), result[0], result
    result = call.run()
    largest = (z == z.amax(axes, keepdim=True)).to(z.dtype)
    return largest / largest.sum(axes, keepdim=True), result, result


class _Recorder:
    """Follows which tensors depend on data and which on parameters only, and refuses the rest.

    A tensor's tag is DATA, INDEX (of an entry that won), or, for a tensor made from parameters, how
    often each parameter enters a product in it: views and sums of parameters are edges side by side, a
    product puts them on one path. Tensors without a tag are constants.
    """

    def __init__(
        self, params: Params, x: Tensor, smooth: bool = False, observe: Observer | None = None
    ) -> None:
        self.tags: Tags[str | Origin] = Tags()
        self.tags.put(x, DATA)
        self.names: Tags[str] = Tags()
        for name, p in params.items():
            self.tags.put(p, Counter([name]))
            self.names.put(p, name)
        self.smooth, self.observe = smooth, observe
        self.gates: Gates = []
        self.slopes: Gates = []
        self.uses: Counter[str] = Counter()
        self.last: tuple[str, Tensor, Tensor] | None = None
        self.chain: list[Step] | None = []
        self.tip: Tensor = x
        self.multiply_adds = 0
        self.writes = False

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = Call(func, args, kwargs)
        operands = list(call.tensors())
        if call.short in METADATA or not any(self.tags.get(t) is not None for t in operands):
            return call.run()
        self._check(call, operands)
        factor = self._factor(call)
        if factor is not None and self.observe is not None:
            self.observe(call, factor)
        before = self.tip
        self.writes |= call.in_place
        result = self._run(call)
        self._follow(call, operands, result)
        self._note_head(call, operands, result)
        self._note_step(call, operands, result, before)
        return result

    def _run(self, call: Call) -> Any:
        """Make the call; of a gated one, keep the gates."""
        z = next(call.tensors())
        if call.kind == "relu":
            gate = z.detach() > 0
            self._keep(gate, gate)
        elif call.kind == "maximum":
            gate, _, result = _winners(call, z)
            self._keep(gate, gate)
            return result
        elif call.kind == "smooth":
            self._keep(*_smooth_gates(call, z.detach()))
        return call.run()

    def _keep(self, gate: Tensor, slope: Tensor) -> None:
        self.gates.append(gate.detach())
        self.slopes.append(slope.detach())

    # --- what is refused --------------------------------------------------------------------------

    def _check(self, call: Call, operands: list[Tensor]) -> None:
        short, kind = call.short, call.kind
        tags = [self.tags.get(t) for t in operands]
        if kind is None or (kind == "smooth" and not self.smooth):
            self._refuse(short, WHY.get(kind or short, ""))
        if INDEX in tags:
            self._refuse(f"{short} of indices that depend on the data", "They are gates")
        if call.kwargs.get("out") is not None:
            self._refuse(f"{short} with out")
        if call.in_place and tags[0] != DATA:
            self._refuse(f"{short} in place on a tensor that does not depend on the data")
        if kind in ("relu", "maximum", "smooth") and tags[0] != DATA:
            self._refuse(f"{short} of a parameter")
        check = getattr(self, f"_check_{kind}", None)
        if check is not None:
            check(call, operands, tags)

    def _check_structure(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        if call.short in ("__getitem__", "index_select", "repeat_interleave") and any(tags[1:]):
            self._refuse(f"{call.short} of indices that depend on the data", "They are gates")
        if call.short == "pad" and not _pads_with_zeros(call):
            self._refuse("pad with a constant")
        if "dropout" in call.short and trains(call):
            self._refuse(f"{call.short} in train mode")

    def _check_relu(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        if trains(call) and call.short.startswith("rrelu"):
            self._refuse(f"{call.short} in train mode")

    def _check_maximum(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        if call.short not in POOLS and axes_of_maximum(call) is None:
            self._refuse(call.short, "It gates two tensors by each other, or samples")

    def _check_average(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        if call.short in POOLS:
            divisor = pool_arguments(call)["divisor_override"]
            if divisor is not None and divisor <= 0:
                self._refuse(f"{call.short} with a negative divisor")

    def _check_multiply(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        if tags.count(DATA) > 1:
            self._refuse(call.short, "Both of its operands depend on the data")
        if call.in_place and any(isinstance(tag, Counter) for tag in tags):
            self._refuse(f"{call.short} by a parameter", "It overwrites what the derivative needs")
        if "div" in call.short and self.tags.get(_divisor(call)) is not None:
            self._refuse(call.short, "It divides by what is not constant")
        if call.kwargs.get("rounding_mode") is not None:
            self._refuse(f"{call.short} with rounding")

    def _check_layer(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        layer = bind_layer(call)
        given = [self.tags.get(t) for t in (layer.input, layer.weight, layer.bias)]
        if given.count(DATA) > 1:
            also = (
                ""
                if call.short in MATRIX_PRODUCTS
                else " of two tensors that both depend on the data"
            )
            self._refuse(call.short + also, "Both of its operands depend on the data")
        if DATA in given[1:] and call.short not in MATRIX_PRODUCTS:
            self._refuse(f"{call.short} with a weight that depends on the data")

    def _check_batch_norm(self, call: Call, operands: list[Tensor], tags: list[Any]) -> None:
        norm = bind_norm(call)
        if norm is None:
            self._refuse("batch_norm with the statistics of the batch", "It mixes samples")
            return
        if self.tags.get(norm.input) != DATA or any(
            self.tags.get(t) is not None for t in (norm.mean, norm.variance)
        ):
            self._refuse("batch_norm with statistics that are not constant")
        if DATA in (self.tags.get(norm.weight), self.tags.get(norm.bias)):
            self._refuse("batch_norm with a weight that depends on the data")

    def _refuse(self, what: str, why: str = "") -> None:
        refuse(what, record.__code__, why)

    # --- what is followed -------------------------------------------------------------------------

    def _factor(self, call: Call) -> Tensor | None:
        """Return what a parameter multiplies in this call, if data meet a parameter in a product."""
        if call.kind == "layer":
            layer = bind_layer(call)
            pair = (layer.input, layer.weight)
        elif call.kind == "multiply":
            pair = _operands(call)
        elif call.kind == "batch_norm":
            norm = bind_norm(call)
            if norm is None or not isinstance(self.tags.get(norm.weight), Counter):
                return None
            if self.observe is None:
                return norm.input
            centred = norm.input - norm.per_channel(norm.mean)
            return centred * norm.per_channel(norm.inverse_deviation())
        else:
            return None
        for factor, other in (pair, pair[::-1]):
            if self.tags.get(factor) == DATA and isinstance(self.tags.get(other), Counter):
                return factor
        return None

    def _follow(self, call: Call, operands: list[Tensor], result: Any) -> None:
        """Pass on what the result is made of; count parameters where they meet the data."""
        if call.kind == "structure":
            operands = operands[:1]
        tags = [tag for t in operands if (tag := self.tags.get(t)) is not None]
        if not tags:
            return
        origins = [tag for tag in tags if isinstance(tag, Counter)]
        if DATA in tags:
            for origin in origins:
                self.uses.update(origin)
        product = call.kind in ("layer", "multiply", "batch_norm")
        for tensor in tensors_in(result):
            if DATA not in tags:
                self.tags.put(tensor, _joined(origins, product=product))
            else:
                self.tags.put(tensor, DATA if tensor.is_floating_point() else INDEX)
        if call.kind == "layer":
            self.multiply_adds += _multiply_adds(call, result)

    def _note_head(self, call: Call, operands: list[Tensor], result: Any) -> None:
        """Remember a Linear with a weight of its own, until something is done to its output."""
        if self.last is not None and any(t is self.last[2] for t in operands):
            self.last = None
        if call.short == "linear":
            layer = bind_layer(call)
            name = self.names.get(layer.weight)
            plain = layer.input.ndim == 2 and layer.weight.ndim == 2
            if plain and name is not None and self.tags.get(layer.input) == DATA:
                self.last = (name, layer.input, result)

    def _note_step(self, call: Call, operands: list[Tensor], result: Any, before: Tensor) -> None:
        """Extend the chain, if this call works on the last result alone."""
        if self.chain is None or self.tags.get(result) != DATA:
            broken = self.chain is not None and any(self.tags.get(t) == DATA for t in operands)
            self.chain = None if broken else self.chain
            return
        if result is before and not call.in_place:  # nothing was done
            return
        data = [t for t in operands if self.tags.get(t) == DATA]
        if len(data) != 1 or data[0] is not before:
            self.chain = None
            return
        weight = bias = None
        if call.kind == "layer":
            layer = bind_layer(call)
            weight, bias = self.names.get(layer.weight), self.names.get(layer.bias)
            if weight is None or (layer.bias is not None and bias is None):
                self.chain = None
                return
        elif len(list(call.tensors())) > 1:
            self.chain = None
            return
        self.chain.append(Step(_without_tensors(call), tuple(before.shape), weight, bias))
        self.tip = result


def _divisor(call: Call) -> Any:
    return call.args[1] if len(call.args) > 1 else call.kwargs.get("other")


def _operands(call: Call) -> tuple[Any, Any]:
    given = call.given(("input", "other"), other=None)
    return given["input"], given["other"]


def _joined(origins: list[Origin], *, product: bool) -> Origin:
    """Join the counts of operands: a product puts them on one path, all else side by side."""
    total: Origin = Counter()
    for origin in origins:
        total = total + origin if product else total | origin
    return total


def _pads_with_zeros(call: Call) -> bool:
    given = call.given(("input", "pad", "mode", "value"), mode="constant", value=None)
    return given["mode"] != "constant" or not given["value"]


def _multiply_adds(call: Call, result: Tensor) -> int:
    layer = bind_layer(call)
    if call.short in MATRIX_PRODUCTS:
        return int(result.numel() * layer.input.shape[-1])
    if call.short.startswith("conv_transpose"):
        return int(layer.input.numel() * layer.weight[0].numel())
    return int(result.numel() * layer.weight[0].numel())


def _without_tensors(call: Call) -> Call:
    """Return the call without its tensors, so that a chain keeps none alive."""

    def drop(tree: Any) -> Any:
        return torch.utils._pytree.tree_map(lambda v: None if isinstance(v, Tensor) else v, tree)

    return Call(call.func, drop(call.args), drop(dict(call.kwargs)))
