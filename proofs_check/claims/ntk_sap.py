"""S1 and S2: the mean and variance of NTK-SAP's objective, and the bias of its published form."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from sympy import QQ
from torch import Tensor, nn

from ntktheory import Verdict, empirical_ntk, functional, ntk_sap_objective, ntk_trace
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.moments import (
    design_mean,
    design_variance,
    expected_finite_difference,
    smooth_bias_coefficient,
    subset_bias,
    with_fixed_gates,
)
from ntktheory.estimators.ntk_sap import Form
from ntktheory.estimators.ntk_sap import objective as pure_objective
from ntktheory.functional import FunctionalModel, ModelFn, Params, masked
from ntktheory.models import convnet, mlp
from ntktheory.ntk import reference
from ntktheory.probes import (
    Design,
    all_signs,
    cubature3,
    cubature5,
    hadamard_design,
    sample_gaussian,
    sample_rademacher,
)
from proofs_check import cases, strategies
from proofs_check.certificates import kinks, taylor
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.kernel import as_matrix, real_rows
from proofs_check.compare import Worst
from proofs_check.search import Broken, search

Objective = Callable[..., Tensor]
Sampler = Callable[..., Params]
DELTA = 1e-9
FORMS: tuple[Form, ...] = ("finite_difference", "jvp")
DRAWS = 1500


def _tiny_networks() -> list[cases.Network]:
    """Return networks small enough for every design: at most 14 parameters."""
    generator = torch.Generator().manual_seed(7)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    nets = {
        "2-2-1": mlp([2, 2, 1], **options),
        "2-2-2, biases": mlp([2, 2, 2], bias=True, **options),
        "tanh 2-2-2": mlp([2, 2, 2], activation=nn.Tanh, **options),
        "CNN 1-2, one position": convnet(
            [1, 2], 1, image_size=2, kernel_size=2, padding=0, **options
        ),
    }
    shapes = {"CNN 1-2, one position": (3, 1, 2, 2)}
    return [
        cases.Network(name, net, torch.randn(shapes.get(name, (3, 2)), **options))
        for name, net in nets.items()
    ]


# --- S1 ------------------------------------------------------------------------------------------


def _scaled(factor: Callable[[float], float]) -> Objective:
    def mutant(model: Any, x: Tensor, *, sigma: float, **options: Any) -> Tensor:
        return ntk_sap_objective(model, x, sigma=sigma, **options) * factor(sigma)

    return mutant


def _first_layer_unperturbed(model: Any, x: Tensor, *, probes: Params, **options: Any) -> Tensor:
    kept = dict(list(probes.items())[1:])
    return ntk_sap_objective(model, x, probes=kept, **options)


def _masks_forgotten_in_probe(
    model: Any, x: Tensor, *, masks: Any = None, **options: Any
) -> Tensor:
    """Prune the weights, and perturb the pruned ones all the same."""
    if masks is None:
        return ntk_sap_objective(model, x, **options)
    f = functional(model)
    pruned = FunctionalModel(f.model_fn, masked(f.params, masks), f.buffers, f.tied, f.prunable)
    return ntk_sap_objective(pruned, x, **options)


def _one_probe_reused(params: Params, count: int, *, generator: torch.Generator) -> Params:
    one = sample_gaussian(params, 1, generator=generator)
    return {name: probe.expand(count, *probe.shape[1:]).contiguous() for name, probe in one.items()}


def _too_wide(params: Params, count: int, *, generator: torch.Generator) -> Params:
    draws = sample_gaussian(params, count, generator=generator)
    return {name: 1.1 * probe for name, probe in draws.items()}


def _leaning(params: Params, count: int, *, generator: torch.Generator) -> Params:
    draws = {name: torch.rand((count, *p.shape), generator=generator) for name, p in params.items()}
    return {name: torch.where(u < 0.6, 1.0, -1.0).double() for name, u in draws.items()}


@claim(
    "S1",
    subjects={
        "objective": ntk_sap_objective,
        "gaussian": sample_gaussian,
        "rademacher": sample_rademacher,
    },
    mutants={
        "is 5 % too large": {"objective": _scaled(lambda sigma: 1.05)},
        "multiplies by σ instead of σ²": {"objective": _scaled(lambda sigma: 1 / sigma)},
        "does not perturb the first layer": {"objective": _first_layer_unperturbed},
        "perturbs pruned weights": {"objective": _masks_forgotten_in_probe},
        "reuses one probe for every draw": {"gaussian": _one_probe_reused},
        "draws probes 10 % too wide": {"gaussian": _too_wide},
        "draws Gaussian in place of Rademacher": {"rademacher": sample_gaussian},
        "draws signs that lean to +1": {"rademacher": _leaning},
    },
)
def unbiased_jvp(
    level: Level, objective: Objective, gaussian: Sampler, rademacher: Sampler
) -> Outcome:
    """Exact mean and variance by designs (T0); the samplers on real images by e-values (T1)."""
    worst = copy.deepcopy(_exact_moments(objective))
    verdicts, rows = [], []
    for net in () if worst.broken else cases.real_networks(8):
        for law, sampler in (("Gaussian", gaussian), ("Rademacher", rademacher)):
            verdict, row = _monte_carlo(net, law, objective, sampler, level)
            verdicts.append(_entry(net, law, verdict))
            some = sampler(functional(net.model).params, 3, generator=torch.Generator())
            signs = all(bool((probe.abs() == 1).all()) for probe in some.values())
            worst.require(
                f"{net.name}: {law} draws are signs: {signs}", signs == (law != "Gaussian")
            )
            worst.require(f"{net.name}, {law}: {verdict.summary}", verdict.status == "pass")
            rows += row
    evidence = worst.numbers() | {"sampled_means": verdicts, "real_data": rows}
    return Outcome(
        "holds" if worst.holds else "refuted", "statistical",
        "means and variances exactly on tiny networks, dense and masked; samplers on the digits",
        evidence, worst.counterexample, false_alarm=len(verdicts) * DELTA,
    )  # fmt: skip


@cache
def _exact_moments(objective: Objective) -> Worst:
    """Compare means and variances on every tiny network; mutants of the samplers share them."""
    worst = Worst()
    for net in _tiny_networks():
        for masks in (None, cases.random_masks(net.model, 0.7)):
            _moments_of(net, masks, objective, worst)
    return worst


def _moments_of(
    net: cases.Network, masks: dict[str, Tensor] | None, objective: Objective, worst: Worst
) -> None:
    f, sigma = functional(net.model), 0.3
    where = f"{net.name}, {'masked' if masks else 'dense'}"
    j = reference.jacobian(f.model_fn, f.params, masks, net.x)
    flat = torch.cat([t.flatten(2) for t in j.values()], 2).flatten(0, 1)
    gram = flat.T @ flat
    trace, square = float(gram.trace()), float(gram.square().sum())

    def statistic(probes: Params) -> Tensor:
        return objective(net.model, net.x, sigma=sigma, probes=probes, masks=masks)

    for name, design in (
        ("Hadamard", hadamard_design(f.params)),
        ("cubature", cubature3(f.params)),
    ):
        worst.see(f"{where}: E by {name}", design_mean(statistic, design), sigma**2 * trace)
    some = cubature3(f.params).probes
    twice = {name: 2 * probe for name, probe in some.items()}
    worst.see(f"{where}: degree 2", statistic(twice), 4 * statistic(some))
    worst.see(
        f"{where}: Gaussian variance",
        design_variance(statistic, cubature5(f.params)),
        2 * sigma**4 * square,
    )
    rest = square - float(gram.diagonal().square().sum())
    variance = design_variance(statistic, all_signs(f.params))
    scale = 2 * sigma**4 * square
    worst.see(
        f"{where}: Rademacher variance", 1 + variance / scale, 1 + 2 * sigma**4 * rest / scale
    )


def _monte_carlo(
    net: cases.Network, law: str, objective: Objective, sampler: Sampler, level: Level
) -> tuple[Verdict, list[dict[str, Any]]]:
    """Test the sampled mean against σ² Tr with the exact variance: T1, fixed n."""
    f, sigma = functional(net.model), 0.01
    generator = torch.Generator().manual_seed(11)
    draws = DRAWS if level == "quick" else 10 * DRAWS
    samples = torch.cat(
        [
            objective(
                net.model, net.x, sigma=sigma, probes=sampler(f.params, 250, generator=generator)
            )
            for _ in range(draws // 250)
        ]
    )
    theta = as_matrix(empirical_ntk(net.model, net.x))
    trace, square = float(theta.trace()), float(theta.square().sum())
    if law == "Rademacher":
        squares = _squared_diagonal(net)
        square -= squares
    verdict = check_mean(samples, sigma**2 * trace, 2 * sigma**4 * square, delta=DELTA, beta=DELTA)
    mean = sigma**2 * trace
    return verdict, real_rows(net, {
        f"mean of {draws} {law} draws ÷ σ² Tr": float(samples.mean()) / mean,
        f"bias that {draws} {law} draws would show": verdict.detectable_bias / mean,
    })  # fmt: skip


def _entry(net: cases.Network, law: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "network": net.name, "probes": law, "verdict": verdict.status, "n": verdict.n,
        "mean": verdict.observed[0], "expected": verdict.expected[0],
        "false_alarm": verdict.delta, "detectable_bias": verdict.detectable_bias,
        "missed_with_probability": verdict.beta,
    }  # fmt: skip


def _squared_diagonal(net: cases.Network) -> float:
    """Return ``Σ_i (JᵀJ)_ii²``."""
    return sum(
        float(d.square().sum()) for d in ntk_trace(net.model, net.x, per="parameter").values()
    )


# --- S2 ------------------------------------------------------------------------------------------


def _taylor(d: int) -> Any:
    return taylor.taylor_bias_identity(d)


def _taylor_with(change: Callable[[taylor.Jet], Any]) -> Callable[[int], Any]:
    def identity(d: int) -> Any:
        return taylor.taylor_bias_identity(
            d, formula=lambda jet: taylor.sigma4_formula(jet) + change(jet)
        )

    return identity


def _hessian_norm(jet: taylor.Jet) -> Any:
    parameters = range(len(jet.steps))
    return sum(jet.derivative(i, j) ** 2 for i in parameters for j in parameters) * QQ(1, 2)


def _gradient_term(jet: taylor.Jet) -> Any:
    parameters = range(len(jet.steps))
    return -sum(jet.derivative(i) * jet.derivative(i, j, j) for i in parameters for j in parameters)


def gauss_hermite(params: Params, nodes: int) -> Design:
    """Return the tensor-product Gauss–Hermite rule over all parameters, nodes^P points."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    d = sum(p.numel() for p in params.values())
    grid = torch.cartesian_prod(*[torch.from_numpy(points)] * d).reshape(-1, d)
    mass = torch.cartesian_prod(*[torch.from_numpy(weights / weights.sum())] * d).reshape(-1, d)
    parts = grid.split([p.numel() for p in params.values()], dim=1)
    probes = {
        name: part.reshape(-1, *p.shape)
        for (name, p), part in zip(params.items(), parts, strict=True)
    }
    return Design(probes, mass.prod(1), 2 * nodes - 1, "gaussian")


def _smooth_networks() -> list[tuple[cases.Network, int]]:
    """Return smooth networks of two and three parameters, with the nodes that quadrature needs."""
    x = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    tanh = mlp([1, 1, 1], activation=nn.Tanh, dtype=torch.float64)
    gelu = mlp([1, 1, 2], activation=nn.GELU, dtype=torch.float64)
    with torch.no_grad():
        for p, values in zip(
            (*tanh.parameters(), *gelu.parameters()), (1, 2, 1, [2, -1]), strict=True
        ):
            p.copy_(torch.as_tensor(values, dtype=torch.float64).view(-1, 1))
    return [
        (cases.Network("tanh 1-1-1", tanh, x), 48),
        (cases.Network("GELU 1-1-2", gelu, x), 24),
    ]


def _finite_difference_mean(net: cases.Network, sigma: float, nodes: int) -> float:
    def statistic(probes: Params) -> Tensor:
        return ntk_sap_objective(
            net.model, net.x, sigma=sigma, probes=probes, form="finite_difference"
        )

    return float(design_mean(statistic, gauss_hermite(functional(net.model).params, nodes)))


def _coefficient_without_gradient_term(model: Any, x: Tensor) -> float:
    """Leave out ``J·∇(tr H)``, found as the part that is odd in the head's sign for these nets."""
    f = functional(model)
    flat = torch.cat([p.flatten() for p in f.params.values()])
    sizes = [p.numel() for p in f.params.values()]

    def outputs(theta: Tensor) -> Tensor:
        parts = theta.split(sizes)
        named = {n: t.view(p.shape) for (n, p), t in zip(f.params.items(), parts, strict=True)}
        return f.model_fn(named, x).flatten()

    h = torch.func.hessian(outputs)(flat)
    trace = h.diagonal(dim1=1, dim2=2).sum(1)
    return float(trace.square().sum() / 4 + h.square().sum() / 2)


def _extrapolate(net: cases.Network, nodes: int, trace: float) -> float:
    """Return the limit of ``(E_FD − σ² Tr)/σ⁴`` as σ → 0, fitted by a polynomial in σ²."""
    a, b, c = (
        (_finite_difference_mean(net, s, nodes) - s**2 * trace) / s**4 for s in (0.04, 0.02, 0.01)
    )
    return (64 * c - 20 * b + a) / 45


@claim(
    "S2",
    subjects={"identity": _taylor, "coefficient": smooth_bias_coefficient},
    mutants={
        "takes ‖H‖² whole instead of half": {"identity": _taylor_with(_hessian_norm)},
        "leaves J·∇tr H out": {"identity": _taylor_with(_gradient_term)},
        "leaves J·∇tr H out of the code": {"coefficient": _coefficient_without_gradient_term},
        "is 1 % off": {"coefficient": lambda model, x: 1.01 * smooth_bias_coefficient(model, x)},
    },
)
def smooth_bias(
    level: Level, identity: Callable[[int], Any], coefficient: Callable[..., float]
) -> Outcome:
    """The σ⁴ term for the generic jet, in the ring; its code against Gauss–Hermite quadrature."""
    worst = Worst(tolerance=1e-6)
    terms = {}
    for d in (1, 2, 3):
        result = identity(d)
        terms[f"d = {d}"] = result.terms
        worst.require(f"the identity for {d} parameters: {result.residual}", result.holds)
    fits = {}
    for net, nodes in _smooth_networks():
        trace = float(ntk_trace(net.model, net.x))
        fits[net.name] = _extrapolate(net, nodes, trace)
        worst.see(f"{net.name}: coefficient of σ⁴", coefficient(net.model, net.x), fits[net.name])
    evidence: dict[str, Any] = worst.numbers() | {
        "terms_of_the_identity": terms,
        "extrapolated_coefficient": fits,
    }
    if worst.holds:
        evidence["bias_curves"] = bias_curves(20_000 if level == "quick" else 200_000)
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "the generic cubic jet in 1–3 parameters (proved); tanh and GELU nets by quadrature",
        evidence,
        worst.counterexample,
    )


def bias_curves(draws: int) -> list[dict[str, Any]]:
    """Return relative bias ``E_FD/(σ² Tr) − 1`` against σ: exact, leading order, and sampled."""
    generator = torch.Generator().manual_seed(5)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    sigmas = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    curves = []
    for widths in ((2, 2, 1), (2, 2, 2, 1)):
        net, x = _active(widths, options)
        fixed, trace = with_fixed_gates(net, x), float(ntk_trace(net, x))
        params = functional(net).params
        leading = subset_bias(net, x, 1e-3) / 1e-12 / trace
        exact = [expected_finite_difference(net, x, s) / (s**2 * trace) - 1 for s in sigmas]
        name = "ReLU " + "-".join(map(str, widths)) + ", gates held"
        curves.append(
            _curve(
                name,
                sigmas,
                exact,
                [leading * s**2 for s in sigmas],
                [_sampled(fixed, params, x, s, trace, draws, generator) for s in sigmas],
            )
        )
    net_, nodes = _smooth_networks()[0]
    smooth, trace = functional(net_.model), float(ntk_trace(net_.model, net_.x))
    leading = smooth_bias_coefficient(net_.model, net_.x) / trace
    exact = [_finite_difference_mean(net_, s, nodes) / (s**2 * trace) - 1 for s in sigmas]
    curves.append(
        _curve(
            net_.name,
            sigmas,
            exact,
            [leading * s**2 for s in sigmas],
            [
                _sampled(smooth.model_fn, smooth.params, net_.x, s, trace, draws, generator)
                for s in sigmas
            ],
        )
    )
    law = float(kinks.gate_flip_law()) * kinks.normal_density(0.0)
    exact = [kinks.averaged_bias(s) / (s**2 / 2) for s in sigmas]
    flips = [_sampled_flips(s, draws, generator) for s in sigmas]
    curves.append(
        _curve(
            "one ReLU, averaged over θ",
            sigmas,
            exact,
            [law * s**3 / (s**2 / 2) for s in sigmas],
            flips,
        )
    )
    return curves


def _active(widths: tuple[int, ...], options: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """Return a network whose output is not dead on its batch."""
    while True:
        net = mlp(list(widths), **options)
        x = torch.randn(3, widths[0], **options)
        if float(ntk_trace(net, x)) > 1 and float(net(x).detach().abs().min()) > 0:
            return net, x


def _sampled(
    model_fn: ModelFn,
    params: Params,
    x: Tensor,
    sigma: float,
    trace: float,
    draws: int,
    generator: torch.Generator,
) -> tuple[float, float, float]:
    """Return the sampled relative bias with its 95 % interval.

    The JVP form is the control variate, and every probe is used with both signs.
    """
    probes = sample_gaussian(params, draws, generator=generator)
    excess = torch.zeros((), dtype=x.dtype)
    for sign in (1, -1):
        signed = {name: sign * probe for name, probe in probes.items()}
        difference, control = (
            pure_objective(model_fn, params, None, x, signed, sigma=sigma, form=form)
            for form in FORMS
        )
        excess = excess + (difference - control) / 2
    return _interval(excess / (sigma**2 * trace))


def _sampled_flips(
    sigma: float, draws: int, generator: torch.Generator
) -> tuple[float, float, float]:
    theta, step = torch.randn(2, 10 * draws, generator=generator, dtype=torch.float64)
    moved = torch.relu(theta + sigma * step) - torch.relu(theta)
    excess = moved.square() - sigma**2 * step.square() * (theta > 0)
    return _interval(excess / (sigma**2 / 2))


def _interval(samples: Tensor) -> tuple[float, float, float]:
    mean, error = float(samples.mean()), float(samples.std()) / len(samples) ** 0.5
    return mean, mean - 1.96 * error, mean + 1.96 * error


def _curve(
    network: str,
    sigma: list[float],
    exact: list[float],
    leading: list[float],
    sampled: list[tuple[float, float, float]],
) -> dict[str, Any]:
    mean, low, high = (list(column) for column in zip(*sampled, strict=True))
    return {"network": network, "sigma": sigma, "exact": exact, "leading": leading,
            "monte_carlo": mean, "low": low, "high": high}  # fmt: skip


# --- S2.fixed_gates, S2.unbiased -----------------------------------------------------------------


def _identity(widths: tuple[int, ...]) -> Any:
    return taylor.fixed_gate_identity(widths)


def _linear_power(widths: tuple[int, ...]) -> Any:
    """Give a set of |S| parameters the power σ^{|S|}·σ², right for pairs only."""

    def formula(net: Any) -> Any:
        bias = taylor.subset_bias(net)
        sigma = net.extra[0]
        place = bias.ring.index(sigma)
        wrong = bias.ring.zero
        for monomial, c in bias.terms():
            powers = list(monomial)
            powers[place] = powers[place] // 2 + 2
            wrong[tuple(powers)] = wrong.get(tuple(powers), 0) + c
        return wrong

    return taylor.fixed_gate_identity(widths, formula=formula)


@claim(
    "S2.fixed_gates",
    subjects={
        "identity": _identity,
        "expected": expected_finite_difference,
        "subsets": subset_bias,
    },
    mutants={
        "gives S the power |S| + 2": {"identity": _linear_power},
        "counts single parameters too": {
            "subsets": lambda model, x, sigma: (
                subset_bias(model, x, sigma) + sigma**2 * float(ntk_trace(model, x))
            )
        },
        "takes the gates of the perturbed network": {
            "expected": lambda model, x, sigma: float(
                design_mean(
                    lambda probes: ntk_sap_objective(
                        model, x, sigma=sigma, probes=probes, form="finite_difference"
                    ),
                    all_signs(functional(model).params),
                )
            )
        },
    },
)
def fixed_gate_bias(
    level: Level,
    identity: Callable[[tuple[int, ...]], Any],
    expected: Callable[..., float],
    subsets: Callable[..., float],
) -> Outcome:
    """The sum over subsets: in the ring with symbolic gates, and against all sign vectors."""
    shapes = ((2, 2, 1), (2, 2, 2), (2, 2, 2, 1))
    for widths in shapes:
        result = identity(widths)
        if not result.holds:
            return Outcome(
                "refuted",
                "proved",
                f"{widths} with symbolic gates",
                {},
                f"{widths}: {result.residual}",
            )

    def check(case: strategies.Case) -> None:
        if sum(p.numel() for p in case.model.parameters()) > 8:
            return
        by_subsets = subsets(case.model, case.x, 1.0)
        by_signs = expected(case.model, case.x, 1.0) - float(ntk_trace(case.model, case.x))
        if by_subsets != by_signs or by_subsets < 0:
            raise Broken(f"bias by subsets {by_subsets}, by all signs {by_signs}\n{case}")

    found = search(
        strategies.mlps(max_width=2, max_depth=3), check, 30 if level == "quick" else 200
    )
    net, x = _active(
        (2, 2, 1), {"generator": torch.Generator().manual_seed(1), "dtype": torch.float64}
    )
    hidden = (net.get_submodule("layer1")(x) > 0).sum(1)
    closed_form = float((x.square().sum(1) * hidden).sum())
    agrees = abs(subsets(net, x, 1.0) - closed_form) <= 1e-12 * closed_form
    broken = found.counterexample or (None if agrees else f"2-2-1: expected {closed_form}")
    evidence = {
        "identities": [str(w) for w in shapes],
        "examples": found.examples,
        "bias_of_a_2_2_1_net_at_sigma_1": closed_form,
    }
    return Outcome(
        "refuted" if broken else "holds",
        "property",
        "symbolic gates on small nets (proved); MLPs of at most 8 parameters drawn by value",
        evidence,
        broken,
    )


@claim(
    "S2.unbiased",
    subjects={"objective": ntk_sap_objective},
    mutants={
        "is the JVP form": {
            "objective": lambda model, x, *, form, **options: ntk_sap_objective(
                model, x, form="jvp", **options
            )
        }
    },
)
def finite_difference_unbiased(level: Level, objective: Objective) -> Outcome:
    """The exact mean of the finite difference on a 2-2-1 net with its gates held, by all signs."""
    net = mlp([2, 2, 1], dtype=torch.float64)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    params, trace = functional(net).params, float(ntk_trace(net, x))
    fixed = FunctionalModel(with_fixed_gates(net, x), params)

    def statistic(probes: Params) -> Tensor:
        return objective(fixed, x, sigma=1.0, probes=probes, form="finite_difference")

    mean = float(design_mean(statistic, all_signs(params)))
    evidence = {
        "network": "2-2-1, all weights 1, x = (1, 2), σ = 1",
        "mean": mean,
        "trace": trace,
        "bias": mean - trace,
    }
    text = (
        None
        if mean == trace
        else (
            f"2-2-1 net, all weights 1, x = (1, 2), gates held: E‖f(θ+Δ) − f(θ)‖² = {mean:g} at σ = 1, "
            f"σ² Tr Θ = {trace:g}; the bias {mean - trace:g} is σ⁴‖x‖²·#active units = 1·5·2"
        )
    )
    return Outcome(
        "holds" if mean == trace else "refuted",
        "exact-numeric",
        "one network, 64 sign vectors, integers",
        evidence,
        text,
    )
