"""Finite laws, code words, and exact information: by hand, by the slow definition, and bad input."""

import math
from collections import defaultdict
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from ntktheory.information import (
    information_over_inits,
    joint_information,
    mask_information,
    reference_enumeration,
)
from ntktheory.information.code_words import code_word, code_words, mask_of
from ntktheory.information.enumeration import information_of_masks
from ntktheory.information.laws import counted, entropy_bits, law, pushed, uniform


def binary_entropy(p):
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


class TestCodeWords:
    def test_by_hand(self):
        assert code_word([True, False, True, True]) == 13
        masks = {"w": torch.tensor([[1, 0], [1, 1]]), "b": torch.tensor([False, True])}
        assert code_word(masks) == 13 + 32
        kept = torch.tensor([[1, 0], [0, 0], [1, 1]], dtype=torch.bool)
        assert code_words(kept).tolist() == [5, 4]
        assert mask_of(13, 5).tolist() == [True, False, True, True, False]

    def test_the_longest_mask_that_fits(self):
        assert code_word([1] * 62) == 2**62 - 1
        assert int(code_words(torch.ones(62, 1, dtype=torch.bool))[0]) == 2**62 - 1

    @pytest.mark.parametrize("p", [0, 63])
    def test_other_lengths_are_refused(self, p):
        with pytest.raises(ValueError, match=rf"P must be in 1…62, .*, got {p}\. Use a smaller"):
            code_words(torch.ones(p, 1, dtype=torch.bool))
        with pytest.raises(ValueError, match="P must be in 1…62"):
            code_word([1] * p)

    def test_what_is_no_mask_is_refused(self):
        with pytest.raises(ValueError, match="mask must be made of 0 and 1, got other entries"):
            code_word([0.5, 1])


class TestLaws:
    def test_entropy_by_hand(self):
        assert entropy_bits(uniform(1)) == 0.0
        assert entropy_bits(law([Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)])) == 1.5
        assert entropy_bits(law([1, 0, 0])) == 0.0

    def test_entropy_is_scipy_s(self):
        numbers = np.random.default_rng(0).integers(0, 1000, 300)
        wanted = entropy(numbers / numbers.sum(), base=2)
        assert entropy_bits(counted(numbers.tolist())) == pytest.approx(wanted, rel=1e-13)

    def test_totals_beyond_int64_are_exact(self):
        third = Fraction(1, 3**60)
        found = law([third, Fraction(1, 2), Fraction(1, 2) - third])
        assert sum(found.numerators.tolist()) == found.total > 2**64
        assert entropy_bits(pushed(np.array([0, 1, 0]), found)) == 1.0

    def test_pushed_by_hand(self):
        found = pushed(np.array([7, 3, 7, 9]), counted([1, 2, 3, 0]))
        assert found.numerators.tolist() == [2, 4]  # 3, then 7; 9 has no weight

    @pytest.mark.parametrize(
        ("weights", "text"),
        [
            ([Fraction(1, 2), Fraction(1, 3)], "summing to one, exactly, got a sum of 5/6"),
            ([], "summing to one, exactly, got a sum of 0"),
            ([Fraction(3, 2), Fraction(-1, 2)], "non-negative, got -1/2"),
        ],
    )
    def test_what_is_no_law_is_refused(self, weights, text):
        with pytest.raises(ValueError, match=f"weights must be {text}"):
            law(weights)

    def test_floats_are_refused_even_where_they_would_sum_to_one(self):
        halves: Any = [0.5, 0.5]
        with pytest.raises(TypeError, match=r"weights must be Fractions, got float\. Write"):
            law(halves)

    def test_no_counts_are_refused(self):
        with pytest.raises(ValueError, match="numerators must be non-negative, not all 0"):
            counted([0, 0])


class TestInformation:
    def test_xor_needs_both_inputs(self):
        sets = list(product((0, 1), repeat=2))
        assert mask_information(lambda d: [d[0] ^ d[1]], sets).bits == 1.0
        codes = [[[a ^ b for b in (0, 1)] for a in (0, 1)]]  # inits a, data b
        assert information_over_inits(codes[0], uniform(2)) == 0.0

    def test_binary_symmetric_channel(self):
        flip = law([Fraction(89, 100), Fraction(11, 100)])
        found = information_over_inits([[0, 1], [1, 0]], uniform(2), flip)
        assert found == pytest.approx(0.500084041835, abs=1e-12)

    def test_a_skewed_law(self):
        sets, weights = ["a", "b", "c"], [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
        found = mask_information(lambda d: [d == "c", True], sets, weights)
        assert found.bits == pytest.approx(binary_entropy(1 / 6), rel=1e-14)
        assert (found.low_bits, found.high_bits, found.near_tie_weight) == (found.bits,) * 2 + (0,)
        assert found.masks == 2

    def test_zero_is_exact(self):
        thirds = [Fraction(1, 3)] * 3
        assert mask_information(lambda d: [1, 0, 1], range(3), thirds).bits == 0.0
        found = information_over_inits([[1, 1, 1], [2, 2, 2]], law(thirds))
        assert found == 0.0
        nearly = law([Fraction(1, 3), Fraction(1, 3), Fraction(1, 3) - Fraction(1, 10**12),
                      Fraction(1, 10**12)])  # fmt: skip
        assert information_over_inits([[1, 1, 1, 1], [2, 2, 2, 1]], nearly) > 0.0

    def test_near_ties_by_hand(self):
        found = information_of_masks([1, 1, 2, 2], uniform(4), [False, False, False, True])
        assert found.bits == 1.0
        assert found.low_bits == pytest.approx(binary_entropy(1 / 4))  # 3 : 1
        assert found.high_bits == 1.5  # 2 : 1 : 1
        assert found.near_tie_weight == 0.25
        everything = information_of_masks([1, 1], uniform(2), [True, True])
        assert (everything.low_bits, everything.high_bits) == (0.0, 1.0)
        weightless = information_of_masks([1, 2], counted([1, 0]), [False, True])
        assert (weightless.bits, weightless.near_tie_weight, weightless.high_bits) == (0, 0, 0)

    def test_near_ties_bound_every_choice_of_masks(self):
        codes, near = np.array([1, 1, 2, 2, 3]), np.array([0, 1, 0, 1, 0], dtype=bool)
        over = counted([1, 2, 3, 4, 5])
        found = information_of_masks(codes, over, near)
        for choice in product(range(1, 6), repeat=2):
            changed = codes.copy()
            changed[near] = choice
            bits = entropy_bits(pushed(changed, over))
            assert found.low_bits - 1e-12 <= bits <= found.high_bits + 1e-12

    @pytest.mark.parametrize("seed", range(20))
    def test_the_largest_entropy_of_few_possible_masks(self, seed):
        """Against 3,000 random assignments of the data sets with a near-tie."""
        generator = np.random.default_rng(seed)
        codes, near = generator.integers(0, 4, 12), generator.random(12) < 0.4
        over = counted(generator.integers(1, 20, 12).tolist())
        possible = 6
        found = information_of_masks(codes, over, near, possible=possible)
        for _ in range(3000):
            codes[near] = generator.integers(0, possible, int(near.sum()))
            bits = entropy_bits(pushed(codes, over))
            assert found.low_bits - 1e-12 <= bits <= found.high_bits + 1e-12
        assert found.high_bits <= math.log2(possible) + 1e-12

    def test_few_possible_masks_by_hand(self):
        near = [False, False, False, True]
        two = information_of_masks([1, 1, 2, 2], uniform(4), near, possible=2)
        assert two.high_bits == 1.0  # 2 : 1 + 1
        one = information_of_masks([1, 1], uniform(2), [False, True], possible=1)
        assert (one.low_bits, one.high_bits) == (0.0, 0.0)
        many = information_of_masks([1, 1, 2, 2], uniform(4), near, possible=10**6)
        assert many.high_bits == 1.5
        weightless = information_of_masks([1, 2], counted([1, 0]), [False, True], possible=4)
        assert (weightless.bits, weightless.high_bits) == (0.0, 0.0)
        with pytest.raises(ValueError, match=r"possible must be at least 2, got 1\. So many occur"):
            information_of_masks([1, 2], uniform(2), possible=1)

    @pytest.mark.parametrize("seed", range(40))
    def test_the_largest_entropy_is_that_of_every_level_poured_in_turn(self, seed):
        """Unit by unit, each on the least likely mask; a list with an entry per possible mask."""
        generator = np.random.default_rng(seed)
        codes = generator.integers(0, 5, 12)
        weights = generator.integers(1, 9, 12)
        near = generator.random(12) < 0.5
        near[0] = True
        possible = int(generator.integers(5, 9))
        fine = possible * math.factorial(possible)  # so that every level is a whole number
        over = counted((weights * fine).tolist())
        levels = [0] * possible
        for code, weight in zip(codes[~near], weights[~near], strict=True):
            levels[code] += int(weight) * fine
        loose = int(weights[near].sum()) * fine
        while loose:
            lowest = min(levels)
            at = [i for i, level in enumerate(levels) if level == lowest]
            above = min((level for level in levels if level > lowest), default=lowest + loose)
            each = min(above - lowest, loose // len(at))
            for i in at:
                levels[i] += each
            loose -= each * len(at)
        apart = [*np.bincount(codes[~near], weights[~near] * fine, 5).astype(int).tolist(),
                 *(weights[near] * fine).tolist()]  # fmt: skip
        wanted = min(entropy_bits(counted(levels)), entropy_bits(counted(apart)))
        found = information_of_masks(codes, over, near, possible=possible)
        assert found.high_bits == pytest.approx(wanted, rel=1e-13)

    def test_possible_masks_may_be_too_many_to_list(self):
        codes, near = np.arange(100) % 8, np.arange(100) % 2 == 0
        found = information_of_masks(codes, uniform(100), near, possible=math.comb(60, 30))
        fresh = entropy_bits(counted([1] * 50 + [13, 13, 12, 12]))
        assert found.high_bits == fresh  # 10^17 masks are as good as any number

    @pytest.mark.parametrize("seed", range(20))
    def test_over_inits_is_the_definition(self, seed):
        generator = np.random.default_rng(seed)
        codes = generator.integers(0, 3, (4, 5))
        inits, data = counted([1, 2, 0, 3]), counted(generator.integers(1, 9, 5).tolist())
        joint: dict = defaultdict(Fraction)
        for (i, a), (j, b) in product(enumerate(inits.numerators), enumerate(data.numerators)):
            joint[int(codes[i, j]), j] += Fraction(int(a), inits.total) * Fraction(
                int(b), data.total
            )
        wanted = reference_enumeration.mutual_information(joint)
        found = information_over_inits(codes, data, inits)
        assert found == pytest.approx(wanted, abs=1e-13)
        given = sum(
            int(a) / inits.total * entropy_bits(pushed(row, data))
            for row, a in zip(codes, inits.numerators, strict=True)
        )
        assert found <= given + 1e-13

    def test_joint_by_hand(self):
        weights = torch.tensor([[0.5, 0.5, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0]])
        assert joint_information([1, 1, 2, 2], weights, uniform(4)) == 1.5
        assert joint_information([1, 1, 1, 1], weights, uniform(4)) == pytest.approx(
            binary_entropy(0.25)
        )

    def test_a_learner_that_draws_is_noticed(self):
        generator = torch.Generator().manual_seed(0)

        def coin(data):
            return (torch.rand(8, generator=generator) < 0.5) | (data == 0)

        with pytest.raises(ValueError, match=r"learner must be deterministic, given its initial"):
            mask_information(coin, [0, 1, 2])

    def test_a_learner_with_a_memory_is_noticed(self):
        calls: list[int] = []

        def learner(data):
            calls.append(data)
            return [len(calls) > 4, True]

        with pytest.raises(ValueError, match="got the masks 10 and 11 on one data set"):
            mask_information(learner, [0, 1, 2])

    def test_shapes_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match=r"codes must be of shape \[2\], one per data set"):
            information_of_masks([1, 2, 3], uniform(2))
        with pytest.raises(ValueError, match=r"near_ties must be of shape \[2\]"):
            information_of_masks([1, 2], uniform(2), [True])
        with pytest.raises(ValueError, match=r"codes must be of shape \[1, 3\], got \[1, 2\]"):
            information_over_inits([[1, 2]], uniform(3))
        with pytest.raises(ValueError, match=r"weights must be of shape \[P, 2\], got \[1, 3\]"):
            joint_information([1, 2], torch.ones(1, 3), uniform(2))
        with pytest.raises(ValueError, match=r"weights must be one per data set \(2\), got 1"):
            mask_information(lambda d: [1], [0, 1], [Fraction(1)])
