"""code.*: where published code departs from its formula, and what that changes.

The scores recorded from the authors' code are those of one network with batch norms
(``published_code.py``, where PX's code is). Every claim reproduces them, and says what the formula
gives.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory.estimators.ntk_sap_draws import Draw
from ntktheory.functional import Params
from ntktheory.models import mlp
from ntktheory.pruning import score
from ntktheory.pruning.scorers.ntk_sap import ntk_sap
from ntktheory.pruning.topk import keep_highest
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.published_code import GOLDEN, recorded
from proofs_check.compare import Worst, relative_gap
from proofs_check.flows import DOUBLE, generator

Scores = Callable[..., Params]
NAMES = ("c1.weight", "c2.weight", "sc.weight", "head.weight")
SCOPE = "the network and the scores recorded from the authors' code, and variations of it; float64"
DIFFER = 1e-3
DENSITIES = (0.02, 0.1, 0.3, 0.7)


def arrays(prefix: str) -> dict[str, Tensor]:
    """Return the recorded arrays under a prefix."""
    with np.load(GOLDEN) as file:
        keys = [key for key in file if key.startswith(prefix)]
        return {key.removeprefix(prefix): torch.as_tensor(file[key]) for key in keys}


def published(code: str) -> Params:
    """Return the scores that one published code gave."""
    found = arrays(f"score/{code}/")
    return {name: found[name] for name in NAMES}


def network(running_means: float | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the recorded network, inputs and labels; all running means replaced if so asked."""
    net, x, _ = recorded()
    if running_means is not None:
        for norm in (net.get_submodule("n1"), net.get_submodule("n2")):
            norm.get_buffer("running_mean").fill_(running_means)
    return net, x, arrays("")["y"]


def flat(scores: Params) -> Tensor:
    """Return all scores as one vector."""
    return torch.cat([scores[name].flatten() for name in NAMES])


def outcome(worst: Worst, evidence: dict[str, Any]) -> Outcome:
    """Return the verdict on what was compared."""
    status = "holds" if worst.holds else "refuted"
    numbers = worst.numbers() | evidence
    return Outcome(status, "exact-numeric", SCOPE, numbers, worst.counterexample)  # type: ignore[arg-type]


def by_name(scorer: str, **options: Any) -> Scores:
    """Return a scorer as a function of a network and a batch."""
    return lambda net, batch: score(net, scorer, batch=batch, **options)


@claim(
    "code.synflow",
    subjects={"repo": by_name("synflow_repo")},
    mutants={
        "leaves running means as they are": {"repo": by_name("synflow")},
        "squares every entry": {"repo": by_name("synflow_l2_repo")},
    },
)
def synflow_code(level: Level, repo: Scores) -> Outcome:
    """Equal without negative running means; with them, recorded scores and others than the formula's."""
    worst, formula = Worst(), by_name("synflow")
    net, x, _ = network()
    theirs = repo(net, x)
    worst.see_each("recorded", theirs, published("synflow"))
    gap = relative_gap(flat(theirs), flat(formula(net, x)))
    worst.require(f"negative running means: formula and code differ by {gap:.1e}", gap > DIFFER)
    gaps = {}
    for mean in (0.0, 0.7, -0.7):
        net, x, _ = network(mean)
        gaps[mean] = relative_gap(flat(repo(net, x)), flat(formula(net, x)))
    worst.require(f"running means 0 and 0.7: differ by {gaps}", max(gaps[0.0], gaps[0.7]) == 0)
    worst.require(f"running means −0.7: differ by {gaps[-0.7]:.1e}", gaps[-0.7] > DIFFER)
    plain = mlp([4, 5, 3], generator=generator(0), dtype=DOUBLE)
    ones = torch.ones(1, 4, dtype=DOUBLE)
    worst.see_each("without batch norm", repo(plain, ones), formula(plain, ones))
    return outcome(worst, {"recorded_network": gap, "by_running_mean": gaps})


@claim(
    "code.synflow_l2",
    subjects={"repo": by_name("synflow_l2_repo")},
    mutants={
        "multiplies by θ²": {"repo": by_name("synflow_l2")},
        "leaves running statistics as they are": {"repo": by_name("synflow_l2", power=1)},
    },
)
def synflow_l2_code(level: Level, repo: Scores) -> Outcome:
    """One power of |θ|; recorded scores; another mask than with θ², also without batch norm."""
    worst = Worst()
    net, x, _ = network()
    worst.see_each("recorded", repo(net, x), published("synflow_l2_px_repo"))
    plain = mlp([12, 16, 16, 5], generator=generator(0), dtype=DOUBLE)
    ones = torch.ones(1, 12, dtype=DOUBLE)
    theirs, squares = repo(plain, ones), by_name("synflow_l2")(plain, ones)
    weights = dict(plain.named_parameters())
    for name, s in theirs.items():
        worst.see(f"{name}: |θ| times the score", s * weights[name].detach().abs(), squares[name])
    worst.see_each("power 1", theirs, by_name("synflow_l2", power=1)(plain, ones))
    shares = [common(theirs, squares, d) for d in DENSITIES]
    worst.require(f"masks differ: {shares}", min(shares) < 1)
    gap = relative_gap(flat(repo(net, x)), flat(by_name("synflow_l2", power=1)(net, x)))
    worst.require(f"with batch norm its statistics are squared too: {gap:.1e}", gap > DIFFER)
    return outcome(worst, {"densities": DENSITIES, "mask_overlap_with_the_formula": shares})


def common(a: Params, b: Params, density: float) -> float:
    """Return the overlap of two scores' masks, of any network."""
    count = round(density * sum(s.numel() for s in a.values()))
    first, second = keep_highest(a, count), keep_highest(b, count)
    return sum(int((first[n] & second[n]).sum()) for n in first) / count


def divided(scores: Params, by: float) -> Params:
    """Return scores divided by a number."""
    return {name: s / by for name, s in scores.items()}


def by_sum(scores: Params) -> Params:
    """Divide by the sum over all weights, as SNIP's code does."""
    return divided(scores, float(flat(scores).sum()))


def by_size_of_sum(scores: Params) -> Params:
    """Divide by the size of the sum over all weights, as GraSP's code does."""
    return divided(scores, float(flat(scores).sum().abs()) + 1e-10)


def _by_layer(scores: Params) -> Params:
    return {name: s / s.abs().sum() for name, s in scores.items()}


def _with_sign_of_sum(scores: Params) -> Params:
    return divided(scores, -float(flat(scores).sum().abs()) - 1e-10)


def same_masks(worst: Worst, title: str, a: Params, b: Params) -> None:
    """Require that two scores keep the same weights at every density."""
    for density in DENSITIES:
        share = common(a, b, density)
        worst.require(f"{title}, density {density}: masks share {share:.3f}", share == 1)


@claim(
    "code.snip",
    subjects={"scorer": by_name("snip"), "normalise": by_sum},
    mutants={
        "is normalised by layer": {"normalise": _by_layer},
        "is magnitude": {"scorer": by_name("magnitude")},
    },
)
def snip_code(level: Level, scorer: Scores, normalise: Callable[[Params], Params]) -> Outcome:
    """Both batch-norm modes reproduce the recorded scores; dividing keeps masks, modes do not."""
    worst, (net, x, y) = Worst(), network()
    found = {"eval": scorer(net, (x, y)), "train": score(net, "snip", batch=(x, y), bn="train")}
    for mode, ours in found.items():
        worst.see_each(f"recorded, {mode} mode", normalise(ours), published(f"snip_bn_{mode}"))
        same_masks(worst, f"{mode} mode", normalise(ours), ours)
    shares = [common(found["eval"], found["train"], d) for d in DENSITIES]
    worst.require(f"batch-norm modes keep different weights: {shares}", min(shares) < 1)
    return outcome(worst, {"densities": DENSITIES, "mask_overlap_of_batch_norm_modes": shares})


@claim(
    "code.grasp",
    subjects={"scorer": by_name("grasp"), "normalise": by_size_of_sum},
    mutants={
        "keeps the smallest": {"normalise": _with_sign_of_sum},
        "has temperature 1": {"scorer": by_name("grasp", temperature=1.0)},
        "is normalised by layer": {"normalise": _by_layer},
    },
)
def grasp_code(level: Level, scorer: Scores, normalise: Callable[[Params], Params]) -> Outcome:
    """Recorded in both modes; the divisor keeps masks, modes and the temperature do not."""
    worst, (net, x, y) = Worst(), network()
    ours = scorer(net, (x, y))
    found = {"eval": ours, "train": score(net, "grasp", batch=(x, y), bn="train")}
    for mode, scores in found.items():
        worst.see_each(f"recorded, {mode} mode", normalise(scores), published(f"grasp_bn_{mode}"))
        same_masks(worst, f"divided, {mode} mode", normalise(scores), scores)
    modes = [common(found["eval"], found["train"], d) for d in DENSITIES]
    worst.require(f"batch-norm modes keep different weights: {modes}", min(modes) < 1)
    at = {t: by_name("grasp", temperature=t)(net, (x, y)) for t in (1.0, 1e4)}
    shares = {t: [common(ours, s, d) for d in DENSITIES] for t, s in at.items()}
    worst.require(f"temperature 1 keeps other weights: {shares[1.0]}", min(shares[1.0]) < 1)
    return outcome(
        worst,
        {
            "densities": DENSITIES,
            "mask_overlap_of_batch_norm_modes": modes,
            "mask_overlap_with_temperature_200": shares,
        },
    )


def perturbed_with_own_affine(net: nn.Module, draws: list[Draw]) -> Params:
    """Return NTK-SAP's score as published: the perturbed copy keeps the network's scale and shift."""
    return ntk_sap(net, draws=draws, form="finite_difference", bn="official")


def perturbed_with_drawn_affine(net: nn.Module, draws: list[Draw]) -> Params:
    """Return NTK-SAP's score with the scale and shift of the draw, 1 and 0, in both networks."""
    return perturbed_with_own_affine(with_fresh_affine(net), draws)


def with_fresh_affine(net: nn.Module) -> nn.Module:
    """Return a copy whose batch norms have scale 1 and shift 0."""
    fresh = copy.deepcopy(net)
    with torch.no_grad():
        for norm in (m for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    return fresh


def recorded_draws() -> list[Draw]:
    """Return the two recorded realisations."""
    draws = []
    for r in (0, 1):
        noise = arrays(f"ntk_sap/{r}/unit_noise/")
        x = arrays(f"ntk_sap/{r}/")["x"]
        probes = {name: t[None] for name, t in noise.items()}
        draws.append(Draw(arrays(f"ntk_sap/{r}/param/"), x, probes))
    return draws


@claim(
    "code.ntk_sap",
    subjects={"code": perturbed_with_own_affine},
    mutants={
        "perturbs about the drawn scale and shift": {"code": perturbed_with_drawn_affine},
        "has the model's running statistics": {
            "code": lambda net, draws: ntk_sap(net, draws=draws, form="finite_difference")
        },
    },
)
def ntk_sap_code(level: Level, code: Callable[..., Params]) -> Outcome:
    """Recorded scores need the stale scale and shift; a network at its start has none."""
    worst, (net, _, _) = Worst(), network()
    draws, expected = recorded_draws(), published("ntk_sap")
    found = code(net, draws)
    worst.see_each("recorded", found, expected)
    clean = perturbed_with_drawn_affine(net, draws)
    gap = relative_gap(flat(clean), flat(expected))
    worst.require(f"without the stale entries the scores differ by {gap:.2g}", gap > DIFFER)
    fresh = with_fresh_affine(net)
    worst.see_each("network at its start", code(fresh, draws), clean)
    size = float(flat(expected).max() / flat(clean).max())
    shares = [common(clean, expected, d) for d in DENSITIES]
    return outcome(
        worst,
        {
            "largest_score_over_that_without": size,
            "densities": DENSITIES,
            "mask_overlap_with_the_formula": shares,
        },
    )
