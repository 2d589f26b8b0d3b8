"""Densities by round, by hand."""

import itertools

import pytest

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
