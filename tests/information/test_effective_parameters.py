import doctest
import math
from typing import Any

import pytest

from ntktheory.information import effective_parameters
from ntktheory.information.effective_parameters import (
    discretisation_bits,
    effective_parameter_count,
    log2_binomial,
    mask_entropy_expansion,
    max_effective_parameter_count,
)

FRACTION: Any = 2.5  # where an int is wanted


def test_examples_run():
    assert doctest.testmod(effective_parameters).failed == 0


@pytest.mark.parametrize(
    ("p", "k", "count"), [(4, 2, 6), (21, 14, 116280), (5, 0, 1), (5, 5, 1), (0, 0, 1), (6, 1, 6)]
)
def test_log2_binomial_by_hand(p, k, count):
    assert log2_binomial(p, k) == math.log2(count)


@pytest.mark.parametrize(
    ("p", "k"), [(2002, 1001), (2003, 1001), (5000, 2500), (20000, 1001), (20000, 18000)]
)
def test_log2_binomial_beyond_the_exact_range(p, k):
    assert log2_binomial(p, k) == pytest.approx(math.log2(math.comb(p, k)), rel=1e-15)


def test_log2_binomial_is_symmetric_and_finite_at_network_size():
    p = 11_000_000
    assert log2_binomial(p, 550_000) == pytest.approx(log2_binomial(p, p - 550_000), rel=1e-13)
    assert log2_binomial(p, 1) == math.log2(p)


@pytest.mark.parametrize("p", [10, 100, 1000])
def test_expansion_leaves_a_remainder_of_known_size(p):
    remainder = math.log2(math.comb(p, p // 2)) - mask_entropy_expansion(p, 0.5)
    assert remainder == pytest.approx(-3 / (12 * p * math.log(2)), rel=0.3 / p)


def test_effective_parameter_count_by_hand():
    assert effective_parameter_count(8.5, 13, log_term=2.0) == 34.5
    assert effective_parameter_count(0.0, 10, weight_diameter=1, lipschitz=2, epsilon=8) == 40.0
    assert effective_parameter_count(8.5, expected_class_bits=3.0) == 11.5
    assert effective_parameter_count(0, 0, log_term=0) == 0


def test_discretisation_bits_by_hand():
    assert discretisation_bits(1.0, 2.0, 8.0) == 4.0


@pytest.mark.parametrize("log_term", [0, 0.3, 1, 2.5, 6, 50, 4000.0])
@pytest.mark.parametrize("p", [1, 2, 3, 21, 64])
def test_largest_count_is_the_maximum_over_all_sizes(p, log_term):
    largest = max_effective_parameter_count(p, log_term)
    values = [math.log2(math.comb(p, k)) + k * log_term for k in range(p + 1)]
    assert largest.bits == max(values)
    assert values[largest.kept] == largest.bits


def test_largest_count_of_the_toy_network():
    largest = max_effective_parameter_count(21, 1.0)
    assert largest.kept == 14
    assert largest.bits == math.log2(116280) + 14


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: log2_binomial(FRACTION, 2), TypeError, "p must be an int, got float"),
        (lambda: log2_binomial(4, True), TypeError, "k must be an int, got bool"),
        (lambda: log2_binomial(-1, 0), ValueError, "p must be at least 0, got -1"),
        (lambda: log2_binomial(4, 5), ValueError, "k must be in 0…4, got 5"),
        (lambda: log2_binomial(4, -1), ValueError, "k must be in 0…4, got -1"),
        (lambda: mask_entropy_expansion(FRACTION, 0.5), TypeError, "p must be an int, got float"),
        (lambda: mask_entropy_expansion(0, 0.5), ValueError, "p must be at least 1, got 0"),
        (lambda: mask_entropy_expansion(9, 1.0), ValueError, "gamma must be a fraction inside"),
        (
            lambda: mask_entropy_expansion(9, math.nan),
            ValueError,
            r"gamma must be a fraction inside \(0, 1\), got nan. Use log2_binomial at the ends",
        ),
        (
            lambda: discretisation_bits(0.0, 1.0, 1.0),
            ValueError,
            "weight_diameter must be positive and finite, got 0.0",
        ),
        (
            lambda: discretisation_bits(1.0, math.inf, 1.0),
            ValueError,
            "lipschitz must be positive and finite, got inf",
        ),
        (
            lambda: effective_parameter_count(1, 1, weight_diameter=1, lipschitz=1, epsilon=-1),
            ValueError,
            "epsilon must be positive and finite, got -1",
        ),
        (
            lambda: effective_parameter_count(-0.1, 3, log_term=1),
            ValueError,
            "information_bits must be non-negative and finite, got -0.1",
        ),
        (
            lambda: effective_parameter_count(1, math.nan, log_term=1),
            ValueError,
            "expected_kept must be non-negative and finite, got nan",
        ),
        (
            lambda: effective_parameter_count(1, log_term=1),
            ValueError,
            "expected_kept must be given, got None. Or pass expected_class_bits",
        ),
        (
            lambda: effective_parameter_count(1, 3),
            ValueError,
            "log_term must be given, or weight_diameter, lipschitz and epsilon in its place",
        ),
        (
            lambda: effective_parameter_count(1, 3, weight_diameter=1, epsilon=1),
            ValueError,
            "got log_term=None and 2 of the three. Pass one or the other",
        ),
        (
            lambda: effective_parameter_count(1, 3, log_term=1, epsilon=1),
            ValueError,
            "got log_term=1 and 1 of the three",
        ),
        (
            lambda: effective_parameter_count(1, 3, log_term=-1),
            ValueError,
            "log_term must be non-negative and finite, got -1",
        ),
        (
            lambda: effective_parameter_count(1, 3, expected_class_bits=2),
            ValueError,
            "expected_class_bits must be given alone with information_bits",
        ),
        (
            lambda: effective_parameter_count(1, expected_class_bits=-2),
            ValueError,
            "expected_class_bits must be non-negative and finite, got -2",
        ),
        (
            lambda: max_effective_parameter_count(FRACTION, 1),
            TypeError,
            "p must be an int, got float. Convert it with int",
        ),
        (lambda: max_effective_parameter_count(0, 1), ValueError, "p must be at least 1, got 0"),
        (
            lambda: max_effective_parameter_count(3, -1.0),
            ValueError,
            "log_term must be non-negative and finite, got -1.0",
        ),
    ],
)
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
