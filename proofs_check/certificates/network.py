"""A bias-free gated network whose inputs, weights and gates are symbols of one polynomial ring.

A ReLU gate multiplies its unit by 0 or 1. Here the gate of unit r in layer l is a free symbol
``a_lr``, so that an identity in the ring holds for every activation pattern at once, and for every
slope of a leaky ReLU as well. A convolution is a layer whose matrix holds the kernel's symbols in
several places, and zeros.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sympy import ZZ
from sympy.polys.rings import PolyElement, PolyRing

from ntktheory.checks import complaint

Vector = tuple[PolyElement, ...]
Matrix = tuple[Vector, ...]
Names = tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True)
class SymbolicNet:
    """The symbols of a bias-free network of layers without shortcuts.

    Attributes:
        widths: Units per layer, input first and outputs last.
        ring: What holds every symbol, with ``one`` and ``zero``: a polynomial ring over the integers,
            or the integers themselves at a point of it.
        inputs: The coordinates of one sample.
        names: ``names[l][o][i]`` is the parameter that joins unit i of layer l to unit o of layer
            l + 1, None where they are not joined. A layer's parameters occur in that layer only.
        weights: The symbols of ``names``, and zeros.
        gates: ``gates[l][o]`` multiplies unit o of layer l + 1; the outputs have the gate 1.
        extra: The generators asked for on top.
    """

    widths: tuple[int, ...]
    ring: Any
    inputs: Vector
    names: tuple[Names, ...]
    weights: tuple[Matrix, ...]
    gates: tuple[Vector, ...]
    extra: Vector = ()

    @property
    def symbols(self) -> dict[str, PolyElement]:
        """Every parameter by its name, layer by layer and row by row."""
        return {
            name: weight
            for names, weights in zip(self.names, self.weights, strict=True)
            for name_row, row in zip(names, weights, strict=True)
            for name, weight in zip(name_row, row, strict=True)
            if name is not None
        }

    @property
    def parameters(self) -> Vector:
        """Every parameter, layer by layer and row by row."""
        return tuple(self.symbols.values())


def symbolic_mlp(
    widths: Sequence[int], *, gated: bool = True, extra: Sequence[str] = ()
) -> SymbolicNet:
    """Build the symbols of a bias-free MLP.

    Args:
        widths: Units per layer, input first and outputs last.
        gated: Whether hidden units have a gate symbol; without, the network is linear.
        extra: Names of further generators of the ring.

    Returns:
        Inputs ``x_i``, weights ``w<layer>_<out>_<in>`` and gates ``a<layer>_<unit>``.

    Raises:
        ValueError: If ``widths`` names fewer than two layers or a layer without units.

    Example:
        >>> symbolic_mlp((1, 2, 1)).parameters
        (w1_0_0, w1_1_0, w2_0_0, w2_0_1)
    """
    return with_symbols(mlp_names(widths), gated=gated, extra=extra)


def symbolic_conv(
    length: int, kernel: int, channels: Sequence[int], outputs: int, *, gated: bool = True
) -> SymbolicNet:
    """Build the symbols of a bias-free 1-d convolutional network with a dense head.

    Every convolution has stride 1, no padding and a gate per channel and position; the head is a
    Linear layer on the flattened map.

    Args:
        length: Positions of the input.
        kernel: Taps of every kernel.
        channels: Channels per layer, the input's first.
        outputs: Number of outputs.
        gated: Whether hidden units have a gate symbol.

    Returns:
        Inputs ``x<channel·length + position>``, kernels ``k<layer>_<out>_<in>_<tap>``, the head's
        weights ``w<layer>_<out>_<in>`` and gates ``a<layer>_<unit>``.

    Raises:
        ValueError: If there is no convolution, a number is not positive, or the map vanishes.

    Example:
        >>> symbolic_conv(3, 2, (1, 1), 1).parameters
        (k1_0_0_0, k1_0_0_1, w2_0_0, w2_0_1)
    """
    return with_symbols(conv_names(length, kernel, channels, outputs), gated=gated)


def mlp_names(widths: Sequence[int]) -> tuple[Names, ...]:
    """Return every layer's parameter names of an MLP; see ``symbolic_mlp``.

    Raises:
        ValueError: If ``widths`` names fewer than two layers or a layer without units.
    """
    widths = tuple(widths)
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            complaint("widths", "at least two positive integers", widths,
                      "Give the input width, hidden widths and the number of outputs.")
        )  # fmt: skip
    pairs = enumerate(pairwise(widths), start=1)
    return tuple(_dense(f"w{k}", below, above) for k, (below, above) in pairs)


def conv_names(
    length: int, kernel: int, channels: Sequence[int], outputs: int
) -> tuple[Names, ...]:
    """Return every layer's parameter names of a convolutional network; see ``symbolic_conv``.

    Raises:
        ValueError: If there is no convolution, a number is not positive, or the map vanishes.
    """
    sizes = [length - i * (kernel - 1) for i in range(len(channels))]
    if len(channels) < 2 or min(*channels, *sizes, kernel, outputs) < 1:
        given = f"length {length}, kernel {kernel}, channels {tuple(channels)}, {outputs} outputs"
        raise ValueError(
            complaint("the convolutions", "at least one that leaves a position, of positive size",
                      given, "Shorten the kernel or drop a layer.")
        )  # fmt: skip
    steps = zip(pairwise(channels), sizes, sizes[1:], strict=False)
    layers = [
        _sliding(f"k{k}", ends, before, after, kernel)
        for k, (ends, before, after) in enumerate(steps, start=1)
    ]
    head = _dense(f"w{len(channels)}", channels[-1] * sizes[-1], outputs)
    return (*layers, head)


def _dense(prefix: str, below: int, above: int) -> Names:
    return tuple(tuple(f"{prefix}_{o}_{i}" for i in range(below)) for o in range(above))


def _sliding(prefix: str, channels: tuple[int, int], before: int, after: int, taps: int) -> Names:
    """Return the names of an unrolled convolution: output (o, s) reads (d, s + t) through tap t."""
    return tuple(
        tuple(
            f"{prefix}_{o}_{d}_{r - s}" if 0 <= r - s < taps else None
            for d in range(channels[0])
            for r in range(before)
        )
        for o in range(channels[1])
        for s in range(after)
    )


def with_symbols(
    layers: Sequence[Names], *, gated: bool = True, extra: Sequence[str] = ()
) -> SymbolicNet:
    """Return the network of these layers, with a generator of a ring for every symbol."""
    widths = (len(layers[0][0]), *map(len, layers))
    named = [name for layer in layers for row in layer for name in row if name is not None]
    hidden = range(1, len(widths) - 1)
    a_names = [f"a{k}_{r}" for k in hidden for r in range(widths[k])] if gated else []
    x_names = [f"x{i}" for i in range(widths[0])]
    ring = PolyRing([*x_names, *a_names, *dict.fromkeys(named), *extra], ZZ)
    symbol = dict(zip(map(str, ring.symbols), ring.gens, strict=True))
    return SymbolicNet(
        widths=widths,
        ring=ring,
        inputs=tuple(symbol[name] for name in x_names),
        names=tuple(layers),
        weights=tuple(
            tuple(tuple(ring.zero if n is None else symbol[n] for n in row) for row in layer)
            for layer in layers
        ),
        gates=tuple(
            tuple(symbol.get(f"a{k}_{r}", ring.one) for r in range(width))
            for k, width in enumerate(widths[1:], start=1)
        ),
        extra=tuple(symbol[name] for name in extra),
    )


def matvec(matrix: Matrix, vector: Sequence[PolyElement]) -> Vector:
    """Return the matrix times the vector."""
    return tuple(sum_of(row[i] * vector[i] for i in range(len(vector))) for row in matrix)


def transpose(matrix: Matrix) -> Matrix:
    """Return the transposed matrix."""
    return tuple(zip(*matrix, strict=True))


def sum_of(terms: Iterable[PolyElement]) -> PolyElement:
    """Return the sum of at least one ring element."""
    first, *rest = terms
    return sum(rest, first)


def square_sum(vector: Sequence[PolyElement]) -> PolyElement:
    """Return the squared Euclidean norm of a vector."""
    return sum_of(entry**2 for entry in vector)


def hidden_states(net: SymbolicNet) -> tuple[Vector, ...]:
    """Return the input and every layer's output ``h_l = a_l ⊙ (W_l h_{l-1})``, in order."""
    states = [net.inputs]
    for weight, gate in zip(net.weights, net.gates, strict=True):
        states.append(tuple(a * z for a, z in zip(gate, matvec(weight, states[-1]), strict=True)))
    return tuple(states)


def by_parameter(names: Names, heads: Vector, tails: Vector) -> dict[str, PolyElement]:
    """Return ``Σ head_o tail_i`` over the edges (o, i) of every parameter of a layer."""
    sums: dict[str, PolyElement] = {}
    for row, head in zip(names, heads, strict=True):
        for name, tail in zip(row, tails, strict=True):
            if name is not None:
                sums[name] = sums[name] + head * tail if name in sums else head * tail
    return sums
