"""The independent references behind F1, F2, F3 and F10."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from experiments import law_of_robustness as law_experiment
from proofs_check.claims import robustness_chain as chain
from proofs_check.claims import robustness_generalisation as generalisation
from proofs_check.claims import robustness_law as law
from proofs_check.claims import robustness_lemmas as lemmas
from proofs_check.claims import robustness_scaling as scaling
from proofs_check.exact_logs import ZERO, entropy, factors, information, log2_of, marginal

THIRD = Fraction(1, 3)


class TestExactLogs:
    @pytest.mark.parametrize("n", [1, 2, 12, 97, 360, 1001, 2**13 * 97**2])
    def test_factors_multiply_back(self, n):
        assert math.prod(p**k for p, k in factors(n)) == n
        assert all(all(p % q for q in range(2, p)) for p, _ in factors(n))

    def test_zero_is_decided(self):
        assert (log2_of(Fraction(12)) - log2_of(Fraction(4)) - log2_of(Fraction(3))).sign == 0
        assert (log2_of(Fraction(1, 8)) + log2_of(Fraction(8))).coefficients == {}
        assert ZERO.sign == 0

    def test_signs_that_floats_do_not_see(self):
        # 3^53 > 2^84, and (3^665 vs 2^1054): log2 3 ≈ 1054/665 to 7 digits
        assert (log2_of(Fraction(3)) * Fraction(53) - log2_of(Fraction(2)) * Fraction(84)).sign == 1
        close = Fraction(10**30 + 1, 10**30)
        assert math.log2(float(close)) == 0
        assert log2_of(close).sign == 1
        assert log2_of(1 / close).sign == -1

    def test_entropy_by_hand(self):
        found = entropy({"a": THIRD, "b": 2 * THIRD})
        assert (found - (log2_of(Fraction(3)) - log2_of(Fraction(2)) * (2 * THIRD))).sign == 0
        assert found.bits == pytest.approx(0.9182958340544896, rel=1e-15)

    def test_information_of_exclusive_or(self):
        joint = {(a, b, a ^ b): Fraction(1, 4) for a, b in itertools.product((0, 1), repeat=2)}
        assert information(joint, (0,), (2,)).sign == 0
        assert (information(joint, (0, 1), (2,)) - log2_of(Fraction(2))).sign == 0
        assert marginal(joint, 2) == {(0,): Fraction(1, 2), (1,): Fraction(1, 2)}


class TestChain:
    def test_laws_sum_to_one(self):
        assert sum(chain.DATA_LAW.values()) == 1
        for learner in chain.LEARNERS.values():
            assert sum(chain.joint(learner).values()) == 1
        assert sum(chain.one_to_one().values()) == 1

    def test_masks_hold_where_weights_are_zero(self):
        for learner in chain.LEARNERS.values():
            for mask, weights, _, _ in chain.joint(learner):
                assert all(m or not w for m, w in zip(mask, weights, strict=True))
                assert weights in chain.CLASS[mask]

    def test_best_fit_by_hand(self):
        # labels (1, 1, 1): w = (1, 0) misses (0, 1) by 1 in value, w = (0, 1) misses (1, 0): a tie
        assert chain.best_fit((1, 1, 1)) == {((1, 0), (1, 0)): 1}

    def test_a_replacement_gains_at_most_a_bit(self):
        fine = {((1, 0), data): Fraction(1, 4) for data in range(4)}
        joint = chain.masks_before_and_after(chain.fixed_replacement, fine)
        assert sum(joint.values()) == 1
        assert (information(joint, (1,), (2,)) - log2_of(Fraction(2))).sign == 0


class TestLemmas:
    @pytest.mark.parametrize(("selected", "values"), [(1, 2), (2, 2), (3, 5), (7, 7)])
    def test_disjoint_by_enumeration(self, selected, values):
        known = lemmas.disjoint(selected, values)
        index = {v: v if v <= selected else 1 for v in range(1, values + 1)}
        shares = [list(index.values()).count(t) / values for t in range(1, selected + 1)]
        expected = -sum(s * math.log(s) for s in shares if s)
        assert known.information_nats == pytest.approx(expected, abs=1e-14)
        hit = sum(index[v] == v for v in index) / values
        assert known.probability == pytest.approx(hit)
        assert 2 * math.exp(-1 / known.tail_constant) == pytest.approx(1 / values)

    def test_selection_information_by_enumeration(self):
        t, honest = 4, 0.5
        joint = {
            (top, w): (honest * (w == top) + (1 - honest) / t) / t
            for top, w in itertools.product(range(t), repeat=2)
        }
        expected = sum(p * math.log(p * t * t) for p in joint.values())
        assert lemmas.selection_information(t, honest) == pytest.approx(expected, rel=1e-13)
        assert lemmas.selection_information(16, 1.0) == math.log(16)

    def test_selected_sizes_follow_the_law(self):
        rng = np.random.default_rng(0)
        plain = lemmas.selected_sizes(8, 0.9, 0.0, 20_000, rng)
        assert np.mean(plain**2) == pytest.approx(1, abs=0.06)
        largest = lemmas.selected_sizes(8, 0.0, 1.0, 20_000, rng)
        below = math.erf(2 / math.sqrt(2)) ** 8
        assert np.mean(largest < 2) == pytest.approx(below, abs=0.02)

    def test_largest_second_moment(self):
        u = (np.arange(400_000) + 0.5) * 2.5e-5
        integral = float(np.sum(2 * u * np.minimum(1, 2 * np.exp(-(u**2)))) * 2.5e-5)
        assert lemmas.largest_second_moment() == pytest.approx(integral, rel=1e-6)

    @pytest.mark.parametrize(("kappa", "proved"), [(9, True), (2.5, True), (2, False), (1, False)])
    def test_moment_generating_function(self, kappa, proved):
        assert lemmas.mgf_is_bounded(Fraction(kappa)) is proved

    @pytest.mark.parametrize("t", [0.1, 0.7, 1.0, 2.0, 5.0])
    def test_the_series_is_below_its_proof(self, t):
        terms = [t**k * math.gamma(k / 2) / math.factorial(k - 1) for k in range(2, 160)]
        assert 1 + math.fsum(terms) <= math.exp(2.5 * t * t / 2)


class TestLaw:
    def test_shares(self):
        assert law.share_is_proved(Fraction(839, 900))
        assert not law.share_is_proved(Fraction(840, 900))

    def test_hoeffding_needs_288(self):
        assert law.hoeffding_holds(Fraction(512))
        assert law.hoeffding_holds(Fraction(288))
        assert not law.hoeffding_holds(Fraction(287))


class TestGeneralisation:
    @pytest.mark.parametrize(("samples", "rules"), [(1, 1), (2, 2), (3, 2), (4, 1), (3, 3)])
    def test_gaps_by_enumeration(self, samples, rules):
        flips = list(itertools.product((0, 1), repeat=samples * rules))
        gaps = []
        for flip in flips:
            means = [sum(flip[r * samples : (r + 1) * samples]) / samples for r in range(rules)]
            gaps.append(abs(0.5 - means[0]) if rules == 1 else 0.5 - min(means))
        for gap, probability in generalisation.reached(samples, rules):
            share = sum(g >= gap - 1e-12 for g in gaps) / len(flips)
            assert probability == pytest.approx(share, rel=1e-12)


class TestScaling:
    def test_slope_of_exact_powers(self):
        runs = [
            [n, d, p, seed, True, 2 * (n * d / p) ** 0.4, 9.0]
            for n in (2, 4, 8)
            for d in (3, 9)
            for p in (5, 25)
            for seed in (0, 1)
        ]
        runs.append([2, 3, 5, 2, False, 1e9, 9.0])  # did not fit: left out
        assert scaling.scaling_slope(runs) == pytest.approx((0.8, 0.8, 0.8))

    @pytest.mark.parametrize(
        ("low", "high", "status"),
        [
            (0.8, 1.2, "supported"),
            (0.3, 0.9, "not-supported"),
            (1.1, 1.3, "not-supported"),
            (-0.1, 1.2, "inconclusive"),
            (-0.4, -0.1, "opposite"),
        ],
    )
    def test_status(self, low, high, status):
        assert scaling.status_of(low, high) == status

    def test_the_statistic_is_the_experiment_s(self):
        record = json.loads(law_experiment.RECORD.read_text())
        expected = record["fits"]["random, lipschitz_low"]["slope"]
        found = scaling.scaling_slope(scaling.recorded("random"))
        assert found[0] == pytest.approx(expected["value"], rel=1e-4)
        assert found[1:] == pytest.approx((expected["low"], expected["high"]), abs=0.03)
