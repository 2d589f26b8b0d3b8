"""code.prospr, code.force: published code that trains or prunes in steps, written anew.

No scores are recorded from these two: their departures, as read in the code, are judged on the network
of the recorded scores (``code_departures.py``).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.functional import Masks, Params, masked
from ntktheory.pruning import score
from ntktheory.pruning.topk import keep_highest
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.code_departures import (
    DENSITIES,
    DIFFER,
    NAMES,
    Scores,
    by_name,
    common,
    flat,
    network,
    outcome,
)
from proofs_check.compare import Worst, relative_gap
from proofs_check.flows import generator

Batch = tuple[Tensor, Tensor]


def trained_with(detached: Callable[[int], bool]) -> Callable[..., Params]:
    """Return ProsPr by steps of SGD in which some gradients enter their buffer without derivative."""

    def scores(
        net: nn.Module, batches: list[Batch], steps: int, lr: float, momentum: float
    ) -> Params:
        f = functional(net)
        cuts = {name: torch.ones_like(f.params[name], requires_grad=True) for name in NAMES}
        weights = {name: p.clone().requires_grad_() for name, p in f.params.items()}
        weights |= {name: f.params[name] * cut for name, cut in cuts.items()}
        speed: list[Tensor] = []
        for step in range(steps):
            slopes = torch.autograd.grad(
                loss_of(net, weights, batches[step % len(batches)]),
                list(weights.values()),
                create_graph=True,
            )
            if momentum and detached(step):
                slopes = tuple(slope.detach() for slope in slopes)
            old = speed or [torch.zeros_like(slope) for slope in slopes]
            speed = [momentum * v + slope for v, slope in zip(old, slopes, strict=True)]
            moved = [w - lr * v for w, v in zip(weights.values(), speed, strict=True)]
            weights = dict(zip(weights, moved, strict=True))
        last = loss_of(net, weights, batches[steps % len(batches)])
        found = torch.autograd.grad(last, list(cuts.values()))
        return {name: s.abs() for name, s in zip(cuts, found, strict=True)}

    return scores


def loss_of(net: nn.Module, weights: Params, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a network with given parameters."""
    return F.cross_entropy(functional(net).model_fn(weights, batch[0]), batch[1])


def through_two_steps(net: nn.Module, batch: Batch, lr: float, momentum: float) -> Params:
    """Return ``|θ ⊙ (g − η H(w_1) g)|``, g = ∂ℓ(w_2)/∂w: the first step has the derivative 1."""
    start = functional(net).params

    def slope(w: Params) -> Params:
        return torch.func.grad(lambda p: loss_of(net, p, batch))(w)

    first = slope(start)
    one = {name: w - lr * first[name] for name, w in start.items()}
    second = slope(one)
    two = {name: w - lr * (momentum * first[name] + second[name]) for name, w in one.items()}
    last = slope(two)
    through = torch.func.jvp(slope, (one,), (last,))[1]
    return {name: (start[name] * (last[name] - lr * through[name])).abs() for name in NAMES}


@claim(
    "code.prospr",
    subjects={"code": trained_with(lambda step: step == 0), "scorer": by_name("prospr")},
    mutants={
        "detaches nothing": {"code": trained_with(lambda step: False)},
        "detaches every gradient": {"code": trained_with(lambda step: True)},
        "is SNIP": {"scorer": lambda net, batch: score(net, "snip", batch=batch)},
    },
)
def prospr_code(level: Level, code: Callable[..., Params], scorer: Scores) -> Outcome:
    """Without momentum the formula; with it, all but the first step's derivative; other masks."""
    worst, (net, x, y) = Worst(), network()
    one = [(x, y)]
    ours = scorer(net, (x, y))  # 3 steps, η = 0.1, μ = 0
    worst.see_each("no momentum", code(net, one, 3, 0.1, 0.0), ours)
    theirs = code(net, one, 2, 0.5, 0.9)
    worst.see_each("two steps, μ = 0.9", theirs, through_two_steps(net, (x, y), 0.5, 0.9))
    formula = by_name("prospr", steps=2, lr=0.5, momentum=0.9)(net, (x, y))
    half = x.shape[0] // 2
    parts = [(x[:half], y[:half]), (x[half:], y[half:])]
    others = {
        "first_buffer_detached": (theirs, formula),
        "new_batches": (code(net, parts, 3, 0.1, 0.0), code(net, parts[:1], 3, 0.1, 0.0)),
        "batch_norm_in_train_mode": (score(net, "prospr", batch=(x, y), bn="train"), ours),
    }
    shares = {}
    for what, (a, b) in others.items():
        gap = relative_gap(flat(a), flat(b))
        shares[what] = [common(a, b, d) for d in DENSITIES]
        worst.require(f"{what}: scores differ by {gap:.1e}", gap > DIFFER)
        worst.require(f"{what}: other weights are kept: {shares[what]}", min(shares[what]) < 1)
    return outcome(worst, {"densities": DENSITIES, "mask_overlap_without_it": shares})


def keep_ties(scores: Params, count: int) -> Params:
    """Keep every weight whose score is at least the count-th highest, as FORCE's code does."""
    lowest = flat(scores).topk(count).values[-1]
    return {name: s >= lowest for name, s in scores.items()}


def _keep_above_ties(scores: Params, count: int) -> Params:
    lowest = flat(scores).topk(count).values[-1]
    return {name: s > lowest for name, s in scores.items()}


def kept_by(masks: Masks) -> int:
    """Return how many weights masks keep."""
    return sum(int(m.sum()) for m in masks.values())


def saliency(net: nn.Module, batch: Batch, masks: Masks) -> Params:
    """Return ``|θ ∂ℓ/∂w|`` at θ⊙m, dropped weights too."""
    start = functional(net).params
    slopes = torch.func.grad(lambda p: loss_of(net, p, batch))(masked(start, masks))
    return {name: (start[name] * slopes[name]).abs() for name in NAMES}


def masked_by_name(scorer: str) -> Scores:
    """Return a scorer as a function of a network, a batch and masks."""
    return lambda net, batch, masks: score(net, scorer, batch=batch, masks=masks)


@claim(
    "code.force",
    subjects={
        "force": masked_by_name("force"),
        "iter_snip": masked_by_name("iter_snip"),
        "keep": keep_ties,
    },
    mutants={
        "keeps as many as asked": {"keep": keep_highest},
        "keeps none that tie": {"keep": _keep_above_ties},
        "forgets dropped weights": {"force": masked_by_name("iter_snip")},
        "remembers dropped weights": {"iter_snip": masked_by_name("force")},
    },
)
def force_code(
    level: Level, force: Scores, iter_snip: Scores, keep: Callable[[Params, int], Params]
) -> Outcome:
    """Masks are ours without ties; at a tie all are kept, in IterSNIP dropped weights among them."""
    worst, (net, x, y) = Worst(), network()
    g, start = generator(0), functional(net).params
    masks = {name: torch.rand(start[name].shape, generator=g) < 0.7 for name in NAMES}
    expected = saliency(net, (x, y), masks)
    found, nested = force(net, (x, y), masks), iter_snip(net, (x, y), masks)
    worst.see_each("FORCE at θ⊙m", found, expected)
    worst.see_each("IterSNIP at θ⊙m", nested, {n: s * masks[n] for n, s in expected.items()})
    total = sum(m.numel() for m in masks.values())
    for density in DENSITIES:
        count = round(density * total)
        a, b = keep(found, count), keep_highest(found, count)
        same = all(torch.equal(a[name], b[name]) for name in NAMES)
        worst.require(f"no ties, density {density}: the same masks", same)
    dark = x.clone()
    dark[:, 0] = 0.0  # a channel without light: its weights score 0
    zero = force(net, (dark, y), None)
    nonzero = int(flat(zero).count_nonzero())
    tied, returned = kept_by(keep(zero, nonzero + 1)), keep(nested, kept_by(masks) + 1)
    worst.require(f"{nonzero} scores above 0: {tied} kept of {nonzero + 1} asked", tied == total)
    back = sum(int((returned[name] & ~masks[name]).sum()) for name in NAMES)
    worst.require(f"IterSNIP: {back} dropped weights return at a tie", back > 1)
    modes = {bn: score(net, "force", batch=(x, y), bn=bn) for bn in ("eval", "train")}
    shares = [common(modes["eval"], modes["train"], d) for d in DENSITIES]
    worst.require(f"batch-norm modes keep different weights: {shares}", min(shares) < 1)
    return outcome(
        worst,
        {
            "weights": total,
            "asked_for_at_a_tie": nonzero + 1,
            "kept_at_a_tie": tied,
            "densities": DENSITIES,
            "mask_overlap_of_batch_norm_modes": shares,
        },
    )
