"""Tr Θ of a gated network by forward and backward passes, without enumerating a path."""

from sympy.polys.rings import PolyElement

from proofs_check.certificates.network import (
    SymbolicMLP,
    Vector,
    hidden_states,
    matvec,
    square_sum,
    sum_of,
    transpose,
)


def cotangents(net: SymbolicMLP, output: int) -> tuple[Vector, ...]:
    """Return ``∂f_c/∂z_l`` for every pre-activation ``z_l = W_l h_{l-1}``, first to last."""
    width = net.widths[-1]
    backwards = [tuple(net.ring.one if o == output else net.ring.zero for o in range(width))]
    for weight, gate in zip(net.weights[:0:-1], net.gates[-2::-1], strict=True):
        pulled = matvec(transpose(weight), backwards[-1])
        backwards.append(tuple(a * g for a, g in zip(gate, pulled, strict=True)))
    return tuple(reversed(backwards))


def layer_traces(net: SymbolicMLP) -> tuple[PolyElement, ...]:
    """Return each layer's ``Tr Θ_l = Σ_c ‖∂f_c/∂W_l‖_F²`` at one sample.

    As ``∂f_c/∂W_l = g_lc h_{l-1}ᵀ``, the layer's term is ``‖h_{l-1}‖² Σ_c ‖g_lc‖²``.
    """
    states = hidden_states(net)
    backwards = [cotangents(net, c) for c in range(net.widths[-1])]
    return tuple(
        square_sum(states[layer]) * sum_of(square_sum(g[layer]) for g in backwards)
        for layer in range(len(net.weights))
    )


def trace_polynomial(net: SymbolicMLP) -> PolyElement:
    """Return ``Tr Θ(x, x) = Σ_l Tr Θ_l`` as a polynomial in inputs, gates and weights.

    Reference for tests: the squared derivatives of the outputs' polynomials (``linear.py``).
    """
    return sum_of(layer_traces(net))
