"""Tr Θ of a gated network by forward and backward passes, without enumerating a path."""

from sympy.polys.rings import PolyElement

from proofs_check.certificates.network import (
    SymbolicNet,
    Vector,
    by_parameter,
    hidden_states,
    matvec,
    square_sum,
    sum_of,
    transpose,
)


def cotangents(net: SymbolicNet, output: int) -> tuple[Vector, ...]:
    """Return ``∂f_c/∂z_l`` for every pre-activation ``z_l = W_l h_{l-1}``, first to last."""
    width = net.widths[-1]
    backwards = [tuple(net.ring.one if o == output else net.ring.zero for o in range(width))]
    for weight, gate in zip(net.weights[:0:-1], net.gates[-2::-1], strict=True):
        pulled = matvec(transpose(weight), backwards[-1])
        backwards.append(tuple(a * g for a, g in zip(gate, pulled, strict=True)))
    return tuple(reversed(backwards))


def layer_traces(net: SymbolicNet) -> tuple[PolyElement, ...]:
    """Return each layer's ``Tr Θ_l = Σ_c ‖∂f_c/∂θ_l‖²`` at one sample.

    ``∂f_c/∂θ_j = Σ g_o h_i`` over the edges (o, i) that share j: summed first, then squared.
    """
    states = hidden_states(net)
    backwards = [cotangents(net, c) for c in range(net.widths[-1])]
    return tuple(
        sum_of(
            square_sum(list(by_parameter(names, g[layer], states[layer]).values()))
            for g in backwards
        )
        for layer, names in enumerate(net.names)
    )


def trace_polynomial(net: SymbolicNet) -> PolyElement:
    """Return ``Tr Θ(x, x) = Σ_l Tr Θ_l`` as a polynomial in inputs, gates and weights.

    Reference for tests: the squared derivatives of the outputs' polynomials (``linear.py``).
    """
    return sum_of(layer_traces(net))
