"""P1, P2 and P5: the path decomposition, the bound on the trace, and the path kernel."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sympy import ZZ
from sympy.polys.matrices import DomainMatrix
from torch import Tensor, nn

from ntktheory import PathBounds, UnsupportedModule, functional, path_bounds
from ntktheory.functional import ModelFn, Params, masked
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.reference import Decomposition, decompose, graph_of
from proofs_check import cases, strategies
from proofs_check.bounds_evidence import Bounds, compare_with_enumeration, hunt
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.kernel import real_rows
from proofs_check.compare import Worst, relative_gap
from proofs_check.search import Broken, search
from proofs_check.wrong_bounds import (
    Recorded,
    gated_squared_weights,
    total,
    ungated_ones_net,
    with_upper,
)

DRAWN = "fixed networks, and MLPs and CNNs drawn by value (bias, stride, padding, pooling, masks)"


# --- P1 ------------------------------------------------------------------------------------------


def _without_gates(model: nn.Sequential, x: Tensor, **options: Any) -> Decomposition:
    """Treat every gate as open."""
    d = decompose(model, x, **options)
    graph, flat = graph_of(model, tuple(x.shape[1:])), x.flatten(1).tolist()
    j_v_f = d.J_v_f * 0
    for p, path in enumerate(d.paths):
        for n, sample in enumerate(flat):
            start = 1 if path.start == 0 else sample[graph.inputs.index(path.start)]
            row = n * d.outputs.shape[1] + path.output
            j_v_f[row, p] = j_v_f[row, p] * 0 + type(j_v_f[row, p])(start) * path.coefficient
    return replace(d, J_v_f=j_v_f)


def _without_bias_paths(model: nn.Sequential, x: Tensor, **options: Any) -> Decomposition:
    d = decompose(model, x, **options)
    from_input = np.array([path.start != 0 for path in d.paths])
    return replace(d, J_v_f=d.J_v_f * from_input)


def _sum_over_all_parameters(model: nn.Sequential, x: Tensor, **options: Any) -> Decomposition:
    """Read PX's Eq. 8 as printed: ∂v_p/∂θ_j = v_p/θ_j for every j, also off the path."""
    d = decompose(model, x, **options)
    theta = {n: p.flatten().tolist() for n, p in model.named_parameters()}
    values = np.array([theta[name][i] or 1 for name, i in d.parameters], dtype=d.v.dtype)
    off = np.where(d.multiplicity > 0, 0 * d.J_theta_v, d.v[:, None] / values[None, :])
    return replace(d, J_theta_v=d.J_theta_v + off)


@claim(
    "P1",
    subjects={"paths": decompose},
    mutants={
        "leaves every gate open": {"paths": _without_gates},
        "forgets the paths that start at a bias": {"paths": _without_bias_paths},
        "sums over all parameters, as Eq. 8 prints": {"paths": _sum_over_all_parameters},
    },
)
def decomposition(level: Level, paths: Callable[..., Decomposition]) -> Outcome:
    """F = Σ v a x and J = J_v f · J_θ v, exactly, against the network and autodiff."""
    seen = {"paths": 0, "largest": 0}

    def check(case: strategies.Case) -> None:
        f = functional(case.model)
        d = paths(case.model, case.x, masks=case.masks)
        if not d.parameters:  # the mask dropped everything
            return
        seen["paths"] += len(d.paths)
        seen["largest"] = max(seen["largest"], len(d.paths))
        outputs = f.model_fn(masked(f.params, case.masks), case.x).flatten().numpy()
        j = ntk_reference.jacobian(f.model_fn, f.params, case.masks, case.x)
        autodiff = np.stack(
            [j[name].flatten(2)[..., i].flatten().numpy() for name, i in d.parameters]
        )
        if relative_gap(d.J_v_f @ d.v, outputs) > 1e-12:
            raise Broken(f"{case}\nΣ v a x = {(d.J_v_f @ d.v).tolist()}, f(x) = {outputs.tolist()}")
        if relative_gap(d.jacobian(), autodiff.T) > 1e-12:
            raise Broken(
                f"{case}\nJ_v f · J_θ v = {d.jacobian().tolist()}\nJ = {autodiff.T.tolist()}"
            )

    nets = strategies.networks(max_width=3, max_depth=3)
    found = search(nets, check, 60 if level == "quick" else 500, strategies.fixed_cases())
    evidence = {
        "examples": found.examples,
        "paths": seen["paths"],
        "most_paths": seen["largest"],
        "tolerance": 1e-12,
    }
    return Outcome(
        "refuted" if found.counterexample else "holds",
        "property",
        DRAWN,
        evidence,
        found.counterexample,
    )


# --- P2 ------------------------------------------------------------------------------------------


def _px_ungated(r: Recorded) -> Tensor:
    return ungated_ones_net(r).z.sum() * total(squared_net(*r[:4]).by_parameter())


def _px_gated_b(r: Recorded) -> Tensor:
    return ones_net(*r).z.sum() * total(gated_squared_weights(r).by_parameter())


def _px_unsquared_input(r: Recorded) -> Tensor:
    model_fn, params, masks, x, gates = r
    z = ones_net(model_fn, params, masks, x.abs().sqrt(), gates).z
    return z.sum() * total(squared_net(*r[:4]).by_parameter())


def _px_without_layer(r: Recorded) -> Tensor:
    b = squared_net(*r[:4]).by_parameter()
    b.pop(next(iter(b)))
    return ones_net(*r).z.sum() * (total(b) if b else torch.zeros(()))


def _px_mean(r: Recorded) -> Tensor:
    return ones_net(*r).z.mean(0).sum() * total(squared_net(*r[:4]).by_parameter())


class Uncovered(nn.Module):
    """A bias-free network whose hidden layer is not one that the decomposition covers."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.inner = nn.Linear(2, 4, bias=False).double()
        self.head = nn.Linear(4, 1, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 1]."""
        hidden = self.activation(self.inner(x).unsqueeze(1)).squeeze(1)
        return self.head(hidden.repeat_interleave(4 // hidden.shape[1], dim=1))


UNCOVERED: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda z: z.clamp(-0.5, 0.5),
    "GELU": nn.functional.gelu,
    "max pooling": lambda z: nn.functional.max_pool1d(z, 2),
    "product": lambda z: z * z,
    "softmax": lambda z: z.softmax(-1),
    "constant": lambda z: z + 1,
}


def refuses_what_it_does_not_cover(bounds: Bounds) -> str | None:
    """Return the first function outside of the decomposition that gets a bound, or None."""
    for name, activation in UNCOVERED.items():
        try:
            bounds(Uncovered(activation), torch.ones(1, 2, dtype=torch.float64))
        except UnsupportedModule:
            continue
        return f"{name} is not covered by the decomposition, and got a bound"
    return None


def _never_refuses(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
    try:
        return path_bounds(model, x, **options)
    except UnsupportedModule:
        return path_bounds(nn.Linear(2, 1).double(), x)


@claim(
    "P2",
    subjects={"bounds": path_bounds},
    mutants={
        "leaves the gates of A open": {"bounds": with_upper(px=_px_ungated)},
        "gates B too": {"bounds": with_upper(px=_px_gated_b)},
        "does not square the inputs": {"bounds": with_upper(px=_px_unsquared_input)},
        "forgets a layer in the path kernel": {"bounds": with_upper(px=_px_without_layer)},
        "averages over the batch": {"bounds": with_upper(px=_px_mean)},
        "gives networks a bound that it does not cover": {"bounds": _never_refuses},
    },
)
def px_bounds_trace(level: Level, bounds: Bounds) -> Outcome:
    """Tr ≤ R_PX; R_PX equals its enumeration; chains of width 1 attain it."""
    worst, examples = Worst(), 40 if level == "quick" else 500
    wrong_value = compare_with_enumeration(bounds, ("px",), worst, examples // 2)
    counterexample, tightest = hunt(bounds, [("trace", "px")], strategies.networks(), examples)
    chains = search(
        strategies.mlps(max_width=1, bias=False),
        lambda case: _check_chain(case, bounds),
        examples // 2,
    )
    rows = [row for net in cases.real_networks() for row in _real(net, bounds)]
    for row in rows:
        if row["quantity"] == "R_PX ÷ Tr":
            worst.require(f"{row['network']}: R_PX ÷ Tr = {row['value']}", row["value"] >= 1)
    evidence = worst.numbers() | {
        "examples": examples,
        "largest_trace_over_bound": tightest,
        "chains_of_width_1_with_equality": chains.examples,
        "real_data": rows,
    }
    refused = refuses_what_it_does_not_cover(bounds)
    broken = (
        refused or wrong_value or counterexample or worst.counterexample or chains.counterexample
    )
    return Outcome("refuted" if broken else "holds", "property", DRAWN, evidence, broken)


def _check_chain(case: strategies.Case, bounds: Bounds) -> None:
    b = bounds(case.model, case.x, names=["px"])
    paths_meet = case.x.shape[0] == 1
    if b.upper["px"] != b.trace and paths_meet:
        raise Broken(f"{case}\none path: R_PX = {b.upper['px']}, Tr = {b.trace}")


def _real(net: cases.Network, bounds: Bounds) -> list[dict[str, Any]]:
    b = bounds(net.model, net.x)
    sparse = bounds(net.model, net.x, masks=cases.random_masks(net.model))
    return real_rows(net, {
        "Tr Θ": b.trace, "R_PX": b.upper["px"], "R_PX ÷ Tr": b.upper["px"] / b.trace,
        "R_PX ÷ Tr, 60 % of the weights": sparse.upper["px"] / sparse.trace,
    })  # fmt: skip


# --- P5 ------------------------------------------------------------------------------------------


def _path_kernel_trace(model_fn: ModelFn, params: Params, x: Tensor) -> float:
    return float(total(squared_net(model_fn, params, None, x).by_parameter()))


def _unsquared(model_fn: ModelFn, params: Params, x: Tensor) -> float:
    roots = {name: p.abs().sqrt() for name, p in params.items()}
    return _path_kernel_trace(model_fn, roots, x)


def _last_layer_only(model_fn: ModelFn, params: Params, x: Tensor) -> float:
    return float(list(squared_net(model_fn, params, None, x).by_parameter().values())[-1].sum())


def rescalings(model: nn.Sequential) -> int:
    """Count the rescalings that leave f as it is: one per hidden unit or channel."""
    layers = [m for m in model if isinstance(m, (nn.Linear, nn.Conv2d))]
    return sum(layer.weight.shape[0] for layer in layers[:-1])


@claim(
    "P5",
    subjects={"path_kernel_trace": _path_kernel_trace, "rescalings": rescalings},
    mutants={
        "does not square the weights": {"path_kernel_trace": _unsquared},
        "differentiates the last layer only": {"path_kernel_trace": _last_layer_only},
        "counts one rescaling too many": {"rescalings": lambda model: rescalings(model) + 1},
    },
)
def path_kernel(
    level: Level, path_kernel_trace: Callable[..., float], rescalings: Callable[..., int]
) -> Outcome:
    """Tr Π and rank Π by enumeration, exactly, against the squared net and the count of rescalings."""
    slack: list[int] = []

    def check(case: strategies.Case) -> None:
        d = decompose(case.model, case.x[:1])
        f = functional(case.model)
        exact = float((d.J_theta_v**2).sum())
        value = path_kernel_trace(f.model_fn, f.params, case.x)
        if value != exact:
            raise Broken(f"Tr Π = {exact}, Σ_j ∂z₂/∂θ_j² = {value}\n{case}")
        rank = integer_rank(d.J_theta_v)
        limit = len(d.parameters) - rescalings(case.model)
        slack.append(limit - rank)
        if rank > limit:
            raise Broken(f"rank Π = {rank} > P − rescalings = {limit}\n{case}")

    nets = strategies.st.one_of(
        strategies.mlps(max_width=3, max_depth=3, bias=False),
        strategies.convnets(bias=False, pooling=False),
    )
    found = search(nets, check, 40 if level == "quick" else 300)
    evidence = {"examples": found.examples, "rank_attains_its_limit_in": sum(s == 0 for s in slack)}
    return Outcome(
        "refuted" if found.counterexample else "holds",
        "property",
        "bias-free MLPs and CNNs drawn by value, exact integers",
        evidence,
        found.counterexample,
    )


def integer_rank(matrix: np.ndarray) -> int:
    """Return the exact rank of ``M``, which is that of ``M Mᵀ``, for integer entries."""
    rows = [[ZZ(int(v)) for v in row] for row in matrix.tolist()]
    return int(DomainMatrix(rows, matrix.shape, ZZ).rank())
