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

from torch import Tensor

from ntktheory.calls import Watch
from ntktheory.checks import NumericalError, UnsupportedModule, complaint
from ntktheory.functional import ModelFn, Params
from ntktheory.paths.gated import count_kinks, gated_maximum, gated_relu, value_at_zero
from ntktheory.paths.recorder import Gates, Observer, Recorder, Step
from ntktheory.paths.refusal import Refusal
from ntktheory.paths.rules import (
    Call,
    negative_slope,
)

__all__ = ["Gates", "Recording", "Step", "check_replay", "record", "replay"]

REPLAY_TOLERANCE = 1e-10


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
    chain: list[Step] | None
    multiply_adds: int
    writes: bool


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
    recorder = Recorder(params, x, smooth, observe, record.__code__)
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
    run = _Replay(recording.gates, count=True)
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

    def __init__(self, gates: Gates | None, count: bool = False) -> None:
        self._remaining = None if gates is None else iter(gates)
        self._count = count
        self.kinks = 0

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = Call(func, args, kwargs)
        if call.kind not in ("relu", "maximum", "smooth"):
            return call.run()
        z = next(call.tensors())
        gate = None if self._remaining is None else next(self._remaining)
        if self._count and gate is not None:
            self.kinks += count_kinks(call, z)
        if call.kind == "relu":
            return gated_relu(call, z, gate, negative_slope(call))
        if call.kind == "maximum":
            return gated_maximum(call, z, gate, gate)
        if gate is None:
            return z
        offset = value_at_zero(call, z)
        return z.mul_(gate).add_(offset) if call.in_place else z * gate + offset
