"""The certificate: bound − trace written out as squares, from lists of paths.

With ``D_p = a_p x_p`` and ``w_qj = ∂v_q/∂w_j``, a bound of the ladder is ``Σ_j Σ D_p² w_qj²`` over
the pairs (p, q), q through j, that the bound admits, and ``Tr = Σ_j Σ_c (Σ_{p∋j→c} D_p w_pj)²``.
For p and q through j to the same output the difference is Lagrange's
``Σ_{p<q} (D_p w_qj − D_q w_pj)²``; every other pair leaves the square ``(D_p w_qj)²``.
A shared weight j has paths through each of its edges, and no path through two of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from sympy.polys.rings import PolyElement

from ntktheory.checks import complaint
from proofs_check.certificates.network import SymbolicNet

Edge = tuple[int, int, int]  # layer, head, tail


@dataclass(frozen=True)
class Path:
    """A path from an input to an output.

    Attributes:
        units: Its unit in every layer, input first.
        edges: Its edges in order.
        parameters: The parameters on its edges.
        data: ``D_p = a_p x_p``.
        others: ``w_pj``, the product of its weights other than j, for every parameter j on it.
    """

    units: tuple[int, ...]
    edges: tuple[Edge, ...]
    parameters: tuple[str, ...]
    data: PolyElement
    others: dict[str, PolyElement]

    @property
    def output(self) -> int:
        """The output at its end."""
        return self.units[-1]


ADMITS: dict[str, Callable[[Path, Path, str], bool]] = {
    "px": lambda p, q, j: True,
    "px_per_output": lambda p, q, j: p.output == q.output,
    "edge": lambda p, q, j: j in p.others,
    "edge_per_output": lambda p, q, j: j in p.others and p.output == q.output,
}


def list_paths(net: SymbolicNet) -> list[Path]:
    """Return every path of the network, by its units.

    Raises:
        ValueError: If a path meets a parameter twice.
    """
    return [_path(net, units) for units in _walks(net, (), 0)]


def _walks(net: SymbolicNet, units: tuple[int, ...], layer: int) -> Iterator[tuple[int, ...]]:
    if layer > len(net.names):
        yield units
        return
    for unit in range(net.widths[layer]):
        if not units or net.names[layer - 1][unit][units[-1]] is not None:
            yield from _walks(net, (*units, unit), layer + 1)


def _path(net: SymbolicNet, units: tuple[int, ...]) -> Path:
    edges = tuple((layer, units[layer + 1], units[layer]) for layer in range(len(units) - 1))
    parameters = tuple(str(net.names[layer][o][i]) for layer, o, i in edges)
    if len(set(parameters)) < len(parameters):
        raise ValueError(
            complaint("net", "one whose paths meet no parameter twice", parameters,
                      "A weight tied inside a path has other terms: it needs its multiplicity.")
        )  # fmt: skip
    data = net.inputs[units[0]]
    for layer, o, _ in edges:
        data = data * net.gates[layer][o]
    others = {}
    for j, edge in zip(parameters, edges, strict=True):
        others[j] = net.ring.one
        for layer, o, i in edges:
            if (layer, o, i) != edge:
                others[j] = others[j] * net.weights[layer][o][i]
    return Path(units, edges, parameters, data, others)


def lagrange_squares(net: SymbolicNet, output: int) -> list[PolyElement]:
    """Return the bases ``D_p w_qj − D_q w_pj``, p < q through j to this output, for every j."""
    paths = [path for path in list_paths(net) if path.output == output]
    return [
        p.data * q.others[j] - q.data * p.others[j]
        for j in net.symbols
        for p, q in combinations([path for path in paths if j in path.others], 2)
    ]


def rest_squares(net: SymbolicNet, name: str) -> list[PolyElement]:
    """Return the bases ``D_p w_qj`` of the pairs that the bound admits outside Lagrange's sums."""
    paths = list_paths(net)
    return [
        p.data * q.others[j]
        for j in net.symbols
        for q in paths
        if j in q.others
        for p in paths
        if ADMITS[name](p, q, j) and not ADMITS["edge_per_output"](p, q, j)
    ]


def path_squares(net: SymbolicNet, name: str) -> list[PolyElement]:
    """Return polynomials whose squares add up to bound − trace.

    Args:
        net: The symbols.
        name: One of ``bounds.BOUNDS``.

    Returns:
        The squares' bases, Lagrange's first. At most (paths through j)·(paths) for every j.
    """
    outputs = range(net.widths[-1])
    return [base for c in outputs for base in lagrange_squares(net, c)] + rest_squares(net, name)
