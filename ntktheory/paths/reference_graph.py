"""A network written out as a graph of units, and every path through it.

Unit 0 is the constant 1 that feeds the biases; then come the input coordinates, then every other unit
in topological order. A unit's value is the sum over its incoming edges of

    gate · coefficient · θ_j · (value of the source).

A *gate* is a number that the values of the unit's sources decide, anew for each sample: 1 or 0 for a
ReLU, 1 or the slope for a leaky ReLU, 1 for the largest entry of a max-pooling window and 0 for the
others. A *coefficient* is fixed: 1/k for an average over k entries, 1/σ and −μ/σ for batch norm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ntktheory.checks import complaint

MAX_PATHS = 20_000
Number = Any
Parameter = tuple[str, int]
Gates = Callable[[Sequence[Number]], list[Number]]


@dataclass(frozen=True)
class Edge:
    """An edge into a unit: a parameter (name, flat index) or none, times a fixed coefficient."""

    source: int
    parameter: Parameter | None = None
    coefficient: Fraction = Fraction(1)


@dataclass
class Graph:
    """The units of a network.

    Attributes:
        incoming: For every unit, the edges into it.
        gates: For every gated unit, the function from its sources' values to its edges' gates.
        inputs: The units of the input coordinates.
        outputs: The units of the outputs.
        names: The name of each parameter by its id, the same for every use of a shared tensor.
        places: The path of each module by its id.
    """

    incoming: list[list[Edge]] = field(default_factory=lambda: [[]])
    gates: dict[int, Gates] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)

    def unit(self, edges: list[Edge], gates: Gates | None = None) -> int:
        """Add a unit and return its number."""
        self.incoming.append(edges)
        number = len(self.incoming) - 1
        if gates is not None:
            self.gates[number] = gates
        return number


@dataclass(frozen=True)
class Path:
    """One path.

    Attributes:
        output: The number c of the output at its end.
        steps: Its edges from the output back to the start, each as (unit, place in its ``incoming``).
        parameters: The parameters on it, from the output back, with repetition.
        start: The unit at its start: an input, or the constant 1.
        coefficient: The product of its fixed edges.
    """

    output: int
    steps: tuple[tuple[int, int], ...]
    parameters: tuple[Parameter, ...]
    start: int
    coefficient: Fraction


def list_paths(graph: Graph, alive: set[Parameter]) -> Iterator[Path]:
    """Yield every path whose parameters are alive, output by output.

    Raises:
        ValueError: After ``MAX_PATHS`` paths, if there are more.
    """
    count, starts = 0, {0, *graph.inputs}
    for c, output in enumerate(graph.outputs):
        stack = [Path(c, (), (), output, Fraction(1))]
        while stack:
            path = stack.pop()
            if path.start not in starts:
                stack += _extended(graph, alive, path)
                continue
            count += 1
            if count > MAX_PATHS:
                raise ValueError(
                    complaint(
                        "model",
                        f"a network with at most {MAX_PATHS} paths",
                        "more",
                        "Use path_bounds, which enumerates nothing.",
                    )
                )
            yield path


def _extended(graph: Graph, alive: set[Parameter], path: Path) -> Iterator[Path]:
    for place, edge in enumerate(graph.incoming[path.start]):
        if edge.parameter is not None and edge.parameter not in alive:
            continue
        named = () if edge.parameter is None else (edge.parameter,)
        yield Path(
            path.output,
            (*path.steps, (path.start, place)),
            (*path.parameters, *named),
            edge.source,
            path.coefficient * edge.coefficient,
        )


@dataclass(frozen=True)
class Sample:
    """One sample's value of every unit, and the gates of the gated units' edges."""

    values: list[Number]
    gates: dict[int, list[Number]]


def run_graph(
    graph: Graph,
    theta: Mapping[Parameter, Number],
    x: list[Number],
    number: Callable[[Any], Number],
) -> Sample:
    """Run the network on one sample.

    Args:
        graph: The network.
        theta: The kept parameters' values; the others count as 0.
        x: The flat input.
        number: ``float`` or ``Fraction``.

    Returns:
        Values and gates.
    """
    values, gates = [number(1), *x], {}
    for unit in range(len(values), len(graph.incoming)):
        edges = graph.incoming[unit]
        terms = [
            number(edge.coefficient)
            * (number(1) if edge.parameter is None else theta.get(edge.parameter, number(0)))
            * values[edge.source]
            for edge in edges
        ]
        if unit in graph.gates:
            gates[unit] = [number(g) for g in graph.gates[unit]([values[e.source] for e in edges])]
            terms = [gate * term for gate, term in zip(gates[unit], terms, strict=True)]
        values.append(sum(terms, start=number(0)))
    return Sample(values, gates)


def gate_of(path: Path, sample: Sample, number: Callable[[Any], Number]) -> Number:
    """Return ``a_p(x)``, the product of the gates of the path's edges."""
    product = number(1)
    for unit, place in path.steps:
        if unit in sample.gates:
            product = product * sample.gates[unit][place]
    return product
