"""The search for broken inequalities finds planted ones, and excuses rounding only."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ntktheory import path_bounds
from proofs_check import strategies
from proofs_check.bounds_evidence import compare_with_enumeration, hunt, judge_exactly
from proofs_check.compare import Worst
from proofs_check.search import Broken, search, shrinking
from proofs_check.wrong_bounds import with_upper


def smaller(model, x, **options):
    """Give a third of R_PX."""
    bounds = path_bounds(model, x, **options)
    return replace(bounds, upper=dict(bounds.upper) | {"px": bounds.upper["px"] / 3})


def test_hunt_finds_a_bound_below_the_trace():
    found, tightest = hunt(smaller, [("trace", "px")], strategies.networks(), 100)
    assert found is not None
    assert "x = " in found
    assert tightest > 1


def test_hunt_finds_nothing_in_the_true_ladder():
    found, tightest = hunt(path_bounds, [("trace", "px")], strategies.networks(), 100)
    assert found is None
    assert 0 < tightest <= 1 + 1e-12


def test_shrinking_makes_the_counterexample_small():
    with shrinking():
        small, _ = hunt(smaller, [("trace", "px")], strategies.mlps(), 100)
    assert small is not None
    assert len(small) < 200


def test_rounding_is_excused_and_wrong_values_are_not():
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, 1.0)
    case = strategies.Case(model, torch.ones(1, 1).double())
    judge_exactly(case, {"trace": 1 + 1e-15, "px": 1.0}, "trace", "px")
    with pytest.raises(Broken, match="exactly, trace = 1"):
        judge_exactly(case, {"trace": 1.001, "px": 1.0}, "trace", "px")


def test_enumeration_finds_a_wrong_value_on_drawn_networks_too():
    worst = Worst()
    wrong = with_upper(px=lambda recorded: torch.ones(()))
    assert compare_with_enumeration(wrong, ("px",), worst, 5) is not None
    assert not worst.holds


def test_search_tries_fixed_cases_first():
    tried = []

    def check(case):
        tried.append(case)
        if case == 7:
            raise Broken("seven")

    found = search(strategies.st.integers(0, 3), check, 10, fixed=[7])
    assert found.counterexample == "seven"
    assert tried == [7]
