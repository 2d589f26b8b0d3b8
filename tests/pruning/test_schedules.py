"""Densities by round, by hand; and rounds that nest."""

import itertools

import pytest
import torch

from ntktheory.pruning.iterative import prune_in_rounds
from ntktheory.pruning.schedules import SCHEDULES, densities


def test_by_hand():
    assert densities(0.25, 2) == [0.5, 0.25]
    assert densities(0.2, 4, "linear") == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert densities(0.5, 3, "inverse") == pytest.approx([1 - 0.5**3, 1 - 0.5**1.5, 0.5])
    assert densities(0.3, 2, "one_shot") == [0.3, 0.3]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rounds", [1, 2, 7, 100])
def test_falls_to_the_density(schedule, rounds):
    values = densities(0.037, rounds, schedule)
    assert len(values) == rounds
    assert values[-1] == 0.037
    assert all(b <= a <= 1 for a, b in itertools.pairwise([1.0, *values]))


@pytest.mark.parametrize("density", [0, -1, 1.5])
def test_density_out_of_range(density):
    with pytest.raises(ValueError, match="density must be a fraction"):
        densities(density, 3)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, True])
def test_rounds_out_of_range(rounds):
    with pytest.raises(ValueError, match="rounds must be a positive integer"):
        densities(0.5, rounds)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="schedule must be"):
        densities(0.5, 3, "cosine")


def test_rounds_nest_and_score_under_the_masks():
    params = {"a": torch.zeros(10), "b": torch.zeros(2, 5)}
    seen = []

    def score(masks):
        seen.append({name: mask.clone() for name, mask in masks.items()})
        # In turn the first and the last weights look best.
        flip = -1 if len(seen) % 2 else 1
        return {name: flip * torch.arange(10.0).view(p.shape) for name, p in params.items()}

    masks = prune_in_rounds(score, params, densities(0.1, 3))
    counts = [sum(int(m.sum()) for m in s.values()) for s in [*seen, masks]]
    assert counts == [20, round(20 * 0.1 ** (1 / 3)), round(20 * 0.1 ** (2 / 3)), 2]
    for before, after in zip(seen, [*seen[1:], masks], strict=True):
        assert all(bool((after[name] <= before[name]).all()) for name in params)


def test_weights_do_not_come_back():
    params = {"a": torch.zeros(10)}
    with pytest.raises(ValueError, match=r"densities must be falling, got 0\.9 after 0\.5"):
        prune_in_rounds(lambda masks: params, params, [0.5, 0.9])
