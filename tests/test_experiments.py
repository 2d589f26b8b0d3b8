"""The mathematics inside the experiments: exact means, proven bounds, intervals."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom, chi, norm
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ntk_sap_rounds import SHAPE, flops
from experiments import collapse, fidelity
from experiments.false_alarms import (
    DELTA,
    objective_law,
    rate,
    simple_laws,
    t_alarms,
    z_alarms,
    z_exact,
)
from experiments.finite_difference_bias import (
    ORDERS,
    activation_moments,
    cases,
    chi_norm,
    exact_mean,
    interval,
    moment_bound,
    objectives,
    second_moment_bound,
)
from ntktheory import functional
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.moments import expected_finite_difference
from ntktheory.models import mlp, vgg
from ntktheory.probes import sample_gaussian, sample_rademacher
from ntktheory.pruning import score


class TestExactMean:
    @pytest.mark.parametrize("act", [nn.ReLU(), nn.Tanh()])
    @pytest.mark.parametrize("h", [-0.3, 0.0, 0.7])
    def test_moments_of_an_activation(self, act, h):
        def integrand(g, power):
            return float(act(torch.tensor(h + 0.4 * g, dtype=torch.float64))) ** power * norm.pdf(g)

        mean, spread = torch.tensor([[[h]], [[0.4]]], dtype=torch.float64)
        for power, found in zip((1, 2), activation_moments(act, mean, spread), strict=True):
            wanted = quad(integrand, -12, 12, args=(power,), points=[-h / 0.4], epsabs=1e-12)[0]
            assert float(found) == pytest.approx(wanted, rel=1e-9, abs=1e-12)

    def test_is_the_formula_where_no_gate_flips(self):
        net, x = cases()[0][1:]
        assert exact_mean(net, x, 0.01) == pytest.approx(
            expected_finite_difference(net, x, 0.01), rel=1e-12
        )

    def test_two_outputs_and_samples(self):
        start = torch.Generator().manual_seed(0)
        net = mlp([2, 3, 2], generator=start, dtype=torch.float64)
        x = torch.randn(2, 2, generator=start, dtype=torch.float64)
        values = objectives(net, x, 1.0, 40_000, 0, "finite_difference")
        error = float(values.std()) / 200
        assert abs(float(values.mean()) - exact_mean(net, x, 1.0)) < 5 * error
        assert error < 0.01 * exact_mean(net, x, 1.0)


class TestMomentBound:
    @pytest.mark.parametrize("p", ORDERS)
    def test_is_reached_by_one_linear_layer(self, p):
        net = nn.Sequential(nn.Linear(3, 4, bias=False)).double()
        x = torch.tensor([[1.0, 2.0, -2.0]], dtype=torch.float64)
        exact = 0.09 * 9 * chi(4).expect(lambda r: r ** (2 * p), ub=40) ** (1 / p)
        assert moment_bound(net, x, 0.3, p) == pytest.approx(exact, rel=1e-6)

    def test_is_reached_by_one_patch(self):
        net = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.Flatten()).double()
        x = torch.arange(8.0, dtype=torch.float64).view(1, 2, 2, 2)
        exact = 0.25 * 140 * chi_norm(3, 4) ** 2
        assert moment_bound(net, x, 0.5, 2) == pytest.approx(exact, rel=1e-12)

    @pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
    @pytest.mark.parametrize("sigma", [0.01, 0.3])
    def test_is_not_exceeded(self, case, sigma):
        values = objectives(case.net, case.x, sigma, 2000, 0, "finite_difference")
        for p in (2, 4):
            assert values.pow(p).mean() ** (1 / p) < moment_bound(case.net, case.x, sigma, p)

    def test_other_layers_are_refused(self):
        net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).double()
        with pytest.raises(TypeError, match="no bound is known for LayerNorm"):
            moment_bound(net, torch.ones(1, 2, dtype=torch.float64), 0.1, 2)


class TestIntervals:
    def test_second_moment_of_a_known_law(self):
        x = torch.from_numpy(np.random.default_rng(0).standard_normal(20_000) ** 2)
        moments = {p: chi_norm(1, 2 * p) ** 2 for p in ORDERS}
        assert 3 < second_moment_bound(x, moments, 1e-6) < 6

    def test_ends_are_where_the_check_turns(self):
        x = torch.from_numpy(np.random.default_rng(1).exponential(size=1000))
        low, high = interval(x, 1.0, 1e-3)
        assert low < 1 < high < low + 2.05 * math.sqrt(2 * math.log(2e3) / 1000)
        for end in (low, high):
            inside = 0.99 * end + 0.01 * float(x.mean())
            for mean, status in ((end, "fail"), (inside, "pass")):
                assert check_mean(x, mean, 1.0, delta=1e-3, beta=5e-4).status == status


class TestFalseAlarms:
    def test_clopper_pearson(self):
        row = rate(7, 200)
        assert binom.sf(6, 200, row["low"]) == pytest.approx(0.025)
        assert binom.cdf(7, 200, row["high"]) == pytest.approx(0.025)
        assert rate(0, 200)["low"] == 0
        assert rate(200, 200)["high"] == 1

    def test_z_test_at_small_delta(self):
        assert z_exact(100, 1e-9)["times_nominal"] == pytest.approx(359, abs=0.5)

    def test_z_and_t_tests_against_scipy(self):
        from scipy.stats import ttest_1samp

        law = simple_laws()[1]
        x = law.draw(np.random.default_rng(2), 4000).reshape(200, 20) + 0.5
        z = np.abs(x.mean(1) - law.mean) / math.sqrt(law.variance / 20)
        assert (z_alarms(x, law)[:, -1] == (2 * norm.sf(z) < DELTA)).all()
        wanted = ttest_1samp(x, law.mean, axis=1).pvalue < DELTA
        assert 0 < wanted.sum() < 200
        assert (t_alarms(x, law)[:, -1] == wanted).all()

    @pytest.mark.parametrize("sample", [sample_gaussian, sample_rademacher])
    def test_moments_of_the_objective(self, sample):
        law = objective_law(sample, "")
        x = law.draw(np.random.default_rng(3), 50_000)
        assert x.mean() == pytest.approx(1, abs=5 * math.sqrt(law.variance / 50_000))
        assert x.var() == pytest.approx(law.variance, rel=0.05)

    def test_moments_of_the_laws(self):
        for law in simple_laws()[:3]:
            x = law.draw(np.random.default_rng(4), 1_000_000)
            assert x.mean() == pytest.approx(law.mean, abs=5e-3 * math.sqrt(law.variance))
            assert x.var() == pytest.approx(law.variance, rel=0.05)


class TestNtkSapRounds:
    def test_products_of_a_score(self):
        """Nine products of a forward pass' size: three per layer, forwards and twice backwards."""
        net, samples = vgg(16, 10, width=4), 6
        with FlopCounterMode(display=False) as counter:
            net(torch.ones(samples, *SHAPE))
        options = {"input_shape": SHAPE, "samples": samples, "realizations": 1}
        ratio = flops(net, "cpu", options) / counter.get_total_flops()
        assert (
            8.5 < ratio < 11.5
        )  # the first layer needs no slope of inputs; outputs are checked once


class TestCollapse:
    """On 64-1-2 nets: the first layer has 64 weights, the second two."""

    def net(self):
        net = mlp([64, 1, 2], dtype=torch.float64)
        with torch.no_grad():
            net.layer1.weight.copy_(torch.arange(1.0, 65.0))
            net.layer2.weight.copy_(torch.tensor([[0.5], [0.25]]))
        return nn.Sequential(nn.Flatten(), net)

    def batch(self):
        return torch.ones(2, 1, 8, 8, dtype=torch.float64), torch.arange(2)

    def test_last_failure(self):
        calls = []
        found = collapse.last_failure(lambda k: calls.append(k) or k > 37, 2, 100)
        assert found == 37
        assert len(calls) < 10
        assert collapse.last_failure(lambda k: True, 2, 100) is None

    def test_connected(self):
        net, names = self.net(), list(functional(self.net()).prunable)
        ones = {n: torch.ones_like(functional(net).params[n], dtype=torch.bool) for n in names}
        assert collapse.connected(net, ones)
        for name in names:
            assert not collapse.connected(net, ones | {name: torch.zeros_like(ones[name])})

    def test_at_once(self):
        """By magnitude the second layer's two weights are the smallest: gone at 64 of 66."""
        found = collapse.at_once(self.net(), "magnitude", self.batch(), (2, 66), None)
        assert found == {"emptied_at": 64, "layer": "1.layer2.weight", "cut_at": 64}

    def test_in_rounds(self):
        found = collapse.in_rounds(
            self.net(), "magnitude", self.batch(), [k / 66 for k in (65, 60, 30)], None
        )
        assert (found["emptied_at"], found["layer"]) == (60, "1.layer2.weight")
        assert (found["cut_at"], found["silent_at"]) == (60, None)
        assert found["steepest_round"] == pytest.approx(60 / 65)

    def test_silence_is_noted_before_it_empties(self):
        """PX of a dead network is 0 from the first round on."""
        x, y = self.batch()
        falling = [k / 66 for k in (40, 20)]
        found = collapse.in_rounds(self.net(), "px", (0 * x, y), falling, None)
        assert found["silent_at"] == 66


def test_rounds_of_the_fidelity_study_draw_anew(monkeypatch):
    """NTK-SAP redraws weights, noise and perturbation in every round."""
    net = mlp([3, 8, 2], generator=torch.Generator().manual_seed(0))
    case = fidelity.Case(net, torch.randn(4, 3), torch.arange(4) % 2, False, 0)
    states = []

    def noted(*args, generator, **options):
        states.append(generator.get_state())
        return score(*args, generator=generator, **options)

    monkeypatch.setattr(fidelity, "score", noted)
    masks = dict(fidelity.trajectory(case, "ntk_sap"))
    assert len(states) == max(fidelity.ROUNDS)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(states))
    again = dict(fidelity.trajectory(case, "ntk_sap"))
    assert all(torch.equal(m, again[d][n]) for d, own in masks.items() for n, m in own.items())
