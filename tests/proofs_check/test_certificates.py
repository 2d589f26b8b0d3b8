import doctest
import math
import random

import pytest
import sympy as sp
import torch
from sympy import QQ

from proofs_check.certificates import kinks, network
from proofs_check.certificates.bounds import BOUNDS, bound_polynomial
from proofs_check.certificates.linear import differentiated_trace, linear_trace
from proofs_check.certificates.network import square_sum, symbolic_conv, symbolic_mlp
from proofs_check.certificates.squares import list_paths, path_squares
from proofs_check.certificates.taylor import (
    active_unit_bias,
    fixed_gate_bias,
    fixed_gate_identity,
    gaussian_mean,
    generic_jet,
    noisy_network,
    sigma4_formula,
    subset_bias,
    taylor_bias_identity,
)
from proofs_check.certificates.trace import layer_traces, trace_polynomial
from proofs_check.certificates.verify import ring_identity, verify_certificate
from proofs_check.claim import CLAIMS
from proofs_check.claims import certificate_forms, certificates, no_free_prune
from proofs_check.claims.certificates import integer_linear_trace

NETS = [(2, 2, 1), (3, 3, 1), (2, 2, 2, 1), (2, 2, 2), (4, 4, 2)]
CONVS = [(4, 2, (1, 1), 1), (4, 2, (1, 2), 2), (4, 2, (2, 2), 1), (4, 2, (1, 1, 1), 2)]
OURS = {
    name: entry
    for name, entry in CLAIMS.items()
    if entry.check.__module__
    in {certificates.__name__, certificate_forms.__name__, no_free_prune.__name__}
}
EXPECTED = {name: "refuted" if name == "F5.at_one" else "holds" for name in OURS}


def certify(widths, name):
    net = symbolic_mlp(widths)
    return verify_certificate(
        bound_polynomial(net, name), trace_polynomial(net), path_squares(net, name)
    )


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("widths", [*NETS, (1, 1), (4, 3), (1, 3, 1, 2), (2, 2, 2, 2)])
def test_bound_minus_trace_is_its_squares(widths, name):
    assert certify(widths, name).holds


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("shape", CONVS)
def test_bound_minus_trace_is_its_squares_with_shared_weights(shape, name):
    net = symbolic_conv(*shape)
    bases = path_squares(net, name)
    assert verify_certificate(bound_polynomial(net, name), trace_polynomial(net), bases).holds


@pytest.mark.parametrize(
    ("widths", "squares"), [((2, 2, 1), 22), ((3, 3, 1), 135), ((2, 2, 2, 1), 148)]
)
def test_px_certificate_has_the_expected_number_of_squares(widths, squares):
    assert certify(widths, "px").squares == squares


def test_px_gap_of_2_2_1_by_hand():
    net = symbolic_mlp((2, 2, 1))
    x0, x1 = net.inputs
    first, (v,) = net.weights
    gap = bound_polynomial(net, "px") - trace_polynomial(net)
    for gate in net.gates[0]:
        gap = gap.subs(gate, 1)
    by_hand = 3 * square_sum(v) * square_sum(net.inputs)
    by_hand += square_sum([w for row in first for w in row]) * square_sum(net.inputs)
    by_hand += square_sum([row[0] * x1 - row[1] * x0 for row in first])
    assert gap == by_hand


@pytest.mark.parametrize("widths", NETS)
def test_trace_is_the_sum_of_squared_derivatives(widths):
    net = symbolic_mlp(widths)
    assert trace_polynomial(net) == differentiated_trace(net)


@pytest.mark.parametrize("shape", CONVS)
def test_trace_of_a_convolution_is_the_sum_of_squared_derivatives(shape):
    net = symbolic_conv(*shape)
    assert trace_polynomial(net) == differentiated_trace(net)


def test_a_convolution_by_hand():
    # f = v0 a0 (k0 x0 + k1 x1) + v1 a1 (k0 x1 + k1 x2)
    net = symbolic_conv(3, 2, (1, 1), 1)
    (x0, x1, x2), (a0, a1) = net.inputs, net.gates[0]
    k0, k1, v0, v1 = net.parameters
    h0, h1 = a0 * (k0 * x0 + k1 * x1), a1 * (k0 * x1 + k1 * x2)
    kernel = (v0 * a0 * x0 + v1 * a1 * x1) ** 2 + (v0 * a0 * x1 + v1 * a1 * x2) ** 2
    assert trace_polynomial(net) == kernel + h0**2 + h1**2
    a_k0, a_k1 = a0**2 * x0**2 + a1**2 * x1**2, a0**2 * x1**2 + a1**2 * x2**2
    b_v = (k0**2 + k1**2) * (a0**2 * (x0**2 + x1**2) + a1**2 * (x1**2 + x2**2))
    assert bound_polynomial(net, "edge") == (v0**2 + v1**2) * (a_k0 + a_k1) + b_v


def test_paths_of_a_convolution():
    # 3 places × 2 taps × 2 channels × 1 output; no path through a tap that is not there.
    net = symbolic_conv(4, 2, (1, 2), 1)
    paths = list_paths(net)
    assert len(paths) == 12
    assert all(net.names[0][p.units[1]][p.units[0]] == p.parameters[0] for p in paths)


@pytest.mark.parametrize("shape", [(4, 2, (1,), 1), (2, 3, (1, 1), 1), (4, 2, (1, 0), 1)])
def test_impossible_convolutions_are_refused(shape):
    with pytest.raises(ValueError, match="the convolutions must be at least one that leaves a pos"):
        symbolic_conv(*shape)


def test_trace_of_a_2_1_1_net_by_hand():
    net = symbolic_mlp((2, 1, 1))
    (x0, x1), (a,) = net.inputs, net.gates[0]
    w0, w1, v = net.parameters
    assert layer_traces(net) == (a**2 * v**2 * (x0**2 + x1**2), a**2 * (w0 * x0 + w1 * x1) ** 2)


def test_chains_have_no_gap():
    net = symbolic_mlp((1, 1, 1, 1))
    assert all(bound_polynomial(net, name) == trace_polynomial(net) for name in BOUNDS)


def test_bounds_agree_with_sums_over_paths_at_random_integers():
    net, draw = symbolic_mlp((2, 3, 2, 2)), random.Random(3)
    values = [(g, draw.randint(-3, 3)) for g in net.ring.gens]
    paths = list_paths(net)
    edges = {edge for path in paths for edge in path.edges}

    def value(polynomial):
        return int(polynomial.evaluate(values))

    def weight(edge):
        return value(net.weights[edge[0]][edge[1]][edge[2]])

    data = {p.units: value(p.data) ** 2 for p in paths}
    rest = {
        (p.units, j): math.prod(weight(e) for e in p.edges if e != j) ** 2
        for p in paths
        for j in p.edges
    }
    per_edge = {
        j: (
            sum(data[p.units] for p in paths if j in p.edges),
            sum(rest[p.units, j] for p in paths if j in p.edges),
        )
        for j in edges
    }
    r_edge = sum(a * b for a, b in per_edge.values())
    r_px = sum(data.values()) * sum(b for _, b in per_edge.values())
    assert value(bound_polynomial(net, "edge")) == r_edge
    assert value(bound_polynomial(net, "px")) == r_px


def test_a_failed_identity_shows_its_first_terms():
    net = symbolic_mlp((2, 1))
    x0, x1 = net.inputs
    result = ring_identity(x0**2 + x1, x0**2)
    assert (result.holds, result.terms, result.residual) == (False, 2, "x1")
    many = ring_identity((x0 + x1 + 1) ** 3, net.ring.zero)
    assert many.residual.endswith("… (10 terms)")


def test_examples_run():
    results = doctest.testmod(network)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("widths", [(3,), (2, 0, 1), ()])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(ValueError, match="widths must be at least two positive integers, got"):
        symbolic_mlp(widths)


def test_linear_trace_of_2_1_1_by_hand():
    net = symbolic_mlp((2, 1, 1), gated=False)
    x0, x1 = net.inputs
    w0, w1, v = net.parameters
    assert linear_trace(net) == (x0**2 + x1**2) * v**2 + (w0 * x0 + w1 * x1) ** 2


def test_integer_linear_trace_is_the_polynomial_at_those_integers():
    net = symbolic_mlp((2, 3, 2), gated=False)
    draw = random.Random(0)
    values = {str(g): draw.randint(-3, 3) for g in net.ring.gens}
    weights = [
        torch.tensor([[values[str(w)] for w in row] for row in layer]) for layer in net.weights
    ]
    x = torch.tensor([[values[str(x)] for x in net.inputs]])
    exact = linear_trace(net).evaluate([(g, values[str(g)]) for g in net.ring.gens])
    assert integer_linear_trace(weights, x) == exact


def test_gaussian_moments():
    jet = generic_jet(2, 1)
    a, b = jet.steps
    s = jet.sigma
    assert gaussian_mean(a**4 * b**2, jet.steps, s) == 3 * s**6
    assert gaussian_mean(a**3 * b, jet.steps, s) == 0
    assert gaussian_mean(a**6, jet.steps, s) == 15 * s**6


@pytest.mark.parametrize("order", [3, 4, 5])
@pytest.mark.parametrize("d", [1, 2])
def test_sigma4_coefficient(d, order):
    assert taylor_bias_identity(d, order=order).holds


def test_sigma4_coefficient_in_three_parameters():
    assert taylor_bias_identity(3).holds


@pytest.mark.parametrize("d", [1, 2, 3])
def test_sigma4_coefficient_rejects_a_wrong_factor(d):
    def halved_frobenius(jet):
        indices = range(len(jet.steps))
        frobenius = sum(jet.derivative(i, j) ** 2 for i in indices for j in indices)
        return sigma4_formula(jet) - frobenius * QQ(1, 4)

    result = taylor_bias_identity(d, formula=halved_frobenius)
    assert not result.holds
    assert result.residual


@pytest.mark.parametrize("widths", [(2, 2, 1), (2, 2, 2, 1), (2, 2, 2)])
def test_fixed_gate_bias_is_the_sum_over_subsets(widths):
    assert fixed_gate_identity(widths).holds


@pytest.mark.parametrize("widths", [(2, 2, 1), (3, 3, 1), (2, 2, 2)])
def test_fixed_gate_bias_counts_active_units(widths):
    assert fixed_gate_identity(widths, formula=active_unit_bias).holds


def test_fixed_gate_bias_of_deeper_nets_has_higher_powers():
    net = noisy_network((2, 2, 2, 1))
    sigma = net.ring.index(net.extra[0])
    assert {m[sigma] for m, _ in fixed_gate_bias(net).terms()} == {4, 6}
    assert not fixed_gate_identity((2, 2, 2, 1), formula=active_unit_bias).holds


def test_fixed_gate_bias_rejects_a_missing_subset_size():
    def without_pairs(net):
        return subset_bias(net) * 0

    assert not fixed_gate_identity((2, 2, 1), formula=without_pairs).holds


def test_gate_flip_law():
    assert sp.simplify(kinks.gate_flip_law() + sp.sqrt(2 / sp.pi) / 3) == 0
    assert kinks.absolute_moment(3) == 2 * sp.sqrt(2) / sp.sqrt(sp.pi)
    assert kinks.gate_flip_correction() == sp.Rational(-3, 5)


def test_gate_flip_law_is_the_limit_of_the_quadrature():
    leading = float(kinks.gate_flip_law()) * kinks.normal_density(0)
    errors = [abs(kinks.averaged_bias(s) / (leading * s**3) - 1) for s in (0.2, 0.1, 0.05)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("theta", "sigma"), [(1.0, 0.5), (1.0, 0.2), (0.2, 0.1)])
def test_fixed_points_feel_the_kink_exponentially_little(theta, sigma):
    bias = kinks.fixed_point_bias(theta, sigma)
    r = theta / sigma
    assert 0 < -bias <= kinks.fixed_point_ceiling(theta, sigma)
    assert kinks.fixed_point_ceiling(theta, sigma) <= sigma**2 * (r + 1) * math.exp(-(r**2) / 2)


@pytest.mark.parametrize("name", sorted(OURS))
def test_claims_reach_their_status(name):
    outcome = OURS[name].check("quick", **OURS[name].subjects)
    assert outcome.status == EXPECTED[name]
    assert (outcome.counterexample is None) == (outcome.status == "holds")


@pytest.mark.parametrize(
    ("name", "mutant"), [(name, m) for name, entry in sorted(OURS.items()) for m in entry.mutants]
)
def test_mutants_are_killed(name, mutant):
    entry = OURS[name]
    outcome = entry.check("quick", **{**entry.subjects, **entry.mutants[mutant]})
    assert outcome.status != EXPECTED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OURS))
def test_claims_reach_their_status_at_the_full_level(name):
    assert OURS[name].check("full", **OURS[name].subjects).status == EXPECTED[name]
