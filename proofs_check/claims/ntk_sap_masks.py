"""S7: do NTK-SAP's masks agree across weights, noise and images, and in more than layer sizes?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ntktheory import Verdict, check_same_distribution, functional
from ntktheory.data import digits
from ntktheory.estimators.ntk_sap import FORMS, Form
from ntktheory.estimators.ntk_sap_draws import kaiming_normal
from ntktheory.estimators.ntk_sap_score import score_of_realization
from ntktheory.estimators.stability import kept_count
from ntktheory.functional import FunctionalModel, Params
from ntktheory.models import convnet, mlp
from ntktheory.probes import sample_gaussian
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst

Score = Callable[..., tuple[Params, Tensor]]
Runs = dict[str, Tensor]  # kind of run -> scores [pairs, R, P]
DELTA = 1e-9
DENSITY, SAMPLES, SIGMA = 0.2, 16, 0.01
OPTIONS: dict[str, Any] = {"dtype": torch.float64}
COMPARED = {
    "other weights": ("new weights", "new weights, again"),
    "other noise": ("fixed weights", "fixed weights, again"),
    "images for noise": ("fixed weights", "fixed weights, images"),
}


@dataclass(frozen=True)
class Setting:
    """A network, the form of the score, the number of pairs of runs, and R."""

    network: str
    form: Form
    pairs: int
    realizations: int


SETTINGS: dict[Level, list[Setting]] = {
    "quick": [Setting("MLP 64-8-8-10", "jvp", 96, 8)],
    "full": [
        Setting("MLP 64-8-8-10", "jvp", 256, 64),
        Setting("MLP 64-8-8-10", "finite_difference", 256, 64),
        Setting("CNN 1-4-6", "jvp", 128, 16),
    ],
}


@cache
def _network(name: str) -> FunctionalModel:
    if name.startswith("MLP"):
        return functional(mlp([64, 8, 8, 10], **OPTIONS))
    return functional(convnet([1, 4, 6], 10, image_size=8, stride=[1, 2], **OPTIONS))


def _realized(
    score: Score, setting: Setting, weights: Params | None, images: bool, generator: torch.Generator
) -> Tensor:
    """Return signed scores of all realisations of all runs, [pairs, R, P]."""
    net, count = _network(setting.network), setting.pairs * setting.realizations
    if weights is None:
        drawn = kaiming_normal(net, count, generator=generator)
    else:
        drawn = {n: w.repeat_interleave(setting.realizations, 0) for n, w in weights.items()}
    probes = sample_gaussian(net.params, count, generator=generator)
    shape = (count, SAMPLES, 1, 8, 8)
    x = (
        digits(SAMPLES, **OPTIONS)[0]
        if images
        else torch.randn(shape, generator=generator, **OPTIONS)
    )

    def one(params: Params, x: Tensor, probe: Params) -> Params:
        single = {name: t[None] for name, t in probe.items()}
        options: dict[str, Any] = {"sigma": SIGMA, "form": setting.form}
        return score(net.model_fn, params, None, x, single, net.prunable, **options)[0]

    over = torch.func.vmap(one, in_dims=(0, None if images else 0, 0), chunk_size=512)
    flat = torch.cat([s.flatten(1) for s in over(drawn, x, probes).values()], 1)
    return flat.view(setting.pairs, setting.realizations, -1)


@cache
def _runs(score: Score, setting: Setting) -> Runs:
    """Return every kind of run; runs in one place of the first axis share their fixed weights."""
    generator = torch.Generator().manual_seed(17)
    fixed = kaiming_normal(_network(setting.network), setting.pairs, generator=generator)
    kinds: dict[str, tuple[Params | None, bool]] = {
        "new weights": (None, False),
        "new weights, again": (None, False),
        "fixed weights": (fixed, False),
        "fixed weights, again": (fixed, False),
        "fixed weights, images": (fixed, True),
    }
    return {
        kind: _realized(score, setting, weights, images, generator)
        for kind, (weights, images) in kinds.items()
    }


def _top(scores: Tensor) -> Tensor:
    """Return the masks of the largest scores, exact count, ties by index; the last axis is P."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    kept = order[..., : kept_count(scores.shape[-1], DENSITY)]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, kept, True)


def running_mask(scores: Tensor, count: int) -> Tensor:
    """Return the masks of the published score after ``count`` realisations, [pairs, P]."""
    return _top(scores[:, :count].mean(1).abs())


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Return the share of kept weights in common, [pairs]."""
    return (a & b).sum(-1) / a.sum(-1)


def _expected_by_layers(a: Tensor, b: Tensor, sizes: list[int]) -> Tensor:
    """Return the expected overlap of random masks with these masks' numbers in each layer."""
    parts = zip(a.split(sizes, -1), b.split(sizes, -1), sizes, strict=True)
    common = sum((x.sum(-1) * y.sum(-1) / n for x, y, n in parts), torch.zeros(()))
    return common / a.sum(-1)


def _random_overlaps(setting: Setting, total: int) -> Tensor:
    generator = torch.Generator().manual_seed(23)
    a, b = (_top(torch.rand(setting.pairs, total, generator=generator)) for _ in range(2))
    return overlaps(a, b)


def _interval(values: Tensor) -> dict[str, float]:
    mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
    return {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}


def _table(setting: Setting, runs: Runs, compare: Callable[..., Tensor]) -> list[dict[str, Any]]:
    """Return the overlaps by R, with 95 % intervals over pairs, next to both kinds of random masks."""
    net = _network(setting.network)
    sizes = [net.params[name].numel() for name in net.prunable]
    rows = []
    counts = [2**i for i in range(setting.realizations.bit_length())]
    for what, (first, second) in COMPARED.items():
        for count in counts:
            a, b = (running_mask(runs[kind], count) for kind in (first, second))
            rows.append({
                "network": setting.network, "form": setting.form, "compared": what, "R": count,
                "overlap": _interval(compare(a, b)), "random_masks": DENSITY,
                "random_masks_with_equal_layers": float(_expected_by_layers(a, b, sizes).mean()),
                "kept_per_layer": [float(m.double().mean()) for m in a.split(sizes, -1)],
            })  # fmt: skip
    return rows


def _entry(setting: Setting, what: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "network": setting.network, "form": setting.form, "null": what, "verdict": verdict.status,
        "mean_difference": verdict.observed[0], "n": verdict.n, "false_alarm": verdict.delta,
        "statistic": verdict.statistic, "threshold": verdict.threshold,
    }  # fmt: skip


# --- S7 ------------------------------------------------------------------------------------------


def _probe_as_score(*args: Any, **options: Any) -> tuple[Params, Tensor]:
    *_, probes, names = args
    return {name: probes[name][0] for name in names}, torch.zeros(())


@claim(
    "S7",
    subjects={"score": score_of_realization, "masks": running_mask, "compare": overlaps},
    mutants={
        "scores do not see the network": {"score": _probe_as_score},
        "looks at the first realisation only": {"masks": lambda s, count: running_mask(s, 1)},
        "compares a mask with itself": {"compare": lambda a, b: overlaps(a, a)},
        "keeps the lowest scores of one run": {
            "compare": lambda a, b: overlaps(a, ~b) * a.sum(-1) / (~b).sum(-1)
        },
    },
)
def masks_agree(
    level: Level, score: Score, masks: Callable[..., Tensor], compare: Callable[..., Tensor]
) -> Outcome:
    """Overlaps against random masks, and at R against at 1, by sign symmetry of pairs (T2)."""
    verdicts, entries, rows = [], [], []
    for setting in SETTINGS[level]:
        runs = _runs(score, setting)
        chance = _random_overlaps(setting, runs["new weights"].shape[-1])
        for what, (first, second) in COMPARED.items():
            most, one = (
                compare(masks(runs[first], count), masks(runs[second], count))
                for count in (setting.realizations, 1)
            )
            for null, other in ((f"{what}: random", chance), (f"{what}: R as 1", one)):
                verdicts.append(check_same_distribution(most, other, delta=DELTA))
                entries.append(_entry(setting, null, verdicts[-1]))
        rows += _table(setting, runs, compare)
    rejected = [v.status == "fail" for v in verdicts]
    below = any(v.status == "fail" and v.observed[0] < 0 for v in verdicts)
    return Outcome(
        "opposite" if below else "supported" if all(rejected) else "not-supported",
        "statistical",
        "; ".join(
            f"{s.network}, {s.form}, {s.pairs} pairs of runs, R = {s.realizations}"
            for s in SETTINGS[level]
        )
        + f"; density {DENSITY}, {SAMPLES} N(0, I) inputs or digits per realisation, one-shot",
        {"tests": entries, "overlaps": rows, "interval_level": 0.95},
        None,
        false_alarm=len(verdicts) * DELTA,
    )


# --- S7.layers -----------------------------------------------------------------------------------


def _permute(tensors: Params, units: list[Tensor]) -> Params:
    """Permute the rows and columns of an MLP's weights by its units' permutations, inputs first."""
    return {
        name: t.index_select(-2, units[i + 1]).index_select(-1, units[i])
        for i, (name, t) in enumerate(tensors.items())
    }


def _random_units(widths: list[int], generator: torch.Generator) -> list[Tensor]:
    return [torch.randperm(n, generator=generator) for n in widths]


def _equivariance(score: Score, worst: Worst) -> None:
    """Check ``S(π draw) = π S(draw)`` on drawn networks, inputs, perturbations and permutations."""
    widths = [5, 4, 3, 2]
    net, generator = functional(mlp(widths, **OPTIONS)), torch.Generator().manual_seed(1)
    for form in FORMS:
        for _ in range(4):
            params = {n: w[0] for n, w in kaiming_normal(net, 1, generator=generator).items()}
            probes = sample_gaussian(net.params, 1, generator=generator)
            x = torch.randn(6, 5, generator=generator, **OPTIONS)
            units = _random_units(widths, generator)

            def scored(params: Params, x: Tensor, probes: Params, form: Form = form) -> Params:
                options: dict[str, Any] = {"sigma": SIGMA, "form": form}
                return score(net.model_fn, params, None, x, probes, net.prunable, **options)[0]

            moved = scored(_permute(params, units), x[:, units[0]], _permute(probes, units))
            worst.see_each(f"{form}", moved, _permute(scored(params, x, probes), units))


def _permuted_masks(net: FunctionalModel, masks: Tensor) -> Tensor:
    """Permute the units of every mask at random, each by itself, [pairs, P]."""
    generator = torch.Generator().manual_seed(29)
    shapes = {name: net.params[name].shape for name in net.prunable}
    widths = [next(iter(shapes.values()))[1], *(shape[0] for shape in shapes.values())]
    rows = []
    for mask in masks:
        parts = mask.split([shape.numel() for shape in shapes.values()])
        layers = {n: part.view(s) for (n, s), part in zip(shapes.items(), parts, strict=True)}
        moved = _permute(layers, _random_units(widths, generator))
        rows.append(torch.cat([t.flatten() for t in moved.values()]))
    return torch.stack(rows)


def _uneven(*args: Any, **options: Any) -> tuple[Params, Tensor]:
    """Score the first unit of every layer 5 % too high."""
    score, value = score_of_realization(*args, **options)
    return {n: torch.cat([1.05 * s[:1], s[1:]]) for n, s in score.items()}, value


@claim(
    "S7.layers",
    subjects={
        "score": score_of_realization,
        "pair": lambda runs: (runs["new weights"], runs["new weights, again"]),
    },
    mutants={
        "scores the first units 5 % higher": {"score": _uneven},
        "uses the same draws in both runs": {
            "pair": lambda runs: (runs["new weights"], runs["new weights"])
        },
        "keeps the weights fixed": {
            "pair": lambda runs: (runs["fixed weights"], runs["fixed weights, again"])
        },
    },
)
def layers_only(
    level: Level, score: Score, pair: Callable[[Runs], tuple[Tensor, Tensor]]
) -> Outcome:
    """Permutation equivariance, exactly; overlaps against those with permuted units (T2)."""
    # Where permuting units leaves the law of a mask B alone, B and πB, π uniform, may be swapped: the
    # null hypothesis of T2. The control shows that it sees masks that agree on single weights.
    worst = Worst()
    _equivariance(score, worst)
    setting = SETTINGS[level][0]
    net, runs = _network(setting.network), _runs(score_of_realization, setting)
    verdicts, entries = [], []
    cases = {
        "new weights": pair(runs),
        "control: fixed weights": (runs["fixed weights"], runs["fixed weights, again"]),
    }
    for what, (first, second) in cases.items():
        a, b = (running_mask(s, setting.realizations) for s in (first, second))
        shuffled = overlaps(a, _permuted_masks(net, b))
        verdicts.append(check_same_distribution(overlaps(a, b), shuffled, delta=DELTA))
        entries.append(_entry(setting, f"{what}: permuted units", verdicts[-1]))
    ours, control = verdicts
    if not worst.holds or control.status != "fail":
        status: Any = "inconclusive"
    else:
        status = "holds" if ours.status == "fail" and ours.observed[0] > 0 else "refuted"
    text = (
        "every dense MLP without biases under new weights and N(0, I) inputs: a permutation of units "
        "permutes the score, so all weights of a layer have one expected score; measured on "
        f"{setting.network}: overlap less that with permuted units {ours.observed[0]:+.4f}, with fixed "
        f"weights {control.observed[0]:+.4f}"
    )
    return Outcome(
        status,
        "statistical",
        f"equivariance on 5-4-3-2 nets, both forms; {setting.network}, {setting.pairs} pairs of runs, "
        f"R = {setting.realizations}",
        worst.numbers() | {"tests": entries},
        worst.counterexample or (text if status == "refuted" else None),
        false_alarm=len(verdicts) * DELTA,
    )
