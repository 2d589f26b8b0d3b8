"""P3.*: which scorers, iterated, never empty a layer, and in how large rounds.

Let a score be a *flow* (``flows.py``): S ≥ 0 with the same sum T > 0 in each of L layers. A layer of k
weights has one with S ≥ T/k; of every other layer at most k weights have that. So the layer is not
emptied while more than (L − 1) k weights are kept, whatever the ties; and a round that empties it
removes its k weights. Hence *a round that removes fewer than kept/(L − 1) weights empties no layer*.

``path_edge`` is no flow: ``S_j = A(j) B(j)``, A and B sums of non-negative terms over the paths through
j, so that A and B have the same sums in all layers. The last weight of a layer has all of both; of two
weights in another layer one has less. So one weight at a time is safe; nothing is said of larger rounds.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.functional import FunctionalModel, Masks, ModelFn, Params
from ntktheory.pruning import score
from ntktheory.pruning.scorers import path_edge, px, px_bound, synflow_l2, t_sq
from ntktheory.pruning.topk import keep_highest
from proofs_check import strategies
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.px_saliency import iterate, with_weights
from proofs_check.claims.real_networks import first_power
from proofs_check.flows import FLOWS, Scorer
from proofs_check.search import Broken, search

Rule = Callable[[int, int], int]


def chain(*weights: Any) -> nn.Sequential:
    """Return a bias-free ReLU net with these weight matrices, in float64."""
    matrices = [torch.tensor(w, dtype=torch.float64) for w in weights]
    net = nn.Sequential()
    for i, w in enumerate(matrices):
        net.append(nn.Linear(w.shape[1], w.shape[0], bias=False))
        if i + 1 < len(matrices):
            net.append(nn.ReLU())
    return with_weights(net, *matrices)


def ones(count: int) -> Tensor:
    """Return one sample of ones."""
    return torch.ones(1, count, dtype=torch.float64)


# --- rounds of many weights ------------------------------------------------------------------------


def steepest(kept: int, layers: int) -> int:
    """Return how few weights a round may leave: the least K with ``kept − K < K/(L − 1)``."""
    return kept * (layers - 1) // layers + 1


def _one_more(kept: int, layers: int) -> int:
    return kept * (layers - 1) // layers


def emptied_in_rounds(
    scorer: Scorer, case: strategies.Case, rule: Rule, most: int = 1000
) -> tuple[str | None, int]:
    """Prune by a rule to one weight per layer, until all scores vanish, or for so many rounds.

    Returns:
        What a round did that emptied a layer, or None; and the number of rounds.
    """
    f = functional(case.model)
    masks: Masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in f.params.items()}
    rounds = 0
    while rounds < most and (kept := sum(int(m.sum()) for m in masks.values())) > len(masks):
        scores = scorer(f.model_fn, f.params, masks, case.x)
        if not any(bool((s > 0).any()) for s in scores.values()):
            break
        count = max(len(masks), rule(kept, len(masks)))
        left = {n: s.masked_fill(~masks[n], -float("inf")) for n, s in scores.items()}
        masks, rounds = keep_highest(left, count), rounds + 1
        empty = [name for name, m in masks.items() if not m.any()]
        if empty:
            shown = {n: s.tolist() for n, s in scores.items()}
            return f"{kept} → {count} weights empty layer {empty[0]}; scores {shown}", rounds
    return None, rounds


def _equal_halves() -> strategies.Case:
    """Return the 1-4-1 net of ones: eight equal scores, four of them kept are those of one layer."""
    return strategies.Case(chain([[1]] * 4, [[1] * 4]), ones(1), None, "1-4-1, all weights 1")


def bottleneck(weight: float) -> strategies.Case:
    """Return the 1-1-2 net with weights w and (1, 1), at x = 1."""
    return strategies.Case(chain([[weight]], [[1], [1]]), ones(1), None, f"1-1-2, {weight}, (1, 1)")


@claim(
    "P3.rounds",
    subjects={**FLOWS, "rule": steepest},
    mutants={
        "removes one weight more": {"rule": _one_more},
        "is the saliency of the literal R_PX": {"px": px_bound},
        "is SynFlow-L2 to the first power": {"synflow_l2": first_power(synflow_l2)},
        "is path_edge": {"t_sq": path_edge},
    },
)
def rounds_of_many(level: Level, rule: Rule, **scorers: Scorer) -> Outcome:
    """Flows, pruned in the steepest rounds that the counting allows, on nets drawn by value."""
    rounds = [0]

    def check(case: strategies.Case) -> None:
        for title, scorer in scorers.items():
            text, count = emptied_in_rounds(scorer, case, rule)
            rounds[0] += count
            if text is not None:
                raise Broken(f"{title}: {text}\n{case}")

    fixed = [_equal_halves(), bottleneck(0.1), bottleneck(10), misaligned(9)]
    nets = strategies.mlps(max_width=3, bias=False, min_depth=2)
    found = search(nets, check, 3 if level == "quick" else 300, fixed)
    return Outcome(
        "refuted" if found.counterexample else "holds",
        "property",
        "bias-free MLPs of 2 to 4 weight layers, drawn by value and fixed; the proof is by counting",
        {"examples": found.examples, "rounds": rounds[0], "depths_at_100_rounds": deepest()},
        found.counterexample,
    )


def deepest(rounds: int = 100) -> dict[str, int]:
    """Return for how many layers L so many exponential rounds are enough: ``d^(1/T) > (L − 1)/L``."""
    enough = lambda d, layers: d ** (1 / rounds) > (layers - 1) / layers  # noqa: E731
    return {
        f"density {d:g}": max(n for n in range(1, 1000) if enough(d, n)) for d in (0.1, 1e-2, 1e-3)
    }


# --- path_edge -------------------------------------------------------------------------------------


def misaligned(n: int) -> strategies.Case:
    """Return an n-1-2-1 net whose middle layer has active paths in one weight, size in the other.

    ``A B`` is 1 + n⁴ for each of the n first weights, n² for the weights of one hidden unit, 0 for those
    of the other, which is off.
    """
    return strategies.Case(chain([[1] * n], [[1], [-n]], [[1, n]]), ones(n), None, f"{n}-1-2-1")


def all_scorers(
    scorer: Scorer, cases: list[strategies.Case], level: Level
) -> tuple[int, str | None]:
    """Remove one weight at a time, on fixed nets and nets drawn by value; return what broke."""

    def check(case: strategies.Case) -> None:
        removal = iterate(scorer, case.model, case.x)
        if removal.emptied is not None and removal.alive:
            raise Broken(f"{removal.emptied} is emptied; scores {removal.history[-1]}\n{case}")

    nets = strategies.mlps(max_width=3, max_depth=4, bias=False, min_depth=2)
    found = search(nets, check, 10 if level == "quick" else 600, cases)
    return found.examples, found.counterexample


def _edge_to_the_first_power(*args: Any) -> Params:
    return first_power(path_edge)(*args)


@claim(
    "P3.path_edge",
    subjects={"saliency": path_edge},
    mutants={
        "multiplies by |θ| once only": {"saliency": _edge_to_the_first_power},
        "is the saliency of the literal R_PX": {"saliency": px_bound},
    },
)
def path_edge_one_at_a_time(level: Level, saliency: Scorer) -> Outcome:
    """Remove the lowest weight, score again: no layer is emptied while the scores do not all vanish."""
    fixed = [bottleneck(0.1), bottleneck(10), misaligned(3)]
    examples, broken = all_scorers(saliency, fixed, level)
    return Outcome(
        "refuted" if broken else "holds",
        "property",
        "bias-free MLPs of 2 to 4 weight layers, drawn by value; the proof is by paths",
        {"examples": examples},
        broken,
    )


@claim(
    "P3.path_edge_rounds",
    subjects={"saliency": path_edge},
    mutants={"is T_sq": {"saliency": t_sq}, "is SynFlow-L2": {"saliency": FLOWS["synflow_l2"]}},
)
def path_edge_in_rounds(level: Level, saliency: Scorer) -> Outcome:
    """n-1-2-1 nets: removing 3 of n + 4 weights empties a layer, however large n."""
    kept: dict[int, float] = {}
    text = None
    for n in (9, 40, 400):
        found, _ = emptied_in_rounds(saliency, misaligned(n), lambda k, layers: k - 3, 1)
        if found is None:
            continue
        kept[n] = (n + 1) / (n + 4)
        text = text or f"W₁ = ones(1, {n}), W₂ = (1, −{n}), W₃ = (1, {n}), x = 1: {found}"
    broken = len(kept) == 3
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        "n-1-2-1 nets, n = 9, 40, 400",
        {"emptied_though_a_round_kept_this_share": kept, "share_enough_for_flows": 2 / 3},
        text if broken else None,
    )


# --- flows that stop, and scores that are none -------------------------------------------------------


@claim(
    "P3.gates",
    subjects={"saliency": t_sq},
    mutants={name: {"saliency": FLOWS[name]} for name in ("synflow", "synflow_l2")},
)
def gates_can_close(level: Level, saliency: Scorer) -> Outcome:
    """The 3-1-1 net (2, 2, −3), 1 at x = (1, 1, 1): T_sq removes a 2, and the unit is off."""
    removal = iterate(saliency, chain([[2, 2, -3]], [[1]]), ones(3))
    dead = not removal.alive
    text = (
        "3-1-1 net, W₁ = (2, 2, −3), W₂ = 1, x = (1, 1, 1). Scores of round 1: "
        f"{removal.history[0]}. A weight 2 goes first; the pre-activation is then 2 − 3 < 0, the only "
        f"gate closes and all scores are 0: {removal.history[1]}. From there on ties decide."
    )
    return Outcome(
        "refuted" if dead else "holds",
        "exact-numeric",
        "one network",
        {"rounds": len(removal.history), "alive_in_the_last": removal.alive},
        text if dead else None,
    )


def named(scorer: str, y: float, **options: Any) -> Scorer:
    """Return a scorer as a function of the network and x, with the loss (f − y)²/2."""

    def scores(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
        net = FunctionalModel(model_fn, params, prunable=tuple(params))
        target = torch.full((1, 1), y, dtype=x.dtype)
        given: Any = {"batch": (x, target), "loss_fn": half_square, "masks": masks}
        return score(net, scorer, **given, **options)

    return scores


def half_square(outputs: Tensor, y: Tensor) -> Tensor:
    """Return ``Σ (f − y)²/2``."""
    return (outputs - y).square().sum() / 2


def one_draw(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return NTK-SAP's score for the network's own weights and Δ = (1, 1; −1)."""
    delta = {"0.weight": torch.tensor([[[1.0, 1.0]]]), "2.weight": torch.tensor([[[-1.0]]])}
    probes = {name: d.to(x.dtype) for name, d in delta.items()}
    return named("ntk_sap", 0, draws=[(params, x, probes)])(model_fn, params, masks, x)


UNSAFE: dict[str, tuple[Any, Scorer]] = {
    "magnitude": ([[3, -2]], named("magnitude", 0)),
    "snip": ([[3, -2]], named("snip", 0)),
    "iter_snip": ([[3, -2]], named("iter_snip", 0)),
    "force": ([[3, -2]], named("force", 0)),
    "grasp": ([[1, 2]], named("grasp", 10)),
    "prospr": ([[1, 2]], named("prospr", 0)),
    "ntk_sap": ([[3, -2]], one_draw),
    "ntk_trace": ([[3, -2]], named("ntk_trace", 0)),
    "ntk_trace_saliency": ([[6, -5]], named("ntk_trace_saliency", 0)),
}


@claim(
    "P3.unsafe",
    subjects={name: scorer for name, (_, scorer) in UNSAFE.items()},
    mutants={f"{name} is px": {name: px} for name in ("magnitude", "snip", "grasp", "ntk_trace")},
)
def cancellation_hides_bottlenecks(level: Level, **scorers: Scorer) -> Outcome:
    """2-1-1 nets at x = (1, 1): the second layer's one weight has the lowest score, and goes first."""
    first: dict[str, Any] = {}
    for title, scorer in scorers.items():
        removal = iterate(scorer, chain(UNSAFE[title][0], [[1]]), ones(2))
        if removal.emptied == "2.weight" and len(removal.history) == 1:
            first[title] = [removal.history[0][n] for n in ("0.weight", "2.weight")]
    broken = len(first) == len(scorers)
    text = "; ".join(f"{name} {scores}" for name, scores in first.items())
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        "one 2-1-1 net for each scorer; the loss is (f − y)²/2",
        {"scores_of_both_layers": first},
        f"2-1-1 nets, W₁ = (3, −2), (1, 2) or (6, −5), W₂ = 1, x = (1, 1): {text}"
        if broken
        else None,
    )


@claim(
    "P3.first_power",
    subjects={"saliency": named("synflow_l2_repo", 0)},
    mutants={"is SynFlow-L2": {"saliency": FLOWS["synflow_l2"]}},
)
def first_power_empties(level: Level, saliency: Scorer) -> Outcome:
    """The 1-1-2 net 10, (1, 1): |θ| ∂z₂/∂θ² is 20 for the bottleneck and 100 for the others."""
    case = bottleneck(10)
    removal = iterate(saliency, case.model, case.x)
    broken = removal.emptied is not None and removal.alive
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        "one network",
        {"scores": removal.history[0], "emptied_layer": removal.emptied},
        f"1-1-2 net, θ = (10, 1, 1): scores {removal.history[0]}" if broken else None,
    )
