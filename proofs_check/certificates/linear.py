"""N5: the trace of a linear network in closed form, as an identity in the ring."""

from collections.abc import Sequence
from itertools import accumulate

from sympy.polys.rings import PolyElement

from proofs_check.certificates.network import (
    Matrix,
    SymbolicNet,
    Vector,
    hidden_states,
    matvec,
    square_sum,
    sum_of,
    transpose,
)


def differentiated_trace(net: SymbolicNet) -> PolyElement:
    """Return ``Σ_c Σ_j (∂f_c/∂w_j)²`` by differentiating the outputs' polynomials."""
    outputs = hidden_states(net)[-1]
    return sum_of(f.diff(w) ** 2 for f in outputs for w in net.parameters)


def linear_trace(net: SymbolicNet) -> PolyElement:
    """Return ``Σ_l ‖W_{l−1}…W_1 x‖² ‖W_L…W_{l+1}‖_F²`` by matrix products.

    Args:
        net: The symbols of a network without gates.

    Returns:
        The closed form of N5 in ``net.ring``.
    """
    prefixes = accumulate(
        net.weights[:-1], lambda state, weight: matvec(weight, state), initial=net.inputs
    )  # W_{l−1}…W_1 x
    suffixes = accumulate(net.weights[:0:-1], matmul, initial=identity(net))  # W_L…W_{l+1}
    norms = [sum_of(map(square_sum, suffix)) for suffix in suffixes][::-1]
    return sum_of(square_sum(prefix) * norm for prefix, norm in zip(prefixes, norms, strict=True))


def identity(net: SymbolicNet) -> Matrix:
    """Return the identity of the size of the output."""
    size = range(net.widths[-1])
    return tuple(tuple(net.ring(int(row == column)) for column in size) for row in size)


def matmul(left: Matrix, right: Sequence[Vector]) -> Matrix:
    """Return the product of two matrices."""
    columns = transpose(tuple(right))
    return transpose(tuple(matvec(left, column) for column in columns))
