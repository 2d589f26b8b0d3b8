"""What does not change a scorer's ranking: the data of px, scales of hidden units, inputs and losses."""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.functional import Masks, Params
from ntktheory.models import mlp
from ntktheory.pruning import score
from ntktheory.pruning.scorers import path_edge, px, synflow_l2, t_sq
from proofs_check import strategies
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.collapse import chain, ones
from proofs_check.compare import Worst
from proofs_check.flows import (
    DOUBLE,
    Scorer,
    biased_mlp,
    generator,
    images,
    normed_vgg,
    plain_networks,
    resnet20,
)
from proofs_check.search import Broken, search

SAME, OTHER = 1e-10, 1e-3
"""Largest relative difference of scores that are the same, and least one of scores that differ."""


# --- px and SynFlow-L2 -----------------------------------------------------------------------------


def spread_of_ratios(a: Params, b: Params) -> float:
    """Return ``max/min − 1`` of the ratios a/b, entry by entry; inf if one alone is 0."""
    left = torch.cat([a[name].flatten() for name in b])
    right = torch.cat([b[name].flatten() for name in b])
    if not torch.equal(left == 0, right == 0):
        return float("inf")
    ratio = left[right != 0] / right[right != 0]
    return float(ratio.max() / ratio.min() - 1) if len(ratio) else 0.0


@claim(
    "P3.ranking",
    subjects={"saliency": px},
    mutants={"is T_sq": {"saliency": t_sq}, "is path_edge": {"saliency": path_edge}},
)
def px_ranks_like_synflow_l2(level: Level, saliency: Scorer) -> Outcome:
    """A dense head: px is one number times SynFlow-L2, entry by entry, whatever the data."""
    widest = 0.0

    def compare(title: str, net: nn.Module, x: Tensor, masks: Masks | None) -> None:
        nonlocal widest
        f = functional(net)
        ours = saliency(f.model_fn, f.params, masks, x)
        if not any(bool(s.any()) for s in ours.values()):
            return  # no data reach the head: px is 0
        spread = spread_of_ratios(ours, synflow_l2(f.model_fn, f.params, masks, x))
        widest = max(widest, spread)
        if not spread <= SAME:
            raise Broken(f"{title}: ratios of px and SynFlow-L2 spread by {spread:.3g}")

    def drawn(case: strategies.Case) -> None:
        names = [name for name, _ in case.model.named_parameters()]
        head = str(len(case.model) - 1)
        dense = {n: m for n, m in (case.masks or {}).items() if n.split(".")[0] != head}
        compare(f"{names}\n{case}", case.model, case.x, dense or None)

    broken = None
    nets = plain_networks(level == "full") | {"MLP with biases": biased_mlp()}
    if level == "full":
        nets |= {"VGG-11, drawn statistics": normed_vgg(), "ResNet-20": resnet20()}
    try:
        for title, (net, x) in nets.items():
            compare(title, net, x, None)
    except Broken as error:
        broken = str(error)
    examples = 0
    if broken is None:
        found = search(strategies.networks(), drawn, 8 if level == "quick" else 300)
        examples, broken = found.examples, found.counterexample
    return Outcome(
        "refuted" if broken else "holds",
        "property",
        "MLP, CNN, VGG-11; MLPs and CNNs drawn by value with biases and masks, the head dense",
        {"networks": len(nets), "examples": examples, "widest_spread_of_ratios": widest},
        broken,
    )


def pruned_head() -> Masks:
    """Return a mask of the 1-2-2 net's head."""
    return {"2.weight": torch.tensor([[True, True], [False, True]])}


@claim(
    "P3.pruned_head",
    subjects={"masks": pruned_head},
    mutants={"is a dense head": {"masks": lambda: None}},
)
def px_ranks_otherwise_with_a_pruned_head(level: Level, masks: Callable[[], Any]) -> Outcome:
    """The 1-2-2 net (1, 1), [[3, 3], [2, 4]] at x = 1, head entry (2, 1) pruned."""
    f, kept = functional(chain([[1], [1]], [[3, 3], [2, 4]])), masks()
    ours = px(f.model_fn, f.params, kept, ones(1))["2.weight"]
    theirs = synflow_l2(f.model_fn, f.params, kept, ones(1))["2.weight"]
    swapped = bool(ours[0, 0] > ours[1, 1]) != bool(theirs[0, 0] > theirs[1, 1])
    return Outcome(
        "refuted" if swapped else "holds",
        "exact-numeric",
        "one network",
        {"px": ours, "synflow_l2": theirs},
        f"1-2-2 net, W₁ = (1, 1), W₂ = [[3, 3], [–, 4]], x = 1: two active paths end at the first "
        f"output, one at the second. Scores of W₂: px {ours.tolist()}, SynFlow-L2 {theirs.tolist()}: "
        "the entries 3 and 4 change places"
        if swapped
        else None,
    )


# --- rescaling -------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A scorer, and whether its scores stay (hidden units) or stay proportional (inputs, loss)."""

    scorer: str
    hidden: bool
    inputs: bool
    loss: bool
    options: Mapping[str, Any] = MappingProxyType({})


TABLE: dict[str, Entry] = {
    "random": Entry("random", True, True, True),
    "erk_random": Entry("erk_random", True, True, True),
    "magnitude": Entry("magnitude", False, True, True),
    "snip": Entry("snip", True, False, True),
    "iter_snip": Entry("iter_snip", True, False, True),
    "force": Entry("force", True, False, True),
    "grasp": Entry("grasp", False, False, True),
    "prospr": Entry("prospr", False, False, False),
    "phew": Entry("phew", False, True, True),
    "synflow": Entry("synflow", True, True, True),
    "synflow_repo": Entry("synflow_repo", True, True, True),
    "synflow_l2": Entry("synflow_l2", True, True, True),
    "synflow_l2, power 1": Entry("synflow_l2", False, True, True, {"power": 1}),
    "synflow_l2_repo": Entry("synflow_l2_repo", False, True, True),
    "ntk_sap": Entry("ntk_sap", True, True, True),
    "ntk_sap, own weights": Entry("ntk_sap", False, True, True, {"weights": "fixed"}),
    "px": Entry("px", True, True, True),
    "px_bound": Entry("px_bound", False, True, True),
    "px_repo": Entry("px_repo", True, True, True),
    "path_edge": Entry("path_edge", True, True, True),
    "t_sq": Entry("t_sq", True, True, True),
    "ntk_trace": Entry("ntk_trace", True, True, True),
    "ntk_trace_saliency": Entry("ntk_trace_saliency", False, True, True),
}
CHANGES = ("hidden", "inputs", "loss")


def rescaled(net: nn.Sequential, seed: int = 6) -> nn.Sequential:
    """Return the same function: each hidden unit's incoming weights times a, its outgoing ones by a."""
    g = generator(seed)
    other = mlp([12, 16, 16, 16, 5], generator=g, dtype=DOUBLE)
    other.load_state_dict(net.state_dict())
    layers = [m for m in other if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for before, after in itertools.pairwise(layers):
            a = 2 ** (2 * torch.rand(len(before.weight), generator=g, dtype=DOUBLE) - 1)
            before.weight.mul_(a[:, None])
            after.weight.div_(a)
    return other


def tripled(outputs: Tensor, y: Tensor) -> Tensor:
    """Return three times the mean cross-entropy."""
    return 3 * F.cross_entropy(outputs, y)


def changes(entry: Entry, score_: Callable[..., Params]) -> dict[str, float]:
    """Return the largest relative difference that each change makes to an MLP's scores."""
    x, y = images(3, 2), torch.tensor([0, 1, 2])

    def scores(model: nn.Module, x: Tensor, loss: Any = F.cross_entropy) -> Tensor:
        options = dict(entry.options)
        if entry.scorer == "ntk_sap":
            options |= {"samples": 3, "realizations": 2}
        batch, g = (x, y), generator(8)
        found = score_(model, entry.scorer, batch=batch, loss_fn=loss, generator=g, **options)
        return torch.cat([s.flatten() for s in found.values()])

    base = scores(plain(), x)
    unit = base / base.abs().max()
    other = {"inputs": scores(plain(), 2 * x), "loss": scores(plain(), x, tripled)}
    gaps = {name: float((s / s.abs().max() - unit).abs().max()) for name, s in other.items()}
    moved = scores(rescaled(plain()), x)
    return {"hidden": float((moved - base).abs().max() / base.abs().max())} | gaps


def plain() -> nn.Sequential:
    """Return a bias-free MLP with fixed weights."""
    return mlp([12, 16, 16, 16, 5], generator=generator(1), dtype=DOUBLE)


def _instead(of: str, other: str, **options: Any) -> Callable[..., Params]:
    """Return ``score`` with one scorer in another's place."""

    def mutant(model: nn.Module, scorer: str, **given: Any) -> Params:
        if scorer != of:
            return score(model, scorer, **given)
        return score(model, other, **{**given, **options})

    return mutant


@claim(
    "P4.rescaling",
    subjects={"scores": score},
    mutants={
        "snip is magnitude": {"scores": _instead("snip", "magnitude")},
        "synflow_l2 is its first power": {"scores": _instead("synflow_l2", "synflow_l2", power=1)},
        "px is px_bound": {"scores": _instead("px", "px_bound")},
        "magnitude is SynFlow": {"scores": _instead("magnitude", "synflow")},
        "grasp is snip": {"scores": _instead("grasp", "snip")},
        "synflow looks at the loss": {"scores": _instead("synflow", "prospr")},
    },
)
def what_scales_change(level: Level, scores: Callable[..., Params]) -> Outcome:
    """Every scorer: rescaled hidden units, doubled inputs, a tripled loss; a table."""
    worst, table = Worst(), {}
    for title, entry in TABLE.items():
        gaps = changes(entry, scores)
        table[title] = gaps
        for name in CHANGES:
            expected = getattr(entry, name)
            holds = gaps[name] <= SAME if expected else gaps[name] >= OTHER
            word = "is expected to change nothing" if expected else "is expected to change scores"
            worst.require(f"{title}: {name} {word}, difference {gaps[name]:.2e}", holds)
        if not worst.holds:
            break
    numbers = {"comparisons": worst.compared, "relative_difference": table}
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "one bias-free MLP with three hidden layers, three samples, float64",
        numbers,
        worst.counterexample,
    )
