"""Stability of masks: exact top-k, overlaps, and what the confidence sequence promises."""

import itertools
import math

import pytest
import torch

from ntktheory.estimators.catoni import TUNED_BIASES, psi, tuned_rate
from ntktheory.estimators.stability import (
    kept_count,
    mask_overlap,
    mask_stability,
    mean_bounds,
    settled_weights,
    top_mask,
)

OPTIONS = {"dtype": torch.float64}


def realizations(means, count, seed=0, sd=1.0):
    generator = torch.Generator().manual_seed(seed)
    means = torch.tensor(means, **OPTIONS)
    noise = torch.randn(count, *means.shape, generator=generator, **OPTIONS)
    return [{"a": (means + sd * e)[:2], "b": (means + sd * e)[2:]} for e in noise]


# Masks.


def test_the_number_kept_is_exact_and_ties_go_to_the_first():
    scores = {"a": torch.ones(2, 3), "b": torch.ones(4)}
    mask = top_mask(scores, 0.45)
    assert kept_count(10, 0.45) == 4  # half to even
    assert mask["a"].tolist() == [[True, True, True], [True, False, False]]
    assert not mask["b"].any()
    assert top_mask({"a": torch.tensor([1.0, 3.0, 2.0])}, 0.01)["a"].tolist() == [0, 1, 0]


def test_overlap():
    a = {"w": torch.tensor([True, True, False, False]), "v": torch.tensor([True])}
    b = {"w": torch.tensor([False, True, True, False]), "v": torch.tensor([True])}
    assert mask_overlap(a, a) == 1
    assert mask_overlap(a, b) == pytest.approx(2 / 3)
    assert mask_overlap(a, dict(reversed(b.items()))) == pytest.approx(2 / 3)


# The confidence sequence.


def log_e(samples, mean, sd, sign):
    """Log of the average over the six rates, sample by sample and rate by rate."""
    total = 0.0
    for rate in map(tuned_rate, TUNED_BIASES):
        steps = [
            float(psi(torch.tensor(sign * rate * (x - mean) / sd, **OPTIONS))) - rate**2 / 2
            for x in samples
        ]
        total += math.exp(math.fsum(steps)) / len(TUNED_BIASES)
    return math.log(total)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_ends_are_where_the_e_values_reach_their_threshold(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, generator=generator, **OPTIONS).square()
    low, high = mean_bounds(x, 2.0, delta=0.1)
    threshold = math.log(2 * 2 / 0.1)
    for k in range(2):
        samples = x[:, k].tolist()
        for end, sign in ((low, 1), (high, -1)):
            outside = float(end[k]) - sign * 1e-6
            inside = float(end[k]) + sign * 1e-6
            assert log_e(samples, outside, 2**0.5, sign) >= threshold
            assert log_e(samples, inside, 2**0.5, sign) <= threshold
        assert float(low[k]) < float(x[:, k].mean()) < float(high[k])


@pytest.mark.parametrize("rare", [0.02, 0.1, 0.3])
def test_coverage_at_all_times_by_enumeration(rare):
    """Every sequence of a skewed two-point law: the bounds miss the mean with at most delta."""
    values = (-((rare / (1 - rare)) ** 0.5), ((1 - rare) / rare) ** 0.5)  # mean 0, variance 1
    missed = 0.0
    for sequence in itertools.product((0, 1), repeat=5):
        chance = math.prod(rare if i else 1 - rare for i in sequence)
        x = torch.tensor([[values[i]] for i in sequence], **OPTIONS)
        ends = [mean_bounds(x[:n], 1.0, delta=0.3) for n in range(1, 6)]
        missed += chance * any(float(low) > 0 or float(high) < 0 for low, high in ends)
    assert 0 < missed + 1e-12 <= 0.3


def test_too_small_a_variance_is_caught():
    """The same enumeration with a quarter of the variance: the promise is broken."""
    missed = 0.0
    for sequence in itertools.product((-1.0, 1.0), repeat=6):
        x = torch.tensor([[v] for v in sequence], **OPTIONS)
        ends = [mean_bounds(x[:n], 0.02, delta=0.3) for n in (1, 3, 6)]
        missed += any(float(low) > 0 or float(high) < 0 for low, high in ends) / 64
    assert missed > 0.3


def test_a_coordinate_without_variance_is_known():
    x = torch.tensor([[2.0, 0.0], [2.0, 1.0]], **OPTIONS)
    low, high = mean_bounds(x, torch.tensor([0.0, 1.0]), delta=0.1)
    assert (float(low[0]), float(high[0])) == (2.0, 2.0)
    assert float(low[1]) < 0.5 < float(high[1])
    with pytest.raises(ValueError, match=r"variance must be positive where samples differ, got 0"):
        mean_bounds(x, 0.0, delta=0.1)


def test_settled_weights_are_those_that_no_corner_of_the_intervals_moves():
    generator = torch.Generator().manual_seed(3)
    seen = set()
    for _ in range(60):
        centre = 4 * torch.rand(5, generator=generator, **OPTIONS)
        width = torch.rand(5, generator=generator, **OPTIONS)
        low, high = centre - width, centre + width
        for kept in (1, 2, 4):
            corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)), **OPTIONS)
            values = low + corners * (high - low)
            members = torch.stack([top_mask({"w": v}, kept / 5)["w"] for v in values])
            never_moves = members.all(0) | ~members.any(0)
            found = settled_weights(low, high, kept)
            assert found.tolist() == never_moves.tolist()
            seen.update(found.tolist())
    assert seen == {True, False}


# The report.


def test_masks_are_taken_at_powers_of_two_and_at_the_end():
    for count, times in ((1, (1,)), (8, (1, 2, 4, 8)), (11, (1, 2, 4, 8, 11))):
        draws = realizations([1.0, 0.0, 2.0, 0.5], count)
        found = mask_stability(draws, 0.5)
        assert found.realizations == times
        means = {name: torch.stack([d[name] for d in draws]).mean(0) for name in draws[0]}
        expected = top_mask({name: m.abs() for name, m in means.items()}, 0.5)
        assert all(torch.equal(found.mask[name], expected[name]) for name in expected)


def test_halves_are_the_odd_and_the_even_realisations():
    odd, even = {"w": torch.tensor([3.0, 0.0, 1.0, 0.0])}, {"w": torch.tensor([0.0, 3.0, 1.0, 0.0])}
    found = mask_stability([odd, even, odd, even], 0.5)
    assert found.between_halves[1:] == (0.5, 0.5)  # the third weight is in both
    assert mask_stability([odd, odd, odd], 0.5).between_halves[1:] == (1.0, 1.0)


@pytest.mark.parametrize("sign", ["signed", "abs_of_mean"])
def test_well_separated_scores_settle(sign):
    means = [5.0, -6.0, 0.0, 0.1, 4.0, 0.2]
    found = mask_stability(realizations(means, 200), 0.5, sign=sign, variance=1.0)
    kept = {"signed": [0, 4, 5], "abs_of_mean": [0, 1, 4]}[sign]
    mask = torch.cat([found.mask["a"], found.mask["b"]])
    assert found.realizations == (1, 2, 4, 8, 16, 32, 64, 128, 200)
    if sign == "abs_of_mean":
        assert mask.nonzero().flatten().tolist() == kept
        assert found.settled[-1] == 1
        low, high = found.gap[-1]
        assert 0 < low < 3.8 < high
        assert found.gap_settled_from in found.realizations
        assert found.stable_from < 16
    else:
        assert mask[[0, 4]].all()
        assert not mask[1]
        assert found.settled[-1] == pytest.approx(3 / 6)  # 0, 4 and −6; the rest is within noise
        assert found.gap_settled_from is None
    assert found.with_last[-1] == 1
    assert math.isnan(found.between_halves[0])


def test_ties_never_settle():
    found = mask_stability(realizations([1.0] * 6, 400), 0.5, variance=1.0)
    assert found.settled[-1] == 0
    assert found.gap_settled_from is None
    assert all(low == 0 for low, _ in found.gap)
    assert found.between_halves[-1] < 1


def test_intervals_contain_the_gap_at_every_time():
    """The gap of means (3, 1) at k = 1 is 2; delta is tiny, so every interval holds it."""
    for seed in range(20):
        draws = realizations([3.0, 1.0, 0.0], 64, seed)
        found = mask_stability(draws, 1 / 3, variance=1.0, delta=1e-6)
        assert all(low <= 2 <= high for low, high in found.gap)


def test_the_variance_may_differ_by_weight():
    draws = realizations([5.0, 0.0, 4.0, 0.5], 100)
    same = mask_stability(draws, 0.5, variance=1.0)
    given = {"b": torch.ones(2), "a": torch.ones(2)}
    assert mask_stability(draws, 0.5, variance=given).gap == same.gap
    wider = {"b": torch.full((2,), 100.0), "a": torch.ones(2)}
    assert mask_stability(draws, 0.5, variance=wider).settled[-1] < same.settled[-1]


def test_without_a_variance_nothing_is_promised():
    found = mask_stability(realizations([5.0, 0.0, 1.0, 2.0], 30), 0.5, sign="mean_of_abs")
    assert (found.settled, found.gap, found.gap_settled_from) == (None, None, None)
    assert found.mask["a"].tolist() == [True, False]


def test_one_realisation_and_everything_kept():
    found = mask_stability(realizations([5.0, 0.0, 1.0], 1), 1.0, variance=1.0)
    assert found.settled == (1.0,)
    assert found.stable_from == 1
    assert found.gap == ((math.inf, math.inf),)


# Bad input.


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"density": 0.0}, ValueError, r"density must be in \(0, 1\], got 0\.0"),
        ({"density": 1.5}, ValueError, r"density must be in \(0, 1\], got 1\.5"),
        ({"delta": 0.0}, ValueError, r"delta must be in \(0, 1\), got 0\.0"),
        ({"level": 1.0}, ValueError, r"level must be in \(0, 1\), got 1\.0"),
        ({"sign": "both"}, ValueError, r"sign must be one of 'abs_of_mean', 'mean_of_abs', 'sign"),
        ({"sign": "mean_of_abs"}, ValueError, r'sign must be "signed" or "abs_of_mean" with a var'),
        ({"variance": -1.0}, ValueError, r"variance must be non-negative, got -1\.0"),
        ({"variance": 0.0}, ValueError, r"variance must be positive where samples differ, got 0"),
        ({"scores": []}, ValueError, r"scores must be at least one realisation, got none\. Draw"),
    ],
)
def test_bad_stability(options, error, text):
    base = {"scores": realizations([1.0, 2.0, 3.0], 4), "density": 0.5, "variance": 1.0}
    with pytest.raises(error, match=text):
        mask_stability(**{**base, **options})


def test_masks_of_different_densities_have_no_overlap():
    a, b = {"w": torch.tensor([True, False])}, {"w": torch.tensor([True, True])}
    with pytest.raises(ValueError, match=r"b must be a mask that keeps as many weights as a, 1"):
        mask_overlap(a, b)
    none = {"w": torch.zeros(2, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"and at least one, got 0"):
        mask_overlap(none, none)
