"""S5 and S6: NTK-SAP's score as σ → 0, and the analytic kernel as the mean over weights."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.ntk_sap import Form, objective_of_probe
from ntktheory.estimators.ntk_sap_draws import kaiming_normal
from ntktheory.estimators.ntk_sap_score import score_of_realization
from ntktheory.functional import FunctionalModel, Params
from ntktheory.models import convnet, mlp
from ntktheory.ntk.infinite_width import expected_trace_at_init
from ntktheory.ntk.trace import sample_traces
from ntktheory.probes import all_signs, hadamard_design, sample_gaussian
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.infinite_width import recursion
from proofs_check.claims.ntk_sap_score import (
    DELTA,
    MUTANTS,
    OPTIONS,
    SIGMA,
    Score,
    float64,
    integers,
    verdict_rows,
    without_first,
)
from proofs_check.compare import Worst
from proofs_check.exact_means import opposite_mean, trace_variance

# --- S5 ------------------------------------------------------------------------------------------


def _limit_networks() -> list[tuple[str, FunctionalModel, list[tuple[Params, Tensor]]]]:
    """Return small nets, each with two equally likely weights and batches off the kinks."""
    shapes = {
        "ReLU 2-2-1-1": (mlp([2, 2, 1, 1], **OPTIONS), (2, 2)),
        "ReLU CNN, one position": (
            convnet([1, 1], 2, image_size=2, kernel_size=2, padding=0, **OPTIONS), (2, 1, 2, 2)
        ),
        "tanh 2-1-2": (mlp([2, 1, 2], activation=nn.Tanh, **OPTIONS), (2, 2)),
    }  # fmt: skip
    found = []
    for name, (model, shape) in shapes.items():
        net, seed = functional(model), itertools.count()
        law: list[tuple[Params, Tensor]] = []
        while len(law) < 2:
            start = 10 * next(seed)
            params = {
                n: integers(*p.shape, seed=start + k) / 4
                for k, (n, p) in enumerate(net.params.items())
            }
            x = integers(*shape, seed=start + 9) / 2
            if bool(net.model_fn(params, x).abs().amin() > 0):  # alive: no gate closes a sample
                law.append((params, x))
        found.append((name, net, law))
    return found


def _expected_score(
    score: Score,
    net: FunctionalModel,
    law: list[tuple[Params, Tensor]],
    masks: Params,
    sigma: float,
) -> Params:
    """Return the exact mean of the finite difference's score over the law and all signs, over σ²."""
    probes = all_signs(net.params).probes
    means = []
    for params, x in law:

        def one(probe: Params, params: Params = params, x: Tensor = x) -> Params:
            single = {name: t[None] for name, t in probe.items()}
            options = {"sigma": sigma, "form": "finite_difference"}
            return score(net.model_fn, params, masks, x, single, net.prunable, **options)[0]

        every = torch.func.vmap(one)(probes)
        means.append({name: s.mean(0) / sigma**2 for name, s in every.items()})
    return {name: sum(m[name] for m in means) / len(means) for name in net.prunable}  # type: ignore[misc]


def _trace_derivative(
    net: FunctionalModel, law: list[tuple[Params, Tensor]], masks: Params
) -> Params:
    """Return the mean over the law of the derivative of ``Σ m_i²(∂_i f)²``, by autodiff."""
    names = net.prunable
    slopes = []
    for params, x in law:

        def trace(m: Params, params: Params = params, x: Tensor = x) -> Tensor:
            terms = sample_traces(net.model_fn, params, m, x, names)
            return torch.stack([t.sum() for t in terms.values()]).sum()

        slopes.append(torch.func.grad(trace)(masks))
    return {name: sum(s[name] for s in slopes) / len(slopes) for name in names}


@claim("S5", subjects={"score": score_of_realization}, mutants=MUTANTS)
def small_sigma_limit(level: Level, score: Score) -> Outcome:
    """The limit, extrapolated from three σ of exact means, against autodiff of the exact trace."""
    worst, orders = Worst(tolerance=1e-8), {}
    for name, net, law in _limit_networks():
        generator = torch.Generator().manual_seed(4)
        masks = {
            n: 1 - torch.randint(0, 3, net.params[n].shape, generator=generator, **OPTIONS) / 8
            for n in net.prunable
        }
        expected = _trace_derivative(net, law, masks)
        a, b, c = (_expected_score(score, net, law, masks, s) for s in (0.02, 0.01, 0.005))
        limit = {n: (64 * c[n] - 20 * b[n] + a[n]) / 45 for n in net.prunable}
        worst.see_each(name, limit, expected)
        gaps = [max(float((s[n] - expected[n]).abs().max()) for n in s) for s in (a, b)]
        orders[name] = math.log2(gaps[0] / gaps[1])
        worst.require(f"{name}: order {orders[name]:.4f} in σ", abs(orders[name] - 2) < 0.02)
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "two ReLU nets and a tanh net, each over two equally likely weights and batches off the kinks "
        "and all sign vectors Δ, at fractional masks",
        worst.numbers() | {"order_of_convergence_in_sigma": orders},
        worst.counterexample,
    )


# One ReLU, f(z) = relu(wz + b) at w = b = 1, z ~ N(0, 1), Δ = ±1; w is masked, perturbed and scored.


def _one_relu() -> FunctionalModel:
    layer = nn.Sequential(nn.Linear(1, 1, **OPTIONS), nn.ReLU())
    for p in layer.parameters():
        nn.init.ones_(p)
    return functional(layer.eval())


def _over_inputs(score: Score, sigma: float, form: Form, power: int = 1) -> float:
    """Return ``E S^power`` over z ~ N(0, 1) and Δ = ±1, by Gauss–Legendre between the kinks."""
    net = _one_relu()
    nodes, weights = (torch.tensor(t) for t in np.polynomial.legendre.leggauss(60))
    total = 0.0
    for sign in (1.0, -1.0):
        kinks = sorted([-1.0, -1.0 / (1 + sign * sigma)])
        probe = {"0.weight": float64([[[sign]]])}

        def one(z: Tensor, probe: Params = probe) -> Tensor:
            x = z.view(1, 1)
            names = ("0.weight",)
            found, _ = score(
                net.model_fn, net.params, None, x, probe, names, sigma=sigma, form=form
            )
            return found["0.weight"].sum()

        for low, high in itertools.pairwise([-12.0, *kinks, 2.0, 12.0]):
            z = (high + low) / 2 + (high - low) / 2 * nodes
            density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
            values = torch.func.vmap(one)(z) ** power
            total += float((values * density * weights).sum()) * (high - low) / 4
    return total


def _mean_trace(m: float) -> float:
    """Return ``E m² z² 1[m z + 1 > 0]`` in closed form."""
    a = -1 / m
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    return m * m * (a * density + 0.5 * math.erfc(a / math.sqrt(2)))


def _published_form(form: Form = "finite_difference") -> Score:
    def score(*args: Any, **options: Any) -> tuple[Params, Tensor]:
        return score_of_realization(*args, **(options | {"form": form}))

    return score


@claim(
    "S5.kinks",
    subjects={"score": _published_form()},
    mutants={"is the JVP form": {"score": _published_form("jvp")}},
)
def limit_and_mean_commute(level: Level, score: Score) -> Outcome:
    """One ReLU with a bias, z ~ N(0, 1): the limit by quadrature, against both derivatives."""
    form: Form = "finite_difference"
    a, b, c = (_over_inputs(score, s, form) / s**2 for s in (0.02, 0.01, 0.005))
    limit = (8 * c - 6 * b + a) / 3
    outside = (_mean_trace(1 + 1e-5) - _mean_trace(1 - 1e-5)) / 2e-5
    inside = _over_inputs(score_of_realization, 0.5, "jvp") / 0.25
    agree = abs(limit - inside) <= 1e-3 * inside
    explained = abs(limit - outside) <= 1e-3 * inside
    text = (
        f"f(z) = relu(wz + b), w = b = 1, z ~ N(0, 1): E S/σ² → {limit:.5f} as σ → 0; "
        f"E ∂Tr/∂m = {inside:.5f}; ∂ E Tr/∂m = {outside:.5f}"
    )
    return Outcome(
        "holds" if agree else "refuted" if explained else "inconclusive",
        "exact-numeric",
        "one ReLU with a bias, by quadrature between the kinks",
        {
            "limit_of_the_finite_difference": limit,
            "mean_of_the_derivative": inside,
            "derivative_of_the_mean": outside,
        },
        None if agree else text,
    )


@claim(
    "S5.variance",
    subjects={"published": _published_form(), "jvp": _published_form("jvp")},
    mutants={
        "takes the JVP form for the finite difference": {"published": _published_form("jvp")},
        "takes the finite difference for the JVP form": {"jvp": _published_form()},
    },
)
def variance_of_both_forms(level: Level, published: Score, jvp: Score) -> Outcome:
    """Second moments of both forms on one ReLU: their orders in σ, by quadrature."""
    sigmas = (0.02, 0.01, 0.005, 0.0025)
    form: Form = "finite_difference"
    worst = Worst()
    moments, orders = {}, {}
    for name, score, order in (("finite difference", published, 3), ("JVP", jvp, 4)):
        values = [_over_inputs(score, s, form, power=2) for s in sigmas]
        moments[name] = [v / s**4 for v, s in zip(values, sigmas, strict=True)]
        orders[name] = math.log2(values[-2] / values[-1])
        worst.require(f"{name}: order {orders[name]:.3f}", abs(orders[name] - order) < 0.2)
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "one ReLU with a bias, by quadrature between the kinks",
        {"sigma": sigmas, "second_moment_over_sigma4": moments, "order_in_sigma": orders},
        worst.counterexample,
    )


# --- S6 ------------------------------------------------------------------------------------------

WIDTHS = [4, 4, 4, 1]
DRAWS: dict[Level, int] = {"quick": 40_000, "full": 400_000}


def _line() -> Tensor:
    return torch.arange(1.0, 5.0, dtype=torch.float64)[None] / 4


def _realizations(one: Callable[..., Tensor], weights: Callable[..., Params], count: int) -> Tensor:
    """Return the objective over σ², of ``count`` realisations with new weights and one input."""
    net, x = functional(mlp(WIDTHS, **OPTIONS)), _line()
    generator = torch.Generator().manual_seed(2)
    drawn = weights(net, count, generator=generator)
    probes = sample_gaussian(net.params, count, generator=generator)

    def value(params: Params, probe: Params) -> Tensor:
        return one(net.model_fn, params, None, x, probe, sigma=SIGMA) / SIGMA**2

    return torch.func.vmap(value, chunk_size=20_000)(drawn, probes)


def _no_first_layer(*args: Any, **options: Any) -> Tensor:
    model_fn, params, masks, x, probe = args
    return objective_of_probe(model_fn, params, masks, x, without_first(probe), **options)


def _scaled_objective(factor: Callable[[float], float]) -> Callable[..., Tensor]:
    def mutant(*args: Any, sigma: float, **options: Any) -> Tensor:
        return factor(sigma) * objective_of_probe(*args, sigma=sigma, **options)

    return mutant


def _fan_out(net: FunctionalModel, count: int, *, generator: torch.Generator) -> Params:
    drawn = kaiming_normal(net, count, generator=generator)
    return {n: w * math.sqrt(w.shape[2] / w.shape[1]) for n, w in drawn.items()}


@claim(
    "S6",
    subjects={"one": objective_of_probe, "weights": kaiming_normal, "analytic": recursion},
    mutants={
        "is 5 % too large": {"one": _scaled_objective(lambda sigma: 1.05)},
        "has σ in place of σ²": {"one": _scaled_objective(lambda sigma: 1 / sigma)},
        "does not perturb the first layer": {"one": _no_first_layer},
        "draws weights by fan-out": {"weights": _fan_out},
        "has an analytic kernel 5 % too large": {"analytic": lambda *args: 1.05 * recursion(*args)},
    },
)
def averaged_kernels(
    level: Level,
    one: Callable[..., Tensor],
    weights: Callable[..., Params],
    analytic: Callable[..., Tensor],
) -> Outcome:
    """The estimator's mean over weights is the analytic trace (T1); off the diagonal, by width."""
    x, worst = _line(), Worst(tolerance=1e-12)
    variances = [2 / n for n in WIDTHS[:-1]]
    mean = float(analytic(x, WIDTHS, variances))
    closed = float(expected_trace_at_init(x, WIDTHS, variances=variances))
    worst.see("analytic trace against the exact mean at this width", mean, closed)
    _exact_given_weights(one, worst)
    spread = trace_variance(WIDTHS, variances, float(x.square().sum()))
    # One input, one output: given the weights the JVP's variance is 2 Tr², and E Tr² = spread + mean².
    samples = _realizations(one, weights, DRAWS[level])
    verdict = check_mean(samples, mean, 3 * spread + 2 * closed**2, delta=DELTA)
    worst.require(verdict.summary, verdict.status == "pass")
    plus_minus = float64([[1.0], [-1.0]])
    biases = {}
    for n in (4, 16, 64, 256):
        limit = float(analytic(plus_minus, [1, n, n, 1], [2.0, 2 / n, 2 / n])[0, 1])
        biases[n] = opposite_mean([1, n, n, 1], [2.0, 2 / n, 2 / n], 1.0) / limit - 1
    shrinking = all(0.2 < b / a < 0.3 for a, b in itertools.pairwise(biases.values()))
    worst.require(f"two hidden layers, x' = −x: relative bias by width {biases}", shrinking)
    relative = verdict.detectable_bias / mean
    return Outcome(
        "holds" if worst.holds else "refuted",
        "statistical",
        f"{'-'.join(map(str, WIDTHS))}, one input, {len(samples)} realisations of new weights and Δ; "
        "two hidden layers at x' = −x, widths 4 to 256, exactly",
        worst.numbers()
        | {
            "monte_carlo": verdict_rows({"objective / σ²": verdict}),
            "relative_detectable_bias": relative,
            "relative_bias_of_the_analytic_kernel_at_180_degrees_by_width": biases,
        },
        worst.counterexample,
        false_alarm=DELTA,
    )


def _exact_given_weights(one: Callable[..., Tensor], worst: Worst) -> None:
    """Check that the mean over Δ, given the weights, is σ² Tr: exactly, by a Hadamard design."""
    net, x = functional(mlp(WIDTHS, **OPTIONS)), _line()
    params = {n: w[0] for n, w in kaiming_normal(net, 1, generator=torch.Generator()).items()}
    trace = sum(
        float(t) for t in sample_traces(net.model_fn, params, None, x, net.prunable).values()
    )

    def value(probe: Params) -> Tensor:
        return one(net.model_fn, params, None, x, probe, sigma=SIGMA)

    mean = torch.func.vmap(value)(hadamard_design(params).probes).mean()
    worst.see("mean over Δ given the weights", mean, SIGMA**2 * trace)
