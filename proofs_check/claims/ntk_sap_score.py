"""S3 and S4: what NTK-SAP's score estimates, and its sums over layers."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory import Verdict, functional
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.ntk_sap import FORMS, Form, objective
from ntktheory.estimators.ntk_sap_draws import Draw, sample_draws
from ntktheory.estimators.ntk_sap_score import ScoreEstimate, ntk_sap_score, score_of_realization
from ntktheory.functional import FunctionalModel, Params
from ntktheory.models import mlp
from ntktheory.ntk import reference
from ntktheory.probes import all_signs, hadamard_design, sample_gaussian
from proofs_check import strategies
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst
from proofs_check.search import Broken, search

Score = Callable[..., tuple[Params, Tensor]]
Estimate = Callable[..., ScoreEstimate]
DELTA = 1e-9
OPTIONS: dict[str, Any] = {"dtype": torch.float64}


def integers(*shape: int, seed: int, largest: int = 3) -> Tensor:
    """Return seeded odd numbers, so that no sum of an odd number of products vanishes."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-largest, largest, shape, generator=generator, **OPTIONS)
    return 2 * drawn + 1


# --- mutants of the score ------------------------------------------------------------------------


def without_first(probes: Params) -> Params:
    """Leave the first layer unperturbed."""
    return dict(list(probes.items())[1:])


def _first_layer_unperturbed(*args: Any, **options: Any) -> tuple[Params, Tensor]:
    model_fn, params, masks, x, probes, names = args
    kept = without_first(probes)
    return score_of_realization(model_fn, params, masks, x, kept, names, **options)


def _scaled(factor: Callable[[float], float]) -> Score:
    def mutant(*args: Any, sigma: float, **options: Any) -> tuple[Params, Tensor]:
        score, value = score_of_realization(*args, sigma=sigma, **options)
        return {name: factor(sigma) * s for name, s in score.items()}, value

    return mutant


def _absolute(*args: Any, **options: Any) -> tuple[Params, Tensor]:
    score, value = score_of_realization(*args, **options)
    return {name: s.abs() for name, s in score.items()}, value


MUTANTS: dict[str, Mapping[str, Score]] = {
    "is 5 % too large": {"score": _scaled(lambda sigma: 1.05)},
    "has σ in place of σ²": {"score": _scaled(lambda sigma: 1 / sigma)},
    "does not perturb the first layer": {"score": _first_layer_unperturbed},
    "takes the absolute value inside the mean": {"score": _absolute},
}


# --- S3 ------------------------------------------------------------------------------------------

SIGMA = 1 / 64


@cache
def _small_net() -> FunctionalModel:
    return functional(mlp([2, 2, 1], **OPTIONS))


@cache
def _small_law() -> list[tuple[Params, Tensor]]:
    """Return two equally likely weights and batches whose gates neither Δ nor a mask's step flips."""
    shapes, seed = _small_net().params, 0
    law: list[tuple[Params, Tensor]] = []
    while len(law) < 2:
        params = {n: integers(*p.shape, seed=seed + i) for i, (n, p) in enumerate(shapes.items())}
        x, seed = integers(2, 2, seed=seed + 9), seed + 10
        signals = [
            x @ (params["layer1.weight"] * m["layer1.weight"]).T for m in _mask_sets().values()
        ]
        if min(float(u.abs().min()) for u in signals) > 0.25:
            law.append((params, x))
    return law


@cache
def _mask_sets() -> dict[str, Params]:
    """Return all ones, and masks 1, ¾ and ½: the derivative is taken off the dense network too."""
    shapes = _small_net().params
    drawn = {
        n: 1 - (integers(*p.shape, seed=70 + i) % 3) / 4 for i, (n, p) in enumerate(shapes.items())
    }
    return {"dense": {n: torch.ones_like(p) for n, p in shapes.items()}, "fractional masks": drawn}


def _expected_objective(masks: Params, form: Form) -> float:
    """Return the mean objective over the law and all 2⁶ sign vectors, without a derivative."""
    net, total = _small_net(), 0.0
    probes = all_signs(net.params).probes
    for params, x in _small_law():
        if form == "jvp":  # the mean over signs of ‖σJΔ‖² is σ² Tr
            j = reference.jacobian(net.model_fn, params, masks, x)
            total += SIGMA**2 * sum(float(t.square().sum()) for t in j.values())
        else:
            w1, w2 = (params[name] + SIGMA * probes[name] for name in params)
            m1, m2 = masks.values()
            start = (x @ (params["layer1.weight"] * m1).T).relu() @ (params["layer2.weight"] * m2).T
            moved = torch.einsum("ni,khi->knh", x, w1 * m1).relu() @ (w2 * m2).transpose(1, 2)
            total += float((moved - start).square().sum()) / len(w1)
    return total / len(_small_law())


@cache
def _expected_derivative(where: str, form: Form, h: float = 2**-10) -> Params:
    """Return the derivative by central differences: exact, for it has degree 2 in each mask entry."""
    masks, slopes = _mask_sets()[where], {}
    for name, mask in masks.items():
        slope = torch.zeros_like(mask)
        for place in itertools.product(*map(range, mask.shape)):
            ends = []
            for step in (h, -h):
                moved = mask.clone()
                moved[place] += step
                ends.append(_expected_objective({**masks, name: moved}, form))
            slope[place] = (ends[0] - ends[1]) / (2 * h)
        slopes[name] = slope
    return slopes


class TwoSigns:
    """f(x) = w·x at x = (1, 3), one weight layer, Δ one of the four sign vectors, σ = 1.

    With u = Δ₁ + 3Δ₂ the score of w₁ is 2uΔ₁ = 8 or −4, equally likely: mean 2, variance 36.
    """

    net = functional(nn.Linear(2, 1, bias=False, **OPTIONS))
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)

    @classmethod
    def draws(cls) -> list[Draw]:
        """Return the four draws."""
        signs = all_signs(cls.net.params).probes["weight"]
        return [Draw({}, cls.x, {"weight": signs[k : k + 1]}) for k in range(4)]

    @classmethod
    def means(cls, estimate: Estimate, count: int = 2) -> dict[str, float]:
        """Return exact means of the estimates of w₁'s score over all tuples of ``count`` draws."""
        found = [
            estimate(cls.net, chosen, sigma=1.0)
            for chosen in itertools.product(cls.draws(), repeat=count)
        ]
        names = ("signed", "abs_of_mean", "mean_of_abs")
        first = {n: [float(e.score(n)["weight"][0, 0]) for e in found] for n in names}  # type: ignore[arg-type]
        spread = [float(e.variance["weight"][0, 0]) for e in found]
        means = {name: sum(values) / len(values) for name, values in first.items()}
        mean = means["signed"]
        means["variance of the mean"] = sum((v - mean) ** 2 for v in first["signed"]) / len(found)
        return means | {"mean of the sample variance": sum(spread) / len(found)}


def _estimate_with(change: Callable[[ScoreEstimate, float], Params]) -> Estimate:
    def mutant(model: Any, draws: Any, *, sigma: float, **options: Any) -> ScoreEstimate:
        e = ntk_sap_score(model, draws, sigma=sigma, **options)
        return ScoreEstimate(change(e, sigma), e.mean_abs, e.variance, e.count)

    return mutant


def _times(factor: float, params: Params) -> Params:
    return {name: factor * s for name, s in params.items()}


def _without_first_layer(model: Any, draws: Iterable[Any], **options: Any) -> ScoreEstimate:
    first = next(iter(functional(model).params))
    kept = [Draw(p, x, {n: t * (n != first) for n, t in probes.items()}) for p, x, probes in draws]
    return ntk_sap_score(model, kept, **options)


def _biased_variance(model: Any, draws: Any, **options: Any) -> ScoreEstimate:
    e = ntk_sap_score(model, draws, **options)
    return ScoreEstimate(e.mean, e.mean_abs, _times((e.count - 1) / e.count, e.variance), e.count)


def _one_probe(model: Any, **options: Any) -> list[Draw]:
    draws = list(sample_draws(model, **options))
    return [Draw(draw.params, draw.x, draws[0].probes) for draw in draws]


def _old_weights(model: Any, **options: Any) -> list[Draw]:
    draws = list(sample_draws(model, **options))
    return [Draw(draws[0].params, draw.x, draw.probes) for draw in draws]


def _old_inputs(model: Any, **options: Any) -> list[Draw]:
    return list(sample_draws(model, **options, inputs="fixed_noise"))


def _sampled_parts(
    sampler: Callable[..., Iterable[Draw]],
) -> list[tuple[str, Tensor, float, float]]:
    """Return independent samples, with mean and variance, that show if draws are what they say."""
    net = mlp([64, 32, 32, 10], **OPTIONS)
    generator = torch.Generator().manual_seed(9)
    one, two = sampler(net, realizations=2, samples=50, input_shape=[64], generator=generator)
    shapes = functional(net).params
    (d1, d2), (w1, w2) = (
        [torch.cat([t[n].flatten() for n in shapes]) for t in pair]
        for pair in ((one.probes, two.probes), map(_standardised, (one.params, two.params)))
    )
    x1, x2 = one.x.flatten(), two.x.flatten()
    return [
        ("probes of two realisations", d1 * d2, 0.0, 1.0),
        ("weights of two realisations", w1 * w2, 0.0, 1.0),
        ("inputs of two realisations", x1 * x2, 0.0, 1.0),
        ("probe and weight", d1 * w1, 0.0, 1.0),
        ("squared probe", d1**2, 1.0, 2.0),
        ("squared weight · fan_in/2", w1**2, 1.0, 2.0),
        ("squared input", x1**2, 1.0, 2.0),
    ]


def _standardised(params: Mapping[str, Tensor]) -> Params:
    return {name: w * math.sqrt(w[0].numel() / 2) for name, w in params.items()}


@cache
def _enumerated(estimate: Estimate) -> tuple[dict[tuple[str, Form], Params], dict[str, float]]:
    """Return the estimates over all outcomes of the small law, and the means over pairs."""
    net = _small_net()
    signs, hadamard = all_signs(net.params).probes, hadamard_design(net.params).probes
    cases: list[tuple[str, Form, Params]] = [
        ("dense", "jvp", hadamard),
        ("fractional masks", "jvp", hadamard),
        ("fractional masks", "finite_difference", signs),
    ]
    found = {}
    for where, form, probes in cases:
        draws = [Draw(params, x, probes) for params, x in _small_law()]
        made = estimate(net, draws, sigma=SIGMA, form=form, masks=_mask_sets()[where])
        found[where, form] = made.score("signed")
    return found, TwoSigns.means(estimate)


@cache
def _sampler_verdicts(sampler: Callable[..., Iterable[Draw]]) -> dict[str, Verdict]:
    return {
        what: check_mean(samples, mean, variance, delta=DELTA)
        for what, samples, mean, variance in _sampled_parts(sampler)
    }


@claim(
    "S3",
    subjects={"estimate": ntk_sap_score, "sampler": sample_draws},
    mutants={
        "is 5 % too large": {"estimate": _estimate_with(lambda e, s: _times(1.05, e.mean))},
        "has σ in place of σ²": {"estimate": _estimate_with(lambda e, s: _times(1 / s, e.mean))},
        "does not perturb the first layer": {"estimate": _without_first_layer},
        "takes the absolute value inside the mean": {
            "estimate": _estimate_with(lambda e, s: e.mean_abs)
        },
        "divides the sample variance by R": {"estimate": _biased_variance},
        "reuses one probe for two realisations": {"sampler": _one_probe},
        "keeps the weights of the first realisation": {"sampler": _old_weights},
        "keeps the noise of the first realisation": {"sampler": _old_inputs},
    },
)
def signed_mean_unbiased(
    level: Level, estimate: Estimate, sampler: Callable[..., Iterable[Draw]]
) -> Outcome:
    """Exact over finite laws, signed and absolute; the sampler's independence by e-values (T1)."""
    found, exact = _enumerated(estimate)
    worst = Worst()
    for (where, form), score in found.items():
        worst.see_each(f"{form}, {where}", score, _expected_derivative(where, form))
    worst.see("two realisations: mean", exact["signed"], 2.0)
    worst.see("two realisations: variance of the mean", exact["variance of the mean"], 18.0)
    worst.see("two realisations: sample variance", exact["mean of the sample variance"], 36.0)
    further = abs(exact["mean_of_abs"] - 2) > abs(exact["abs_of_mean"] - 2) > 0
    worst.require(f"absolute values are biased, inside the mean more: {exact}", further)
    verdicts = _sampler_verdicts(sampler)
    for what, verdict in verdicts.items():
        worst.require(f"{what}: {verdict.summary}", verdict.status == "pass")
    return Outcome(
        "holds" if worst.holds else "refuted",
        "statistical",
        "a 2-2-1 net over 2 × 64 equally likely (weights and inputs, Δ), off the kinks, both forms; all "
        "16 pairs of realisations of a linear layer; the sampler on a 64-32-32-10 net",
        worst.numbers() | {"exact_means_over_pairs": exact, "sampler": verdict_rows(verdicts)},
        worst.counterexample,
        false_alarm=len(verdicts) * DELTA,
    )


def verdict_rows(verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Return statistical verdicts as rows for the report."""
    return [
        {
            "what": what,
            "verdict": v.status,
            "n": v.n,
            "mean": v.observed[0],
            "expected": v.expected[0],
            "false_alarm": v.delta,
            "detectable_bias": v.detectable_bias,
            "missed_with_probability": v.beta,
        }
        for what, v in verdicts.items()
    ]


@claim(
    "S3.absolute",
    subjects={"published": lambda e: e.score("abs_of_mean")},
    mutants={"is signed": {"published": lambda e: e.score("signed")}},
)
def absolute_mean_unbiased(level: Level, published: Callable[[ScoreEstimate], Params]) -> Outcome:
    """E |mean of R realisations| against |E|, by enumeration, R from 1."""
    means = {}
    for count in range(1, 3 if level == "quick" else 5):
        chosen = itertools.product(TwoSigns.draws(), repeat=count)
        scores = [
            float(published(ntk_sap_score(TwoSigns.net, draws, sigma=1.0))["weight"][0, 0])
            for draws in chosen
        ]
        means[count] = math.fsum(scores) / len(scores)
    biased = any(value != 2 for value in means.values())
    text = ", ".join(f"{value:g} at R = {count}" for count, value in means.items())
    return Outcome(
        "refuted" if biased else "holds",
        "exact-numeric",
        "one linear layer, all tuples of sign vectors, integers",
        {"absolute_value_of_the_expectation": 2.0, "mean_of_the_published_score": means},
        f"f(x) = w·x, x = (1, 3), Δ = (±1, ±1), w₁: |E| = 2, E|mean| = {text}" if biased else None,
    )


# --- S4 ------------------------------------------------------------------------------------------


def _layer_sums(
    score: Score, case: strategies.Case, masks: Params, probes: Params, form: Form
) -> tuple[dict[str, float], float, float]:
    """Return ``Σ_j m_j S_j`` per layer, twice the objective, and the scale of their rounding."""
    net = functional(case.model)
    found, _ = score(
        net.model_fn, net.params, masks, case.x, probes, net.prunable, sigma=0.25, form=form
    )
    value = objective(net.model_fn, net.params, masks, case.x, probes, sigma=0.25, form=form)
    terms = {name: masks[name] * s for name, s in found.items()}
    size = max(float(t.abs().sum()) for t in terms.values())
    return {n: float(t.sum()) for n, t in terms.items()}, 2 * float(value.mean()), size


def _drawn_masks(net: FunctionalModel, seed: int) -> tuple[Params, Params]:
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: torch.randint(0, 5, p.shape, generator=generator, **OPTIONS) / 4
        for name, p in net.params.items()
    }
    return masks, sample_gaussian(net.params, 1, generator=generator)


@claim("S4", subjects={"score": score_of_realization}, mutants=MUTANTS)
def layer_sums(level: Level, score: Score) -> Outcome:
    """Each layer's saliencies sum to twice the objective: nets, masks and probes drawn by value."""
    widest, seeds = 0.0, itertools.count()

    def check(case: strategies.Case) -> None:
        nonlocal widest
        masks, probes = _drawn_masks(functional(case.model), next(seeds))
        for form in FORMS:
            sums, twice, size = _layer_sums(score, case, masks, probes, form)
            for name, total in sums.items():
                gap = abs(total - twice) / (abs(twice) + size) if total != twice else 0.0
                widest = max(widest, gap)
                if not gap <= 1e-12:
                    raise Broken(f"{form}, {name}: sum {total}, 2·objective {twice}\n{case}")

    examples = 30 if level == "quick" else 1000
    found = [
        search(strategies.mlps(bias=False), check, examples, fixed=strategies.fixed_cases(False)),
        search(strategies.convnets(bias=False), check, examples),
    ]
    broken = next((s.counterexample for s in found if s.counterexample), None)
    return Outcome(
        "refuted" if broken else "holds",
        "property",
        "bias-free MLPs and CNNs, masks 0, ¼ … 1, one Gaussian perturbation each, both forms",
        {"examples": sum(s.examples for s in found), "worst_relative_gap": widest},
        broken,
    )


def _one_hidden_sums(model: nn.Module, probe: Params, change: Callable[[Tensor], Tensor]) -> Any:
    """Return per layer the sum of changed scores, and twice the objective, at x = (1, 3), σ = 1."""
    net = functional(model)
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    found, value = score_of_realization(
        net.model_fn, net.params, None, x, probe, net.prunable, sigma=1.0
    )
    return {name: float(change(s).sum()) for name, s in found.items()}, 2 * float(value)


@claim(
    "S4.absolute",
    subjects={"change": Tensor.abs},
    mutants={"keeps the sign": {"change": Tensor.clone}},
)
def absolute_layer_sums(level: Level, change: Callable[[Tensor], Tensor]) -> Outcome:
    """One linear layer at x = (1, 3), Δ = (1, −1): scores −4 and 12, objective 4."""
    model = nn.Linear(2, 1, bias=False, **OPTIONS)
    sums, twice = _one_hidden_sums(model, {"weight": float64([[[1, -1]]])}, change)
    broken = sums["weight"] != twice
    text = (
        f"f(x) = w·x, x = (1, 3), Δ = (1, −1): Σ|S_j| = {sums['weight']:g}, 2·objective {twice:g}"
    )
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        "one linear layer, integers",
        {"sum": sums["weight"], "twice_the_objective": twice},
        text if broken else None,
    )


class Shortcut(nn.Module):
    """f(x) = v·(relu(Wx) + x), or without the shortcut; all weights 1."""

    def __init__(self, shortcut: bool = True) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.inner = nn.Linear(2, 2, bias=False, **OPTIONS)
        self.head = nn.Linear(2, 1, bias=False, **OPTIONS)
        for p in self.parameters():
            nn.init.ones_(p)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 1]."""
        return self.head(torch.relu(self.inner(x)) + x * self.shortcut)


@claim(
    "S4.shortcuts",
    subjects={"network": Shortcut},
    mutants={"has no shortcut": {"network": lambda: Shortcut(False)}},
)
def shortcut_layer_sums(level: Level, network: Callable[[], nn.Module]) -> Outcome:
    """The layer inside the branch, all weights and perturbations 1."""
    model = network()
    probe = {name: torch.ones_like(p)[None] for name, p in functional(model).params.items()}
    sums, twice = _one_hidden_sums(model, probe, Tensor.clone)
    broken = any(total != twice for total in sums.values())
    text = ", ".join(f"{name} {total:g}" for name, total in sums.items())
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        "one residual network, integers",
        {"sums": sums, "twice_the_objective": twice},
        f"v·(relu(Wx) + x), all weights and Δ 1, x = (1, 3): {text}; 2·objective {twice:g}"
        if broken
        else None,
    )


def float64(values: Any) -> Tensor:
    """Return nested numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)
