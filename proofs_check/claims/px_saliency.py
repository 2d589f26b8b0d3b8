"""P3 and P4: the px saliency, iterated, and its conservation from layer to layer."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.paths.gates import record
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.reference import decompose
from ntktheory.pruning.scorers import px, px_bound, synflow_l2
from proofs_check import strategies
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst
from proofs_check.search import Broken, search

Scorer = Callable[..., Params]
SCOPE = "fixed networks, and MLPs and CNNs drawn by value (bias, stride, padding, pooling, masks)"


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
    return Outcome("refuted" if broken else "holds", "property", SCOPE, evidence, broken)


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
