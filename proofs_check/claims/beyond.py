"""The ladder of bounds between the trace and R_PX, and the lower bounds N8."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory import PathBounds, empirical_ntk, functional, path_bounds
from ntktheory.functional import masked
from ntktheory.models import mlp
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.reference import decompose
from proofs_check import cases, strategies
from proofs_check.bounds_evidence import Bounds, compare_with_enumeration, hunt
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.kernel import as_matrix, real_rows
from proofs_check.compare import Worst
from proofs_check.search import Broken, search
from proofs_check.wrong_bounds import Recorded, gated_squared_weights, ungated_ones_net, with_upper

LADDER = [
    ("trace", "abs"),
    ("abs", "edge_per_output"),
    ("edge_per_output", "edge"),
    ("edge", "px"),
    ("edge_per_output", "px_per_output"),
    ("px_per_output", "px"),
]
UPPER = ("abs", "edge_per_output", "edge", "px_per_output", "px")
DEPTHS = (2, 3, 4, 5)
WIDTHS = (4, 8, 16, 32, 64)


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _edge_ungated(r: Recorded) -> Tensor:
    return _dot(ungated_ones_net(r).by_parameter(), squared_net(*r[:4]).by_parameter())


def _edge_gated_b(r: Recorded) -> Tensor:
    return _dot(ones_net(*r).by_parameter(), gated_squared_weights(r).by_parameter())


def _edge_without_mask(r: Recorded) -> Tensor:
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
            b = bounds(net, x)
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


@claim(
    "ladder",
    subjects={"bounds": path_bounds},
    mutants={
        "leaves the gates of A open": {"bounds": with_upper(edge=_edge_ungated)},
        "gates B too": {"bounds": with_upper(edge=_edge_gated_b)},
        "forgets the mask in the ones net": {"bounds": with_upper(edge=_edge_without_mask)},
        "counts dropped parameters": {"bounds": with_upper(edge=_edge_all_parameters)},
        "mixes the outputs": {"bounds": with_upper(edge_per_output=_outputs_mixed)},
        "leaves signs inside R_abs": {"bounds": _abs_of_sum},
    },
)
def ladder(level: Level, bounds: Bounds) -> Outcome:
    """Every rung equals its enumeration, and every inequality survives the search."""
    worst, examples = Worst(), 40 if level == "quick" else 500
    wrong_value = compare_with_enumeration(bounds, UPPER, worst, examples)
    counterexample, tightest = hunt(bounds, LADDER, strategies.networks(), examples)
    rows, table = [], []
    if worst.holds and counterexample is None:
        for net in cases.real_networks():
            b = bounds(net.model, net.x)
            values = dict(b.upper) | {"trace": b.trace}
            for low, high in LADDER:
                worst.require(f"{net.name}: {low} ≤ {high}", values[low] <= values[high])
            rows += real_rows(net, {f"{name} ÷ Tr": values[name] / b.trace for name in UPPER})
        shapes = (
            [(d, 16) for d in DEPTHS] + [(3, w) for w in WIDTHS if w != 16] + [(2, 64), (5, 64)]
        )
        table = looseness(bounds, shapes)
    evidence = worst.numbers() | {
        "examples": examples,
        "largest_trace_over_abs": tightest,
        "real_data": rows,
        "looseness": table,
    }
    broken = wrong_value or counterexample or worst.counterexample
    scope = "MLPs and CNNs drawn by value (bias, stride, padding, pooling, masks), digits, He init"
    return Outcome("refuted" if broken else "holds", "property", scope, evidence, broken)


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
    worst = Worst()

    def check(case: strategies.Case) -> None:
        b = bounds(case.model, case.x, masks=case.masks)
        _check_values(case, b, worst)
        for name, value in b.lower.items():
            if value > b.trace * (1 + 1e-12):
                raise Broken(f"{name} = {value} > Tr = {b.trace}\n{case}")
        _check_gradient(case, kernel)
        if not worst.holds:
            raise Broken(f"{worst.counterexample}\n{case}")

    nets = strategies.networks(max_width=3, max_depth=3)
    found = search(nets, check, 40 if level == "quick" else 400, strategies.fixed_cases())
    evidence = worst.numbers() | {"examples": found.examples}
    return Outcome(
        "refuted" if found.counterexample else "holds",
        "property",
        "MLPs and CNNs drawn by value (bias, stride, padding, pooling, masks)",
        evidence,
        found.counterexample,
    )


def _check_values(case: strategies.Case, b: PathBounds, worst: Worst) -> None:
    """Compare with the head's own block, and with Euler's sum over enumerated paths."""
    f = functional(case.model)
    head = f.prunable[-1]
    own = ntk_reference.ntk(f.model_fn, f.params, case.masks, case.x, names=(head,))
    worst.see("last_layer", b.lower["last_layer"], float(as_matrix(own).trace()))
    euler = float(decompose(case.model, case.x, masks=case.masks).euler())
    worst.see("euler", b.lower.get("euler", 0.0), euler)


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
