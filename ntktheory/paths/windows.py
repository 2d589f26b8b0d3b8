"""Pooling windows, one axis at a time.

A window of any pooling is a product of one set of positions per axis, so that "sum the window" is one
0/1 matrix per axis, and an average divides row o by the product of the axes' divisors. Padding belongs
to no window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

MAX_POOLS = {f"max_pool{d}d": d for d in (1, 2, 3)} | {
    f"max_pool{d}d_with_indices": d for d in (1, 2, 3)
}
ADAPTIVE_MAX_POOLS = {f"adaptive_max_pool{d}d": d for d in (1, 2, 3)} | {
    f"adaptive_max_pool{d}d_with_indices": d for d in (1, 2, 3)
}
AVERAGE_POOLS = {f"avg_pool{d}d": d for d in (1, 2, 3)}
ADAPTIVE_AVERAGE_POOLS = {f"adaptive_avg_pool{d}d": d for d in (1, 2, 3)}
POOLS = MAX_POOLS | ADAPTIVE_MAX_POOLS | AVERAGE_POOLS | ADAPTIVE_AVERAGE_POOLS


@dataclass(frozen=True)
class Axis:
    """The windows along one axis.

    Attributes:
        positions: For each output position, the input positions of its window, padding left out.
        divisors: For each output position, what an average divides by.
        length: Number of input positions.
    """

    positions: tuple[tuple[int, ...], ...]
    divisors: tuple[int, ...]
    length: int

    def matrix(self, like: Tensor) -> Tensor:
        """Return the 0/1 matrix [outputs, inputs]: row o sums the window of o."""
        matrix = like.new_zeros(len(self.positions), self.length)
        for o, window in enumerate(self.positions):
            for i in window:
                matrix[o, i] += 1
        return matrix

    @property
    def disjoint(self) -> bool:
        """Whether no input position is in two windows."""
        seen = [i for window in self.positions for i in window]
        return len(seen) == len(set(seen))


def bind_pool(short: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a pooling call by name."""
    names: tuple[str, ...]
    if short in MAX_POOLS:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    elif short == "avg_pool1d":
        names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    elif short in AVERAGE_POOLS:
        names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
                 "divisor_override")  # fmt: skip
    else:
        names = ("input", "output_size")
    defaults = {
        "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "count_include_pad": True,
        "divisor_override": None,
    }  # fmt: skip
    return defaults | dict(zip(names, args, strict=False)) | dict(kwargs)


def pool_axes(short: str, given: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Return the windows of a pooling call, one ``Axis`` per pooled axis (the input's last ones)."""
    d = POOLS[short]
    sizes = [int(n) for n in given["input"].shape[-d:]]
    if short in ADAPTIVE_MAX_POOLS or short in ADAPTIVE_AVERAGE_POOLS:
        wanted = _each(given["output_size"], d)
        return tuple(
            adaptive_axis(n, n if m is None else m) for n, m in zip(sizes, wanted, strict=True)
        )
    kernel = _each(given["kernel_size"], d)
    stride = kernel if given["stride"] in (None, (), []) else _each(given["stride"], d)
    padding, dilation = _each(given["padding"], d), _each(given["dilation"], d)
    return tuple(
        moving_axis(
            n, k, s, p, e, bool(given["ceil_mode"]), count_padding=bool(given["count_include_pad"])
        )
        for n, k, s, p, e in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )


def moving_axis(
    length: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int = 1,
    ceil_mode: bool = False,
    *,
    count_padding: bool = True,
) -> Axis:
    """Return the windows ``{o·stride − padding + i·dilation}``; the last one starts in the input."""
    span = length + 2 * padding - dilation * (kernel - 1) - 1
    outputs = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (outputs - 1) * stride >= length + padding:
        outputs -= 1
    positions, divisors = [], []
    for o in range(outputs):
        start = o * stride - padding
        window = tuple(
            i for i in range(start, start + kernel * dilation, dilation) if 0 <= i < length
        )
        positions.append(window)
        divisors.append(
            min(start + kernel, length + padding) - start if count_padding else len(window)
        )
    return Axis(tuple(positions), tuple(divisors), length)


def adaptive_axis(length: int, outputs: int) -> Axis:
    """Return the windows ``⌊o·n/m⌋ … ⌈(o+1)·n/m⌉ − 1`` of n positions for m outputs."""
    positions = tuple(
        tuple(range(o * length // outputs, -(-(o + 1) * length // outputs))) for o in range(outputs)
    )
    return Axis(positions, tuple(len(window) for window in positions), length)


def sum_windows(x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """Return the sum of every window over the last ``len(axes)`` axes of x."""
    for i, axis in enumerate(axes):
        at = i - len(axes)
        x = (x.movedim(at, -1) @ axis.matrix(x).T).movedim(-1, at)
    return x


def average_weights(given: Mapping[str, Any], axes: Sequence[Axis], like: Tensor) -> Tensor:
    """Return 1 ÷ divisor of every window of an average, [outputs of axis 1, outputs of axis 2, …]."""
    override = given["divisor_override"]
    weights = like.new_ones(())
    for axis in axes:
        divisors = torch.tensor(axis.divisors, dtype=like.dtype, device=like.device)
        weights = weights[..., None] / (torch.ones_like(divisors) if override else divisors)
    return weights / override if override else weights


def squared_norm(given: Mapping[str, Any], axes: Sequence[Axis]) -> float:
    """Return ``‖P‖₂²`` of an average pooling, a product of one exact SVD per axis."""
    like = torch.zeros((), dtype=torch.float64)
    override = given["divisor_override"]
    norm = 1.0
    for axis in axes:
        rows = axis.matrix(like)
        if not override:
            rows = rows / torch.tensor(axis.divisors, dtype=like.dtype)[:, None]
        norm *= float(torch.linalg.matrix_norm(rows, 2)) ** 2
    return norm / override**2 if override else norm


def take_indices(x: Tensor, indices: Tensor, d: int) -> Tensor:
    """Return the entries of x at flat indices into its last d axes, as max pooling numbers them."""
    return x.flatten(-d).gather(-1, indices.flatten(-d)).unflatten(-1, indices.shape[-d:])


def count_ties(x: Tensor, largest: Tensor, axes: Sequence[Axis]) -> int:
    """Return the number of windows in which more than one entry is the largest."""
    count = torch.zeros_like(largest, dtype=torch.int32)
    widths = [max(map(len, axis.positions), default=0) for axis in axes]
    for offsets in product(*map(range, widths)):
        entries, valid = x, torch.ones((), dtype=torch.bool, device=x.device)
        for i, (axis, offset) in enumerate(zip(axes, offsets, strict=True)):
            chosen = [w[offset] if offset < len(w) else -1 for w in axis.positions]
            index = torch.tensor(chosen, device=x.device)
            entries = entries.index_select(i - len(axes), index.clamp(min=0))
            valid = valid[..., None] & (index >= 0)
        count += (entries == largest) & valid
    return int((count > 1).sum())


def _each(value: Any, d: int) -> list[Any]:
    values = list(value) if isinstance(value, tuple | list | torch.Size) else [value]
    return values * d if len(values) == 1 else values
