"""The definition of the path decomposition: every path of a small network, one by one.

Fast code never imports this file. The network is written out as a graph of units; a *path* runs from
an input coordinate, or from the unit "1" that feeds the biases, to an output. All arithmetic is in
Python numbers: float64, or exactly in ``fractions.Fraction``.

With the product ``v_p`` of a path's weights, the product ``a_p(x)`` of its gates, the product ``c_p``
of its fixed edges (average pooling) and the input ``x_p`` at its start,

    f_c(x) = Σ_{p→c} v_p c_p a_p(x) x_p,   (J_v f)_{(n,c),p} = c_p a_p(x_n) x_p,
    (J_θ v)_{pj} = w_pj = ∂v_p/∂θ_j,       Θ = J_v f · Π · (J_v f)ᵀ,   Π = J_θ v (J_θ v)ᵀ.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor, nn

from ntktheory.checks import UnsupportedModule, check_masks, complaint

MAX_PATHS = 20_000
Number = Any
Parameter = tuple[str, int]


@dataclass(frozen=True)
class Edge:
    """An edge into a unit: a parameter (name, flat index), or a fixed coefficient."""

    source: int
    parameter: Parameter | None
    coefficient: Fraction = Fraction(1)


@dataclass
class Graph:
    """Units in topological order; unit 0 is the constant 1, and ``incoming`` lists each one's edges.

    ``names`` gives the name of a parameter by its id, the same for every use of a shared module.
    """

    incoming: list[list[Edge]] = field(default_factory=lambda: [[]])
    gated: set[int] = field(default_factory=set)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def unit(self, edges: list[Edge], *, gated: bool = False) -> int:
        """Add a unit and return its number."""
        self.incoming.append(edges)
        number = len(self.incoming) - 1
        if gated:
            self.gated.add(number)
        return number


@dataclass(frozen=True)
class Path:
    """One path: output, parameters on it (with repetition), gated units, start, fixed coefficient."""

    output: int
    parameters: tuple[Parameter, ...]
    gates: tuple[int, ...]
    start: int
    coefficient: Fraction


@dataclass(frozen=True)
class Decomposition:
    """All paths of a network evaluated on a batch; arrays hold floats, or Fractions if exact.

    Attributes:
        paths: The paths whose parameters are all kept.
        parameters: The kept parameters j = (name, flat index).
        theta: Their values θ_j.
        outputs: f(x), [N, C].
        v: Products of weights, [paths].
        J_v_f: ``c_p a_p(x_n) x_p`` if path p ends in c, else 0; [N·C, paths], row n·C + c.
        J_theta_v: ``w_pj``, [paths, parameters].
        multiplicity: How often j is on p, [paths, parameters].
        activity: ``a_p(x_n)² x_p²``, [N, paths].
    """

    paths: list[Path]
    parameters: list[Parameter]
    theta: dict[Parameter, Number]
    outputs: np.ndarray
    v: np.ndarray
    J_v_f: np.ndarray
    J_theta_v: np.ndarray
    multiplicity: np.ndarray
    activity: np.ndarray

    def ntk(self) -> np.ndarray:
        """Return ``Θ = J_v f Π (J_v f)ᵀ``, [N·C, N·C]."""
        jacobian = self.jacobian()
        return jacobian @ jacobian.T

    def jacobian(self) -> np.ndarray:
        """Return ``J = J_v f · J_θ v``, [N·C, parameters]."""
        return self.J_v_f @ self.J_theta_v

    def path_kernel(self) -> np.ndarray:
        """Return ``Π = J_θ v (J_θ v)ᵀ``, [paths, paths]."""
        return self.J_theta_v @ self.J_theta_v.T

    def bounds(self) -> dict[str, Number]:
        """Return the trace and its bounds, each by its definition as sums over paths."""
        a_jc, b_jc = self._edge_sums()
        data = self._data_by_output()
        return {
            "trace": (self.jacobian() ** 2).sum(),
            "px": data.sum() * b_jc.sum(),
            "px_per_output": (data * b_jc.sum(0)).sum(),
            "edge": (a_jc.sum(1) * b_jc.sum(1)).sum(),
            "edge_per_output": (a_jc * b_jc).sum(),
            "abs": ((abs(self.J_v_f) @ abs(self.J_theta_v)) ** 2).sum(),
            "t_sq": ((self.activity.sum(0) * self._coefficients() ** 2) @ self.J_theta_v**2).sum(),
        }

    def euler(self) -> Number:
        """Return ``Σ_l Σ_{n,c} f_c² / ‖W_l‖²`` over weights W_l that every active path crosses.

        They are those for which the other paths add up to 0 in every output.
        """
        total = self.outputs.flat[0] * 0
        names = dict.fromkeys(name for name, _ in self.parameters if name.endswith("weight"))
        for name in names:
            crosses = [any(j[0] == name for j in path.parameters) for path in self.paths]
            rest = self.J_v_f @ (self.v * np.logical_not(crosses))
            norm = sum(v**2 for v in self.values_of(name))
            if norm > 0 and not rest.any():
                total = total + (self.outputs**2).sum() / norm
        return total

    def values_of(self, name: str) -> list[Number]:
        """Return the kept entries of one parameter tensor."""
        return [self.theta[j] for j in self.parameters if j[0] == name]

    def px_score(self) -> dict[Parameter, Number]:
        """Return ``θ_j² ∂Z/∂θ_j²``, ``Z = Σ_{n,c} z1_nc z2_c``, for every kept parameter."""
        data = self._data_by_output()
        per_path = (
            self.v**2
            * self._coefficients()
            * np.array([data[p.output] for p in self.paths], self.v.dtype)
        )
        scores = per_path @ self.multiplicity
        return dict(zip(self.parameters, scores, strict=True))

    def _coefficients(self) -> np.ndarray:
        one = self.outputs.flat[0] * 0 + 1
        return np.array([one * type(one)(abs(p.coefficient)) for p in self.paths], self.v.dtype)

    def _membership(self) -> np.ndarray:
        outputs = range(self.outputs.shape[1])
        ends = [[int(p.output == c) for c in outputs] for p in self.paths]
        return np.array(ends, dtype=int).reshape(-1, len(outputs))

    def _data_by_output(self) -> np.ndarray:
        return (self.activity.sum(0) * self._coefficients()) @ self._membership()

    def _edge_sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return A_jc and B_jc, weighted by the multiplicity of j in p."""
        c = self._coefficients()[:, None]
        k = self.multiplicity
        squared_weights = np.where(k > 0, self.J_theta_v**2 / np.maximum(k, 1), 0 * self.J_theta_v)
        ends = self._membership()
        a = (self.activity.sum(0)[:, None] * c * k).T @ ends
        return a, (squared_weights * c).T @ ends


def graph_of(model: nn.Sequential, shape: tuple[int, ...]) -> Graph:
    """Write a network out as a graph of units.

    Args:
        model: A Sequential (nested ones too) of Linear, Conv2d, ReLU, AvgPool2d, Flatten, Identity.
        shape: Shape of one input.

    Returns:
        The graph.

    Raises:
        UnsupportedModule: If it holds another module.
    """
    graph = Graph(names={id(p): name for name, p in model.named_parameters()})
    units = np.empty(shape, dtype=int)
    for index in np.ndindex(*shape):
        units[index] = graph.unit([])
    graph.inputs = [int(u) for u in units.flat]
    for path, module in _leaves(model, ""):
        rule = RULES.get(type(module))
        if rule is None or not _plain(module):
            raise UnsupportedModule(
                complaint(
                    "model",
                    "made of Linear, Conv2d, ReLU, AvgPool2d and Flatten, padded by numbers of zeros",
                    f"{type(module).__name__} at {path!r}",
                    "Enumerate a simpler network.",
                )
            )
        units = rule(graph, units, module)
    graph.outputs = [int(u) for u in units.flat]
    return graph


def decompose(
    model: nn.Sequential,
    x: Tensor,
    *,
    masks: Mapping[str, Tensor] | None = None,
    exact: bool = False,
) -> Decomposition:
    """Enumerate every path of a small network on a batch.

    Args:
        model: See ``graph_of``.
        x: The batch [N, ...].
        masks: Parameter name -> mask; only paths of kept parameters count.
        exact: Compute in Fractions; floats are read as the rationals that they are.

    Returns:
        The decomposition. Cost: paths · (parameters + N) numbers.

    Raises:
        ValueError: If there are more than 20,000 paths.
    """
    number: Callable[[Any], Number] = Fraction if exact else float
    graph = graph_of(model, tuple(x.shape[1:]))
    check_masks(masks, dict(model.named_parameters()), binary=True)
    theta = {
        name: [number(v) for v in p.flatten().tolist()] for name, p in model.named_parameters()
    }
    kept = [
        (name, i)
        for name, values in theta.items()
        for i in range(len(values))
        if masks is None or name not in masks or bool(masks[name].flatten()[i])
    ]
    alive = set(kept)
    paths = list(_paths(graph, alive))
    units = [
        _forward(graph, theta, alive, [number(v) for v in row]) for row in x.flatten(1).tolist()
    ]
    return _evaluate(graph, paths, kept, theta, units, number)


def _evaluate(
    graph: Graph,
    paths: list[Path],
    kept: list[Parameter],
    theta: Mapping[str, list[Number]],
    units: list[list[Number]],
    number: Callable[[Any], Number],
) -> Decomposition:
    n, c, dtype = len(units), len(graph.outputs), object if number is Fraction else float
    column = {j: i for i, j in enumerate(kept)}
    zeros = lambda *shape: np.full(shape, number(0), dtype=dtype)  # noqa: E731
    v, j_v_f = zeros(len(paths)), zeros(n * c, len(paths))
    j_theta_v, multiplicity = zeros(len(paths), len(kept)), np.zeros((len(paths), len(kept)), int)
    activity = zeros(n, len(paths))
    for p, path in enumerate(paths):
        values = [theta[name][i] for name, i in path.parameters]
        v[p] = _product(values, number)
        for position, j in enumerate(path.parameters):
            others = values[:position] + values[position + 1 :]
            j_theta_v[p, column[j]] += _product(others, number)
            multiplicity[p, column[j]] += 1
        for sample in range(n):
            active = all(units[sample][u] > 0 for u in path.gates)
            start = units[sample][path.start] if active else number(0)
            activity[sample, p] = start * start
            j_v_f[sample * c + path.output, p] = number(path.coefficient) * start
    outputs = np.array([[u[o] for o in graph.outputs] for u in units], dtype=dtype)
    kept_values = {j: theta[j[0]][j[1]] for j in kept}
    return Decomposition(
        paths, kept, kept_values, outputs, v, j_v_f, j_theta_v, multiplicity, activity
    )


def _product(values: list[Number], number: Callable[[Any], Number]) -> Number:
    result = number(1)
    for value in values:
        result = result * value
    return result


def _paths(graph: Graph, alive: set[Parameter]) -> Iterator[Path]:
    count = 0
    for c, output in enumerate(graph.outputs):
        stack: list[tuple[int, tuple[Parameter, ...], tuple[int, ...], Fraction]]
        stack = [(output, (), (), Fraction(1))]
        while stack:
            unit, parameters, gates, coefficient = stack.pop()
            gates = (*gates, unit) if unit in graph.gated else gates
            if unit == 0 or unit in graph.inputs:
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
                yield Path(c, parameters, gates, unit, coefficient)
                continue
            for edge in graph.incoming[unit]:
                if edge.parameter is None:
                    stack.append((edge.source, parameters, gates, coefficient * edge.coefficient))
                elif edge.parameter in alive:
                    stack.append((edge.source, (*parameters, edge.parameter), gates, coefficient))


def _forward(
    graph: Graph, theta: Mapping[str, list[Number]], alive: set[Parameter], sample: list[Number]
) -> list[Number]:
    """Return every unit's value; that of a gated unit is positive exactly where its gate is 1."""
    values: list[Number] = [sample[0] * 0 + 1, *sample]
    for unit in range(len(values), len(graph.incoming)):
        total = sample[0] * 0
        for edge in graph.incoming[unit]:
            if edge.parameter is None:
                total = total + type(total)(edge.coefficient) * values[edge.source]
            elif edge.parameter in alive:
                name, i = edge.parameter
                total = total + theta[name][i] * values[edge.source]
        values.append(max(total, total * 0) if unit in graph.gated else total)
    return values


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        yield path, module
        return
    for name, child in module._modules.items():  # named_children drops repeated modules
        if child is not None:
            yield from _leaves(child, f"{path}.{name}".lstrip("."))


def _plain(module: nn.Module) -> bool:
    """Say whether a module's padding is one that the rules below spell out."""
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.AvgPool2d):
        return (
            module.padding in (0, (0, 0)) and not module.ceil_mode and not module.divisor_override
        )
    return True


def _linear(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    n_out, n_in = module.weight.shape
    result = []
    for o in range(n_out):
        edges = [
            Edge(int(units[i]), (graph.names[id(module.weight)], o * n_in + i)) for i in range(n_in)
        ]
        if module.bias is not None:
            edges.append(Edge(0, (graph.names[id(module.bias)], o)))
        result.append(graph.unit(edges))
    return np.array(result)


def _conv(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    n_out, per_group, kh, kw = module.weight.shape
    (sh, sw), (ph, pw), (dh, dw) = module.stride, module.padding, module.dilation
    _, height, width = units.shape
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    result = np.empty((n_out, rows, columns), dtype=int)
    for o, y, x in np.ndindex(n_out, rows, columns):
        first = o // (n_out // module.groups) * per_group
        edges = []
        for d, i, j in np.ndindex(per_group, kh, kw):
            source_y, source_x = y * sh - ph + i * dh, x * sw - pw + j * dw
            if 0 <= source_y < height and 0 <= source_x < width:
                index = ((o * per_group + d) * kh + i) * kw + j
                source = int(units[first + d, source_y, source_x])
                edges.append(Edge(source, (graph.names[id(module.weight)], index)))
        if module.bias is not None:
            edges.append(Edge(0, (graph.names[id(module.bias)], o)))
        result[o, y, x] = graph.unit(edges)
    return result


def _average(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    size = (
        module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
    )
    step = module.stride if isinstance(module.stride, tuple) else (module.stride,) * 2
    channels, height, width = units.shape
    rows, columns = (height - size[0]) // step[0] + 1, (width - size[1]) // step[1] + 1
    result = np.empty((channels, rows, columns), dtype=int)
    share = Fraction(1, size[0] * size[1])
    for c, y, x in np.ndindex(channels, rows, columns):
        window = units[c, y * step[0] : y * step[0] + size[0], x * step[1] : x * step[1] + size[1]]
        result[c, y, x] = graph.unit([Edge(int(u), None, share) for u in window.flat])
    return result


def _relu(graph: Graph, units: np.ndarray, module: Any) -> np.ndarray:
    gated = np.array([graph.unit([Edge(int(u), None)], gated=True) for u in units.flat], dtype=int)
    return gated.reshape(units.shape)


RULES: dict[type, Callable[[Graph, np.ndarray, Any], np.ndarray]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.AvgPool2d: _average,
    nn.ReLU: _relu,
    nn.Flatten: lambda graph, units, module: units.reshape(-1),
    nn.Identity: lambda graph, units, module: units,
}
