"""Properties, on networks drawn by value."""

import torch
from hypothesis import event, given, target
from hypothesis import strategies as st

from ntktheory import (
    NumericalError,
    check_mean,
    empirical_ntk,
    functional,
    ntk_sap_objective,
    ntk_trace,
    path_bounds,
)
from ntktheory.estimators.moments import design_mean
from ntktheory.ntk import reference
from ntktheory.probes import cubature3, hadamard_design, sample_gaussian, sample_rademacher
from proofs_check import strategies
from proofs_check.bounds_evidence import judge_exactly
from proofs_check.claims.beyond import LADDER
from proofs_check.compare import relative_gap


def trace_by_reference(case):
    f = functional(case.model)
    return float(
        sum(t.sum() for t in reference.trace(f.model_fn, f.params, case.masks, case.x).values())
    )


def check_ladder(case):
    try:
        bounds = path_bounds(case.model, case.x, masks=case.masks)
    except NumericalError:
        event("overflow refused")
        return
    values = dict(bounds.upper) | {"trace": bounds.trace}
    event(
        f"{'masked' if case.masks else 'dense'}, trace {'zero' if not bounds.trace else 'positive'}"
    )
    event(f"an input of zeros, so gates exactly on their kinks: {bool((case.x == 0).all())}")
    if values["edge"] > 0:
        target(values["trace"] / values["edge"])
    for low, high in LADDER:
        if values[low] > values[high]:
            event("rounding judged exactly")
            judge_exactly(case, values, low, high)


@given(strategies.scaled(strategies.masked(strategies.mlps())))
def test_bounds_exceed_the_trace_of_mlps(case):
    check_ladder(case)


@given(strategies.scaled(strategies.masked(strategies.convnets())))
def test_bounds_exceed_the_trace_of_convnets(case):
    check_ladder(case)


@given(strategies.networks())
def test_engines_agree(case):
    f = functional(case.model)
    exact = reference.ntk(f.model_fn, f.params, case.masks, case.x)
    for engine in ("layerwise", "jacobian", "ntk_vp"):
        theta = empirical_ntk(case.model, case.x, masks=case.masks, engine=engine)
        assert relative_gap(theta, exact) < 1e-12, engine
    assert (
        relative_gap(ntk_trace(case.model, case.x, masks=case.masks), trace_by_reference(case))
        < 1e-12
    )


@given(strategies.networks(max_width=3, max_depth=3), st.sampled_from((0.01, 0.5, 2.0)))
def test_jvp_form_is_unbiased_by_exact_designs(case, sigma):
    f = functional(case.model)
    expected = sigma**2 * trace_by_reference(case)

    def statistic(probes):
        return ntk_sap_objective(case.model, case.x, sigma=sigma, probes=probes, masks=case.masks)

    by_hadamard = float(design_mean(statistic, hadamard_design(f.params)))
    by_cubature = float(design_mean(statistic, cubature3(f.params)))
    assert relative_gap(by_hadamard, expected) < 1e-12
    assert relative_gap(by_cubature, expected) < 1e-12


def sampled(case, sampler, draws, seed):
    f = functional(case.model)
    generator = torch.Generator().manual_seed(seed)
    probes = sampler(f.params, draws, generator=generator)
    return ntk_sap_objective(case.model, case.x, sigma=1.0, probes=probes, masks=case.masks)


@given(strategies.networks(max_width=3, max_depth=3), st.integers(0, 2**32 - 1))
def test_jvp_form_is_unbiased_by_e_values(case, seed):
    # False alarm at most 1e-12 per example and law.
    theta = empirical_ntk(case.model, case.x, masks=case.masks)
    square = float(theta.square().sum())
    trace = float(theta.diagonal(dim1=0, dim2=1).diagonal(dim1=0, dim2=1).sum())
    gaussian = sampled(case, sample_gaussian, 400, seed)
    assert check_mean(gaussian, trace, 2 * square, delta=1e-12).status == "pass"
    diagonal = ntk_trace(case.model, case.x, per="parameter", masks=case.masks)
    square -= sum(float(d.square().sum()) for d in diagonal.values())
    signs = sampled(case, sample_rademacher, 400, seed)
    rounding = 1e-12 * max(trace, 1.0)
    verdict = check_mean(signs, trace, 2 * max(square, 0.0), delta=1e-12, atol=rounding)
    assert verdict.status == "pass"


def test_e_values_catch_a_bias():
    case = strategies.Case(
        torch.nn.Sequential(torch.nn.Linear(4, 4).double()), torch.ones(2, 4).double()
    )
    theta = empirical_ntk(case.model, case.x)
    variance = 2 * float(theta.square().sum())
    trace = float(ntk_trace(case.model, case.x))
    samples = sampled(case, sample_gaussian, 4000, 0)
    bias = 0.3 * variance**0.5
    assert check_mean(samples + bias, trace, variance, delta=1e-9).status == "fail"
    assert check_mean(samples, trace, variance, delta=1e-9).status == "pass"
