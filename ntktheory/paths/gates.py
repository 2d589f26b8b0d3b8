"""Recording the gates of a network, and running it again with those gates.

A ReLU network with its gates held fixed is a sum over paths. The gates are read and replayed at the
network's calls of torch functions, so that ``nn.ReLU``, ``F.relu`` and ``Tensor.relu_`` are alike and
no model is edited. The calls form an **allow-list**: what is not listed is refused, because a
function without a rule would make every bound below it wrong without a sign.
"""

from collections import Counter
from collections.abc import Callable, Iterable
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
SUMS = frozenset(("add", "add_", "__add__", "__radd__", "__iadd__", "sum"))
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
    """
    recorder = _Recorder(params, x)
    with Watch(recorder.handle):
        outputs = model_fn(params, x)
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
    """Follows which tensors depend on data and which on parameters, and refuses the rest."""

    def __init__(self, params: Params, x: Tensor) -> None:
        self.names = {id(p): name for name, p in params.items()}
        self.data = {id(x)}
        self.weights = set(self.names)
        self.gates: list[Tensor] = []
        self.uses: Counter[str] = Counter()
        self.averages = False
        self.last: tuple[str, Tensor, Tensor] | None = None
        self._alive: list[Any] = [x]  # ids are only unique among living tensors

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        short = call_name(func)
        operands = list(tensors_in(args, kwargs))
        result = func(*args, **kwargs)
        if short in METADATA or not operands:
            return result
        self._check(short, args, kwargs, operands)
        if short in GATES:
            self.gates.append(result.detach() > 0)
        self.averages |= short in AVERAGES
        if short == "linear" or short in CONVOLUTIONS:
            self._count(short, args, kwargs, result)
        self._follow(operands, result)
        return result

    def _check(
        self, short: str, args: tuple[Any, ...], kwargs: dict[str, Any], operands: list[Tensor]
    ) -> None:
        unknown = [t for t in operands if id(t) not in self.data | self.weights]
        if unknown:
            _refuse(f"{short} of a constant tensor of shape {list(unknown[0].shape)}")
        if short == "linear" or short in CONVOLUTIONS:
            given = (
                bind_linear(args, kwargs) if short == "linear" else bind_convolution(args, kwargs)
            )
            if id(given["weight"]) in self.data or id(given["bias"]) in self.data:
                _refuse(f"{short} of two tensors that both depend on the data")
            return
        if short in GATES:
            if id(operands[0]) not in self.data:
                _refuse(f"{short} of a parameter")
            return
        numbers = [v for v in (*args, *kwargs.values()) if isinstance(v, (int, float))]
        if (
            short in SUMS
            and short != "sum"
            and (
                kwargs.get("alpha", 1) != 1
                or any(v != 0 for v in numbers if v is not kwargs.get("alpha"))
            )
        ):
            _refuse(f"{short} of a constant or with alpha")
        if short in STRUCTURE | SUMS | AVERAGES:
            return
        if short == "pad" and _pads_with_zeros(args, kwargs):
            return
        if short == "dropout" and not _trains(args, kwargs):
            return
        _refuse(short)

    def _count(
        self, short: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        given = bind_linear(args, kwargs) if short == "linear" else bind_convolution(args, kwargs)
        self.uses.update(
            self.names[id(given[key])] for key in ("weight", "bias") if id(given[key]) in self.names
        )
        name = self.names.get(id(given["weight"]))
        self.last = None
        if short == "linear" and name is not None and given["input"].ndim == 2:
            self.last = (name, given["input"], result)

    def _follow(self, operands: Iterable[Tensor], result: Any) -> None:
        depends_on_data = any(id(t) in self.data for t in operands)
        self._alive.append(result)
        for tensor in tensors_in(result):
            (self.data if depends_on_data else self.weights).add(id(tensor))


def _refuse(what: str) -> None:
    raise UnsupportedModule(
        complaint(
            "model",
            "made of functions with a path rule",
            f"{what} at {caller()}",
            "Replace it; the rules cover Linear, convolution, ReLU, average pooling, sums and "
            "reshaping.",
        )
    )


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return call_name(func).endswith("_") or bool(kwargs.get("inplace", args[1:2] == (True,)))


def _pads_with_zeros(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    return given.get("mode", "constant") != "constant" or not given.get("value")


def _trains(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    return bool(given.get("training", True))
