"""Planted errors in sums over paths: decompositions and bounds made by rules that are not theirs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory import PathBounds, path_bounds
from ntktheory.paths.reference import Decomposition, decompose
from ntktheory.paths.reference_graph import Parameter
from proofs_check.bounds_evidence import Bounds
from proofs_check.strategies import NORMS

Paths = Callable[..., Decomposition]
Sums = dict[str, float]
Rule = Callable[[nn.Module, Decomposition], Sums]


def with_paths(rule: Callable[[Decomposition], Decomposition]) -> Paths:
    """Return ``decompose`` with its result changed."""
    return lambda *args, **options: rule(decompose(*args, **options))


def with_sums(rule: Rule) -> Bounds:
    """Return ``path_bounds`` with some of its values made from all paths by another rule."""

    def mutant(model: nn.Module, x: Tensor, *, masks: Any = None, **options: Any) -> PathBounds:
        b = path_bounds(model, x, masks=masks, **options)
        wrong = rule(model, decompose(model, x, masks=masks))
        upper = {name: float(wrong.get(name, value)) for name, value in b.upper.items()}
        trace = float(wrong["trace"] if "trace" in wrong else b.trace)
        return replace(b, upper=upper, _trace=lambda: trace)

    return mutant


# --- the sums, with other factors -----------------------------------------------------------------


def edge_and_px(d: Decomposition, data: Any, weights: Any) -> Sums:
    """Return R_edge and R_PX, with one factor per path on the data's and one on the weights' sums."""
    active = d.activity.sum(0) * data
    b = weights @ (d.J_theta_v**2 / np.maximum(d.multiplicity, 1))
    return {"edge": (active @ d.multiplicity) @ b, "px": active.sum() * b.sum()}


def fixed_edges(d: Decomposition) -> np.ndarray:
    """Return |c_p|, the size of the product of a path's fixed edges."""
    return np.array([float(abs(p.coefficient)) for p in d.paths])


def only(d: Decomposition, keep: Callable[[Parameter], bool]) -> Sums:
    """Return trace and bounds over some of the parameters."""
    kept = [keep(j) for j in d.parameters]
    part = replace(d, J_theta_v=d.J_theta_v[:, kept], multiplicity=d.multiplicity[:, kept])
    c = fixed_edges(d)
    return edge_and_px(part, c, c) | {"trace": (part.jacobian() ** 2).sum()}


# --- gates ----------------------------------------------------------------------------------------


def open_gates(d: Decomposition) -> Decomposition:
    """Treat every gate as open."""
    j_v_f = d.J_v_f * 0
    for p, path in enumerate(d.paths):
        for n, sample in enumerate(d.samples):
            start = sample.values[path.start]
            row = n * d.outputs.shape[1] + path.output
            j_v_f[row, p] = start * type(start)(path.coefficient)
    return replace(d, J_v_f=j_v_f)


def open_gates_in_data(model: nn.Module, d: Decomposition) -> Sums:
    """Leave every gate of the data net open."""
    c = fixed_edges(d)
    return edge_and_px(replace(d, activity=_starts(d) ** 2), c, c)


def slope_once(model: nn.Module, d: Decomposition) -> Sums:
    """Take |α|, not α², in the data net."""
    c = fixed_edges(d)
    return edge_and_px(replace(d, activity=abs(d.a) * _starts(d) ** 2), c, c)


def no_negative_side(d: Decomposition) -> Decomposition:
    """Take a leaky ReLU for a ReLU."""
    on = np.repeat(d.a == 1, d.outputs.shape[1], axis=0)
    return replace(d, J_v_f=d.J_v_f * on)


def _starts(d: Decomposition) -> np.ndarray:
    """Return x_p, [N, paths]."""
    return np.array([[s.values[p.start] for p in d.paths] for s in d.samples])


# --- biases and batch norm ------------------------------------------------------------------------


def without_bias_paths(d: Decomposition) -> Decomposition:
    """Forget the paths that start at a bias."""
    return replace(d, J_v_f=d.J_v_f * np.array([p.start != 0 for p in d.paths]))


def unsquared_biases(model: nn.Module, d: Decomposition) -> Sums:
    """Put |b|, not b², into the squared net."""
    c, size = fixed_edges(d), np.ones(len(d.paths))
    for i, path in enumerate(d.paths):
        first = path.parameters[-1] if path.start == 0 else None
        if first is not None and d.theta[first]:
            size[i] = 1 / abs(d.theta[first])
    return edge_and_px(d, c, c * size)


def without_biases(model: nn.Module, d: Decomposition) -> Sums:
    """Do not differentiate with respect to biases."""
    return only(d, lambda j: not j[0].endswith("bias"))


def without_running_mean(d: Decomposition) -> Decomposition:
    """Forget the paths through −γμ/σ: they start at 1, and not at a bias."""
    kept = [p.start != 0 or p.parameters[-1][0].endswith("bias") for p in d.paths]
    return replace(d, J_v_f=d.J_v_f * np.array(kept))


def layers_only(model: nn.Module, d: Decomposition) -> Sums:
    """Do not differentiate with respect to γ and β."""
    norms = [name for name, m in model.named_modules() if isinstance(m, NORMS)]
    return only(d, lambda j: j[0].rsplit(".", 1)[0] not in norms)


# --- fixed edges, shared weights, shortcuts -------------------------------------------------------


def edges_squared_in_both(model: nn.Module, d: Decomposition) -> Sums:
    """Square fixed edges in both nets: their exponents add to 4."""
    return edge_and_px(d, fixed_edges(d) ** 2, fixed_edges(d) ** 2)


def edges_in_one_net(model: nn.Module, d: Decomposition) -> Sums:
    """Leave fixed edges out of the squared net: their exponents add to 1."""
    return edge_and_px(d, fixed_edges(d), np.ones(len(d.paths)))


def position_by_position(model: nn.Module, d: Decomposition) -> Sums:
    """Square the gradient of a shared weight position by position."""
    columns: dict[tuple[int, int], Any] = {}
    for p, path in enumerate(d.paths):
        for step in path.steps:
            j = d.graph.incoming[step[0]][step[1]].parameter
            if j is not None:
                others = d.J_theta_v[p, d.parameters.index(j)]
                columns[step] = columns.get(step, 0) + d.J_v_f[:, p] * others
    return {"trace": sum(float((column**2).sum()) for column in columns.values())}


def mirrored_kernels(model: nn.Module, x: Tensor, **options: Any) -> Decomposition:
    """Take every kernel for its mirror image."""
    mirrored = copy.deepcopy(model)
    with torch.no_grad():
        for module in mirrored.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.weight.copy_(module.weight.flip(-1))
    return decompose(mirrored, x, **options)


def longest_paths_only(d: Decomposition) -> Decomposition:
    """Forget shortcuts: keep the paths with the most parameters."""
    return replace(d, J_v_f=d.J_v_f * _longest(d))


def longest_paths_in_weights(model: nn.Module, d: Decomposition) -> Sums:
    """Leave shortcuts out of the squared net."""
    return edge_and_px(d, fixed_edges(d), fixed_edges(d) * _longest(d))


def _longest(d: Decomposition) -> np.ndarray:
    lengths = np.array([len(p.parameters) for p in d.paths])
    return lengths == lengths.max(initial=0)


def each_parameter_once(d: Decomposition) -> Decomposition:
    """Differentiate v_p as if every parameter were on p once."""
    return replace(d, J_theta_v=d.J_theta_v / np.maximum(d.multiplicity, 1))


def paths_without_multiplicity(model: nn.Module, d: Decomposition) -> Sums:
    """Count a path through j once in A_j and B_j, however often it meets j."""
    once = replace(d, J_theta_v=d.J_theta_v / np.maximum(d.multiplicity, 1))
    c = fixed_edges(d)
    return edge_and_px(replace(once, multiplicity=np.minimum(d.multiplicity, 1)), c, c)


def by_two_passes(model: nn.Sequential, x: Tensor, masks: Any = None) -> Sums:
    """Return R_edge and R_PX of a chain by autograd on its two path networks, rules left aside.

    The data's has parameters 1 on x² with the ReLUs' gates; the weights' has θ² on ones. Max pooling
    stays max pooling in both, and autograd counts a weight as often as it is used.
    """
    kept = {
        n: (masks or {}).get(n, torch.ones_like(p)).to(x.dtype) for n, p in model.named_parameters()
    }
    theta = {n: p.detach() * kept[n] for n, p in model.named_parameters()}
    gates: list[Tensor] = []

    def record(z: Tensor) -> Tensor:
        gates.append(z > 0)
        return z * gates[-1]

    run_chain(model, theta, x, record)

    def data(p: dict[str, Tensor]) -> Tensor:
        remaining = iter(gates)
        return run_chain(model, p, x.square(), lambda z: z * next(remaining)).sum()

    def weights(p: dict[str, Tensor]) -> Tensor:
        return run_chain(model, p, torch.ones_like(x[:1]), lambda z: z).sum()

    a, z1 = torch.func.grad_and_value(data)(kept)
    b = torch.func.grad(weights)({n: t.square() for n, t in theta.items()})
    edge = sum(float((a[n] * b[n] * kept[n]).sum()) for n in kept)
    return {"edge": edge, "px": float(z1) * sum(float((b[n] * kept[n]).sum()) for n in kept)}


def run_chain(
    model: nn.Sequential, theta: dict[str, Tensor], x: Tensor, relu: Callable[[Tensor], Tensor]
) -> Tensor:
    """Run a chain of modules with other parameters, and another function in place of ReLU."""
    places: dict[int, str] = {}
    for place, module in model._modules.items():  # named_children drops repeated modules
        first = places.setdefault(id(module), place)
        own = {
            n.removeprefix(f"{first}."): t for n, t in theta.items() if n.startswith(f"{first}.")
        }
        if isinstance(module, nn.ReLU):
            x = relu(x)
        else:
            x = torch.func.functional_call(module, own, (x,))
    return x


def maxima_in_both(
    model: nn.Sequential, x: Tensor, *, masks: Any = None, **options: Any
) -> PathBounds:
    """Take the largest entry of a window in both path networks."""
    return replace(
        path_bounds(model, x, masks=masks, **options), upper=by_two_passes(model, x, masks)
    )
