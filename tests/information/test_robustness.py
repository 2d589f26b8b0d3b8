"""Lemma 1, the law of robustness and the generalisation bounds: by hand, and against the chains."""

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest

from ntktheory.information import generalisation, law_of_robustness
from ntktheory.information import reference_robustness as reference
from ntktheory.information.generalisation import generalisation_gap_bound, samples_for_gap
from ntktheory.information.law_of_robustness import (
    LOSS_SHARES,
    robustness_from_information,
    robustness_lower_bound,
    samples_for_robustness,
)
from ntktheory.information.mutual_information_bounds import (
    FORMS,
    averaged_tail_constant,
    binary_entropy_nats,
    deviation_bound,
    information_lower_bound_nats,
)

HALF: Any = 2.5  # where an int is wanted
SETTING: dict[str, Any] = {"samples": 60_000, "dimension": 100, "epsilon": 0.5, "delta": 0.25}
CASES = list(itertools.product((0.0, 0.3, 7.0, 5e4), (0.01, 1.0, 30.0), (1e-6, 0.1, 0.5, 0.95)))


class TestLemma1:
    def test_by_hand(self):
        # 72·2·(3/0.5 + log 4)
        assert deviation_bound(3, 2, 0.5) == pytest.approx(math.sqrt(864 + 144 * math.log(4)))
        # 2·((3 + log 2)/0.5 + log 2)
        expected = math.sqrt(12 + 6 * math.log(2))
        assert deviation_bound(3, 2, 0.5, form="sharp") == pytest.approx(expected, rel=1e-15)

    @pytest.mark.parametrize(("information", "constant", "delta"), CASES)
    def test_against_the_chain(self, information, constant, delta):
        published = reference.xu_raginsky_bound(information, constant, delta)
        assert deviation_bound(information, constant, delta) == pytest.approx(published, rel=1e-13)
        sharp = reference.deviation_bound(information, constant, delta)
        found = deviation_bound(information, constant, delta, form="sharp")
        assert found == pytest.approx(sharp, rel=1e-9)

    @pytest.mark.parametrize(("information", "constant", "delta"), CASES)
    def test_sharp_is_below_published_by_its_constant(self, information, constant, delta):
        sharp = deviation_bound(information, constant, delta, form="sharp")
        ratio = (deviation_bound(information, constant, delta) / sharp) ** 2
        assert ratio >= 72 / (1 + 1 / math.log(2))

    @pytest.mark.parametrize(("information", "constant", "delta"), CASES)
    def test_inversion(self, information, constant, delta):
        bound = deviation_bound(information, constant, delta)
        back = information_lower_bound_nats(bound, constant, delta)
        assert back == pytest.approx(information, rel=1e-9, abs=1e-12)
        # sharp: the divergence itself, which is a little above what the closed form inverts
        bound = deviation_bound(information, constant, delta, form="sharp")
        back = information_lower_bound_nats(bound, constant, delta, form="sharp")
        q = 2 * math.exp(-(bound**2) / constant)
        rest = -(1 - delta) * math.log1p(-q)
        assert back == pytest.approx(information + rest, rel=1e-9, abs=1e-9)

    def test_sharp_information_by_hand(self):
        # q = 2e^{−2} at X² = 2C: d(1/2 ‖ q) = ½ log(1/(4q(1−q)))
        q = 2 * math.exp(-2)
        expected = -0.5 * math.log(4 * q * (1 - q))
        found = information_lower_bound_nats(math.sqrt(2), 1.0, 0.5, form="sharp")
        assert found == pytest.approx(expected, rel=1e-12)

    def test_nothing_follows_from_a_usual_size(self):
        for form in FORMS:
            assert information_lower_bound_nats(0.5, 1.0, 0.5, form=form) == 0

    def test_mean_of_n(self):
        assert averaged_tail_constant(8 * 3 * 25, 70) == pytest.approx(144 * 3 * 25 / 70)
        assert averaged_tail_constant(8, 1, form="sharp") == 40

    def test_entropy_by_hand(self):
        expected = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
        assert binary_entropy_nats(0.25) == pytest.approx(expected, rel=1e-15)


class TestLawOfRobustness:
    def test_published_by_hand(self):
        # ε/(96 √144 √c) √(ndδ/(p + 2δ log(4/δ))), with 2δ log(4/δ) = log 4 · 2 at δ = 1
        found = robustness_lower_bound(1000, form="published", isoperimetry=4, **SETTING)
        charged = 1000 + 0.5 * math.log(16)
        assert found == pytest.approx(0.5 / (96 * 24) * math.sqrt(1.5e6 / charged), rel=1e-14)

    def test_constants_of_the_repairs(self):
        assert {form: float(96 / share) for form, share in LOSS_SHARES.items()} == pytest.approx(
            {"published": 96, "repaired": 192, "finer_net": 1440 / 13, "sharp": 86400 / 839}
        )
        published = robustness_lower_bound(1000, form="published", **SETTING)
        assert published / robustness_lower_bound(1000, **SETTING) == pytest.approx(2)
        finer = robustness_lower_bound(1000, form="finer_net", **SETTING)
        assert published / finer == pytest.approx(15 / 13)

    @pytest.mark.parametrize("information", [0.0, 3.0, 1e4])
    @pytest.mark.parametrize("isoperimetry", [0.5, 3.0])
    @pytest.mark.parametrize("delta", [0.01, 0.9])
    def test_against_the_chain(self, information, isoperimetry, delta):
        setting = SETTING | {"delta": delta, "isoperimetry": isoperimetry}
        for sharp in (False, True):
            expected = reference.robustness_lower_bound(information, sharp=sharp, **setting)
            found = robustness_from_information(information, sharp=sharp, **setting)
            assert found == pytest.approx(expected, rel=1e-9)
        bits = information / math.log(2)
        kept = setting | {"epsilon": 0.5 * 839 / 900}
        expected = reference.robustness_lower_bound(information, sharp=True, **kept)
        found = robustness_lower_bound(bits, form="sharp", **setting)
        assert found == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("form", ["published", "repaired", "finer_net"])
    @pytest.mark.parametrize("bits", [0.0, 10.0, 1e6])
    def test_printed_slack_is_slack(self, form, bits):
        kept = SETTING | {"epsilon": 0.5 * float(LOSS_SHARES[form])}
        exact = robustness_from_information(bits, **kept)
        found = robustness_lower_bound(bits, form=form, **SETTING)
        assert found < exact
        assert bits < 1e6 or found == pytest.approx(exact, rel=1e-4)

    def test_samples_by_hand(self):
        assert samples_for_robustness(1, 0.5, form="published") == math.ceil(512 * math.log(16))
        expected = math.ceil(4 * 3 * 512 * math.log(48))
        assert samples_for_robustness(1, 0.5, components=3) == expected
        n = samples_for_robustness(0.5, 0.25)
        robustness_lower_bound(10, **SETTING | {"samples": n})
        with pytest.raises(ValueError, match=f"samples must be at least {n} .* got {n - 1}"):
            robustness_lower_bound(10, **SETTING | {"samples": n - 1})

    @pytest.mark.parametrize("form", law_of_robustness.FORMS)
    def test_samples_are_the_fewest_in_exact_numbers(self, form):
        needed = 512 * 2 * Fraction(math.log(16 / 0.3))
        share = LOSS_SHARES[form]
        for n in range(20_000, 20_400):
            epsilon = math.sqrt(needed / n) / float(share)  # n is the fewest, or misses by rounding
            found = samples_for_robustness(epsilon, 0.3, components=2, form=form)
            square = (Fraction(epsilon) * share) ** 2
            assert found * square >= needed > (found - 1) * square
            assert found in (n, n + 1)


class TestGeneralisation:
    def test_by_hand(self):
        charged = 3 / 0.5 + math.log(4)
        assert generalisation_gap_bound(3, samples=9, delta=0.5) == pytest.approx(
            math.sqrt(72 * charged / 9)
        )
        assert generalisation_gap_bound(3, samples=9, delta=0.5, loss_bound=5) == pytest.approx(
            5 * math.sqrt(72 * charged / 9)
        )

    def test_constants(self):
        squares = {
            form: generalisation_gap_bound(3, samples=9, delta=0.5, loss_bound=4, form=form) ** 2
            for form in generalisation.FORMS
        }
        unit = squares["algebra"]
        assert {form: square / unit for form, square in squares.items()} == pytest.approx(
            {
                "theorem_5_printed": 4,
                "theorem_5_proof": 2,
                "algebra": 1,
                "theorem_6_printed": 0.25,
                "sharp": (6 + 3 * math.log(2)) / 2 / (72 * (6 + math.log(4))),
            }
        )

    @pytest.mark.parametrize(("information", "bound", "delta"), CASES)
    def test_is_lemma_1(self, information, bound, delta):
        found = generalisation_gap_bound(information, samples=7, delta=delta, loss_bound=bound)
        constant = bound**2 / 7
        expected = reference.xu_raginsky_bound(information, constant, delta)
        assert found == pytest.approx(expected, rel=1e-13)
        found = generalisation_gap_bound(
            information, samples=7, delta=delta, loss_bound=bound, form="sharp"
        )
        expected = reference.deviation_bound(information, constant / 2, delta)
        assert found == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("form", generalisation.FORMS)
    def test_samples(self, form):
        n = samples_for_gap(0.1, 20.0, delta=0.2, loss_bound=3, form=form)
        options: dict[str, Any] = {"delta": 0.2, "loss_bound": 3, "form": form}
        assert generalisation_gap_bound(20.0, samples=n, **options) <= 0.1
        assert generalisation_gap_bound(20.0, samples=n - 1, **options) > 0.1

    @pytest.mark.parametrize("form", generalisation.FORMS)
    @pytest.mark.parametrize("information", [0.0, 20.0, 1e4])
    def test_samples_of_the_bound_itself(self, form, information):
        """Rounding tells apart the gaps of small n; at 10^18 many n share one gap."""
        options: dict[str, Any] = {"delta": 0.2, "loss_bound": 3, "form": form}

        def bound(n):
            return generalisation_gap_bound(information, samples=n, **options)

        for n in range(1, 200):
            assert samples_for_gap(bound(n), information, **options) == n
        for n in (10**9 + 7, 10**18, 3**60):
            found = samples_for_gap(bound(n), information, **options)
            assert found <= n
            assert bound(found) <= bound(n) < bound(found - 1)


def law(**changed):
    return lambda: robustness_lower_bound(**{"effective_bits": 10, **SETTING, **changed})


def gap(**changed):
    options: dict[str, Any] = {"information_nats": 1, "samples": 10, "delta": 0.5, **changed}
    return lambda: generalisation_gap_bound(**options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: deviation_bound(-1, 1, 0.5), ValueError,
         "information_nats must be non-negative and finite, got -1. Check where it comes from"),
        (lambda: deviation_bound(math.inf, 1, 0.5), ValueError, "information_nats must be non-neg"),
        (lambda: deviation_bound(1, 0, 0.5), ValueError,
         "tail_constant must be positive and finite, got 0"),
        (lambda: deviation_bound(1, 1, 1.0), ValueError, r"delta must be inside \(0, 1\), got 1.0"),
        (lambda: deviation_bound(1, 1, 0.5, form="tight"), ValueError,
         "form must be one of 'published', 'sharp', got 'tight'"),
        (lambda: information_lower_bound_nats(math.nan, 1, 0.5), ValueError,
         "deviation must be non-negative and finite, got nan"),
        (lambda: information_lower_bound_nats(1, -1, 0.5), ValueError, "tail_constant must be pos"),
        (lambda: information_lower_bound_nats(1, 1, 0.0), ValueError, "delta must be inside"),
        (lambda: information_lower_bound_nats(1, 1, 0.5, form=""), ValueError, "form must be one"),
        (lambda: binary_entropy_nats(0.0), ValueError, "delta must be inside"),
        (lambda: averaged_tail_constant(math.inf, 1), ValueError, "tail_constant must be positive"),
        (lambda: averaged_tail_constant(1, HALF), TypeError, "samples must be an int, got float"),
        (lambda: averaged_tail_constant(1, 0), ValueError, "samples must be at least 1, got 0"),
        (lambda: averaged_tail_constant(1, 2, form="x"), ValueError, "form must be one of"),
        (law(effective_bits=-1), ValueError, "effective_bits must be non-negative and finite"),
        (law(samples=HALF), TypeError, "samples must be an int, got float. Convert it with int"),
        (law(samples=100), ValueError,
         r"samples must be at least 28392 \(8³ k log\(8k/δ\) ≤ n ε'²\), got 100. The theorem says"),
        (law(dimension=0), ValueError, "dimension must be at least 1, got 0"),
        (law(dimension=True), TypeError, "dimension must be an int, got bool"),
        (law(epsilon=1.5), ValueError,
         r"epsilon must be in \(0, 1\], got 1.5. With \|y\| ≤ 1 the variance is at most 1"),
        (law(epsilon=math.nan), ValueError, r"epsilon must be in \(0, 1\], got nan"),
        (law(delta=0), ValueError, r"delta must be inside \(0, 1\), got 0"),
        (law(isoperimetry=0), ValueError, "isoperimetry must be positive and finite, got 0"),
        (law(components=0), ValueError, "components must be at least 1, got 0"),
        (law(components=HALF), TypeError, "components must be an int, got float"),
        (law(form="proof"), ValueError, "form must be one of 'finer_net', 'published', 'repaired'"),
        (lambda: robustness_from_information(-2, **SETTING), ValueError,
         "information_nats must be non-negative and finite, got -2"),
        (lambda: samples_for_robustness(0.0, 0.5), ValueError, r"epsilon must be in \(0, 1\]"),
        (gap(information_nats=-1), ValueError, "information_nats must be non-negative and finite"),
        (gap(samples=0), ValueError, "samples must be at least 1, got 0"),
        (gap(samples=HALF), TypeError, "samples must be an int, got float"),
        (gap(delta=2), ValueError, "delta must be inside"),
        (gap(loss_bound=0), ValueError, "loss_bound must be positive and finite, got 0"),
        (gap(form="theorem_5"), ValueError, "form must be one of 'algebra', 'sharp', 'theorem_5_"),
        (lambda: samples_for_gap(0, 1, delta=0.5), ValueError,
         "gap must be positive and finite, got 0"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_forms_are_those_of_the_tables():
    assert law_of_robustness.FORMS == ("published", "repaired", "finer_net", "sharp")
    assert LOSS_SHARES["sharp"] == 1 - Fraction(1, 15) - Fraction(1, 900)
