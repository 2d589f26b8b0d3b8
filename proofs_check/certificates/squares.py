"""The certificate: bound − trace written out as squares, from lists of paths.

With ``D_p = a_p x_p`` and ``w_qj = ∂v_q/∂w_j``, a bound of the ladder is ``Σ_j Σ D_p² w_qj²`` over
the pairs (p, q), q through j, that the bound admits, and ``Tr = Σ_j Σ_c (Σ_{p∋j→c} D_p w_pj)²``.
For p and q through j to the same output the difference is Lagrange's
``Σ_{p<q} (D_p w_qj − D_q w_pj)²``; every other pair leaves the square ``(D_p w_qj)²``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from math import prod

from sympy.polys.rings import PolyElement

from proofs_check.certificates.network import SymbolicMLP

Edge = tuple[int, int, int]  # layer, head, tail


@dataclass(frozen=True)
class Path:
    """A path from an input to an output.

    Attributes:
        units: Its unit in every layer, input first.
        edges: Its edges in order.
        data: ``D_p = a_p x_p``.
    """

    units: tuple[int, ...]
    edges: tuple[Edge, ...]
    data: PolyElement

    @property
    def output(self) -> int:
        """The output at its end."""
        return self.units[-1]


ADMITS: dict[str, Callable[[Path, Path, Edge], bool]] = {
    "px": lambda p, q, j: True,
    "px_per_output": lambda p, q, j: p.output == q.output,
    "edge": lambda p, q, j: j in p.edges,
    "edge_per_output": lambda p, q, j: j in p.edges and p.output == q.output,
}


def list_paths(net: SymbolicMLP) -> list[Path]:
    """Return every path of the network; their number is the product of the widths."""
    paths = []
    for units in product(*map(range, net.widths)):
        edges = tuple((layer, o, i) for layer, (i, o) in enumerate(pairwise(units)))
        gates = prod((net.gates[layer][o] for layer, o, _ in edges), start=net.ring.one)
        paths.append(Path(units, edges, gates * net.inputs[units[0]]))
    return paths


def list_edges(net: SymbolicMLP) -> list[Edge]:
    """Return every edge of the network; a parameter j of a bias-free MLP is one edge."""
    return [
        (layer, o, i)
        for layer, (below, above) in enumerate(pairwise(net.widths))
        for o, i in product(range(above), range(below))
    ]


def other_weights(net: SymbolicMLP, path: Path, edge: Edge) -> PolyElement:
    """Return ``w_pj``, the product of the path's weights other than j."""
    others = (net.weights[layer][o][i] for layer, o, i in path.edges if (layer, o, i) != edge)
    return prod(others, start=net.ring.one)


def lagrange_squares(net: SymbolicMLP, output: int) -> list[PolyElement]:
    """Return the bases ``D_p w_qj − D_q w_pj``, p < q through j to this output, for every j."""
    paths = [path for path in list_paths(net) if path.output == output]
    return [
        p.data * other_weights(net, q, edge) - q.data * other_weights(net, p, edge)
        for edge in list_edges(net)
        for p, q in combinations([path for path in paths if edge in path.edges], 2)
    ]


def rest_squares(net: SymbolicMLP, name: str) -> list[PolyElement]:
    """Return the bases ``D_p w_qj`` of the pairs that the bound admits outside Lagrange's sums."""
    paths = list_paths(net)
    return [
        p.data * other_weights(net, q, edge)
        for edge in list_edges(net)
        for q in paths
        if edge in q.edges
        for p in paths
        if ADMITS[name](p, q, edge) and not ADMITS["edge_per_output"](p, q, edge)
    ]


def path_squares(net: SymbolicMLP, name: str) -> list[PolyElement]:
    """Return polynomials whose squares add up to bound − trace.

    Args:
        net: The symbols.
        name: One of ``bounds.BOUNDS``.

    Returns:
        The squares' bases, Lagrange's first. At most (paths through j)·(paths) for every j.
    """
    outputs = range(net.widths[-1])
    return [base for c in outputs for base in lagrange_squares(net, c)] + rest_squares(net, name)
