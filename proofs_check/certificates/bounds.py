"""The polynomial bounds of the ladder by the pass formula, without enumerating a path.

Both factors are edge gradients of a linear network: ``A_j`` of the gated ones net on x², with the
gates squared, and ``B_j`` of the ungated squared-weight net on ones.
"""

from collections.abc import Sequence

from sympy.polys.rings import PolyElement

from proofs_check.certificates.network import (
    Matrix,
    Names,
    SymbolicNet,
    Vector,
    by_parameter,
    matvec,
    sum_of,
    transpose,
)

BOUNDS: tuple[str, ...] = ("px", "px_per_output", "edge", "edge_per_output")


def edge_gradients(
    names: Sequence[Names],
    start: Vector,
    weights: Sequence[Matrix],
    gates: Sequence[Vector],
    seed: Vector,
) -> dict[str, PolyElement]:
    """Return ``∂(seed·out)/∂(weight j)`` of the linear network ``u_l = a_l ⊙ (W_l u_{l-1})``.

    The gradient is the cotangent of an edge's head times the activation at its tail, summed over the
    edges that share j.
    """
    states = [start]
    for weight, gate in zip(weights, gates, strict=True):
        states.append(tuple(a * z for a, z in zip(gate, matvec(weight, states[-1]), strict=True)))
    backwards = seed
    gradients: dict[str, PolyElement] = {}
    layers = list(zip(names, weights, gates, states[:-1], strict=True))
    for layer, weight, gate, state in reversed(layers):
        heads = tuple(a * g for a, g in zip(gate, backwards, strict=True))
        gradients |= by_parameter(layer, heads, state)
        backwards = matvec(transpose(weight), heads)
    return gradients


def network_value(start: Vector, weights: Sequence[Matrix], gates: Sequence[Vector]) -> Vector:
    """Return the outputs of the linear network ``u_l = a_l ⊙ (W_l u_{l-1})``."""
    for weight, gate in zip(weights, gates, strict=True):
        start = tuple(a * z for a, z in zip(gate, matvec(weight, start), strict=True))
    return start


Linear = tuple[tuple[Names, ...], Vector, tuple[Matrix, ...], tuple[Vector, ...]]


def data_net(net: SymbolicNet) -> Linear:
    """Return names, start, weights and gates of the ones net on x² with gates a²."""
    ones = tuple(
        tuple(tuple(net.ring.zero if n is None else net.ring.one for n in row) for row in layer)
        for layer in net.names
    )
    gates = tuple(tuple(a**2 for a in layer) for layer in net.gates)
    return net.names, tuple(x**2 for x in net.inputs), ones, gates


def weight_net(net: SymbolicNet) -> Linear:
    """Return names, start, weights and gates of the ungated squared-weight net on ones."""
    one = net.ring.one
    squared = tuple(tuple(tuple(w**2 for w in row) for row in layer) for layer in net.weights)
    gates = tuple(tuple(one for _ in layer) for layer in net.gates)
    return net.names, tuple(one for _ in net.inputs), squared, gates


def bound_polynomial(net: SymbolicNet, name: str) -> PolyElement:
    """Return one bound of the ladder at one sample.

    ``px``: ``R_PX = (Σ_{c,p} a_p² x_p²)(Σ_j B_j)``; ``edge``: ``R_edge = Σ_j A_j B_j``; with
    ``_per_output`` the same for every output alone, summed. Each is a sum over samples of terms in
    which only A and the first factor depend on the sample, and so is the trace: an identity for one
    sample, with that sample's gates, is an identity for a batch.

    Args:
        net: The symbols.
        name: One of ``BOUNDS``.

    Returns:
        The bound in ``net.ring``.
    """
    one, zero, outputs = net.ring.one, net.ring.zero, range(net.widths[-1])
    together = [tuple(one for _ in outputs)]
    alone = [tuple(one if o == c else zero for o in outputs) for c in outputs]
    seeds = alone if name.endswith("_per_output") else together
    term = _px_term if name.startswith("px") else _edge_term
    return sum_of(term(net, seed) for seed in seeds)


def _px_term(net: SymbolicNet, seed: Vector) -> PolyElement:
    outputs = network_value(*data_net(net)[1:])
    paths_data = sum_of(s * z for s, z in zip(seed, outputs, strict=True))
    return paths_data * sum_of(edge_gradients(*weight_net(net), seed).values())


def _edge_term(net: SymbolicNet, seed: Vector) -> PolyElement:
    a = edge_gradients(*data_net(net), seed)
    b = edge_gradients(*weight_net(net), seed)
    return sum_of(a[j] * b[j] for j in a)
