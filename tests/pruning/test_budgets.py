"""Budgets: exact totals, hand values, and the published ERK with saturated layers redistributed."""

import itertools
from math import prod

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ntktheory.pruning.budgets import keep_by_budget, layer_counts
from ntktheory.pruning.reference_budgets import clipped_shares, erk_densities

SHAPES = {"a": (4, 5), "b": (6, 4), "c": (10, 6)}  # 20 + 24 + 60 = 104 weights
NETWORKS = st.lists(
    st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5
).map(lambda shapes: {str(i): shape for i, shape in enumerate(shapes)})


def sizes(shapes):
    return {name: prod(shape) for name, shape in shapes.items()}


def test_uniform_by_hand():
    """A quarter: 5 + 6 + 15. Of 27, shares are 5.19, 6.23, 15.58: the last rounds up."""
    assert layer_counts("uniform", 26, SHAPES) == {"a": 5, "b": 6, "c": 15}
    assert layer_counts("uniform", 27, SHAPES) == {"a": 5, "b": 6, "c": 16}


def test_erk_by_hand():
    """Axes add up to 9, 10 and 16: of 35 they are the counts; of 70 they are twice that."""
    assert layer_counts("erk", 35, SHAPES) == {"a": 9, "b": 10, "c": 16}
    assert layer_counts("erk", 70, SHAPES) == {"a": 18, "b": 20, "c": 32}


def test_erk_redistributes_what_saturated_layers_cannot_take():
    """Of 84, λ = 2.4 gives 21.6 of 20, so the other two share 64 as 10 : 16 = 24.6 of 24, then 40."""
    assert layer_counts("erk", 84, SHAPES) == {"a": 20, "b": 24, "c": 40}
    # Clamping alone would keep 20 + 24 + 38.4.


def test_densities_and_masks():
    densities = {"a": 0.5, "b": 0.25}  # c counts as dense: 10 + 6 + 60
    assert layer_counts(densities, 76, SHAPES) == {"a": 10, "b": 6, "c": 60}
    assert layer_counts(densities, 38, SHAPES) == {"a": 5, "b": 3, "c": 30}
    # Beyond that c is full, and the others share 24 as 10 : 6.
    assert layer_counts(densities, 84, SHAPES) == {"a": 15, "b": 9, "c": 60}
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    masks["a"][0] = True
    masks["b"][:, 0] = True
    assert layer_counts(masks, 11, SHAPES) == {"a": 5, "b": 6, "c": 0}
    assert layer_counts(masks, 13, SHAPES, floor=2) == {"a": 5, "b": 6, "c": 2}


def test_a_floor():
    """λ with floor 4: c's share of 12 is 6.9, a and b get less than 4 each."""
    assert layer_counts("uniform", 12, SHAPES) == {"a": 2, "b": 3, "c": 7}
    assert layer_counts("uniform", 12, SHAPES, floor=4) == {"a": 4, "b": 4, "c": 4}
    assert layer_counts("uniform", 14, SHAPES, floor=4) == {"a": 4, "b": 4, "c": 6}
    assert layer_counts("uniform", 3, {"a": (1, 1), "b": (9, 9)}, floor=2) == {"a": 1, "b": 2}


def test_ties_of_remainders_go_by_the_order_of_layers():
    assert layer_counts("uniform", 2, {"a": (2, 2), "b": (2, 2), "c": (2, 2)}) == {
        "a": 1, "b": 1, "c": 0,
    }  # fmt: skip


@given(NETWORKS, st.data())
def test_totals_are_exact_and_layers_within_bounds(shapes, data):
    most = {n: data.draw(st.integers(0, p)) for n, p in sizes(shapes).items()}
    count = data.draw(st.integers(0, sum(most.values())))
    floor = data.draw(st.integers(0, 3))
    budget = data.draw(
        st.sampled_from(["uniform", "erk"])
        | st.fixed_dictionaries({n: st.floats(0.01, 1) for n in shapes})
    )
    least = {n: min(floor, p) for n, p in most.items()}
    assume(sum(least.values()) <= count)
    counts = layer_counts(budget, count, shapes, available=most, floor=floor)
    assert sum(counts.values()) == count
    assert all(least[n] <= counts[n] <= most[n] for n in shapes)
    if budget == "uniform":
        weights = [float(prod(shape)) for shape in shapes.values()]
    elif budget == "erk":
        weights = [float(sum(shape)) for shape in shapes.values()]
    else:
        weights = [budget[n] * prod(shape) for n, shape in shapes.items()]
    shares = clipped_shares(weights, [least[n] for n in shapes], [most[n] for n in shapes], count)
    assert all(abs(counts[n] - s) < 1 + 1e-6 for n, s in zip(shapes, shares, strict=True))


@given(NETWORKS, st.floats(0.01, 1))
def test_erk_is_the_published_loop(shapes, density):
    count = max(1, round(density * sum(sizes(shapes).values())))
    counts, published = layer_counts("erk", count, shapes), erk_densities(shapes, count)
    for name, n in sizes(shapes).items():
        assert abs(counts[name] - published[name] * n) < 1 + 1e-9
    assert sum(counts.values()) == count


@given(NETWORKS, st.integers(1, 40))
def test_rounding_is_the_closest_there_is(shapes, count):
    """Among all whole numbers with the right total, none are closer to the shares in sum of squares."""
    n = sizes(shapes)
    assume(len(n) <= 3 and count <= sum(n.values()) <= 120)
    shares = {name: count * p / sum(n.values()) for name, p in n.items()}

    def distance(counts):
        return sum((c - shares[name]) ** 2 for name, c in zip(shapes, counts, strict=True))

    around = [range(max(0, int(s) - 1), min(n[name], int(s) + 2) + 1) for name, s in shares.items()]
    best = min(distance(c) for c in itertools.product(*around) if sum(c) == count)
    assert distance(layer_counts("uniform", count, shapes).values()) == pytest.approx(
        best, abs=1e-9
    )


@given(NETWORKS, st.data())
def test_a_mask_gives_back_its_own_counts(shapes, data):
    masks = {
        name: torch.arange(p).view(shapes[name]) < data.draw(st.integers(0, p))
        for name, p in sizes(shapes).items()
    }
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    assert layer_counts(masks, sum(counts.values()), shapes) == counts


# Which weights.


def test_within_layers_the_highest_are_kept():
    scores = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([[9.0, 8.0], [7.0, 6.0]])}
    masks = keep_by_budget(scores, 4, "uniform")
    assert masks["a"].tolist() == [False, False, True, True]
    assert masks["b"].tolist() == [[True, True], [False, False]]
    masks = keep_by_budget(scores, 4, "global")
    assert not masks["a"].any()


def test_a_global_floor_keeps_the_best_of_every_layer_first():
    scores = {
        "a": torch.tensor([1.0, 2.0]),
        "b": torch.tensor([9.0, 8.0, 7.0]),
        "c": torch.zeros(1),
    }
    masks = keep_by_budget(scores, 3, floor=1)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a": [False, True], "b": [True, False, False], "c": [True],
    }  # fmt: skip
    assert keep_by_budget(scores, 4, floor=1)["b"].tolist() == [True, True, False]


@pytest.mark.parametrize("budget", ["global", "uniform", "erk", {"a": 0.5}])
def test_only_candidates_are_kept(budget):
    scores = {"a": torch.arange(20.0).view(4, 5), "b": torch.arange(24.0).view(6, 4)}
    candidates = {name: s % 2 == 0 for name, s in scores.items()}
    for count in (1, 7, 22):
        masks = keep_by_budget(scores, count, budget, candidates=candidates)
        assert all(bool((masks[name] <= candidates[name]).all()) for name in scores)
        assert sum(int(m.sum()) for m in masks.values()) == count
    with pytest.raises(ValueError, match="count must be at most 22, the candidates, got 23"):
        keep_by_budget(scores, 23, budget, candidates=candidates)


@given(NETWORKS, st.data())
def test_a_falling_count_keeps_masks_nested(shapes, data):
    """A smaller total can raise a layer's rounded share; what is left of the layer limits it."""
    generator = torch.Generator().manual_seed(0)
    budget = data.draw(st.sampled_from(["global", "uniform", "erk"]))
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    total = sum(sizes(shapes).values())
    for count in range(total, 0, -1 - total // 12):
        scores = {name: torch.randn(s, generator=generator) for name, s in shapes.items()}
        after = keep_by_budget(scores, count, budget, candidates=masks)
        assert all(bool((after[name] <= masks[name]).all()) for name in shapes)
        masks = after
        assert sum(int(m.sum()) for m in masks.values()) == count


# What is refused.


@pytest.mark.parametrize(
    ("budget", "error", "text"),
    [
        ("layer", ValueError, "budget must be one of 'erk', 'global', 'uniform', got 'layer'"),
        (0.5, TypeError, "budget must be a name or a mapping"),
        ({"d": 0.5}, ValueError, "budget must be one of 'a', 'b', 'c', got 'd'"),
        ({"a": 1.5}, ValueError, r"budget\['a'\] must be a fraction in \[0, 1\], got 1\.5"),
        ({"a": -0.5}, ValueError, r"budget\['a'\] must be a fraction in \[0, 1\]"),
        ({"a": float("nan")}, ValueError, r"budget\['a'\] must be a fraction in \[0, 1\]"),
        ({"a": "half"}, TypeError, r"budget\['a'\] must be a density or a mask, got str"),
        ({"a": True}, TypeError, r"budget\['a'\] must be a density or a mask, got bool"),
        ({"a": torch.ones(5, 4)}, ValueError, r"masks\['a'\] must be of shape \[4, 5\]"),
        ({"a": torch.full((4, 5), 2)}, ValueError, r"masks\['a'\] must be made of 0 and 1"),
        ({"a": 0.0, "b": 0.0, "c": 0.1}, ValueError, "one that keeps at most 60"),
        ("global", ValueError, "budget must be layerwise, got 'global'"),
    ],
)
def test_budgets_that_do_not_fit(budget, error, text):
    with pytest.raises(error, match=text):
        layer_counts(budget, 61, SHAPES)


@pytest.mark.parametrize("budget", ["global", "uniform"])
def test_floors_that_do_not_fit(budget):
    scores = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    with pytest.raises(
        ValueError, match="floor must be affordable with 8 kept weights, got 3, which"
    ):
        keep_by_budget(scores, 8, budget, floor=3)
    for floor in (-1, 1.5, True):
        with pytest.raises(ValueError, match="floor must be a whole number of weights"):
            keep_by_budget(scores, 8, budget, floor=floor)


@pytest.mark.parametrize("count", [2.5, -1, True, "3"])
def test_counts_are_whole_numbers(count):
    scores = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    with pytest.raises(ValueError, match="count must be a whole number of weights, got"):
        layer_counts("erk", count, SHAPES)
    with pytest.raises(ValueError, match="count must be a whole number of weights, got"):
        keep_by_budget(scores, count)


@pytest.mark.parametrize(
    ("available", "text"),
    [
        ({"a": 2}, "available must be of the layers a, b, c, got a"),
        ({}, "available must be of the layers a, b, c, got none"),
        ({"a": 2, "b": 1, "c": 1, "d": 1}, "available must be of the layers a, b, c, got a, b"),
        ({"a": 2, "b": 1.5, "c": 1}, r"available\['b'\] must be a whole number of weights"),
        ({"a": 21, "b": 1, "c": 1}, r"available\['a'\] must be at most 20, got 21"),
    ],
)
def test_what_is_available_does_not_fit(available, text):
    with pytest.raises(ValueError, match=text):
        layer_counts("erk", 3, SHAPES, available=available)


def test_what_is_available_in_another_order():
    available = {"c": 1, "b": 1, "a": 2}
    assert layer_counts("erk", 4, SHAPES, available=available) == {"a": 2, "b": 1, "c": 1}
