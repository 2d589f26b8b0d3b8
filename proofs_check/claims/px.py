"""P1–P5: the path decomposition, the trace bound and the px saliency of Path eXclusion."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sympy import ZZ
from sympy.polys.matrices import DomainMatrix
from torch import Tensor, nn

from ntktheory import PathBounds, functional, path_bounds
from ntktheory.checks import NumericalError
from ntktheory.functional import Masks, ModelFn, Params, masked, to_dtype
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.gates import record
from ntktheory.paths.networks import PathNet, ones_net, path_net, squared_net
from ntktheory.paths.reference import Decomposition, decompose, graph_of
from ntktheory.pruning.scorers import px, px_bound, synflow_l2
from proofs_check import cases, strategies
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.kernel import real_rows
from proofs_check.compare import Worst, relative_gap
from proofs_check.search import Broken, search

Bounds = Callable[..., PathBounds]
Scorer = Callable[..., Params]
Recorded = tuple[ModelFn, Params, Masks | None, Tensor, list[Tensor]]
DRAWN = "MLPs and CNNs drawn by value (bias, stride, padding, pooling, masks, dead units)"


# --- mutants of path_bounds ----------------------------------------------------------------------


def with_upper(**rules: Callable[[Recorded], Tensor]) -> Bounds:
    """Return ``path_bounds`` with some upper bounds computed by other rules."""

    def mutant(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
        bounds = path_bounds(model, x, **options)
        f, masks, x = to_dtype(functional(model), torch.float64), options.get("masks"), x.double()
        run = record(f.model_fn, masked(f.params, masks), x)
        recorded = (f.model_fn, f.params, masks, x, run.gates)
        wrong = {name: float(rule(recorded)) for name, rule in rules.items()}
        return replace(bounds, upper=dict(bounds.upper) | wrong)

    return mutant


def _sum(values: Params) -> Tensor:
    return torch.stack([v.sum() for v in values.values()]).sum()


def _ungated(r: Recorded) -> PathNet:
    model_fn, params, masks, x, _ = r
    return path_net(
        model_fn,
        masked({k: torch.ones_like(p) for k, p in params.items()}, masks),
        masks,
        x.square(),
        None,
    )


def _gated_b(r: Recorded) -> PathNet:
    model_fn, params, masks, x, gates = r
    squares = {name: p.square() for name, p in masked(params, masks).items()}
    first = [gate[:1] for gate in gates]
    return path_net(model_fn, squares, masks, torch.ones_like(x[:1]), first)


def _px_ungated(r: Recorded) -> Tensor:
    return _ungated(r).z.sum() * _sum(squared_net(*r[:4]).by_parameter())


def _px_gated_b(r: Recorded) -> Tensor:
    return ones_net(*r).z.sum() * _sum(_gated_b(r).by_parameter())


def _px_unsquared_input(r: Recorded) -> Tensor:
    model_fn, params, masks, x, gates = r
    z = ones_net(model_fn, params, masks, x.abs().sqrt(), gates).z
    return z.sum() * _sum(squared_net(*r[:4]).by_parameter())


def _px_without_layer(r: Recorded) -> Tensor:
    b = squared_net(*r[:4]).by_parameter()
    b.pop(next(iter(b)))
    return ones_net(*r).z.sum() * (_sum(b) if b else torch.zeros(()))


def _px_mean(r: Recorded) -> Tensor:
    return ones_net(*r).z.mean(0).sum() * _sum(squared_net(*r[:4]).by_parameter())


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
    broken = wrong_value or counterexample or worst.counterexample or chains.counterexample
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


def hunt(
    bounds: Bounds, pairs: list[tuple[str, str]], nets: Any, examples: int
) -> tuple[str | None, float]:
    """Search for a network that breaks ``low ≤ high`` for some pair of bounds.

    Returns:
        The counterexample, or None, and the largest low ÷ high seen for the first pair.
    """
    from hypothesis import event, target

    tightest = 0.0

    def check(case: strategies.Case) -> None:
        nonlocal tightest
        try:
            b = bounds(case.model, case.x, masks=case.masks)
        except NumericalError:
            event("overflow refused")
            return
        values = dict(b.upper) | {"trace": b.trace} | dict(b.lower)
        low, high = (values[name] for name in pairs[0])
        if high > 0:
            tightest = max(tightest, low / high)
            target(low / high)
        for lower, upper in pairs:
            if lower in values and values[lower] > values[upper]:
                judge_exactly(case, values, lower, upper)

    found = search(strategies.scaled(nets), check, examples)
    return found.counterexample, tightest


def judge_exactly(case: strategies.Case, values: Mapping[str, float], low: str, high: str) -> None:
    """Judge a raw violation in rational arithmetic: rounding is excused, a wrong value is not.

    Raises:
        Broken: If the exact values break the inequality, or the floats are not their rounding.
    """
    exact = decompose(case.model, case.x, masks=case.masks, exact=True).bounds()
    for name in (low, high):
        if abs(values[name] - float(exact[name])) > 1e-12 * abs(float(exact[name])):
            raise Broken(
                f"{case}\n{low} = {values[low]} > {high} = {values[high]}; "
                f"exactly, {name} = {float(exact[name])}"
            )
    if exact[low] > exact[high]:
        raise Broken(f"{case}\nexactly, {low} = {exact[low]} > {high} = {exact[high]}")


def compare_with_enumeration(
    bounds: Bounds, names: tuple[str, ...], worst: Worst, examples: int
) -> str | None:
    """Compare trace and bounds with the sums over all paths, on fixed and drawn networks.

    Args:
        bounds: The function under test.
        names: The bounds to compare.
        worst: Collects the gaps.
        examples: How many networks to draw.

    Returns:
        The counterexample, or None.
    """

    def check(case: strategies.Case) -> None:
        sums = decompose(case.model, case.x, masks=case.masks).bounds()
        b = bounds(case.model, case.x, masks=case.masks)
        values = dict(b.upper) | {"trace": b.trace}
        for name in ("trace", *names):
            worst.see(f"{name}, {case.title}", values[name], sums[name])
        if not worst.holds:
            raise Broken(f"{worst.counterexample}\n{case}")

    nets = strategies.networks(max_width=3, max_depth=3)
    return search(nets, check, examples, strategies.fixed_cases()).counterexample


# --- P3, P4 --------------------------------------------------------------------------------------


def with_weights(model: nn.Sequential, *weights: Any) -> nn.Sequential:
    """Set the parameters of a network, in order, in float64."""
    model = model.double().eval()
    with torch.no_grad():
        for p, values in zip(model.parameters(), weights, strict=True):
            p.copy_(torch.as_tensor(values, dtype=torch.float64).view_as(p))
    return model


def _signed(model_fn: ModelFn, params: Params, *rest: Any, **options: Any) -> Params:
    """Leave the sign of the weights in: ``θ_j |θ_j| ∂Z/∂θ_j²``."""
    scores = px(model_fn, params, *rest, **options)
    return {name: s * params[name].sign() for name, s in scores.items()}


def _first_power(model_fn: ModelFn, params: Params, *rest: Any, **options: Any) -> Params:
    """Multiply by |θ_j| once, as published code does."""
    scores = px(model_fn, params, *rest, **options)
    return {
        name: torch.where(params[name] != 0, s / params[name].abs(), 0.0)
        for name, s in scores.items()
    }


@dataclass(frozen=True)
class Removal:
    """How an iteration ended, and the scores of its rounds.

    Attributes:
        emptied: The layer that lost its last weight while another had two, or None.
        alive: Whether some score was positive in the round that ended it.
        history: The scores of every round.
    """

    emptied: str | None
    alive: bool
    history: list[dict[str, list[Any]]]


def iterate(score: Scorer, model: nn.Module, x: Tensor) -> Removal:
    """Remove the lowest-scored kept weight and score again, until there is one weight per layer."""
    f = functional(model)
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in f.params.items()}
    history: list[dict[str, list[Any]]] = []
    alive = True
    while sum(int(m.sum()) for m in masks.values()) > len(masks):
        scores = score(f.model_fn, f.params, masks, x)
        history.append({name: s.tolist() for name, s in scores.items()})
        alive = any(bool((s > 0).any()) for s in scores.values())
        kept = [
            (float(scores[name].flatten()[i]), name, i)
            for name, m in masks.items()
            for i in m.flatten().nonzero().flatten().tolist()
        ]
        _, name, index = min(kept)
        masks[name].view(-1)[index] = False
        if not masks[name].any():
            return Removal(name, alive, history)
    return Removal(None, alive, history)


@claim(
    "P3",
    subjects={"saliency": px},
    mutants={
        "keeps the sign of the weight": {"saliency": _signed},
        "multiplies by |θ| once only": {"saliency": _first_power},
        "is the saliency of the literal R_PX": {"saliency": px_bound},
    },
)
def px_never_empties(level: Level, saliency: Scorer) -> Outcome:
    """The px saliency equals its enumeration, is non-negative, and iterating empties no layer."""
    worst, examples = Worst(), 40 if level == "quick" else 300
    rounds: list[int] = []

    def value(case: strategies.Case) -> None:
        f = functional(case.model)
        exact = decompose(case.model, case.x, masks=case.masks)
        scores = saliency(f.model_fn, f.params, case.masks, case.x)
        for (name, i), expected in exact.px_score().items():
            worst.see(f"score of {name}, {case.title}", float(scores[name].flatten()[i]), expected)
        if not worst.holds:
            raise Broken(f"{worst.counterexample}\n{case}")
        if any(bool((s < 0).any()) for s in scores.values()):
            raise Broken(f"a negative score\n{case}")

    def never_empties(case: strategies.Case) -> None:
        removal = iterate(saliency, case.model, case.x)
        rounds.append(len(removal.history))
        if removal.emptied is not None and removal.alive:
            raise Broken(f"{removal.emptied} is emptied; scores {removal.history[-1]}\n{case}")

    fixed = strategies.fixed_cases()
    found = search(strategies.networks(max_width=3, max_depth=3), value, examples, fixed)
    removal = search(strategies.mlps(max_width=3, max_depth=3, bias=False), never_empties, examples)
    broken = found.counterexample or removal.counterexample
    evidence = worst.numbers() | {
        "examples": found.examples,
        "networks_pruned": len(rounds),
        "rounds": sum(rounds),
    }
    return Outcome("refuted" if broken else "holds", "property", DRAWN, evidence, broken)


def _dense_data(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Hold gates and data term of the dense network in every round."""
    gates = record(model_fn, params, x).gates
    data = ones_net(model_fn, params, None, x, gates).z.sum(0, keepdim=True)
    slopes = squared_net(model_fn, params, masks, x).gradient(data)
    return {name: params[name].square() * slope for name, slope in slopes.items()}


@claim(
    "P3.iterated",
    subjects={"saliency": px},
    mutants={"holds the data term of the dense network": {"saliency": _dense_data}},
)
def px_can_cut_the_data_off(level: Level, saliency: Scorer) -> Outcome:
    """The 2-2-1 net [[2, 1], [2, 1]], (1, 1) at x = (0, 1): px keeps the weights of the zero input."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    model = with_weights(model, [[2, 1], [2, 1]], [[1, 1]])
    removal = iterate(saliency, model, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    text = (
        None
        if removal.emptied is None
        else (
            "2-2-1 net, W₁ = [[2, 1], [2, 1]], W₂ = [1, 1], x = (0, 1). "
            f"Scores of round 1: {removal.history[0]}. The two weights on the input that is 1 score "
            "lowest and go first; then every remaining path starts at the input that is 0, "
            f"Z = 0 and all scores vanish (round 3: {removal.history[2]}). Nothing is left to tell "
            f"weights apart: with ties broken by index, {removal.emptied} is emptied."
        )
    )
    evidence = {
        "network": "2-2-1",
        "rounds": len(removal.history),
        "emptied_layer": removal.emptied,
    }
    return Outcome(
        "holds" if removal.emptied is None else "refuted",
        "exact-numeric",
        "one network",
        evidence,
        text,
    )


@claim(
    "P3.px_bound",
    subjects={"saliency": px_bound},
    mutants={"is px": {"saliency": px}},
)
def literal_bound_empties(level: Level, saliency: Scorer) -> Outcome:
    """The literal saliency on the 1-1-2 net θ = (.1, 1, 1) at x = 1 prunes the bottleneck first."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2, bias=False))
    model = with_weights(model, [0.1], [1, 1])
    removal = iterate(saliency, model, torch.ones(1, 1, dtype=torch.float64))
    layer, history = removal.emptied, removal.history
    evidence = {
        "network": "1-1-2, θ = (.1, 1, 1), x = 1",
        "scores": history[0],
        "emptied_layer": layer,
    }
    text = (
        None
        if layer is None
        else (
            f"1-1-2 net, θ = (.1, 1, 1), x = 1: scores {history[0]}; the first weight removed is the "
            f"whole of layer {layer}"
        )
    )
    return Outcome(
        "holds" if layer is None else "refuted", "exact-numeric", "one network", evidence, text
    )


@claim(
    "P4",
    subjects={"px": px, "synflow_l2": synflow_l2},
    mutants={
        "multiplies by |θ| once only": {"px": _first_power},
        "is the saliency of the literal R_PX": {"px": px_bound},
        "is SynFlow-L2 to the first power": {"synflow_l2": _first_power},
    },
)
def conservation(level: Level, **scorers: Scorer) -> Outcome:
    """Every layer has the same sum; at every hidden unit in equals out. Integers: no tolerance."""

    def check(case: strategies.Case) -> None:
        f = functional(case.model)
        for title, scorer in scorers.items():
            scores = list(scorer(f.model_fn, f.params, None, case.x).values())
            sums = [float(s.sum()) for s in scores]
            if len(set(sums)) > 1:
                raise Broken(f"{title}: layer sums {sums}\n{case}")
            for into, out in itertools.pairwise(scores):
                if into.ndim == out.ndim == 2 and not torch.equal(into.sum(1), out.sum(0)):
                    raise Broken(f"{title}: in {into.sum(1)}, out {out.sum(0)}\n{case}")

    nets = strategies.st.one_of(strategies.mlps(bias=False), strategies.convnets(bias=False))
    found = search(nets, check, 60 if level == "quick" else 500)
    return Outcome(
        "refuted" if found.counterexample else "holds",
        "property",
        "bias-free MLPs and CNNs drawn by value",
        {"examples": found.examples},
        found.counterexample,
    )


@claim(
    "P4.px_bound",
    subjects={"saliency": px_bound},
    mutants={"is px": {"saliency": px}},
)
def literal_bound_conserves(level: Level, saliency: Scorer) -> Outcome:
    """The literal saliency on a 4-5-6-3 net with weights 1, 2, 3, 1, 2, 3, …: equal layer sums?"""
    widths = (4, 5, 6, 3)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    model = with_weights(model, *(torch.arange(w.weight.numel()) % 3 + 1 for w in layers))
    f = functional(model)
    scores = saliency(f.model_fn, f.params, None, torch.ones(1, 4, dtype=torch.float64))
    sums = [float(s.sum()) for s in scores.values()]
    text = (
        f"4-5-6-3 net, weights 1, 2, 3, 1, 2, 3, … in every layer, x = 1: layer sums {sums}"
        if len(set(sums)) > 1
        else None
    )
    return Outcome(
        "refuted" if text else "holds", "exact-numeric", "one network", {"layer_sums": sums}, text
    )


# --- P5 ------------------------------------------------------------------------------------------


def _path_kernel_trace(model_fn: ModelFn, params: Params, x: Tensor) -> float:
    return float(_sum(squared_net(model_fn, params, None, x).by_parameter()))


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
