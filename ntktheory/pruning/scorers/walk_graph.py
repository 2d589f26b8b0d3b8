"""A network as the graph on which random walks move: units, weighted edges, sums.

The network is run once. Every tensor carries, entry by entry, the number of the unit it shows: a
channel of a convolution at all its positions, a feature of a Linear. Functions of one variable,
normalisation and pooling leave units as they are; what only moves entries is run on the numbers.
Padding is unit 0, no unit at all.
"""

from dataclasses import dataclass
from types import CodeType
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from ntktheory.calls import METADATA, Watch, call_name, tensors_in
from ntktheory.checks import UnsupportedModule, check_finite, complaint
from ntktheory.functional import ModelFn, Params
from ntktheory.paths.refusal import module_path
from ntktheory.paths.rules import KIND, MATRIX_PRODUCTS, TRANSPOSED, Call, bind_layer
from ntktheory.paths.tags import Tags

SAME = frozenset(
    ("prelu", "hardtanh", "hardtanh_", "relu6", "clamp", "clamp_", "hardsigmoid", "logsigmoid",
     "softmax", "log_softmax", "layer_norm", "group_norm", "instance_norm", "float", "double", "to",
     "type_as", "abs", "square", "pow", "exp", "sqrt", "rsqrt")
)  # fmt: skip
SAME_KINDS = frozenset(("relu", "smooth", "batch_norm"))
DROPOUTS = frozenset(name for name in KIND if "dropout" in name)


@dataclass(frozen=True)
class Layer:
    """A layer: an edge for every entry of its weight.

    Attributes:
        start: Number of its first unit.
        sources: Number of the unit at each of its I inputs, 0 for none.
        weight: Name of its weight.
        strengths: |w| as [groups, I / groups, O / groups, K], float64.
        index: Place of each of these in the flattened weight.
    """

    start: int
    sources: Tensor
    weight: str
    strengths: Tensor
    index: Tensor

    @property
    def count(self) -> int:
        """The number of its units."""
        return self.strengths.shape[0] * self.strengths.shape[2]


@dataclass(frozen=True)
class Sum:
    """Units that are sums of two others.

    Attributes:
        start: Number of the first unit.
        sources: Numbers of the two terms, [units, 2].
    """

    start: int
    sources: Tensor

    @property
    def count(self) -> int:
        """The number of its units."""
        return self.sources.shape[0]


@dataclass(frozen=True)
class Graph:
    """The graph, its blocks in the order of the run; units are numbered from 1.

    Attributes:
        inputs: How many units are inputs; they are the first.
        blocks: Layers and sums.
        outputs: Numbers of the output units.
        size: 1 + the number of all units.
    """

    inputs: int
    blocks: tuple[Layer | Sum, ...]
    outputs: Tensor
    size: int


class _Mixes(Exception):
    """A call that mixes units, or that has no rule."""


def read_graph(model_fn: ModelFn, params: Params, like: Tensor) -> Graph:
    """Read the graph of a network.

    The units of the input are its entries, if the first layers take them apart, else its channels
    (axis 1), else its last axis.

    Args:
        model_fn: The network.
        params: Its parameters (masks already multiplied in).
        like: An input or a batch of the right shape.

    Returns:
        The graph.

    Raises:
        UnsupportedModule: If a call has no rule: products of data with data, sums over units, weights
            that are computed.
        NumericalError: If a weight is not finite.
    """
    like = like[:1].detach()
    entries = torch.arange(1, 1 + like.numel(), dtype=torch.float64).view(like.shape)
    numberings = [entries]
    for axis in (1, like.ndim - 1) if like.ndim > 2 else ():
        shape = [1] * like.ndim
        shape[axis] = like.shape[axis]
        numbers = torch.arange(1, 1 + like.shape[axis], dtype=torch.float64)
        numberings.append(numbers.view(shape).expand(like.shape))
    why = ""
    for numbers in numberings:
        try:
            return _Reader(params).read(model_fn, params, like.clone(), numbers)
        except _Mixes as mixes:
            why = str(mixes)
    raise UnsupportedModule(why)


class _Reader:
    def __init__(self, params: Params) -> None:
        self.numbers: Tags[Tensor] = Tags()
        self.names: Tags[str] = Tags()
        self.blocks: list[Layer | Sum] = []
        self.next = 1
        self.entry: CodeType = _Reader.read.__code__
        for name, p in params.items():
            self.names.put(p, name)

    def read(self, model_fn: ModelFn, params: Params, x: Tensor, numbers: Tensor) -> Graph:
        self.numbers.put(x, numbers)
        inputs = int(numbers.max())
        self.next = 1 + inputs
        with torch.no_grad(), Watch(self.handle):
            outputs = model_fn(params, x)
        found = self.numbers.get(outputs)
        if found is None:
            self.refuse("outputs that do not depend on the inputs")
        last = found.unique().long()
        return Graph(inputs, tuple(self.blocks), last[last > 0], self.next)

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        operands = list(tensors_in(args, kwargs))
        seen = [t for t in operands if self.numbers.get(t) is not None]
        target = next(tensors_in(result), None)
        if call_name(func) in METADATA or not seen or target is None:
            return result
        # Numbers are handled outside of the watched run.
        with torch._C.DisableTorchFunction():
            numbers = self.follow(Call(func, args, kwargs), seen, result)
        parts = result if isinstance(numbers, tuple | list) else (target,)
        listed = numbers if isinstance(numbers, tuple | list) else (numbers,)
        for part, own in zip(parts, listed, strict=True):
            self.numbers.put(part, own)
        return result

    def follow(self, call: Call, seen: list[Tensor], result: Any) -> Any:
        short, kind = call.short, call.kind
        if short in SAME or kind in SAME_KINDS or short in DROPOUTS:
            return self.broadcast(seen, result, short)
        if kind == "multiply":
            return self.broadcast(seen, result, f"{short} of data with data")
        if kind in ("structure", "join"):
            return call.func(*self.swapped(call.args), **self.swapped(dict(call.kwargs)))
        if kind == "add":
            return self.add(call, seen, result)
        if kind in ("average", "sum", "maximum"):
            return self.reduce(call, seen[0])
        if kind == "layer" and short not in MATRIX_PRODUCTS:
            return self.layer(call, result)
        self.refuse(short)

    def broadcast(self, seen: list[Tensor], result: Tensor, what: str) -> Tensor:
        if len({id(t) for t in seen}) > 1:
            self.refuse(what)
        return self.of(seen[0]).expand(result.shape)

    def add(self, call: Call, seen: list[Tensor], result: Tensor) -> Tensor:
        if len(seen) < 2:
            return self.of(seen[0]).expand(result.shape)
        a, b = (self.of(t).expand(result.shape) for t in seen)
        pairs = torch.stack((a, b)).flatten(1)
        distinct, place = pairs.unique(dim=1, return_inverse=True)
        new = (distinct > 0).all(0) & (distinct[0] != distinct[1])
        numbers = distinct.amax(0)
        count = int(new.sum())
        if count:
            numbers[new] = torch.arange(self.next, self.next + count, dtype=torch.float64)
            self.blocks.append(Sum(self.next, distinct[:, new].T.long()))
            self.next += count
        return numbers[place].view(result.shape)

    def reduce(self, call: Call, z: Tensor) -> Tensor:
        """Return the numbers of a pooled or summed tensor: one unit per window, or refused."""
        numbers = self.of(z)
        top = self.pooled(call, numbers)
        bottom = -self.pooled(call, torch.where(numbers > 0, -numbers, -torch.inf))
        if bool(((top != bottom) & (top > 0)).any()):
            self.refuse(f"{call.short} over several units")
        return top

    def pooled(self, call: Call, numbers: Tensor) -> Tensor:
        short = call.short
        args, kwargs = (numbers, *call.args[1:]), dict(call.kwargs)
        kwargs.pop("input", None)
        if "pool" in short:
            given = call.given(("input", "kernel_size", "stride", "padding", "dilation"))
            name = short.replace("avg", "max").removesuffix("_with_indices")
            if "adaptive" in short:
                size = kwargs.get("output_size", args[1] if len(args) > 1 else None)
                return getattr(F, name)(numbers, size)
            ceil = bool(kwargs.get("ceil_mode", False))
            if "avg" in short:
                return getattr(F, name)(
                    numbers, given["kernel_size"], given.get("stride"), given.get("padding", 0),
                    ceil_mode=ceil or (len(call.args) > 4 and bool(call.args[4])),
                )  # fmt: skip
            kwargs.pop("return_indices", None)
            return getattr(F, name)(*args[:6], **kwargs)
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else ()))
        keep = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
        if isinstance(dims, Tensor):
            self.refuse(f"{short} of two tensors")
        return torch.amax(numbers, () if dims is None else dims, keep)

    def layer(self, call: Call, result: Tensor) -> Tensor:
        bound = bind_layer(call)
        name = self.names.get(bound.weight)
        if name is None or self.numbers.get(bound.input) is None:
            self.refuse(f"{call.short} with a weight that is not itself a parameter")
        check_finite(f"parameter {name!r}", bound.weight, "Look for overflow.")
        axis = (
            bound.input.ndim - 1 if call.short == "linear" else result.ndim - bound.weight.ndim + 1
        )
        sources = self.along(self.of(bound.input), axis, call.short)
        w = bound.weight.detach().double().abs().cpu()
        index = torch.arange(w.numel()).view(w.shape)
        groups = int(bound.options.get("groups", 1))
        strengths, index = (_by_group(t, groups, call.short in TRANSPOSED) for t in (w, index))
        block = Layer(self.next, sources, name, strengths, index)
        self.blocks.append(block)
        self.next += block.count
        shape = [1] * result.ndim
        shape[axis] = block.count
        units = torch.arange(block.start, block.start + block.count, dtype=torch.float64)
        return units.view(shape).expand(result.shape)

    def along(self, numbers: Tensor, axis: int, what: str) -> Tensor:
        """Return the units along an axis; elsewhere they must not change, but for padding."""
        rows = numbers.movedim(axis, 0).flatten(1)
        top = rows.amax(1)
        if bool(((rows != top.unsqueeze(1)) & (rows > 0)).any()):
            self.refuse(f"{what} over several units at once")
        return top.long()

    def of(self, t: Tensor) -> Tensor:
        numbers = self.numbers.get(t)
        return numbers if numbers is not None else torch.zeros(t.shape, dtype=torch.float64)

    def swapped(self, values: Any) -> Any:
        return torch.utils._pytree.tree_map(
            lambda v: self.of(v) if isinstance(v, Tensor) and v.is_floating_point() else v, values
        )

    def refuse(self, what: str) -> NoReturn:
        raise _Mixes(
            complaint(
                "model" + module_path(self.entry),
                "a network that random walks can cross",
                what,
                "Walks cross Linear and convolution layers, functions of one variable, normalisation, "
                "pooling, sums, concatenation and reshaping.",
            )
        )


def _by_group(t: Tensor, groups: int, transposed: bool) -> Tensor:
    """Return a weight as [groups, I / groups, O / groups, K]."""
    t = t.flatten(2) if t.ndim > 2 else t.unsqueeze(-1)
    t = t.unflatten(0, (groups, -1))
    return t if transposed else t.transpose(1, 2)
