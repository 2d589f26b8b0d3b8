"""Certified norms of layers as operators: never below the true norm.

A convolution's norm is that of the linear operator on its map, not of the flattened kernel: on a 6×6 map
of ones under an all-ones 3×3 kernel the flattened norm is too small for a bound.
"""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ntktheory.paths.rules import Layer
from ntktheory.paths.windows import Axis, moving_axis

FREQUENCY_BYTES = 1 << 28
DENSE = 512


def convolution_axes(layer: Layer, weight: Tensor, sizes: Sequence[int]) -> tuple[Axis, ...] | None:
    """Return the windows of a convolution on a map, one ``Axis`` per spatial axis.

    Args:
        layer: The call; its options are read.
        weight: The kernel [O, I/groups, k, …].
        sizes: Spatial sizes of the input.

    Returns:
        The axes; None where the padding is not the same number on both sides.
    """
    d = len(sizes)
    stride, dilation = (_each(layer.options[name], d) for name in ("stride", "dilation"))
    same = layer.options["padding"] == "same"
    if same and any(e * (k - 1) % 2 for e, k in zip(dilation, weight.shape[2:], strict=True)):
        return None
    padding = [-_start(layer, weight.shape[2:], i) for i in range(d)]
    axes = zip(sizes, weight.shape[2:], stride, padding, dilation, strict=True)
    return tuple(moving_axis(n, k, s, p, e) for n, k, s, p, e in axes)


def row_energies(
    squares: Tensor, axes: Sequence[Axis], layer: Layer, kernel: Sequence[int]
) -> Tensor:
    """Return ``Σ_s A_n[d, s]²`` for the unfolded input A_n: how often each tap sees which square.

    Args:
        squares: Squared inputs, [N, I, …].
        axes: The windows.
        layer: The convolution.
        kernel: Its kernel's spatial sizes.

    Returns:
        A tensor [N, I, k, …].
    """
    d = len(axes)
    stride, dilation = (_each(layer.options[name], d) for name in ("stride", "dilation"))
    for i, axis in enumerate(axes):
        seen = squares.new_zeros(kernel[i], axis.length)
        start = _start(layer, kernel, i)
        for o in range(len(axis.positions)):
            for tap in range(kernel[i]):
                at = start + o * stride[i] + tap * dilation[i]
                if 0 <= at < axis.length:
                    seen[tap, at] += 1
        where = i - d
        squares = (squares.movedim(where, -1) @ seen.T).movedim(-1, where)
    return squares


def frobenius_of_convolution(layer: Layer, weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return ``‖·‖_F²`` of a convolution on a map of the given sizes, exactly: w² on ones."""
    channels = weight.shape[1] * layer.options["groups"]
    return layer.apply(weight.new_ones(1, channels, *sizes), weight.square(), None).sum()


def norm_of_convolution(layer: Layer, weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return ``‖·‖₂²`` of a convolution on a map of the given sizes, or an upper bound on it.

    Exact, by one SVD, for at most ``DENSE`` inputs and outputs; beyond, the smaller of the Frobenius
    norm and the norm on a torus.

    Args:
        layer: The convolution.
        weight: Its kernel [O, I/groups, k, …].
        sizes: Spatial sizes of the input.

    Returns:
        The bound, 0-dim.
    """
    channels = weight.shape[1] * layer.options["groups"]
    count = channels * math.prod(sizes)
    if count <= DENSE:
        basis = torch.eye(count, dtype=weight.dtype, device=weight.device)
        columns = layer.apply(basis.view(count, channels, *sizes), weight, None).flatten(1)
        if columns.shape[1] <= DENSE:
            return torch.linalg.matrix_norm(columns, 2).square()
    spectral = spectral_of_convolution(layer, weight, sizes)
    return torch.minimum(spectral, frobenius_of_convolution(layer, weight, sizes))


def spectral_of_convolution(layer: Layer, weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return an upper bound on ``‖·‖₂²`` of a convolution on a map of the given sizes.

    The map is put on a torus of at least size + padding positions, where the zeros of the padding are
    never data: the convolution is then a part of a circular one, whose norm is the largest over
    frequencies of the singular values of its transfer matrix. With stride s, the frequencies that alias
    stand side by side, divided by √s per axis. Exact for a circular convolution.

    Args:
        layer: The convolution.
        weight: Its kernel [O, I/groups, k, …].
        sizes: Spatial sizes of the input.

    Returns:
        The bound, 0-dim. Cost: an eigenvalue problem of size min(O, I·s…) per half of the frequencies.
    """
    groups = layer.options["groups"]
    kernels = weight.unflatten(0, (groups, -1))
    d = len(sizes)
    stride, dilation = (_each(layer.options[name], d) for name in ("stride", "dilation"))
    axes = [
        _transfer(n - _start(layer, weight.shape[2:], i), s, k, e, weight)
        for i, (n, s, k, e) in enumerate(
            zip(sizes, stride, weight.shape[2:], dilation, strict=True)
        )
    ]
    axes[0] = axes[0][: axes[0].shape[0] // 2 + 1]  # the others are complex conjugates
    norms = [_largest_of_frequencies(k, axes) for k in kernels.unbind(0)]
    return torch.stack(norms).amax() / math.prod(stride)


def spectral_cost(weight_shape: Sequence[int], stride: Sequence[int], sizes: Sequence[int]) -> int:
    """Return about how many multiply-adds ``spectral_of_convolution`` takes."""
    inputs = weight_shape[1] * math.prod(stride)
    small, large = sorted((weight_shape[0], inputs))
    frequencies = math.prod(-(-n // s) for n, s in zip(sizes, stride, strict=True)) // 2 + 1
    return 4 * frequencies * small * small * (large + 8 * small)


def _start(layer: Layer, kernel: Sequence[int], i: int) -> int:
    """Return where the first window starts along axis i: minus the padding."""
    padding = layer.options["padding"]
    d = len(kernel)
    if padding == "same":
        return -(_each(layer.options["dilation"], d)[i] * (kernel[i] - 1) // 2)
    return 0 if padding == "valid" else -_each(padding, d)[i]


def _transfer(positions: int, stride: int, kernel: int, dilation: int, like: Tensor) -> Tensor:
    """Return ``exp(−iω·tap)``, [base frequencies, aliases, taps], on a torus of ≥ ``positions``."""
    size = -(-positions // stride) * stride
    base = torch.arange(size // stride, dtype=like.dtype, device=like.device)
    alias = torch.arange(stride, dtype=like.dtype, device=like.device) * (size // stride)
    taps = torch.arange(kernel, dtype=like.dtype, device=like.device) * dilation
    turns = (base[:, None] + alias)[..., None] * taps / size
    return torch.polar(torch.ones_like(turns), -2 * math.pi * (turns % 1))


def _largest_of_frequencies(kernel: Tensor, axes: list[Tensor]) -> Tensor:
    """Return the largest squared singular value of the transfer matrices of a kernel [O, I, k, …]."""
    outputs, inputs = kernel.shape[:2]
    taps = kernel.flatten(2).permute(2, 0, 1).flatten(1).to(axes[0].dtype)
    bases = list(product(*(range(len(axis)) for axis in axes)))
    aliases = math.prod(axis.shape[1] for axis in axes)
    step = max(1, FREQUENCY_BYTES // (32 * outputs * inputs * aliases))
    norms = []
    for start in range(0, len(bases), step):
        chunk = list(zip(*bases[start : start + step], strict=True))
        phases = axes[0][list(chunk[0])]
        for axis, chosen in zip(axes[1:], chunk[1:], strict=True):
            phases = phases[:, :, None, :, None] * axis[list(chosen)][:, None, :, None, :]
            phases = phases.flatten(1, 2).flatten(2, 3)
        matrices = (phases @ taps).unflatten(2, (outputs, inputs)).transpose(1, 2).flatten(2)
        adjoint = matrices.mH
        gram = matrices @ adjoint if outputs <= inputs * aliases else adjoint @ matrices
        norms.append(torch.linalg.eigvalsh(gram).amax())
    return torch.stack(norms).amax()


def _each(value: int | Sequence[int], d: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * d if len(values) == 1 else values
