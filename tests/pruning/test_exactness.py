"""Every scorer keeps exactly ``max(1, round(density·P))`` weights, also where all scores are equal."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from ntktheory import functional
from ntktheory.models import mlp
from ntktheory.pruning import SCORERS, prune

DENSITIES = (
    0.0051, 0.0077, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.2,
    0.25, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.9, 0.99, 1.0,
)  # fmt: skip
WIDTHS = [6, 10, 8, 3]  # 60 + 80 + 24 = 164 weights; 0.0051·164 = 0.84, and 0.25·164 = 41
WEIGHTS = 164


def network(equal=False):
    model = mlp(WIDTHS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if equal:
        for p in model.parameters():
            nn.init.constant_(p, 0.5)
    return model


def given(equal=False):
    """Return whatever a scorer may need."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    y = torch.arange(6) % 3
    return {
        "batch": (torch.ones_like(x) if equal else x, y),
        "input_shape": [6],
        "generator": generator,
    }


def assert_exact(scorer, density, *, at_most=3, **arguments):
    """Prune in the scorer's own rounds, or in fewer to save time, and count."""
    entry = SCORERS[scorer]
    model = arguments.pop("model")
    rounds = min(entry.rounds, at_most)
    result = prune(model, scorer, density, rounds=rounds, **arguments)
    assert len(result.history) == rounds
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert kept == max(1, round(density * WEIGHTS))
    assert result.density == kept / WEIGHTS
    assert list(result.masks) == list(functional(model).prunable)
    assert all(mask.dtype == torch.bool for mask in result.masks.values())
    totals = [WEIGHTS, *(sum(entry.kept.values()) for entry in result.history)]
    assert totals[-1] == kept
    assert all(after <= before for before, after in itertools.pairwise(totals))


@pytest.mark.parametrize("scorer", SCORERS)
def test_kept_count(scorer):
    for density in DENSITIES:
        assert_exact(scorer, density, model=network(), **given())


@pytest.mark.parametrize("scorer", SCORERS)
def test_kept_count_on_a_network_of_equal_weights(scorer):
    for density in DENSITIES[::4]:
        assert_exact(scorer, density, model=network(equal=True), **given(equal=True))


@pytest.mark.parametrize("value", [0.0, 1.0, -1e300])
@pytest.mark.parametrize("scorer", SCORERS)
def test_kept_count_of_equal_scores(scorer, value, monkeypatch):
    """The scorer's own rounds, schedule and budget, with one score for all weights."""

    def equal(params, names):
        return {name: torch.full_like(params[name], value) for name in names}

    entry = dataclasses.replace(SCORERS[scorer], function=equal)
    monkeypatch.setitem(SCORERS, scorer, entry)
    for density in DENSITIES:
        own = density in (0.02, 0.4)  # all in up to 100 rounds would take minutes
        assert_exact(scorer, density, model=network(), at_most=100 if own else 3)


def test_equal_scores_are_tested_in_the_published_rounds():
    """Every scorer's own number is at most the cap of the test above, and some are long."""
    rounds = {name: entry.rounds for name, entry in SCORERS.items()}
    assert max(rounds.values()) == rounds["synflow"] == 100
    assert rounds["force"] == 60


@pytest.mark.parametrize("budget", ["global", "uniform", "erk", {"layer1.weight": 0.3}])
def test_kept_count_under_every_budget(budget):
    for density in DENSITIES:
        assert_exact("px", density, model=network(), budget=budget, **given())


def test_there_are_twenty_densities():
    assert len(set(DENSITIES)) == 20
    assert len(SCORERS) >= 21
