"""The definition of the path decomposition: every path of a small network, one by one.

Fast code never imports this file. The network is written out as a graph of units (``reference_graph``,
``reference_rules``); a *path* runs from an input coordinate, or from the unit "1" that feeds the biases,
to an output. All arithmetic is in Python numbers: float64, or exactly in ``fractions.Fraction``.

With the product ``v_p`` of a path's weights, the product ``a_p(x)`` of its gates, the product ``c_p``
of its fixed edges (averages, batch norm's 1/σ and −μ/σ) and the input ``x_p`` at its start,

    f_c(x) = Σ_{p→c} v_p c_p a_p(x) x_p,   (J_v f)_{(n,c),p} = c_p a_p(x_n) x_p,
    (J_θ v)_{pj} = w_pj = ∂v_p/∂θ_j,       Θ = J_v f · Π · (J_v f)ᵀ,   Π = J_θ v (J_θ v)ᵀ.

In the bounds every sum over paths weighs p with ``|c_p|``: once in the data's sums and once in the
weights' sums. The surrogate T_sq, which is one sum, has ``c_p²``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor, nn

from ntktheory.checks import check_masks
from ntktheory.paths.reference_graph import (
    Graph,
    Number,
    Parameter,
    Path,
    Sample,
    gate_of,
    list_paths,
    run_graph,
)
from ntktheory.paths.reference_half import half_sums
from ntktheory.paths.reference_rules import graph_of

__all__ = ["Decomposition", "decompose", "graph_of"]


@dataclass(frozen=True)
class Decomposition:
    """All paths of a network evaluated on a batch; arrays hold floats, or Fractions if exact.

    Attributes:
        paths: The paths whose parameters are all kept.
        parameters: The kept parameters j = (name, flat index).
        theta: Their values θ_j.
        outputs: f(x), [N, C].
        v: Products of weights, [paths].
        a: Products of gates, ``a_p(x_n)``, [N, paths].
        J_v_f: ``c_p a_p(x_n) x_p`` if path p ends in c, else 0; [N·C, paths], row n·C + c.
        J_theta_v: ``w_pj``, [paths, parameters].
        multiplicity: How often j is on p, [paths, parameters].
        activity: ``a_p(x_n)² x_p²``, [N, paths].
        graph: The network as a graph of units.
        samples: Every sample's unit values and gates.
    """

    paths: list[Path]
    parameters: list[Parameter]
    theta: dict[Parameter, Number]
    outputs: np.ndarray
    v: np.ndarray
    a: np.ndarray
    J_v_f: np.ndarray
    J_theta_v: np.ndarray
    multiplicity: np.ndarray
    activity: np.ndarray
    graph: Graph
    samples: list[Sample]

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
        h_jc = self._half_sums()
        data = self._data_by_output()
        return {
            "trace": (self.jacobian() ** 2).sum(),
            "px": data.sum() * b_jc.sum(),
            "px_per_output": (data * b_jc.sum(0)).sum(),
            "edge": (a_jc.sum(1) * b_jc.sum(1)).sum(),
            "edge_per_output": (a_jc * b_jc).sum(),
            "half": (h_jc.sum(1) * b_jc.sum(1)).sum(),
            "half_per_output": (h_jc * b_jc).sum(),
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

    def _half_sums(self) -> np.ndarray:
        """Return R_half's data sums, [parameters, C]; see ``reference_half``."""
        sums = half_sums(self.graph, self.paths, self.theta, self.samples)
        rows = [[sums[j, c] for c in range(self.outputs.shape[1])] for j in self.parameters]
        return np.array(rows, self.v.dtype).reshape(len(rows), self.outputs.shape[1])


def decompose(
    model: nn.Module,
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
        exact: Compute in Fractions; floats are read as the rationals that they are, among them the
            float64 values of batch norm's 1/σ and of a leaky ReLU's slope.

    Returns:
        The decomposition. Cost: paths · (parameters + N) numbers.

    Raises:
        ValueError: If there are more than 20,000 paths.
    """
    number: Callable[[Any], Number] = Fraction if exact else float
    graph = graph_of(model, tuple(x.shape[1:]))
    check_masks(masks, dict(model.named_parameters()), binary=True)
    theta = {
        (name, i): number(value)
        for name, p in model.named_parameters()
        for i, value in enumerate(p.flatten().tolist())
        if masks is None or name not in masks or bool(masks[name].flatten()[i])
    }
    paths = list(list_paths(graph, set(theta)))
    rows = x.flatten(1).tolist()
    samples = [run_graph(graph, theta, [number(v) for v in row], number) for row in rows]
    return _evaluate(graph, paths, theta, samples, number)


def _evaluate(
    graph: Graph,
    paths: list[Path],
    theta: dict[Parameter, Number],
    samples: list[Sample],
    number: Callable[[Any], Number],
) -> Decomposition:
    n, c, dtype = len(samples), len(graph.outputs), object if number is Fraction else float
    column = {j: i for i, j in enumerate(theta)}
    zeros = lambda *shape: np.full(shape, number(0), dtype=dtype)  # noqa: E731
    v, a, activity = zeros(len(paths)), zeros(n, len(paths)), zeros(n, len(paths))
    j_v_f, j_theta_v = zeros(n * c, len(paths)), zeros(len(paths), len(theta))
    multiplicity = np.zeros((len(paths), len(theta)), int)
    for p, path in enumerate(paths):
        values = [theta[j] for j in path.parameters]
        v[p] = _product(values, number)
        for position, j in enumerate(path.parameters):
            others = values[:position] + values[position + 1 :]
            j_theta_v[p, column[j]] += _product(others, number)
            multiplicity[p, column[j]] += 1
        for row, sample in enumerate(samples):
            a[row, p] = gate_of(path, sample, number)
            start = a[row, p] * sample.values[path.start]
            activity[row, p] = start * start
            j_v_f[row * c + path.output, p] = number(path.coefficient) * start
    outputs = np.array([[s.values[o] for o in graph.outputs] for s in samples], dtype=dtype)
    return Decomposition(
        paths, list(theta), theta, outputs, v, a, j_v_f, j_theta_v, multiplicity, activity,
        graph, samples,
    )  # fmt: skip


def _product(values: list[Number], number: Callable[[Any], Number]) -> Number:
    result = number(1)
    for value in values:
        result = result * value
    return result
