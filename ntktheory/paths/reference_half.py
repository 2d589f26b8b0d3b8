"""The data sums of R_half by its definition: exact activations before an edge, paths after it.

A parameter j is used at positions s, edges of the graph from a unit i(s) to a unit o(s). With the exact
activation ``h_i(x)`` and the paths t into unit i, ungated,

    Bpre_i = Σ_{t→i} |c_t| v_t²,
    A^half_jc = Σ_x Σ_s Σ_{q: o(s)→c} a_q(x)² |c_q| h_i(s)(x)² / Bpre_i(s),   0/0 = 0,

where q and c_q include the fixed coefficient and the gate of the edge s itself, if it has any. With
``B_jc`` as in R_edge, ``R_half = Σ_j (Σ_c A^half_jc)(Σ_c B_jc)``, and per output
``Σ_{j,c} A^half_jc B_jc``.

It is a bound: ``∂f_c/∂θ_j = Σ_s h_i(s) Σ_q a_q c_q v_q``, and Cauchy–Schwarz over the pairs (s, q), with
``h_i √(|c_q|/Bpre_i) a_q`` against ``√(|c_q| Bpre_i) v_q``. It is at most R_edge, because
``h_i² ≤ Bpre_i Σ_{t→i} |c_t| a_t² x_t²``.
"""

from collections import defaultdict
from collections.abc import Mapping

from ntktheory.paths.reference_graph import Edge, Graph, Number, Parameter, Path, Sample

Steps = tuple[tuple[int, int], ...]


def half_sums(
    graph: Graph, paths: list[Path], theta: Mapping[Parameter, Number], samples: list[Sample]
) -> dict[tuple[Parameter, int], Number]:
    """Return ``A^half_jc`` for every pair (j, c), by loops over the parts of paths.

    Args:
        graph: The network.
        paths: All its paths over kept parameters.
        theta: The kept parameters' values.
        samples: Every sample's unit values and gates.

    Returns:
        The sums, 0 for pairs without a path. Cost: positions · suffixes · samples.
    """
    before, after = split_paths(graph, paths)
    magnitude = {unit: _sum_of_squares(graph, theta, parts) for unit, parts in before.items()}
    sums: dict[tuple[Parameter, int], Number] = defaultdict(int)
    for (unit, place), suffixes in after.items():
        edge = graph.incoming[unit][place]
        if edge.parameter is None:
            continue
        below = magnitude[edge.source]
        for sample in samples:
            h = sample.values[edge.source]
            data = h * h / below if below else h * 0
            for steps, output in suffixes:
                sums[edge.parameter, output] += data * _gated_size(graph, sample, steps)
    return sums


def split_paths(
    graph: Graph, paths: list[Path]
) -> tuple[dict[int, set[Steps]], dict[tuple[int, int], set[tuple[Steps, int]]]]:
    """Cut every path at each of its parameters.

    Returns:
        For every unit that feeds a parameter's edge, the distinct parts of paths into it; and for every
        such edge, the distinct parts from it on (the edge included) with the output they reach.
    """
    before: dict[int, set[Steps]] = defaultdict(set)
    after: dict[tuple[int, int], set[tuple[Steps, int]]] = defaultdict(set)
    for path in paths:
        for k, (unit, place) in enumerate(path.steps):
            edge = graph.incoming[unit][place]
            if edge.parameter is not None:
                before[edge.source].add(path.steps[k + 1 :])
                after[unit, place].add((path.steps[: k + 1], path.output))
    return before, after


def _edges(graph: Graph, steps: Steps) -> list[Edge]:
    return [graph.incoming[unit][place] for unit, place in steps]


def _sum_of_squares(graph: Graph, theta: Mapping[Parameter, Number], parts: set[Steps]) -> Number:
    """Return ``Σ_t |c_t| v_t²``."""
    one = next(iter(theta.values())) * 0 + 1
    total = one * 0
    for steps in parts:
        term = one
        for edge in _edges(graph, steps):
            term = term * type(one)(abs(edge.coefficient))
            if edge.parameter is not None:
                term = term * theta[edge.parameter] * theta[edge.parameter]
        total = total + term
    return total


def _gated_size(graph: Graph, sample: Sample, steps: Steps) -> Number:
    """Return ``a_q² |c_q|``."""
    one = sample.values[0]
    size = one
    for (unit, place), edge in zip(steps, _edges(graph, steps), strict=True):
        size = size * type(one)(abs(edge.coefficient))
        if unit in sample.gates:
            size = size * sample.gates[unit][place] * sample.gates[unit][place]
    return size
