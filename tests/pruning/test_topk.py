"""An exact count of kept weights, for every density and every pattern of ties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntktheory import NumericalError
from ntktheory.pruning.topk import keep_highest, kept_count


def test_ties_go_by_index():
    scores = {"a": torch.tensor([[1.0, 5.0], [1.0, 1.0]]), "b": torch.tensor([1.0, 9.0])}
    masks = keep_highest(scores, 4)
    assert masks["a"].tolist() == [[True, True], [True, False]]
    assert masks["b"].tolist() == [False, True]


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, -3.0, math.inf, -math.inf]), max_size=9),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 36),
)
def test_agrees_with_a_stable_sort(lists, count):
    scores = {str(i): torch.tensor(values, dtype=torch.float64) for i, values in enumerate(lists)}
    flat = [v for values in lists for v in values]
    count = min(count, len(flat))
    if not flat:
        return
    best = set(sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count])
    kept = torch.cat([m.flatten() for m in keep_highest(scores, count).values()]).tolist()
    assert kept == [i in best for i in range(len(flat))]


@pytest.mark.parametrize("density", [1e-3, 0.01, 0.1, 0.25, 0.5, 0.9, 0.999, 1.0])
def test_count_of_equal_scores(density):
    scores = {"a": torch.zeros(700), "b": torch.zeros(31, 10)}
    count = kept_count(density, 1010)
    assert sum(int(m.sum()) for m in keep_highest(scores, count).values()) == count
    assert count == max(1, round(density * 1010))


def test_halves_are_rounded_to_even():
    assert [kept_count(0.5, n) for n in (1, 3, 5, 7)] == [1, 2, 2, 4]


@pytest.mark.parametrize("density", [0, -0.1, 1.01, math.nan, True, "1"])
def test_density_out_of_range(density):
    with pytest.raises(ValueError, match=r"density must be a fraction in \(0, 1\]"):
        kept_count(density, 10)


def test_less_than_one_weight():
    with pytest.raises(ValueError, match=r"at least 0\.1, one weight of 10"):
        kept_count(0.01, 10)


def test_no_weight_at_all():
    with pytest.raises(ValueError, match="model must be a network with prunable weights, got none"):
        kept_count(0.5, 0)


@pytest.mark.parametrize("kind", [torch.bool, torch.complex64])
def test_no_real_numbers(kind):
    scores = {"a": torch.ones(2), "b": torch.ones(3, dtype=kind)}
    with pytest.raises(TypeError, match=f"score of 'b' must be made of real numbers, got {kind}"):
        keep_highest(scores, 1)
    assert keep_highest({"a": torch.tensor([1, 2])}, 1)["a"].tolist() == [False, True]


def test_not_a_number():
    with pytest.raises(NumericalError, match="score of 'b' must be a number, got NaN"):
        keep_highest({"a": torch.ones(2), "b": torch.tensor([1.0, math.nan])}, 1)


def test_too_many():
    with pytest.raises(ValueError, match="count must be between 0 and 2, got 3"):
        keep_highest({"a": torch.ones(2)}, 3)
    with pytest.raises(ValueError, match="at least one tensor"):
        keep_highest({}, 0)
