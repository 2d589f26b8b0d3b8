"""The ladder of bounds between the trace and R_PX, and the lower bounds N8."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory import PathBounds, UnsupportedModule, empirical_ntk, functional, path_bounds
from ntktheory.functional import masked
from ntktheory.models import mlp
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.reference import Decomposition, decompose
from ntktheory.paths.reference_half import half_sums
from proofs_check import cases, strategies
from proofs_check.bounds_evidence import (
    Bounds,
    compare_with_enumeration,
    hunt,
    hunt_sums,
    values_of,
)
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.kernel import as_matrix, real_rows
from proofs_check.compare import Worst
from proofs_check.search import Broken, search
from proofs_check.wrong_bounds import Recorded, gated_squared_weights, ungated_ones_net, with_upper
from proofs_check.wrong_paths import Sums, with_sums

LADDER = [
    ("trace", "abs"),
    ("abs", "edge_per_output"),
    ("edge_per_output", "edge"),
    ("edge", "px"),
    ("edge_per_output", "px_per_output"),
    ("px_per_output", "px"),
    ("trace", "half_per_output"),
    ("half_per_output", "half"),
    ("half", "edge"),
    ("half_per_output", "edge_per_output"),
]
UPPER = ("abs", "half_per_output", "half", "edge_per_output", "edge", "px_per_output", "px")
LOWER = [("last_layer", "trace"), ("euler", "trace")]
SANDWICH = [("trace", "op"), *LOWER]
TABLE = ("px", "edge", "half", "op", "abs", "t_sq")
DEPTHS = (2, 3, 4, 5)
WIDTHS = (4, 8, 16, 32, 64)


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _edge_ungated(r: Recorded) -> Tensor:
    return _dot(ungated_ones_net(r).by_parameter(), squared_net(*r[:4]).by_parameter())


def _edge_gated_b(r: Recorded) -> Tensor:
    return _dot(ones_net(*r).by_parameter(), gated_squared_weights(r).by_parameter())


def edge_without_mask(r: Recorded) -> Tensor:
    """Put ones, not m, into the ones net: still a bound, only looser."""
    model_fn, params, masks, x, gates = r
    a = ones_net(model_fn, params, None, x, gates).by_parameter()
    return _dot(masked(a, masks), squared_net(model_fn, params, masks, x).by_parameter())


def _edge_all_parameters(r: Recorded) -> Tensor:
    """Sum over dropped parameters too."""
    model_fn, params, masks, x, gates = r
    effective = masked(params, masks)
    a = ones_net(model_fn, effective, None, x, gates).by_parameter()
    return _dot(a, squared_net(model_fn, effective, None, x).by_parameter())


def _outputs_mixed(r: Recorded) -> Tensor:
    """Call R_edge the per-output bound."""
    return _dot(ones_net(*r).by_parameter(), squared_net(*r[:4]).by_parameter())


def _abs_of_sum(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
    """Leave the signs inside the sum over paths: the trace itself, called R_abs."""
    bounds = path_bounds(model, x, **options)
    return replace(bounds, upper=dict(bounds.upper) | {"abs": bounds.trace})


def _op_of_one_output(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
    bounds = path_bounds(model, x, **options)
    count = functional(model).model_fn(dict(model.named_parameters()), x).shape[1]
    changed = {name: bounds.upper[name] / count for name in bounds.upper if name == "op"}
    return replace(bounds, upper=dict(bounds.upper) | changed)


def looseness(
    bounds: Bounds, shapes: list[tuple[int, int]], seeds: int = 5
) -> list[dict[str, Any]]:
    """Return median bound ÷ trace over seeds: He init, 8 inputs, 4 outputs, 4 Gaussian samples."""
    table = []
    for depth, width in shapes:
        ratios: dict[str, list[float]] = {}
        traces = []
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(1000 * depth + 10 * width + seed)
            net = mlp([8, *[width] * (depth - 1), 4], generator=generator, dtype=torch.float64)
            x = torch.randn(4, 8, generator=generator, dtype=torch.float64)
            b = bounds(net, x, names=TABLE)
            traces.append(b.trace)
            for name, value in (dict(b.upper) | {"t_sq": b.t_sq or 0.0}).items():
                ratios.setdefault(name, []).append(value / b.trace)
        table.append(
            {
                "depth": depth,
                "width": width,
                "trace": median(traces),
                "ratios": {name: median(values) for name, values in ratios.items()},
            }
        )
    return table


def _edge_for_half(model: nn.Module, d: Decomposition) -> Sums:
    """Put path sums in place of the exact activations."""
    return {"half": d.bounds()["edge"], "half_per_output": d.bounds()["edge_per_output"]}


def _half_without_paths_before(model: nn.Module, d: Decomposition) -> Sums:
    """Do not divide h² by what stands before the edge in the squared net."""
    sums = half_sums(d.graph, d.paths, dict.fromkeys(d.theta, 1.0), d.samples)
    b = d.J_theta_v**2 / np.maximum(d.multiplicity, 1)
    a = [sum(sums[j, c] for c in range(d.outputs.shape[1])) for j in d.parameters]
    return {"half": float(np.array(a) @ b.sum(0))}


@dataclass(frozen=True)
class Effort:
    """How many networks are drawn from every family.

    Attributes:
        values: For comparing bounds with the sums over paths.
        bounds: For inequalities between computed bounds, a tensor scaled by 2^±500 now and then.
        sums: For inequalities between sums over paths, likewise.
    """

    values: int
    bounds: int
    sums: int


EFFORT = {"quick": Effort(1, 2, 10), "full": Effort(200, 1000, 10_000)}


@claim(
    "ladder",
    subjects={"bounds": path_bounds},
    mutants={
        "leaves the gates of A open": {"bounds": with_upper(edge=_edge_ungated)},
        "gates B too": {"bounds": with_upper(edge=_edge_gated_b)},
        "forgets the mask in the ones net": {"bounds": with_upper(edge=edge_without_mask)},
        "counts dropped parameters": {"bounds": with_upper(edge=_edge_all_parameters)},
        "mixes the outputs": {"bounds": with_upper(edge_per_output=_outputs_mixed)},
        "leaves signs inside R_abs": {"bounds": _abs_of_sum},
        "bounds what stands before an edge in R_half too": {"bounds": with_sums(_edge_for_half)},
        "does not divide by it in R_half": {"bounds": with_sums(_half_without_paths_before)},
        "divides R_op by the number of outputs": {"bounds": _op_of_one_output},
    },
)
def ladder(level: Level, bounds: Bounds) -> Outcome:
    """Every rung equals its enumeration, and every inequality survives the search."""
    worst, effort = Worst(), EFFORT[level]
    broken, families = climb(bounds, worst, effort)
    rows: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    if broken is None:
        for net in cases.real_networks(8 if level == "quick" else 32):
            values = values_of(bounds(net.model, net.x))
            for low, high in [*LADDER, *SANDWICH]:
                if low in values and high in values:
                    worst.require(f"{net.name}: {low} ≤ {high}", values[low] <= values[high])
            ratios = {f"{n} ÷ Tr": values[n] / values["trace"] for n in values if n != "trace"}
            rows += real_rows(net, ratios)
        shapes = (
            [(d, 16) for d in DEPTHS] + [(3, w) for w in WIDTHS if w != 16] + [(2, 64), (5, 64)]
        )
        table = looseness(bounds, shapes)
    broken = broken or worst.counterexample
    evidence = worst.numbers() | {
        "networks_per_family": asdict(effort),
        "largest_trace_over_bound": families,
        "real_data": rows,
        "looseness": table,
    }
    names = ", ".join(strategies.FAMILIES)
    scope = f"fixed networks, networks drawn by value ({names}), digits, He init"
    return Outcome("refuted" if broken else "holds", "property", scope, evidence, broken)


def climb(bounds: Bounds, worst: Worst, effort: Effort) -> tuple[str | None, dict[str, Any]]:
    """Compare and hunt in every family.

    Returns:
        The counterexample, or None; and for every family the largest trace ÷ bound found for each bound.
    """
    pairs: list[tuple[str, str]] = [*LADDER, *SANDWICH]
    tightest: dict[str, Any] = {}
    for family, drawn in strategies.FAMILIES.items():
        nets, fixed = strategies.masked(drawn), strategies.family_cases(family)
        broken = compare_with_enumeration(
            bounds, UPPER, worst, effort.values, nets, fixed, pairs=pairs
        )
        if broken:
            return broken, tightest
        computed = hunt(bounds, pairs, nets, effort.bounds)
        summed = hunt_sums([*LADDER, *LOWER], nets, effort.sums)
        if computed.counterexample or summed.counterexample:
            return computed.counterexample or summed.counterexample, tightest
        found = (computed.tightest, summed.tightest)
        tightest[family] = {
            name: max(ratios.get(name, 0.0) for ratios in found) for name in (*UPPER, "op")
        } | {"refused_for_overflow": computed.refused, "on_a_kink": computed.kinks}
    return None, tightest


# --- N8 ------------------------------------------------------------------------------------------


def _with_lower(rule: Callable[[PathBounds, nn.Module, Tensor, Any], dict[str, float]]) -> Bounds:
    def mutant(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
        b = path_bounds(model, x, **options)
        return replace(b, lower=dict(b.lower) | rule(b, model, x, options.get("masks")))

    return mutant


def _euler_of_every_layer(
    b: PathBounds, model: nn.Module, x: Tensor, masks: Any
) -> dict[str, float]:
    """Count layers that biases bypass too."""
    f = functional(model)
    effective = masked(f.params, masks)
    squares = f.model_fn(effective, x).square().sum()
    norms = [effective[name].square().sum() for name in f.prunable]
    return {"euler": float(sum((squares / norm for norm in norms if norm > 0), torch.zeros(())))}


def _unmasked_head(b: PathBounds, model: nn.Module, x: Tensor, masks: Any) -> dict[str, float]:
    """Count dropped weights of the head."""
    if not masks or "last_layer" not in b.lower:
        return {}
    f = functional(model)
    name = f.prunable[-1]
    without = {k: v for k, v in masks.items() if k != name}
    return {
        "last_layer": path_bounds(model, x, names=["last_layer"], masks=without).lower["last_layer"]
    }


@claim(
    "N8",
    subjects={"bounds": path_bounds, "kernel": empirical_ntk},
    mutants={
        "counts layers that biases bypass": {"bounds": _with_lower(_euler_of_every_layer)},
        "counts dropped weights of the head": {"bounds": _with_lower(_unmasked_head)},
        "divides the kernel by the number of outputs and of samples": {
            "kernel": lambda model, x, **options: (
                empirical_ntk(model, x, **options) / (2 * x.shape[0])
            )
        },
        "doubles Euler's bound": {
            "bounds": _with_lower(lambda b, *_: {"euler": 2 * b.lower.get("euler", 0.0)})
        },
    },
)
def lower_bounds(level: Level, bounds: Bounds, kernel: Callable[..., Tensor]) -> Outcome:
    """Both lower bounds have their formula's value and stay below; SNIP's gradients bound λ_max."""
    worst, examples, attained = Worst(), {}, {"last_layer": 0.0, "euler": 0.0}

    def check(case: strategies.Case) -> None:
        b = lower_of(bounds, case)
        _check_values(case, b, worst)
        for name, value in b.lower.items():
            if value > b.trace * (1 + 1e-12):
                raise Broken(f"{name} = {value} > Tr = {b.trace}\n{case}")
            attained[name] = max(attained[name], value / b.trace if b.trace else 0.0)
        _check_gradient(case, kernel)
        if not worst.holds:
            raise Broken(f"{worst.counterexample}\n{case}")

    broken = None
    for family, nets in strategies.FAMILIES.items():
        fixed, drawn = strategies.family_cases(family), 3 if level == "quick" else 300
        found = search(strategies.masked(nets), check, drawn, fixed)
        examples[family] = found.examples
        broken = found.counterexample
        if broken:
            break
    evidence = worst.numbers() | {"examples": examples, "largest_bound_over_trace": attained}
    scope = f"fixed networks, and networks drawn by value ({', '.join(strategies.FAMILIES)})"
    return Outcome("refuted" if broken else "holds", "property", scope, evidence, broken)


def lower_of(bounds: Bounds, case: strategies.Case) -> PathBounds:
    """Return the lower bounds alone; Euler's where it is defined."""
    try:
        return bounds(case.model, case.x, masks=case.masks, names=("last_layer", "euler"))
    except UnsupportedModule:
        return bounds(case.model, case.x, masks=case.masks, names=("last_layer",))


def _check_values(case: strategies.Case, b: PathBounds, worst: Worst) -> None:
    """Compare with the head's own block, and with Euler's sum over enumerated paths."""
    f = functional(case.model)
    head = f.prunable[-1]
    own = ntk_reference.ntk(f.model_fn, f.params, case.masks, case.x, names=(head,))
    worst.see("last_layer", b.lower["last_layer"], float(as_matrix(own).trace()))
    euler, value = (
        float(decompose(case.model, case.x, masks=case.masks).euler()),
        b.lower.get("euler"),
    )
    if any(isinstance(m, strategies.NORMS) for m in case.model.modules()):
        # The enumeration counts batch norm's γ as a layer; the bound may leave it out.
        worst.require(f"euler ≤ {euler}", (value or 0.0) <= euler * (1 + 1e-12))
    else:
        worst.see("euler", value or 0.0, euler)


def _check_gradient(case: strategies.Case, kernel: Callable[..., Tensor]) -> None:
    """Check ``‖∇ℓ‖² ≤ λ_max(Θ) ‖∂ℓ/∂f‖²``, ∇ℓ by autograd, for the squared loss towards zero."""
    f = functional(case.model)

    def loss(theta: dict[str, Tensor]) -> Tensor:
        return f.model_fn(masked(theta, case.masks), case.x).square().sum() / 2

    gradient = sum(float(g.square().sum()) for g in torch.func.grad(loss)(f.params).values())
    slope = float(f.model_fn(masked(f.params, case.masks), case.x).square().sum())
    largest = float(
        torch.linalg.eigvalsh(as_matrix(kernel(case.model, case.x, masks=case.masks)))[-1]
    )
    if gradient > largest * slope * (1 + 1e-10) + 1e-300:
        raise Broken(f"‖∇ℓ‖² = {gradient} > λ_max ‖∂ℓ/∂f‖² with λ_max = {largest}\n{case}")
