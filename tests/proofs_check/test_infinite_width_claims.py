"""N4, N6, N7: the verdicts, the planted errors, and the exact means they rest on."""

import math

import pytest
import torch

from ntktheory.estimators.evidence import check_mean
from proofs_check import exact_means
from proofs_check.claim import CLAIMS
from proofs_check.claims import infinite_width, traps  # noqa: F401
from proofs_check.ledger import load_ledger
from proofs_check.runner import run_check, run_mutant

IDS = ("N4", "N6", "N6.finite_width", "N7", "N7.ties")
MUTANTS = [(id_, name) for id_ in IDS for name in CLAIMS[id_].mutants]


@pytest.mark.parametrize("id_", IDS)
def test_status(id_):
    outcome = run_check(CLAIMS[id_], "quick")
    assert outcome.status == load_ledger()[id_].expected
    assert outcome.false_alarm <= 1e-9
    assert (outcome.counterexample is None) == (outcome.status == "holds")


@pytest.mark.parametrize(("id_", "name"), MUTANTS)
def test_mutant_is_killed(id_, name):
    assert run_mutant(CLAIMS[id_], name, "quick", load_ledger()[id_].expected)["killed"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rules_integrate_polynomials(count):
    nodes, weights = exact_means.split_normal_rule(count)
    for degree in range(2 * count):
        half = (weights * nodes.clamp(min=0) ** degree * (nodes > 0)).sum()
        exact = 2 ** (degree / 2) * math.gamma((degree + 1) / 2) / math.sqrt(math.pi) / 2
        assert float(half) == pytest.approx(exact, rel=1e-12)


def test_the_variance_of_one_hidden_unit_is_that_of_draws():
    x = infinite_width.plane()[[0, 4]]
    mean, variance = exact_means.one_hidden_unit(x, [0.7, 1.3], 2)
    draws = exact_means.drawn_kernels([2, 1, 2], [0.7, 1.3], x, 200_000, seed=1)
    torch.testing.assert_close(draws.mean(0), mean, rtol=0.03, atol=0.01)
    torch.testing.assert_close(draws.var(0), variance, rtol=0.1, atol=0.05)


def test_the_variance_of_the_trace_is_that_of_draws():
    widths, variances = [2, 6, 5, 3], [0.5, 0.4, 0.3]
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    draws = exact_means.drawn_kernels(widths, variances, x, 200_000, seed=2).flatten()
    assert float(draws.var()) == pytest.approx(
        exact_means.trace_variance(widths, variances, 5.0), rel=0.05
    )


def test_the_monte_carlo_alone_sees_a_bias_of_five_per_cent():
    mean, variances = infinite_width.trace_formula, [2 / 4, 2 / 8, 2 / 8]
    x = infinite_width._line(4)
    draws = infinite_width._drawn((4, 8, 8, 2), tuple(variances), "line", 200_000).flatten()
    variance = exact_means.trace_variance([4, 8, 8, 2], variances, float(x.square().sum()))
    expected = mean(x, [4, 8, 8, 2], variances)
    assert check_mean(draws, expected, variance, delta=1e-9).status == "pass"
    assert check_mean(draws, 1.05 * expected, variance, delta=1e-9).status == "fail"


def test_opposite_inputs_have_the_mean_of_draws():
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    widths, variances = [2, 4, 3, 2], [0.5, 0.4, 0.3]
    draws = exact_means.drawn_kernels(widths, variances, x, 200_000, seed=3)
    exact = exact_means.opposite_mean(widths, variances, 2.0)
    assert float(draws[:, 0, 1].mean()) == pytest.approx(exact, rel=0.02)


def test_ties_are_counted():
    law = [[(-1, 1)] * 2]
    nets = exact_means.enumerated([law, [[(1,)]]])
    assert exact_means.ties(nets, torch.ones(1, 2, dtype=torch.float64)) == 2
    assert exact_means.ties(nets, torch.tensor([[1.0, 2.0]], dtype=torch.float64)) == 0
