"""P4.* and S4.* on the networks that people prune: MLP, CNN, VGG, batch norm, ResNet-20."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.estimators.ntk_sap import FORMS, Form, objective
from ntktheory.estimators.ntk_sap_score import score_of_realization
from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.probes import sample_gaussian
from ntktheory.pruning.scorers import path_edge, px_bound, synflow_l2, t_sq
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.ntk_sap_score import MUTANTS as WRONG_SALIENCIES
from proofs_check.compare import Worst, relative_gap
from proofs_check.flows import (
    EXPONENTS,
    FLOWS,
    Scorer,
    biased_mlp,
    generator,
    layer_sums,
    normed_vgg,
    plain_networks,
    resnet20,
    scores_of,
    see_units,
    synflow_of_all,
)

Network = Callable[[], tuple[nn.Module, Tensor]]
Saliency = Callable[..., tuple[Params, Tensor]]
QUICK = {name: FLOWS[name] for name in ("synflow", "t_sq")}
SCOPE = (
    "MLP, CNN with strides and average pooling, VGG-11 with max pooling, with batch norm, ResNet-20 of "
    "width 4; He weights, Gaussian inputs, float64"
)


def first_power(scorer: Scorer) -> Scorer:
    """Return a scorer with one power of |θ| less."""

    def mutant(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
        scores = scorer(model_fn, params, masks, x)
        return {n: torch.where(params[n] != 0, s / params[n].abs(), 0.0) for n, s in scores.items()}

    return mutant


def without(part: str, scorer: Scorer) -> Scorer:
    """Return a scorer that leaves out the flow of some parameters."""

    def mutant(*args: Tensor) -> Params:
        return {n: s * (part not in n) for n, s in scorer(*args).items()}

    return mutant


def unsquared_synflow(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return ``|θ ∂/∂θ Σ_c f_c(θ, 1)|``, signs of the weights and all."""
    f = lambda theta: model_fn(theta, torch.ones_like(x[:1])).sum()  # noqa: E731
    return {n: (params[n] * g).abs() for n, g in torch.func.grad(f)(params).items()}


@claim(
    "P4.real_networks",
    subjects=FLOWS,
    mutants={
        "is the saliency of the literal R_PX": {"px": px_bound},
        "is SynFlow on signed weights": {"synflow": unsquared_synflow},
        "is SynFlow-L2 to the first power": {"synflow_l2": first_power(synflow_l2)},
        "is path_edge": {"t_sq": path_edge},
        "does not count what shortcuts carry": {"t_sq": without("shortcut", t_sq)},
        "does not count biases": {"synflow": without("bias", synflow_of_all)},
    },
)
def flows_are_conserved(level: Level, **scorers: Scorer) -> Outcome:
    """Layer sums without biases and shortcuts; in = out at every unit of every network."""
    worst, layers = Worst(), 0
    cases = plain_networks()
    if level == "quick":
        del cases["VGG-11, batch norm at its start"], cases["CNN, strides, average pooling"]
    everything = {
        "MLP with biases": biased_mlp(),
        "ResNet-20, flow of shortcuts counted": resnet20(),
        "VGG-11, batch norm with drawn statistics": normed_vgg(),
    } | cases
    for case, (net, x) in everything.items():
        for title, scorer in scorers.items():
            scores = scores_of(scorer, net, x)
            see_units(worst, f"{title}, {case}", net, scores, EXPONENTS[title])
            if case in cases:
                sums = torch.tensor(list(layer_sums(net, scores).values()))
                layers += len(sums)
                worst.see(f"{title}, {case}: sums of layers", sums, sums[0].expand_as(sums))
        if not worst.holds:
            break
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        SCOPE,
        worst.numbers() | {"networks": len(everything), "layer_sums": layers},
        worst.counterexample,
    )


def equal_sums(title: str, network: Network, scope: str, level: Level) -> Outcome:
    """Judge "all layers have the same sum" on one network, for every flow; SynFlow and T_sq if quick."""
    net, x = network()
    spread, shown = {}, {}
    for name, scorer in (FLOWS if level == "full" else QUICK).items():
        sums = layer_sums(net, scores_of(scorer, net, x))
        values = torch.tensor(list(sums.values()), dtype=torch.float64)
        spread[name] = float(values.min() / values.max())
        shown[name] = {layer: float(f"{total:.6g}") for layer, total in sums.items()}
    broken = [name for name, ratio in spread.items() if ratio < 1 - 1e-10]
    text = f"{title}: sums of layers by {broken[0]} {shown[broken[0]]}" if broken else None
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        scope,
        {"smallest_over_largest_sum": spread, "refuted_for": broken},
        text,
    )


@claim(
    "P4.shortcuts",
    subjects={"network": resnet20},
    mutants={"has no shortcuts": {"network": lambda: resnet20(False)}},
)
def equal_sums_with_shortcuts(level: Level, network: Network) -> Outcome:
    """ResNet-20: layers inside branches carry a share of the flow."""
    return equal_sums(
        "ResNet-20 of width 4", network, "one ResNet-20, batch norms at their start", level
    )


@claim(
    "P4.biases",
    subjects={"network": biased_mlp},
    mutants={"has no biases": {"network": lambda: biased_mlp(False)}},
)
def equal_sums_with_biases(level: Level, network: Network) -> Outcome:
    """An MLP with biases: every bias adds its own score to all later layers."""
    return equal_sums("MLP with biases", network, "one MLP", level)


@claim(
    "P4.batch_norm",
    subjects={"network": normed_vgg},
    mutants={"is at its start": {"network": lambda: normed_vgg(False)}},
)
def equal_sums_with_batch_norm(level: Level, network: Network) -> Outcome:
    """VGG-11 with eval-mode batch norm whose means and shifts are not 0."""
    return equal_sums("VGG-11 with drawn statistics", network, "one VGG-11 of width 4", level)


def total_of_biases(net: nn.Module, scores: Params) -> dict[str, tuple[float, float]]:
    """Return per layer its sum of weights, and that of its biases."""
    return {
        layer: (total, float(scores[f"{layer}.bias"].sum()))
        for layer, total in layer_sums(net, scores).items()
    }


@claim(
    "P4.growth",
    subjects=FLOWS,
    mutants={
        "is the saliency of the literal R_PX": {"px": px_bound},
        "is path_edge": {"t_sq": path_edge},
    },
)
def biases_add_up(level: Level, **scorers: Scorer) -> Outcome:
    """Sum of layer l + 1 = sum of layer l + scores of its biases."""
    worst, (net, x) = Worst(), biased_mlp()
    sums: dict[str, list[float]] = {}
    for title, scorer in scorers.items():
        rows = list(total_of_biases(net, scores_of(scorer, net, x)).values())
        sums[title] = [weights for weights, _ in rows]
        for i, (before, after) in enumerate(itertools.pairwise(rows)):
            worst.see(f"{title}, layers {i + 1} and {i + 2}", after[0], sum(before))
            worst.require(f"{title}: a layer has less than the one before", after[0] >= before[0])
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "one MLP with biases, float64",
        worst.numbers() | {"layer_sums": sums},
        worst.counterexample,
    )


# --- S4 ------------------------------------------------------------------------------------------


def signed_sums(
    score: Saliency, net: nn.Module, x: Tensor, form: Form, seed: int = 5
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the signed saliencies' sum per prunable layer, and twice the objective."""
    f = functional(net)
    probes = sample_gaussian({n: f.params[n] for n in f.prunable}, 1, generator=generator(seed))
    found, _ = score(f.model_fn, f.params, None, x, probes, f.prunable, sigma=0.25, form=form)
    twice = 2 * objective(f.model_fn, f.params, None, x, probes, sigma=0.25, form=form).mean()
    return {name: s.sum() for name, s in found.items()}, twice.detach()


@claim("S4.real_networks", subjects={"score": score_of_realization}, mutants=WRONG_SALIENCIES)
def saliencies_add_up(level: Level, score: Saliency) -> Outcome:
    """Networks without biases and shortcuts: every layer. ResNet-20: the layers that all paths cross."""
    worst = Worst()
    cases = plain_networks() | {"ResNet-20": resnet20()}
    for case, (net, x) in cases.items():
        for form in FORMS:
            for seed in range(5, 6 if level == "quick" else 10):
                sums, twice = signed_sums(score, net, x, form, seed)
                kept = sums if case != "ResNet-20" else {
                    name: sums[name] for name in ("conv1.weight", "head.weight")
                }  # fmt: skip
                for name, total in kept.items():
                    worst.see(f"{case}, {form}, {name}", total, twice)
        if not worst.holds:
            break
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        SCOPE + "; both forms, σ = ¼",
        worst.numbers() | {"networks": len(cases)},
        worst.counterexample,
    )


def every_layer_twice(title: str, network: Network) -> Outcome:
    """Judge "the signed saliencies of every layer sum to twice the objective" on one network."""
    net, x = network()
    gaps, text = {}, None
    for form in FORMS:
        sums, twice = signed_sums(score_of_realization, net, x, form)
        ratios = {name: float(total / twice) for name, total in sums.items()}
        gaps[form] = ratios
        off = {n: r for n, r in ratios.items() if not relative_gap(r, 1.0) <= 1e-10}
        if off and text is None:
            shown = ", ".join(f"{n} {r:.4g}" for n, r in off.items())
            text = f"{title}, {form}: sum of a layer over twice the objective: {shown}"
    return Outcome(
        "refuted" if text else "holds",
        "exact-numeric",
        "one network, one draw, both forms",
        {"sum_over_twice_the_objective": gaps},
        text,
    )


@claim(
    "S4.biases",
    subjects={"network": biased_mlp},
    mutants={"has no biases": {"network": lambda: biased_mlp(False)}},
)
def saliencies_with_biases(level: Level, network: Network) -> Outcome:
    """An MLP with biases."""
    return every_layer_twice("MLP with biases", network)


@claim(
    "S4.batch_norm",
    subjects={"network": normed_vgg},
    mutants={"is at its start": {"network": lambda: normed_vgg(False)}},
)
def saliencies_with_batch_norm(level: Level, network: Network) -> Outcome:
    """VGG-11 with eval-mode batch norm whose means and shifts are not 0."""
    return every_layer_twice("VGG-11 with drawn statistics", network)
