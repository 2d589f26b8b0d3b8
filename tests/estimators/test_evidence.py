"""The checks keep their promises: false alarms, missed biases, known values, error texts.

Monte Carlo assertions state the probability with which they fail by bad luck (seeds are fixed, so
each either fails always or never). Most guarantees are tested without any luck, by enumerating
every sequence of a small law.
"""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_law
from scipy.stats import binom, chi2, norm

from ntktheory.checks import NumericalError
from ntktheory.estimators.catoni import (
    LARGEST_RATE,
    TUNED_BIASES,
    detectable_at_rate,
    detectable_by_tuning,
    increments,
    log_budget,
    psi,
    tuned_rate,
)
from ntktheory.estimators.evidence import (
    Verdict,
    check_mean,
    check_mean_sequential,
    check_same_distribution,
    log_e_values,
    min_detectable_bias,
    min_samples,
)

LAWS = {  # name: (draw(generator, shape), mean, variance)
    "normal": (lambda g, s: g.standard_normal(s), 0.0, 1.0),
    "chi2_1": (lambda g, s: g.standard_normal(s) ** 2, 1.0, 2.0),
    "chi2_product": (
        lambda g, s: g.standard_normal(s) ** 2 * g.standard_normal(s) ** 2,
        1.0,
        8.0,
    ),
    "student_3": (lambda g, s: g.standard_t(3, s), 0.0, 3.0),
}
TWO_POINT = [  # (value, probability): mean 0, variance 1, ever more skewed
    [(-1.0, 0.5), (1.0, 0.5)],
    [(-0.5, 0.8), (2.0, 0.2)],
    [(-0.1, 100 / 101), (10.0, 1 / 101)],
]


def naive_psi(y):
    return math.copysign(math.log(1 + abs(y) + y * y / 2), y)


def naive_statistic(x, mean, v, r):
    """The statistic of one sign, in the unit of the samples, term by term."""
    return sum(naive_psi(r * (xi - mean)) for xi in x) - len(x) * r * r * v / 2


def upper_count(runs, probability):
    """Return a count that a binomial exceeds with probability at most 1e-9."""
    return binom.isf(1e-9, runs, probability)


def lower_rate(count, runs):
    """Return the Clopper-Pearson lower end of a rate, wrong with probability 1e-9."""
    return beta_law.ppf(1e-9, count, runs - count + 1) if count else 0.0


def z_test(x, mean, v, delta):
    z = (x.mean(-1) - mean) * math.sqrt(x.shape[-1] / v)
    return np.abs(z) > norm.isf(delta / 2)


class TestPlanning:
    @pytest.mark.parametrize(("bias", "n"), [(1.0, 253), (0.3, 1958), (0.1, 16941)])
    def test_known_values(self, bias, n):
        assert min_samples(bias, 1.0, delta=1e-9) == n
        assert min_samples(3 * bias, 9.0, delta=1e-9, beta=1e-9) == n
        assert min_detectable_bias(n, 1.0, delta=1e-9) <= bias
        assert min_detectable_bias(n - 1, 1.0, delta=1e-9) > bias

    def test_formula(self):
        budget = math.log(2 * 5 / (1e-6 * 1e-3))
        bias = min_detectable_bias(1000, 4.0, delta=1e-6, beta=1e-3, coordinates=5)
        assert math.isclose(bias, 2 * math.sqrt(4 * budget / (1000 - 2 * budget)), rel_tol=1e-14)

    def test_coordinates_cost_a_logarithm(self):
        one = min_samples(0.1, 1.0, delta=1e-9)
        many = min_samples(0.1, 1.0, delta=1e-9, coordinates=1000)
        assert many / one == pytest.approx(1 + math.log(1000) / math.log(2e18), abs=1e-3)

    def test_too_few_samples_detect_nothing(self):
        assert min_detectable_bias(84, 1.0, delta=1e-9) == math.inf  # 2L = 84.3
        assert min_detectable_bias(85, 1.0, delta=1e-9) < math.inf

    def test_zero_variance(self):
        assert min_detectable_bias(1, 0.0, delta=1e-9) == 0.0
        assert min_samples(1e-300, 0.0, delta=1e-9) == 1

    @settings(max_examples=200, deadline=None)
    @given(
        n=st.integers(1, 10**9),
        sd=st.floats(1e-100, 1e100),
        delta=st.floats(1e-300, 0.5),
        beta=st.floats(1e-12, 0.5),
    )
    def test_inverse_of_each_other(self, n, sd, delta, beta):
        options: dict[str, Any] = {"delta": delta, "beta": beta}
        bias = min_detectable_bias(n, sd * sd, **options)
        if math.isfinite(bias):
            assert abs(min_samples(bias, sd * sd, **options) - n) <= 1e-8 * n
            assert min_samples(bias, sd * sd, **options) <= n
        again = min_samples(0.7 * sd, sd * sd, **options)
        assert min_detectable_bias(again, sd * sd, **options) <= 0.7 * sd * (1 + 1e-9)

    @settings(max_examples=200, deadline=None)
    @given(n=st.integers(100, 10**6), delta=st.floats(1e-12, 0.5))
    def test_tuned_rate_is_the_best_rate(self, n, delta):
        budget = log_budget(delta, 1e-9, 2)
        bias = detectable_by_tuning(n, budget)
        if math.isfinite(bias):
            rate = tuned_rate(bias)
            assert detectable_at_rate(n, budget, rate) == pytest.approx(bias, rel=1e-6)
            for other in (0.9 * rate, 1.1 * rate):
                assert detectable_at_rate(n, budget, other) >= bias * (1 - 1e-6)


class TestPsi:
    def test_against_the_formula(self):
        y = torch.linspace(-50, 50, 2001, dtype=torch.float64)
        naive = torch.tensor([naive_psi(v) for v in y.tolist()], dtype=torch.float64)
        torch.testing.assert_close(psi(y), naive, rtol=1e-14, atol=1e-15)

    def test_no_overflow(self):
        huge = psi(torch.tensor([1e300, -1e300], dtype=torch.float64))
        expected = 2 * math.log(1e300) - math.log(2)
        assert huge.tolist() == pytest.approx([expected, -expected], rel=1e-14)

    def test_the_inequality_behind_the_proof(self):
        y = torch.linspace(-100, 100, 100_001, dtype=torch.float64)
        bound = 1 + y + y * y / 2
        assert (psi(y).exp() <= bound * (1 + 1e-13)).all()
        assert (psi(-y).exp() <= (1 - y + y * y / 2) * (1 + 1e-13)).all()

    def test_largest_rate(self):
        assert tuned_rate(math.sqrt(2)) == pytest.approx(LARGEST_RATE, rel=1e-15)
        assert all(tuned_rate(b) <= LARGEST_RATE for b in np.geomspace(1e-9, 1e9, 1001))


class TestExactGuarantees:
    """Every sequence of a small law, with its probability: no luck involved."""

    @staticmethod
    def sequences(law, length):
        combinations = list(itertools.product(law, repeat=length))
        values = torch.tensor([[v for v, _ in c] for c in combinations], dtype=torch.float64)
        weights = torch.tensor(
            [math.prod(p for _, p in c) for c in combinations], dtype=torch.float64
        )
        return values, weights

    @pytest.mark.parametrize("law", TWO_POINT)
    def test_e_process_is_a_supermartingale_with_a_rare_peak(self, law):
        values, weights = self.sequences(law, 10)
        e = torch.stack([log_e_values(x, 0.0, 1.0).exp() for x in values])
        assert (weights @ e).max() <= 1 + 1e-12
        peak = e.cummax(1).values[:, -1]
        for level in (1.1, 1.5, 2.0, 5.0):
            assert weights @ (peak >= level).double() <= 1 / level

    @pytest.mark.parametrize("law", TWO_POINT)
    @pytest.mark.parametrize("rate", [0.01, 0.1, LARGEST_RATE, 1.0, 3.0])
    def test_each_rate_is_a_supermartingale(self, law, rate):
        values, weights = self.sequences(law, 10)
        for sign in (1, -1):
            steps = increments(sign * values, torch.ones(10), rate, 0.0)
            assert (weights @ steps.cumsum(1).exp()).max() <= 1 + 1e-12

    @pytest.mark.parametrize("law", TWO_POINT)
    @pytest.mark.parametrize("delta", [0.3, 0.05])
    def test_false_alarms_of_check_mean(self, law, delta):
        values, weights = self.sequences(law, 9)
        for beta in (0.3, 0.9):  # tuned to different rates
            failed = [check_mean(x, 0.0, 1.0, delta=delta, beta=beta).status for x in values]
            alarm = weights @ torch.tensor([s == "fail" for s in failed]).double()
            assert alarm <= delta

    @pytest.mark.parametrize("law", TWO_POINT)
    def test_power_of_check_mean(self, law):
        values, weights = self.sequences(law, 11)
        delta, beta = 0.5, 0.4  # 2L = 4.6
        bias = min_detectable_bias(11, 1.0, delta=delta, beta=beta)
        for shift in (bias, -bias, 3 * bias, -100 * bias):  # larger biases at the same rate, too
            verdicts = (
                check_mean(x, 0.0, 1.0, delta=delta, beta=beta, bias=bias) for x in values + shift
            )
            missed = torch.tensor([v.status != "fail" for v in verdicts]).double()
            assert weights @ missed <= beta

    def test_false_alarms_of_check_same_distribution(self):
        sizes = torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0, 5.0, 1.0, 1.0, 1e6, 1.0])
        signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=10)))
        zero = torch.zeros(10)
        for sizes_used in (sizes, torch.ones(10)):
            for delta in (0.5, 0.1):
                verdicts = [
                    check_same_distribution(s * sizes_used, zero, delta=delta) for s in signs
                ]
                assert sum(v.status == "fail" for v in verdicts) <= delta * len(signs)


class TestCheckMean:
    def test_statistic_against_a_loop(self):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((200, 3)) * [1.0, 2.0, 3.0] + 5.0
        v = np.array([1.0, 4.0, 9.0])
        verdict = check_mean(x, 5.1, v, delta=1e-3, beta=1e-3)
        budget = math.log(6 / 1e-6)
        b = 2 * np.sqrt(v * budget / (200 - 2 * budget))
        rates = b / (2 * v + b * b)
        naive = [
            max(naive_statistic(x[:, k], 5.1, v[k], s * rates[k]) for s in (1, -1))
            for k in range(3)
        ]
        assert verdict.statistic == pytest.approx(max(naive), rel=1e-12)
        assert verdict.worst == int(np.argmax(naive))
        assert verdict.threshold == pytest.approx(math.log(6 / 1e-3))
        assert verdict.detectable_bias == pytest.approx(b.max())
        assert verdict.observed == pytest.approx(tuple(x.mean(0)))
        assert verdict.expected == (5.1, 5.1, 5.1)
        assert (verdict.n, verdict.delta, verdict.beta, verdict.kind) == (200, 1e-3, 1e-3, "mean")

    def test_statistic_with_a_bias_asked_for(self):
        x = np.random.default_rng(1).standard_normal(500)
        verdict = check_mean(x, 0.2, 1.0, delta=1e-3, bias=0.4)
        rate = 0.4 / (2 + 0.16)
        naive = max(naive_statistic(x, 0.2, 1.0, s * rate) for s in (1, -1))
        assert verdict.statistic == pytest.approx(naive, rel=1e-12)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_sees_both_signs(self, sign):
        assert check_mean(np.full(300, 1.0 * sign), 0.0, 1.0, delta=1e-9).status == "fail"

    def test_status_follows_the_bias_asked_for(self):
        x = np.zeros(1958)
        options: dict[str, Any] = {"expected": 0.0, "variance": 1.0, "delta": 1e-9}
        assert check_mean(x, **options, bias=0.3).status == "pass"
        assert check_mean(x[:-1], **options, bias=0.3).status == "inconclusive"
        assert check_mean(x[:84], **options).status == "inconclusive"
        assert check_mean(x[:84], **options).detectable_bias == math.inf
        assert check_mean(x[:85], **options).status == "pass"
        assert check_mean(x, **options, bias=0.3).detectable_bias <= 0.3
        assert check_mean(x[:84], **options, bias=0.3).detectable_bias == math.inf
        n, at = 1000, min_detectable_bias(1000, 1.0, delta=1e-9)
        assert check_mean(x[:n], **options, bias=at).status == "pass"

    def test_detectable_bias_agrees_with_the_plan(self):
        verdict = check_mean(np.zeros(5000), 0.0, 7.0, delta=1e-7, beta=1e-5)
        plan = min_detectable_bias(5000, 7.0, delta=1e-7, beta=1e-5)
        assert verdict.detectable_bias == plan

    def test_rejection_counts_even_where_a_pass_would_not(self):
        gross = check_mean(np.full(10, 1e6), 0.0, 1.0, delta=1e-9)
        assert (gross.status, gross.detectable_bias) == ("fail", math.inf)
        assert check_mean(np.zeros(10), 0.0, 1.0, delta=1e-9).status == "inconclusive"

    def test_bias_per_coordinate(self):
        x = np.zeros((2000, 2))
        n = [min_samples(b, 1.0, delta=1e-9, coordinates=2) for b in (0.3, 0.31)]
        assert n[0] > 1950 > n[1]
        few = x[:1950]
        both = check_mean(few, 0.0, 1.0, delta=1e-9, bias=[0.31, 0.3])
        assert both.status == "inconclusive"
        assert check_mean(few, 0.0, 1.0, delta=1e-9, bias=[0.31, 0.31]).status == "pass"
        assert check_mean(few, 0.0, [1.0, 0.9], delta=1e-9, bias=[0.31, 0.3]).status == "pass"

    def test_zero_variance(self):
        same = check_mean([2.0, 2.0], 2.0, 0.0, delta=1e-9)
        assert (same.status, same.detectable_bias, same.n) == ("pass", 0.0, 2)
        assert check_mean([2.0, 2.0 + 1e-15], 2.0, 0.0, delta=1e-9).status == "fail"
        assert check_mean([2.0, 2.0 - 1e-15], 2.0, 0.0, delta=1e-9).status == "fail"
        assert check_mean([2.0], 2.0, 0.0, delta=1e-9, bias=1e-3).status == "pass"

    def test_zero_variance_with_rounding(self):
        rounded = check_mean([2.0, 2.0 + 1e-15], 2.0, 0.0, delta=1e-9, atol=2e-15)
        assert (rounded.status, rounded.detectable_bias) == ("pass", 2e-15)
        assert check_mean([2.0, 2.0 + 3e-15], 2.0, 0.0, delta=1e-9, atol=2e-15).status == "fail"

    def test_zero_variance_in_one_coordinate(self):
        x = np.zeros((300, 2))
        assert check_mean(x, 0.0, [1.0, 0.0], delta=1e-9).status == "pass"
        x[17, 1] = 1e-12
        verdict = check_mean(x, 0.0, [1.0, 0.0], delta=1e-9)
        assert (verdict.status, verdict.worst, verdict.statistic) == ("fail", 1, math.inf)
        x = np.zeros((80, 2))
        assert check_mean(x, 0.0, [1.0, 0.0], delta=1e-9).status == "inconclusive"

    def test_rounding_tolerance_excuses_a_bias_of_its_size(self):
        x = np.random.default_rng(2).standard_normal(100_000) + 0.2
        assert check_mean(x, 0.0, 1.0, delta=1e-9).status == "fail"
        excused = check_mean(x, 0.0, 1.0, delta=1e-9, atol=0.2)
        assert excused.status == "pass"
        plain = min_detectable_bias(100_000, 1.0, delta=1e-9)
        assert excused.detectable_bias == pytest.approx(plain + 0.2)
        x = x + 2 * plain
        assert check_mean(x, 0.0, 1.0, delta=1e-9, atol=0.2).status == "fail"

    def test_inputs_of_every_kind_agree(self):
        x = np.random.default_rng(3).integers(-5, 6, (300, 2)).astype(np.float32)
        kinds = [
            x,
            x.astype(np.int64),
            x.tolist(),
            torch.from_numpy(x),
            torch.from_numpy(x).requires_grad_(),
            torch.from_numpy(x).bfloat16(),
            [[Fraction(int(v)) for v in row] for row in x],
            [tuple(row) for row in torch.from_numpy(x).double()],
        ]
        verdicts = {check_mean(k, Fraction(1, 4), [10, 10.0], delta=1e-9) for k in kinds}
        assert len(verdicts) == 1

    @pytest.mark.parametrize("scale", [1e-150, 1e150])
    def test_scale_does_not_matter(self, scale):
        x = np.random.default_rng(4).standard_normal(300)
        plain = check_mean(x, 0.5, 1.0, delta=1e-3, bias=0.8)
        scaled = check_mean(x * scale, 0.5 * scale, scale**2, delta=1e-3, bias=0.8 * scale)
        assert scaled.status == plain.status
        assert scaled.statistic == pytest.approx(plain.statistic, rel=1e-9)
        assert scaled.detectable_bias == pytest.approx(plain.detectable_bias * scale, rel=1e-9)

    def test_extreme_samples_stay_numbers(self):
        for x in ([1e308, -1e308] * 50, [1e308] * 100):
            for v in (5e-324, 1.0):
                verdict = check_mean(x, 0.0, v, delta=1e-9, bias=1e300)
                assert not math.isnan(verdict.statistic)
        assert check_mean([1e308] * 100, -1e308, 1.0, delta=1e-9).status == "fail"


class TestLaws:
    """Bounds with simulation: chi-squared samples, their products, and heavy tails."""

    @staticmethod
    def alarms(name, runs, n, delta, seed):
        draw, mean, v = LAWS[name]
        rng = np.random.default_rng(seed)
        count = 0
        for _ in range(runs):
            count += check_mean(draw(rng, n), mean, v, delta=delta, beta=0.5).status == "fail"
        return count

    @pytest.mark.parametrize("name", LAWS)
    def test_false_alarms(self, name):
        """Fails by bad luck with probability at most 1e-9."""
        runs, delta = 2000, 0.05
        assert self.alarms(name, runs, 40, delta, seed=5) <= upper_count(runs, delta)

    @pytest.mark.parametrize("name", LAWS)
    def test_false_alarms_at_any_stopping_time(self, name):
        """The largest e-value of 400 looks. Fails by bad luck with probability at most 1e-9."""
        draw, mean, v = LAWS[name]
        rng, runs, delta = np.random.default_rng(6), 1000, 0.05
        x = draw(rng, (runs, 400))
        alarms = sum(int((log_e_values(row, mean, v) >= -math.log(delta)).any()) for row in x)
        assert alarms <= upper_count(runs, delta)

    def test_coordinates_share_delta(self):
        """1,000 checks of 20 coordinates. Fails by bad luck with probability at most 1e-9."""
        rng, runs, delta = np.random.default_rng(7), 1000, 0.05
        x = rng.standard_normal((runs, 30, 20)) ** 2
        alarms = sum(check_mean(row, 1.0, 2.0, delta=delta).status == "fail" for row in x)
        assert alarms <= upper_count(runs, delta)

    def test_an_understated_variance_raises_alarms(self):
        """What the guarantee rests on: with v/9 the alarms exceed delta, surely (1e-9)."""
        draw, mean, v = LAWS["normal"]
        rng, runs, delta = np.random.default_rng(8), 500, 0.05
        alarms = sum(
            check_mean(draw(rng, 100), mean, v / 9, delta=delta, beta=0.5).status == "fail"
            for _ in range(runs)
        )
        assert lower_rate(alarms, runs) > delta

    @pytest.mark.parametrize("name", LAWS)
    @pytest.mark.parametrize("sign", [1, -1])
    def test_detectable_bias_is_detected(self, name, sign):
        """300 of 300 at beta = 1e-12: fails by bad luck with probability at most 3e-10."""
        draw, mean, v = LAWS[name]
        n = 400
        options: dict[str, Any] = {"delta": 1e-9, "beta": 1e-12}
        bias = min_detectable_bias(n, v, **options)
        rng = np.random.default_rng(9)
        for _ in range(300):
            verdict = check_mean(draw(rng, n) + sign * bias, mean, v, **options)
            assert verdict.status == "fail"

    @pytest.mark.parametrize("name", LAWS)
    def test_true_mean_passes(self, name):
        """300 runs at delta = 1e-12: fails by bad luck with probability at most 3e-10."""
        draw, mean, v = LAWS[name]
        rng = np.random.default_rng(10)
        for _ in range(300):
            assert check_mean(draw(rng, 400), mean, v, delta=1e-12).status == "pass"

    def test_a_third_of_the_detectable_bias_goes_unseen(self):
        """The promise is tight within a factor of three, surely (1e-9)."""
        rng, runs = np.random.default_rng(11), 200
        bias = min_detectable_bias(400, 1.0, delta=1e-9)
        missed = sum(
            check_mean(rng.standard_normal(400) + bias / 3, 0.0, 1.0, delta=1e-9).status == "pass"
            for _ in range(runs)
        )
        assert lower_rate(missed, runs) > 0.5

    def test_z_test_fails_where_it_is_wanted_most(self):
        """Exact: a sum of n squares is chi-squared. 359 times the nominal rate at 1e-9."""
        n, delta = 100, 1e-9
        z = norm.isf(delta / 2) * math.sqrt(2 * n)
        rate = chi2.sf(n + z, n) + chi2.cdf(n - z, n)
        assert round(rate / delta) == 359

    def test_z_test_on_products(self):
        """Measured beside ours, on the same samples. Fails by bad luck at most 2e-9."""
        draw, mean, v = LAWS["chi2_product"]
        n, runs, delta = 40, 4000, 0.0001
        x = draw(np.random.default_rng(12), (runs, n))
        ours = sum(check_mean(row, mean, v, delta=delta).status == "fail" for row in x)
        assert lower_rate(int(z_test(x, mean, v, delta).sum()), runs) > 5 * delta
        assert ours <= upper_count(runs, delta)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", LAWS)
    def test_false_alarms_slowly(self, name):
        """20,000 runs at 0.01. Fails by bad luck with probability at most 1e-9."""
        runs, delta = 20_000, 0.01
        assert self.alarms(name, runs, 60, delta, seed=13) <= upper_count(runs, delta)

    @pytest.mark.slow
    def test_e_process_is_not_far_from_its_bound(self):
        """20,000 Gaussian runs of 3,000 looks at 0.05: within the bound, and above a tenth of it.

        Fails by bad luck with probability at most 2e-9.
        """
        rng, runs, delta, alarms = np.random.default_rng(14), 20_000, 0.05, 0
        for _ in range(runs // 500):
            x = torch.from_numpy(rng.standard_normal((3000, 500)))
            total = torch.full_like(x, -math.inf)
            for bias in TUNED_BIASES:
                for sign in (1, -1):
                    steps = increments(sign * x, torch.ones(500), tuned_rate(bias), 0.0)
                    total = torch.logaddexp(total, steps.cumsum(0))
            alarms += int(((total - math.log(12)).amax(0) >= -math.log(delta)).sum())
        assert alarms <= upper_count(runs, delta)
        assert lower_rate(alarms, runs) > delta / 10


class TestSequential:
    @staticmethod
    def feed(x):
        """Return a draw function that serves the rows of x and remembers what it was asked."""
        asked: list[int] = []

        def draw(count):
            start = sum(asked)
            asked.append(count)
            return x[start : start + count]

        return draw, asked

    def test_log_e_against_a_loop(self):
        x = np.random.default_rng(15).standard_normal((50, 2)) + np.array([0.3, 3.0])
        v = [1.0, 4.0]
        terms = [
            np.exp(naive_statistic(x[:n, k], 0.0, v[k], s * b / (2 + b * b) / math.sqrt(v[k])))
            for n in range(1, 51)
            for b in TUNED_BIASES
            for s in (1, -1)
            for k in (0, 1)
        ]
        naive = np.log(np.array(terms).reshape(50, 24).mean(1))
        np.testing.assert_allclose(log_e_values(x, 0.0, v).numpy(), naive, rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("batch", [1, 7, 64, 1000])
    def test_batches_do_not_matter(self, batch):
        x = np.random.default_rng(16).standard_normal((1000, 2)) + np.array([0.0, 1.0])
        draw, asked = self.feed(x)
        options: dict[str, Any] = {"delta": 1e-6, "max_samples": 1000, "batch": batch}
        verdict = check_mean_sequential(draw, 0.0, 1.0, **options)
        path = log_e_values(x, 0.0, 1.0)
        first = int((path >= math.log(1e6)).nonzero()[0]) + 1
        assert (verdict.status, verdict.n, verdict.worst) == ("fail", first, 1)
        assert verdict.statistic == pytest.approx(path[first - 1].item(), rel=1e-12)
        assert verdict.observed == pytest.approx(tuple(x[:first].mean(0)), rel=1e-12)
        assert sum(asked) < first + batch
        assert verdict.kind == "sequential mean"

    def test_gives_up_after_max_samples(self):
        draw, asked = self.feed(np.zeros(1000))
        verdict = check_mean_sequential(draw, 0.0, 1.0, delta=1e-9, max_samples=1000, batch=300)
        assert asked == [300, 300, 300, 100]
        assert (verdict.status, verdict.n) == ("pass", 1000)
        budget = log_budget(1e-9, 1e-9, 12)
        best = min(detectable_at_rate(1000, budget, tuned_rate(b)) for b in TUNED_BIASES)
        assert verdict.detectable_bias == pytest.approx(best)
        # Against one look at the bias known before: the price of not knowing it.
        assert 1 < best / min_detectable_bias(1000, 1.0, delta=1e-9) < 1.1

    def test_inconclusive(self):
        options: dict[str, Any] = {"delta": 1e-9, "max_samples": 1000, "batch": 500}
        for n, bias, status in (
            (1000, 0.5, "pass"),
            (1000, 0.3, "inconclusive"),
            (80, None, "inconclusive"),
        ):
            options["max_samples"] = n
            draw, _ = self.feed(np.zeros(1000))
            verdict = check_mean_sequential(draw, 0.0, 1.0, bias=bias, **options)
            assert verdict.status == status
            assert math.isinf(verdict.detectable_bias) == (n == 80)

    @pytest.mark.parametrize("name", LAWS)
    def test_detectable_bias_is_detected(self, name):
        """200 of 200 at beta = 1e-12: fails by bad luck with probability at most 2e-10."""
        law, mean, v = LAWS[name]
        draw, _ = self.feed(np.zeros(1500))
        options: dict[str, Any] = {"delta": 1e-9, "beta": 1e-12, "max_samples": 1500, "batch": 1500}
        bias = check_mean_sequential(draw, 0.0, v, **options).detectable_bias
        rng = np.random.default_rng(17)
        for _ in range(200):
            draw = lambda count: law(rng, count) + bias  # noqa: E731
            assert check_mean_sequential(draw, mean, v, **options).status == "fail"

    def test_zero_variance(self):
        x = np.full(10, 3.0)
        assert log_e_values(x, 3.0, 0.0).abs().max() < 1e-14
        x[4] += 1e-12
        path = log_e_values(x, 3.0, 0.0)
        assert path.tolist() == pytest.approx([0.0] * 4 + [math.inf] * 6, abs=1e-14)
        assert log_e_values(x, 3.0, 0.0, atol=1e-11).abs().max() < 1e-14
        draw, _ = self.feed(x)
        options: dict[str, Any] = {"delta": 1e-9, "max_samples": 10, "batch": 10}
        verdict = check_mean_sequential(draw, 3.0, 0.0, **options)
        assert (verdict.status, verdict.n, verdict.detectable_bias) == ("fail", 5, 0.0)
        draw, _ = self.feed(np.full(10, 3.0))
        assert check_mean_sequential(draw, 3.0, 0.0, **options).status == "pass"


class TestSameDistribution:
    def test_threshold_and_statistic(self):
        rng = np.random.default_rng(18)
        a, b = rng.standard_normal((2, 100, 3))
        verdict = check_same_distribution(a, b, delta=1e-9)
        d = a - b
        naive = np.abs(d.sum(0)) / np.sqrt((d * d).sum(0))
        assert verdict.statistic == pytest.approx(naive.max(), rel=1e-12)
        assert verdict.worst == int(naive.argmax())
        assert verdict.threshold == pytest.approx(math.sqrt(2 * math.log(6e9)), rel=1e-14)
        assert verdict.kind == "same distribution"
        assert math.isnan(verdict.beta)
        assert math.isnan(verdict.detectable_bias)
        one = check_same_distribution(a[:, 0], b[:, 0], delta=1e-9)
        assert round(one.threshold, 3) == 6.545

    @pytest.mark.parametrize(("n", "status"), [(42, "inconclusive"), (43, "fail")])
    def test_cannot_reject_below_43(self, n, status):
        zeros = np.zeros(n)
        assert check_same_distribution(zeros, zeros + 1, delta=1e-9).status == status
        same = "pass" if n == 43 else "inconclusive"
        assert check_same_distribution(zeros, zeros, delta=1e-9).status == same

    def test_only_differing_pairs_count(self):
        a, b = np.zeros(1000), np.zeros(1000)
        b[:42] = 1.0
        assert check_same_distribution(a, b, delta=1e-9).status == "inconclusive"
        b[42] = 1.0
        assert check_same_distribution(a, b, delta=1e-9).status == "fail"
        assert check_same_distribution(a, -b, delta=1e-9).status == "fail"

    def test_no_moments_needed(self):
        """2,000 runs of Cauchy samples at 0.05. Fails by bad luck with probability at most 1e-9."""
        rng, runs, delta = np.random.default_rng(19), 2000, 0.05
        x = rng.standard_cauchy((2, runs, 30))
        alarms = sum(
            check_same_distribution(a, b, delta=delta).status == "fail"
            for a, b in zip(x[0], x[1], strict=True)
        )
        assert alarms <= upper_count(runs, delta)

    def test_it_is_no_test_of_equal_means(self):
        """Equal means, different laws: it fails almost always. T1 on the differences does not.

        The mean of a is 0 (-1 with probability 0.999, else 999), b is 0: of 100 samples, all are -1
        with probability 0.9, so fewer than 20 alarms in 100 runs have probability below 1e-9; so
        has any alarm of T1, at delta = 1e-12.
        """
        rng, runs = np.random.default_rng(20), 100
        a = np.where(rng.random((runs, 100)) < 0.999, -1.0, 999.0)
        wrong = sum(
            check_same_distribution(row, np.zeros(100), delta=1e-9).status == "fail" for row in a
        )
        right = sum(check_mean(row, 0.0, 999.0, delta=1e-12).status == "fail" for row in a)
        assert wrong >= 20
        assert right == 0

    def test_extreme_scales(self):
        for scale in (1e-320, 1e-200, 1e308):
            a = np.full(50, scale)
            verdict = check_same_distribution(a, -a, delta=1e-9)
            assert verdict.status == "fail"
            assert verdict.statistic == pytest.approx(math.sqrt(50), rel=1e-3)


class TestVerdict:
    def test_is_frozen_and_hashable(self):
        verdict = check_mean(np.zeros(300), 0.0, 1.0, delta=1e-9)
        assert {verdict: 1}[check_mean(np.zeros(300), 0.0, 1.0, delta=1e-9)] == 1
        with pytest.raises(AttributeError):
            verdict.status = "pass"

    def test_summaries(self):
        x = np.zeros((2000, 2))
        assert check_mean(x, [0.0, 1.0], 1.0, delta=1e-9, bias=0.31).summary == (
            "fail: mean 0 of 2000 samples against 1 (coordinate 1 of 2);"
            " false alarm <= 1e-09, bias 0.299 missed <= 1e-09"
        )
        assert check_mean(x[:10, 0], 0.0, 1.0, delta=1e-9).summary == (
            "inconclusive: mean 0 of 10 samples against 0; false alarm <= 1e-09,"
            " too few samples to promise any bias"
        )
        assert check_same_distribution(x, x, delta=1e-6).summary == (
            "pass: mean 0 of 2000 paired differences against 0 (coordinate 0 of 2);"
            " false alarm <= 1e-06, no bias promised"
        )
        assert isinstance(check_mean(x, 0.0, 1.0, delta=1e-9), Verdict)


X = np.zeros(100)


class TestErrors:
    @pytest.mark.parametrize("check", [check_mean, log_e_values, check_same_distribution])
    @pytest.mark.parametrize(
        ("samples", "error", "text"),
        [
            ([], ValueError, r"must be a non-empty \[n\] or \[n, K\], got shape \[0\]\. Put the"),
            (1.0, ValueError, r"must be a non-empty \[n\] or \[n, K\], got shape \[\]"),
            (np.zeros((2, 0)), ValueError, r"got shape \[2, 0\]"),
            (np.zeros((2, 2, 2)), ValueError, r"got shape \[2, 2, 2\]"),
            ([0.0, math.nan, math.inf], NumericalError, r"got nan at index 1 \(2 of 3 non-finite"),
            (
                torch.tensor([[0.0, 0.0], [0.0, -math.inf]]),
                NumericalError,
                r"must be finite, got -inf at index \(1, 1\) \(1 of 4 non-finite\)",
            ),
            (np.zeros(3, dtype=complex), TypeError, r"must be real numbers, got complex128"),
            (torch.zeros(3, dtype=torch.cfloat), TypeError, "real numbers, got torch.complex64"),
            ("abc", TypeError, r"must be real numbers, got str"),
            ([[1.0], [1.0, 2.0]], TypeError, r"must be real numbers, got list"),
            ([None, object()], TypeError, r"must be real numbers, got list"),
        ],
    )
    def test_samples(self, check, samples, error, text):
        name = "a" if check is check_same_distribution else "samples"
        options: dict[str, Any] = {} if check is log_e_values else {"delta": 1e-9}
        arguments = (X,) if check is check_same_distribution else (0.0, 1.0)
        with pytest.raises(error, match=f"^{name} .*{text}"):
            check(samples, *arguments, **options)

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            (
                {"expected": [0.0, 0.0]},
                ValueError,
                r"expected must be a scalar or of shape \[1\], as the samples, got shape \[2\]",
            ),
            ({"expected": math.nan}, NumericalError, r"expected must be finite, got nan\. Without"),
            ({"expected": "x"}, TypeError, r"expected must be real numbers, got str"),
            ({"variance": -1.0}, ValueError, r"variance must be non-negative, got -1\.0\. Pass an"),
            ({"variance": math.inf}, NumericalError, r"variance must be finite, got inf"),
            ({"variance": [[1.0]]}, ValueError, r"variance must be a scalar or of shape \[1\]"),
            ({"bias": 0.0}, ValueError, r"bias must be positive, got 0\.0\. Ask for"),
            ({"bias": math.inf}, NumericalError, r"bias must be finite, got inf"),
            ({"bias": [1.0, 1.0]}, ValueError, r"bias must be a scalar or of shape \[1\]"),
            ({"atol": -1.0}, ValueError, r"atol must be finite and non-negative, got -1\.0"),
            ({"atol": math.nan}, ValueError, r"atol must be finite and non-negative, got nan"),
            ({"delta": 0.0}, ValueError, r"delta must be in \(0, 1\), got 0\.0\. Pass a prob"),
            ({"delta": 1.0}, ValueError, r"delta must be in \(0, 1\), got 1\.0"),
            ({"beta": math.nan}, ValueError, r"beta must be in \(0, 1\), got nan"),
        ],
    )
    def test_options(self, options, error, text):
        options = {"expected": 0.0, "variance": 1.0, "delta": 1e-9, **options}
        with pytest.raises(error, match=text):
            check_mean(X, **options)
        with pytest.raises(error, match=text):
            check_mean_sequential(np.zeros, max_samples=10, batch=5, **options)
        if not options.keys() & {"bias", "beta"} and 0 < options.pop("delta") < 1:
            with pytest.raises(error, match=text):
                log_e_values(X, **options)

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"n": 0}, ValueError, r"n must be at least 1, got 0\. Pass a positive"),
            ({"coordinates": 0}, ValueError, r"coordinates must be at least 1, got 0"),
            ({"delta": 2.0}, ValueError, r"delta must be in \(0, 1\), got 2\.0"),
            ({"beta": 0.0}, ValueError, r"beta must be in \(0, 1\), got 0\.0"),
            ({"variance": -1.0}, ValueError, r"variance must be non-negative, got -1\.0"),
            ({"variance": math.nan}, NumericalError, r"variance must be finite, got nan"),
            ({"variance": None}, TypeError, r"variance must be real numbers, got NoneType"),
            ({"bias": 0.0}, ValueError, r"bias must be positive, got 0\.0"),
            ({"bias": None}, TypeError, r"bias must be real numbers, got NoneType"),
            ({"bias": 1e-300}, ValueError, r"bias must be large enough .*, got 1e-300 at var"),
        ],
    )
    def test_planning(self, options, error, text):
        base: dict[str, Any] = {"variance": 1.0, "delta": 1e-9}
        if "bias" not in options:
            with pytest.raises(error, match=text):
                min_detectable_bias(**{"n": 100, **base, **options})
        if "n" not in options:
            with pytest.raises(error, match=text):
                min_samples(**{"bias": 0.1, **base, **options})

    def test_sequential(self):
        options: dict[str, Any] = {"expected": 0.0, "variance": 1.0, "delta": 1e-9}
        for name in ("max_samples", "batch"):
            sizes: dict[str, Any] = {"max_samples": 10, "batch": 5, name: 0}
            with pytest.raises(ValueError, match=rf"{name} must be at least 1, got 0"):
                check_mean_sequential(np.zeros, **sizes, **options)
        sizes = {"max_samples": 10, "batch": 5}
        with pytest.raises(ValueError, match=r"draw\(count\) must be 5 samples, got shape \[4, 1"):
            check_mean_sequential(lambda n: np.zeros(n - 1), **sizes, **options)
        shapes = iter([(5, 2), (5, 3)])
        with pytest.raises(ValueError, match=r"5 samples of 2 coordinates, got shape \[5, 3\]"):
            check_mean_sequential(lambda n: np.zeros(next(shapes)), **sizes, **options)
        with pytest.raises(NumericalError, match=r"draw\(count\) must be finite, got nan at ind"):
            check_mean_sequential(lambda n: np.full(n, np.nan), **sizes, **options)

    def test_same_distribution(self):
        with pytest.raises(ValueError, match=r"b must be of the shape of a, \[100, 1\], got \[50"):
            check_same_distribution(X, X[:50], delta=1e-9)
        with pytest.raises(NumericalError, match=r"b must be finite, got inf at index 0"):
            check_same_distribution([1.0], [math.inf], delta=1e-9)
        with pytest.raises(ValueError, match=r"delta must be in \(0, 1\), got -1"):
            check_same_distribution(X, X, delta=-1)
