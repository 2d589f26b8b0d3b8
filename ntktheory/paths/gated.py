"""What gated calls do: the gates they decide, and what they return under recorded ones."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntktheory.paths.rules import (
    INPLACE_AT,
    Call,
    axes_of_maximum,
    pool_arguments,
)
from ntktheory.paths.windows import POOLS, count_ties, pool_axes, sum_windows, take_indices


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


def smooth_gates(call: Call, z: Tensor) -> tuple[Tensor, Tensor]:
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


def count_kinks(call: Call, z: Tensor) -> int:
    """Count the gates of a call that are decided by an exact zero or by a tie."""
    if call.kind == "smooth":
        return 0
    if call.kind == "relu":
        return int((z == 0).sum())
    if call.short in POOLS:
        largest = winners(call, z)[1]
        return count_ties(z, largest, pool_axes(call.short, pool_arguments(call)))
    axes = (axes_of_maximum(call) or ((), False))[0]
    return int(((z == z.amax(axes, keepdim=True)).sum(axes) > 1).sum())


def winners(call: Call, z: Tensor) -> tuple[Tensor, Tensor, Any]:
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
