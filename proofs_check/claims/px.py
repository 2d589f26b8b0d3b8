"""P1, P2 and P5: the path decomposition, the bound on the trace, and the path kernel."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sympy import ZZ
from sympy.polys.matrices import DomainMatrix
from torch import Tensor, nn

from ntktheory import functional, path_bounds
from ntktheory.functional import masked
from ntktheory.models import mlp
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths import path_kernel_trace
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.reference import Decomposition, decompose
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
from proofs_check.wrong_paths import open_gates, with_paths, without_bias_paths

DRAWN = "fixed networks, and MLPs and CNNs drawn by value (bias, stride, padding, pooling, masks)"


def plain_cases() -> list[strategies.Case]:
    """Return the fixed MLPs and the fixed CNN without pooling, dense and masked."""
    families = ("MLP", "MLP with biases", "convolution")
    return [case for family in families for case in strategies.family_cases(family)]


# --- P1 ------------------------------------------------------------------------------------------


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
        "leaves every gate open": {"paths": with_paths(open_gates)},
        "forgets the paths that start at a bias": {"paths": with_paths(without_bias_paths)},
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
    found = search(nets, check, 30 if level == "quick" else 500, plain_cases())
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


@claim(
    "P2",
    subjects={"bounds": path_bounds},
    mutants={
        "leaves the gates of A open": {"bounds": with_upper(px=_px_ungated)},
        "gates B too": {"bounds": with_upper(px=_px_gated_b)},
        "does not square the inputs": {"bounds": with_upper(px=_px_unsquared_input)},
        "forgets a layer in the path kernel": {"bounds": with_upper(px=_px_without_layer)},
        "averages over the batch": {"bounds": with_upper(px=_px_mean)},
    },
)
def px_bounds_trace(level: Level, bounds: Bounds) -> Outcome:
    """Tr ≤ R_PX; R_PX equals its enumeration; chains of width 1 attain it."""
    worst, examples = Worst(), 24 if level == "quick" else 500
    broken = compare_with_enumeration(bounds, ("px",), worst, examples // 3, fixed=plain_cases())
    evidence: dict[str, Any] = {"examples": examples}
    if broken is None:
        nets = strategies.networks(max_width=3)
        found = hunt(bounds, [("trace", "px")], nets, examples, names=["px"])
        chains = search(
            strategies.mlps(max_width=1, bias=False),
            lambda case: _check_chain(case, bounds),
            examples // 2,
        )
        broken = found.counterexample or chains.counterexample
        rows = [row for net in cases.real_networks() for row in _real(net, bounds)]
        for row in rows:
            if row["quantity"] == "R_PX ÷ Tr":
                worst.require(f"{row['network']}: R_PX ÷ Tr = {row['value']}", row["value"] >= 1)
        evidence |= {
            "largest_trace_over_bound": found.tightest.get("px", 0.0),
            "chains_of_width_1_with_equality": chains.examples,
            "real_data": rows,
        }
    broken = broken or worst.counterexample
    evidence = worst.numbers() | evidence
    return Outcome("refuted" if broken else "holds", "property", DRAWN, evidence, broken)


def _check_chain(case: strategies.Case, bounds: Bounds) -> None:
    b = bounds(case.model, case.x, names=["px"])
    paths_meet = case.x.shape[0] == 1
    if b.upper["px"] != b.trace and paths_meet:
        raise Broken(f"{case}\none path: R_PX = {b.upper['px']}, Tr = {b.trace}")


def _real(net: cases.Network, bounds: Bounds) -> list[dict[str, Any]]:
    b = bounds(net.model, net.x, names=["px"])
    sparse = bounds(net.model, net.x, masks=cases.random_masks(net.model), names=["px"])
    return real_rows(net, {
        "Tr Θ": b.trace, "R_PX": b.upper["px"], "R_PX ÷ Tr": b.upper["px"] / b.trace,
        "R_PX ÷ Tr, 60 % of the weights": sparse.upper["px"] / sparse.trace,
    })  # fmt: skip


# --- P5 ------------------------------------------------------------------------------------------


def _unsquared(model: nn.Sequential, x: Tensor) -> float:
    """Give the squared net the weights |θ|."""
    roots = copy.deepcopy(model)
    with torch.no_grad():
        for p in roots.parameters():
            p.copy_(p.abs().sqrt())
    return path_kernel_trace(roots, x)


def _last_layer_only(model: nn.Sequential, x: Tensor) -> float:
    f = functional(model)
    b = squared_net(f.model_fn, f.params, None, x).by_parameter()
    return float(list(b.values())[-1].sum())


def rescalings(model: nn.Sequential) -> int:
    """Count the rescalings of hidden units that leave every path value as it is.

    One per unit or channel, but the two sides of a residual sum are scaled together: one per channel of
    the stream, and those inside of the branch.

    Args:
        model: Linear layers or convolutions in a row, and residual sums; none at the input itself.

    Returns:
        The count.
    """
    layers = [m for m in model.modules() if isinstance(m, strategies.LAYERS)]
    joined = [m.body[-1] for m in model.modules() if isinstance(m, cases.Residual)]
    return _units(layers) - _units(joined) - _units([model[-1]])


def _units(layers: Sequence[nn.Module]) -> int:
    return sum(layer.weight.shape[0] for layer in layers)  # type: ignore[index,misc]


def _branches_apart(model: nn.Sequential) -> int:
    """Scale the end of a branch apart from the stream that it is added to."""
    joined = [m.body[-1] for m in model.modules() if isinstance(m, cases.Residual)]
    return rescalings(model) + _units(joined)


def _whole(model: nn.Sequential, *shape: int) -> strategies.Case:
    """Fill a network with the weights 1, 2, 3, 5, 7, 1, …, none of them 0; one input of ones."""
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            cycle = torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0]).repeat(p.numel() // 5 + 1)
            p.copy_(cycle[: p.numel()].view_as(p))
    return strategies.Case(model, torch.ones(1, *shape, dtype=torch.float64), note="whole numbers")


def _unbiased() -> dict[str, tuple[strategies.Case, Any]]:
    """Return bias-free families: a network without a zero, and a strategy."""
    branch = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    projected = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 3, bias=False))
    residual = nn.Sequential(
        nn.Linear(2, 2, bias=False), cases.Residual(branch), nn.ReLU(),
        cases.Residual(projected, nn.Linear(2, 3, bias=False)), nn.Linear(3, 2, bias=False),
    )  # fmt: skip
    cnn = nn.Sequential(
        nn.Conv1d(1, 2, 2, bias=False), nn.ReLU(), nn.Conv1d(2, 2, 2, padding=1, bias=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(8, 2, bias=False),
    )  # fmt: skip
    return {
        "MLP": (_whole(mlp([2, 3, 3, 2]), 2), strategies.mlps(3, 3, bias=False)),
        "CNN": (_whole(cnn, 1, 4), strategies.convolutions(bias=False)),
        "residual": (_whole(residual, 2), strategies.st.one_of(
            strategies.residual_mlps(bias=False), strategies.residual_convolutions(bias=False)
        )),
    }  # fmt: skip


@claim(
    "P5",
    subjects={"path_kernel_trace": path_kernel_trace, "rescalings": rescalings},
    mutants={
        "does not square the weights": {"path_kernel_trace": _unsquared},
        "differentiates the last layer only": {"path_kernel_trace": _last_layer_only},
        "counts one rescaling too many": {"rescalings": lambda model: rescalings(model) + 1},
        "scales a branch apart from its stream": {"rescalings": _branches_apart},
    },
)
def path_kernel(
    level: Level, path_kernel_trace: Callable[..., float], rescalings: Callable[..., int]
) -> Outcome:
    """Tr Π and rank Π by enumeration, exactly, against the squared net and the count of rescalings."""
    examples, attained, broken = {}, {}, None
    for family, (fixed, nets) in _unbiased().items():
        slack: list[int] = []

        def check(case: strategies.Case, slack: list[int] = slack) -> None:
            d = decompose(case.model, case.x[:1])
            exact = float((d.J_theta_v**2).sum())
            value = path_kernel_trace(case.model, case.x)
            if value != exact:
                raise Broken(f"Tr Π = {exact}, Σ_j ∂z₂/∂θ_j² = {value}\n{case}")
            rank, limit = integer_rank(d.J_theta_v), len(d.parameters) - rescalings(case.model)
            slack.append(limit - rank)
            if rank > limit:
                raise Broken(f"rank Π = {rank} > P − rescalings = {limit}\n{case}")

        found = search(nets, check, 15 if level == "quick" else 300, [fixed])
        examples[family], attained[family] = found.examples, sum(s == 0 for s in slack)
        broken = broken or found.counterexample
    return Outcome(
        "refuted" if broken else "holds",
        "property",
        "bias-free MLPs, CNNs and residual networks, fixed and drawn by value; exact integers",
        {"examples": examples, "rank_attains_its_limit_in": attained},
        broken,
    )


def integer_rank(matrix: np.ndarray) -> int:
    """Return the exact rank of ``M``, which is that of ``M Mᵀ``, for integer entries."""
    distinct = np.unique(matrix, axis=0)
    rows = [[ZZ(int(v)) for v in row] for row in distinct.tolist()]
    return int(DomainMatrix(rows, distinct.shape, ZZ).rank())
