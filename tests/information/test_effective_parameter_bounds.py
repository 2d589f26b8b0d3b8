import itertools
import math
from fractions import Fraction
from typing import Any

import pytest

from ntktheory.information.effective_parameter_bounds import (
    CountRange,
    effective_parameter_range,
    expected_class_bits,
    max_count_of_random_size,
)
from ntktheory.information.effective_parameters import max_effective_parameter_count

FRACTION: Any = 0.5  # where an exact number is wanted


def test_range_by_hand():
    assert effective_parameter_range(4, 2, 1.5) == CountRange(3.0, math.log2(6) + 3.0)
    assert effective_parameter_range(4, 2, 1.5, data_bits=1.0) == CountRange(3.0, 4.0)
    assert effective_parameter_range(5, 0, 1.0) == CountRange(0.0, 0.0)


@pytest.mark.parametrize("log_term", [0.0, 0.7, 1.0, 5.0])
@pytest.mark.parametrize("p", [1, 3, 6])
def test_largest_of_random_size_is_the_logarithm_of_the_sum(p, log_term):
    masks = itertools.product((0, 1), repeat=p)
    total = math.log2(math.fsum(2 ** (sum(mask) * log_term) for mask in masks))
    found = max_count_of_random_size(p, log_term)
    assert found == pytest.approx(total, rel=1e-13)
    largest = max_effective_parameter_count(p, log_term)
    assert largest.bits < found <= largest.bits + math.log2(p + 1)
    kept = effective_parameter_range(p, largest.kept, log_term)
    assert kept.high_bits == pytest.approx(largest.bits, rel=1e-15)


def test_random_size_reaches_it():
    p, log_term = 21, 1.0
    q = 2 / 3
    entropy = -q * math.log2(q) - (1 - q) * math.log2(1 - q)
    found = max_count_of_random_size(p, log_term)
    assert found == pytest.approx(p * (entropy + q * log_term), rel=1e-14)


def test_class_bits_by_hand():
    law = [(Fraction(1, 2), 1), (Fraction(1, 4), 4), (Fraction(1, 4), 16)]
    assert expected_class_bits(law) == 1.5
    assert expected_class_bits([(1, 8)]) == 3.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: effective_parameter_range(4, 5, 1.0), ValueError, "k must be in 0…4, got 5"),
        (lambda: effective_parameter_range(FRACTION, 0, 1.0), TypeError, "p must be an int"),
        (lambda: effective_parameter_range(4, 2, -1.0), ValueError, "log_term must be non-negativ"),
        (lambda: effective_parameter_range(4, 2, 1.0, data_bits=-1), ValueError,
         "data_bits must be at least 0, got -1. Leave it out where it is unknown"),
        (lambda: effective_parameter_range(4, 2, 1.0, data_bits=math.nan), ValueError,
         "data_bits must be at least 0, got nan"),
        (lambda: max_count_of_random_size(FRACTION, 1.0), TypeError, "p must be an int, got float"),
        (lambda: max_count_of_random_size(0, 1.0), ValueError, "p must be at least 1, got 0"),
        (lambda: max_count_of_random_size(3, math.inf), ValueError, "log_term must be non-negativ"),
        (lambda: expected_class_bits([(FRACTION, 2), (FRACTION, 2)]), TypeError,
         "probabilities of law must be Fractions, got float. Convert counts with Fraction"),
        (lambda: expected_class_bits([(Fraction(3, 2), 2), (Fraction(-1, 2), 2)]), ValueError,
         "probabilities of law must be at least 0, got -1/2"),
        (lambda: expected_class_bits([(Fraction(1, 2), 2)]), ValueError,
         "probabilities of law must be summing to 1, got 1/2. Divide by their sum"),
        (lambda: expected_class_bits([]), ValueError, "must be summing to 1, got 0"),
        (lambda: expected_class_bits([(1, 0)]), ValueError, "N_m of law must be at least 1, got 0"),
        (lambda: expected_class_bits([(1, FRACTION)]), TypeError, "N_m of law must be an int"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
