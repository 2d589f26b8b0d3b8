"""Following a run: which tensors depend on data, which on parameters, and what is refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from ntktheory.calls import METADATA, tensors_in
from ntktheory.functional import Params
from ntktheory.paths.gated import smooth_gates, winners
from ntktheory.paths.refusal import refuse
from ntktheory.paths.rules import (
    MATRIX_PRODUCTS,
    WHY,
    Call,
    axes_of_maximum,
    bind_layer,
    bind_norm,
    pool_arguments,
    trains,
)
from ntktheory.paths.tags import Tags
from ntktheory.paths.windows import POOLS

Gates = list[Tensor]
Observer = Callable[[Call, Tensor], None]
DATA, INDEX = "data", "index"
Origin = Counter[str]


@dataclass(frozen=True)
class Step:
    """One step of a chain: a call, with the shape of its input, and the names of its parameters."""

    call: Call
    shape: tuple[int, ...]
    weight: str | None = None
    bias: str | None = None


class Recorder:
    """Follows which tensors depend on data and which on parameters only, and refuses the rest.

    A tensor's tag is DATA, INDEX (of an entry that won), or, for a tensor made from parameters, how
    often each parameter enters a product in it: views and sums of parameters are edges side by side, a
    product puts them on one path. Tensors without a tag are constants.
    """

    def __init__(
        self, params: Params, x: Tensor, smooth: bool, observe: Observer | None, entry: CodeType
    ) -> None:
        self.entry = entry
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
        """Take one call of the network."""
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
            gate, _, result = winners(call, z)
            self._keep(gate, gate)
            return result
        elif call.kind == "smooth":
            self._keep(*smooth_gates(call, z.detach()))
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
        if DATA not in given and any(isinstance(tag, Counter) for tag in given):
            self._refuse(
                f"{call.short} of parameters without data",
                "Its weight would stand before an edge that is no input",
            )
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
        refuse(what, self.entry, why)

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
