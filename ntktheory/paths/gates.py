"""Recording the gates of a network, and running it again with those gates.

A ReLU network with its gates held fixed is a sum over paths. The gates are read and replayed at the
network's calls of torch functions, so that ``nn.ReLU``, ``F.relu`` and ``Tensor.relu_`` are alike and
no model is edited. The calls form an **allow-list**: what is not listed is refused, because a
function without a rule would make every bound below it wrong without a sign.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ntktheory.calls import (
    CONVOLUTIONS,
    METADATA,
    Watch,
    bind_convolution,
    bind_linear,
    call_name,
    caller,
    tensors_in,
)
from ntktheory.checks import NumericalError, UnsupportedModule, complaint
from ntktheory.functional import ModelFn, Params

GATES = frozenset(("relu", "relu_"))
# Every entry of the result is an entry of the argument, or zero padding: edges of weight 1.
STRUCTURE = frozenset(
    ("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "unflatten",
     "movedim", "contiguous", "clone", "T", "mT", "t", "__getitem__", "cat", "concat", "concatenate",
     "stack", "chunk", "split", "unbind", "narrow", "expand", "view_as", "reshape_as")
)  # fmt: skip
ADDITIONS = frozenset(("add", "add_", "__add__", "__radd__", "__iadd__"))
# Fixed edges with positive weights 1/k; the weights stay in the data net and in the weight net.
AVERAGES = frozenset(
    ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
     "adaptive_avg_pool3d", "mean")
)  # fmt: skip
REPLAY_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Recording:
    """One run of a network, as its paths see it.

    Attributes:
        outputs: f(x), [N, C].
        gates: For every ReLU in order, a bool tensor: True where its input is positive.
        uses: How often each parameter is the weight or bias of a layer.
        averages: Whether there are fixed edges of weight other than 1.
        head: (weight name, input) of the Linear whose output is f(x) itself, if there is one.
    """

    outputs: Tensor
    gates: list[Tensor]
    uses: Counter[str]
    averages: bool
    head: tuple[str, Tensor] | None


def record(model_fn: ModelFn, params: Params, x: Tensor) -> Recording:
    """Run a network and record its gates.

    Pure, and vmap-able over ``params``.

    Args:
        model_fn: ``model_fn(params, x) -> [N, C]``.
        params: Its parameters (masks already multiplied in).
        x: The batch.

    Returns:
        The recording.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    recorder = _Recorder(params, x)
    try:
        with Watch(recorder.handle):
            outputs = model_fn(params, x)
    except _Refusal as refusal:
        raise UnsupportedModule(str(refusal)) from None
    head = recorder.last
    return Recording(
        outputs,
        recorder.gates,
        recorder.uses,
        recorder.averages,
        head[:2] if head is not None and head[2] is outputs else None,
    )


def replay(model_fn: ModelFn) -> Callable[[Params, tuple[Tensor, list[Tensor] | None]], Tensor]:
    """Return the network with fixed gates, ``fn(params, (x, gates)) -> [N, C]``.

    Every ReLU multiplies its input by the gate recorded for it; with ``gates=None`` every gate is 1
    (the ungated network). The result is affine in x and in every parameter that is used once.
    """

    def fixed(params: Params, batch: tuple[Tensor, list[Tensor] | None]) -> Tensor:
        x, gates = batch
        remaining = iter(gates or ())

        def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if call_name(func) not in GATES:
                return func(*args, **kwargs)
            z = args[0] if args else kwargs["input"]
            if gates is None:
                return z
            gate = next(remaining).to(z.dtype)
            return z.mul_(gate) if _in_place(func, args, kwargs) else z * gate

        with Watch(handle):
            return model_fn(params, x)

    return fixed


def check_replay(model_fn: ModelFn, params: Params, x: Tensor, recording: Recording) -> None:
    """Check that the network with its recorded gates gives f(x) again, to 1e-10 relative.

    Raises:
        NumericalError: If it does not.
    """
    again = replay(model_fn)(params, (x, recording.gates))
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


class _Recorder:
    """Follows which tensors depend on data and which on parameters only, and refuses the rest.

    For a tensor made from parameters only, ``origin`` counts how often each parameter enters a product
    in it: views and sums of parameters are edges side by side, a product puts them on one path.
    """

    def __init__(self, params: Params, x: Tensor) -> None:
        self.data = {id(x)}
        self.origin = {id(p): Counter([name]) for name, p in params.items()}
        self.names = {id(p): name for name, p in params.items()}
        self.gates: list[Tensor] = []
        self.uses: Counter[str] = Counter()
        self.averages = False
        self.last: tuple[str, Tensor, Tensor] | None = None
        self._alive: list[Any] = [x]  # ids are only unique among living tensors

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        short = call_name(func)
        operands = list(tensors_in(args, kwargs))
        if short in METADATA or not operands:
            return func(*args, **kwargs)
        layer = _bind_layer(short, args, kwargs)
        self._check(short, args, kwargs, operands, layer)
        result = func(*args, **kwargs)
        if short in GATES:
            self.gates.append(result.detach() > 0)
        self.averages |= short in AVERAGES
        self._follow(operands, layer, result)
        self._note_head(short, layer, operands, result)
        return result

    def _check(
        self,
        short: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        operands: list[Tensor],
        layer: dict[str, Any] | None,
    ) -> None:
        unknown = [t for t in operands if id(t) not in self.data and id(t) not in self.origin]
        if unknown:
            _refuse(f"{short} of a constant tensor of shape {list(unknown[0].shape)}")
        if layer is not None:
            if id(layer["weight"]) in self.data or id(layer["bias"]) in self.data:
                _refuse(f"{short} of two tensors that both depend on the data")
        elif short in GATES:
            if id(operands[0]) not in self.data:
                _refuse(f"{short} of a parameter")
        elif short in ADDITIONS:
            given = [*args[:2], kwargs.get("other", 0.0)]
            if kwargs.get("alpha", 1) != 1 or any(
                not isinstance(term, Tensor) and term != 0 for term in given
            ):
                _refuse(f"{short} of a constant or with alpha")
        elif short == "pad":
            if not _pads_with_zeros(args, kwargs):
                _refuse("pad with a constant")
        elif short == "dropout":
            if _trains(args, kwargs):
                _refuse("dropout in train mode")
        elif short in AVERAGES:
            divisor = kwargs.get("divisor_override", args[6] if len(args) > 6 else None)
            if divisor is not None and divisor <= 0:
                _refuse(f"{short} with a negative divisor")
        elif short not in STRUCTURE and short != "sum":
            _refuse(short)

    def _follow(self, operands: list[Tensor], layer: dict[str, Any] | None, result: Any) -> None:
        """Pass on what the result is made of; count parameters where they meet the data."""
        origins = [self.origin[id(t)] for t in operands if id(t) in self.origin]
        depends_on_data = any(id(t) in self.data for t in operands)
        if depends_on_data:
            for origin in origins:
                self.uses.update(origin)
        self._alive.append(result)
        for tensor in tensors_in(result):
            if depends_on_data:
                self.data.add(id(tensor))
            else:
                self.origin[id(tensor)] = _joined(origins, product=layer is not None)

    def _note_head(
        self, short: str, layer: dict[str, Any] | None, operands: list[Tensor], result: Any
    ) -> None:
        """Remember a Linear with a weight of its own, until something is done to its output."""
        if self.last is not None and any(t is self.last[2] for t in operands):
            self.last = None
        if short == "linear" and layer is not None and layer["input"].ndim == 2:
            name = self.names.get(id(layer["weight"]))
            matrix = layer["weight"].ndim == 2
            self.last = (name, layer["input"], result) if name is not None and matrix else None


class _Refusal(Exception):
    """Carries a refusal out of the network: operators would swallow a TypeError."""


def _refuse(what: str) -> None:
    raise _Refusal(
        complaint(
            "model",
            "made of functions with a path rule",
            f"{what} at {caller()}",
            "Replace it; the rules cover Linear, convolution, ReLU, average pooling, sums and "
            "reshaping.",
        )
    )


def _bind_layer(short: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    if short == "linear":
        return bind_linear(args, kwargs)
    return bind_convolution(args, kwargs) if short in CONVOLUTIONS else None


def _joined(origins: list[Counter[str]], *, product: bool) -> Counter[str]:
    """Join the counts of operands: a product puts them on one path, all else side by side."""
    total: Counter[str] = Counter()
    for origin in origins:
        total = total + origin if product else total | origin
    return total


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return call_name(func).endswith("_") or bool(kwargs.get("inplace", args[1:2] == (True,)))


def _pads_with_zeros(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    return given.get("mode", "constant") != "constant" or not given.get("value")


def _trains(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    return bool(given.get("training", True))
