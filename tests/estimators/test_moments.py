"""The finite difference's bias on a given network, against enumeration, by hand, and measured."""

import math

import pytest
import torch
from torch import nn

from ntktheory import NumericalError, functional, ntk_trace
from ntktheory.estimators import difference_bias
from ntktheory.estimators.difference_bias import (
    FiniteDifferenceBias,
    finite_difference_bias,
    kink_contribution,
    sampled_bias,
    sigma_for_bias,
)
from ntktheory.estimators.moments import expected_finite_difference, smooth_bias_coefficient
from ntktheory.models import convnet, mlp
from ntktheory.probes import sample_gaussian

OPTIONS = {"dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=seeded(seed), **OPTIONS)


def gated():
    options = {"generator": seeded(), **OPTIONS}
    return {
        "2-2-1": (mlp([2, 2, 1], **options), normal(3, 2)),
        "2-2-1-1, biases": (mlp([2, 2, 1, 1], bias=True, **options), normal(4, 2)),
        "CNN": (
            convnet([1, 2], 1, image_size=2, kernel_size=2, padding=0, **options),
            normal(3, 1, 2, 2),
        ),
    }


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("network", gated())
def test_gates_held_the_polynomial_is_the_bias_at_every_sigma(network, sigma):
    model, x = gated()[network]
    bias = finite_difference_bias(model, x)
    trace = float(ntk_trace(model, x))
    exact = expected_finite_difference(model, x, sigma)
    assert bias.complete
    assert bias.trace == trace > 0
    assert sigma**2 * trace + bias.at(sigma) == pytest.approx(exact, rel=1e-12)
    assert bias.relative(sigma) == pytest.approx(bias.at(sigma) / (sigma**2 * trace))
    # At most one parameter per weight layer, its bias apart: f has degree 2 or 3 in all of them.
    assert len(bias.coefficients) == {"2-2-1": 1, "2-2-1-1, biases": 2, "CNN": 1}[network]
    assert all(c > 0 for c in bias.coefficients)


@pytest.mark.parametrize("network", gated())
def test_larger_networks_have_the_same_leading_coefficient(network, monkeypatch):
    model, x = gated()[network]
    every = finite_difference_bias(model, x)
    monkeypatch.setattr(difference_bias, "MAX_SUBSETS", 4)
    leading = finite_difference_bias(model, x)
    assert not leading.complete
    assert leading.coefficients == pytest.approx(every.coefficients[:1], rel=1e-12)


@pytest.mark.parametrize("tolerance", [1e-4, 0.05, 3.0])
@pytest.mark.parametrize("network", gated())
def test_the_largest_sigma_has_that_bias(network, tolerance):
    model, x = gated()[network]
    bias = finite_difference_bias(model, x)
    sigma = bias.largest_sigma(tolerance)
    assert bias.relative(sigma) == pytest.approx(tolerance, rel=1e-12)
    assert bias.relative(0.99 * sigma) < tolerance < bias.relative(1.01 * sigma)


def test_the_published_sigma_by_hand():
    """One active unit: f = vwx, bias σ⁴x², trace (v² + w²)x²."""
    model = mlp([1, 1, 1], **OPTIONS)
    for p, value in zip(model.parameters(), (3.0, 4.0), strict=True):
        nn.init.constant_(p, value)
    bias = finite_difference_bias(model, torch.tensor([[2.0]], **OPTIONS))
    assert (bias.trace, bias.coefficients) == (100.0, (4.0,))
    assert bias.relative(0.01) == pytest.approx(4e-6)
    assert bias.largest_sigma(0.01) == pytest.approx(0.5)


def test_one_layer_has_no_bias():
    bias = finite_difference_bias(mlp([3, 2], **OPTIONS), normal(4, 3))
    assert bias == FiniteDifferenceBias(bias.trace, (), True)
    assert bias.at(1.0) == 0
    assert bias.largest_sigma(1e-9) == math.inf


def smooth():
    return mlp([2, 3, 1], activation=nn.Tanh, generator=seeded(), **OPTIONS), normal(3, 2)


def test_smooth_networks_have_the_leading_term():
    model, x = smooth()
    bias = finite_difference_bias(model, x)
    assert not bias.complete
    assert bias.coefficients == (smooth_bias_coefficient(model, x),)
    assert abs(bias.relative(bias.largest_sigma(0.01))) == pytest.approx(0.01, rel=1e-12)
    probes = sample_gaussian(functional(model).params, 200_000, generator=seeded(3))
    measured = sampled_bias(model, x, 0.05, probes)
    expected = bias.at(0.05)
    slack = 5 * measured.standard_error + 0.2 * abs(expected)  # and the term of order σ⁶
    assert abs(measured.mean - expected) < slack < 0.9 * abs(expected)


@pytest.mark.parametrize("tolerance", [0.03, 0.3])
@pytest.mark.parametrize("network", ["2-2-1", "smooth"])
def test_the_sigma_for_a_bias_is_measured(network, tolerance):
    model, x = smooth() if network == "smooth" else gated()[network]
    probes = sample_gaussian(functional(model).params, 4000, generator=seeded(5))
    sigma = sigma_for_bias(model, x, tolerance, probes=probes)
    assert sigma <= finite_difference_bias(model, x).largest_sigma(tolerance)
    fresh = sample_gaussian(functional(model).params, 4000, generator=seeded(6))
    allowed = tolerance * sigma**2 * float(ntk_trace(model, x))
    assert abs(sampled_bias(model, x, sigma, fresh).mean) < allowed
    if network == "smooth":  # the leading term alone would have taken a σ that is too large
        largest = finite_difference_bias(model, x).largest_sigma(tolerance)
        assert abs(sampled_bias(model, x, largest, fresh).mean) > tolerance * largest**2 * float(
            ntk_trace(model, x)
        )


def test_the_sigma_for_a_bias_from_a_given_start():
    model, x = gated()["2-2-1"]
    probes = sample_gaussian(functional(model).params, 4000, generator=seeded(5))
    sigma = sigma_for_bias(model, x, 0.03, probes=probes, start=1.0)
    assert math.log2(sigma) * 2 == pytest.approx(round(math.log2(sigma) * 2), abs=1e-9)
    allowed = 0.03 * float(ntk_trace(model, x))

    def seen(s):
        measured = sampled_bias(model, x, s, probes)
        return (abs(measured.mean) + 3 * measured.standard_error) / s**2

    assert (
        seen(sigma) <= allowed < seen(sigma * math.sqrt(2))
    )  # the largest that was tried and does
    assert sigma_for_bias(model, x, 0.03, probes=probes, start=sigma / 3) == sigma / 3


@pytest.mark.parametrize(
    ("text", "tolerance", "start"),
    [
        ("sigma must be a positive standard deviation, got 0", 0.1, 0),
        ("sigma must be a positive standard deviation, got -1.0", 0.1, -1.0),
        ("tolerance must be a positive number, got 0", 0, 1.0),
    ],
)
def test_a_start_that_is_none(text, tolerance, start):
    model, x = gated()["2-2-1"]
    probes = sample_gaussian(functional(model).params, 2, generator=seeded(5))
    with pytest.raises(ValueError, match=text):
        sigma_for_bias(model, x, tolerance, probes=probes, start=start)


def test_no_sigma_will_do_with_too_few_probes():
    model, x = gated()["2-2-1"]
    probes = sample_gaussian(functional(model).params, 2, generator=seeded(5))
    with pytest.raises(
        NumericalError, match=r"probes must be enough to see a relative bias of 1e-15"
    ):
        sigma_for_bias(model, x, 1e-15, probes=probes)


def one_relu():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double().eval()
    nn.init.constant_(model[0].weight, 0.5)
    return model, torch.ones(1, 1, **OPTIONS)


def test_gates_that_flip_by_hand():
    """θ = ½, Δ = ±1: (1, ¼) in place of (1, 1); the mean over both signs is short of 3/8."""
    model, x = one_relu()
    probes = {"0.weight": torch.ones(3, 1, 1, **OPTIONS)}
    for measure in (kink_contribution, sampled_bias):
        assert measure(model, x, 1.0, probes) == (-0.375, 0.0)
    assert kink_contribution(model, x, 0.4, probes) == (0.0, 0.0)  # no gate flips
    assert math.isnan(kink_contribution(model, x, 1.0, {"0.weight": probes["0.weight"][:1]})[1])


def test_kinks_and_fixed_gates_make_up_the_bias():
    model, x = gated()["2-2-1"]
    probes = sample_gaussian(functional(model).params, 60_000, generator=seeded(5))
    sigma = 0.2
    whole, kinks = (f(model, x, sigma, probes) for f in (sampled_bias, kink_contribution))
    exact = finite_difference_bias(model, x).at(sigma)
    assert abs(kinks.mean) > 4 * kinks.standard_error
    error = (whole.standard_error**2 + kinks.standard_error**2) ** 0.5
    assert abs(whole.mean - kinks.mean - exact) < 6 * error < 0.5 * exact


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.inf, math.nan])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be a positive number, got .* 1 %"):
        FiniteDifferenceBias(1.0, (1.0,), True).largest_sigma(tolerance)


def test_bad_input():
    model, x = one_relu()
    probes = {"0.weight": torch.ones(3, 1, 1, **OPTIONS)}
    with pytest.raises(ValueError, match=r"sigma must be a positive standard deviation, got 0"):
        FiniteDifferenceBias(1.0, (1.0,), True).at(0.0)
    with pytest.raises(ValueError, match=r"sigma must be a positive standard deviation, got -1"):
        sampled_bias(model, x, -1.0, probes)
    with pytest.raises(ValueError, match=r"probes must be at least one probe, got none"):
        kink_contribution(model, x, 1.0, {})
    with pytest.raises(ValueError, match=r"model must be a network with a positive trace, got 0"):
        finite_difference_bias(model, -x)
