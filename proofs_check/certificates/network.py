"""A bias-free gated network whose inputs, weights and gates are symbols of one polynomial ring.

A ReLU gate multiplies its unit by 0 or 1. Here the gate of unit r in layer l is a free symbol
``a_lr``, so that an identity in the ring holds for every activation pattern at once, and for every
slope of a leaky ReLU as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sympy import ZZ
from sympy.polys.rings import PolyElement, PolyRing

from ntktheory.checks import complaint

Vector = tuple[PolyElement, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True)
class SymbolicMLP:
    """The symbols of a bias-free MLP.

    Attributes:
        widths: Units per layer, input first and outputs last.
        ring: The polynomial ring over the integers that holds every symbol.
        inputs: The coordinates of one sample.
        weights: ``weights[l][o][i]`` joins unit i of layer l to unit o of layer l + 1.
        gates: ``gates[l][o]`` multiplies unit o of layer l + 1; the outputs have the gate 1.
        extra: The generators asked for on top.
    """

    widths: tuple[int, ...]
    ring: PolyRing
    inputs: Vector
    weights: tuple[Matrix, ...]
    gates: tuple[Vector, ...]
    extra: Vector = ()

    @property
    def parameters(self) -> Vector:
        """Every weight, layer by layer and row by row."""
        return tuple(w for layer in self.weights for row in layer for w in row)


def symbolic_mlp(
    widths: Sequence[int], *, gated: bool = True, extra: Sequence[str] = ()
) -> SymbolicMLP:
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
    widths = tuple(widths)
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            complaint("widths", "at least two positive integers", widths,
                      "Give the input width, hidden widths and the number of outputs.")
        )  # fmt: skip
    layers = range(1, len(widths))
    w_names = [
        f"w{k}_{o}_{i}" for k in layers for o in range(widths[k]) for i in range(widths[k - 1])
    ]
    a_names = [f"a{k}_{r}" for k in layers[:-1] for r in range(widths[k])] if gated else []
    x_names = [f"x{i}" for i in range(widths[0])]
    ring = PolyRing([*x_names, *a_names, *w_names, *extra], ZZ)
    symbol = dict(zip(map(str, ring.symbols), ring.gens, strict=True))
    return SymbolicMLP(
        widths=widths,
        ring=ring,
        inputs=tuple(symbol[name] for name in x_names),
        weights=tuple(
            tuple(
                tuple(symbol[f"w{k}_{o}_{i}"] for i in range(widths[k - 1]))
                for o in range(widths[k])
            )
            for k in layers
        ),
        gates=tuple(
            tuple(symbol.get(f"a{k}_{r}", ring.one) for r in range(widths[k])) for k in layers
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


def hidden_states(net: SymbolicMLP) -> tuple[Vector, ...]:
    """Return the input and every layer's output ``h_l = a_l ⊙ (W_l h_{l-1})``, in order."""
    states = [net.inputs]
    for weight, gate in zip(net.weights, net.gates, strict=True):
        states.append(tuple(a * z for a, z in zip(gate, matvec(weight, states[-1]), strict=True)))
    return tuple(states)
