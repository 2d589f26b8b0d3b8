"""The searches for broken inequalities find planted ones, and excuse rounding only."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from ntktheory import path_bounds
from ntktheory.paths.reference import Decomposition, decompose
from proofs_check import strategies
from proofs_check.bounds_evidence import (
    compare_with_enumeration,
    hunt,
    hunt_sums,
    in_order,
    judge_exactly,
    values_of,
)
from proofs_check.claims.beyond import LADDER, SANDWICH
from proofs_check.compare import Worst
from proofs_check.search import Broken, search, shrinking
from proofs_check.wrong_bounds import with_upper


def smaller(model, x, **options):
    """Give a third of R_PX."""
    bounds = path_bounds(model, x, **options)
    return replace(bounds, upper=dict(bounds.upper) | {"px": bounds.upper["px"] / 3})


def test_hunt_finds_a_bound_below_the_trace():
    found = hunt(smaller, [("trace", "px")], strategies.networks(), 100, names=["px"])
    assert found.counterexample is not None
    assert "x = " in found.counterexample
    assert found.tightest["px"] > 1


def test_hunt_finds_nothing_in_the_true_ladder():
    found = hunt(path_bounds, [*LADDER, *SANDWICH], strategies.networks(), 15)
    assert found.counterexample is None
    assert set(found.tightest) == {high for _, high in (*LADDER, *SANDWICH)} - {"trace"}
    for name in ("abs", "half_per_output", "op"):
        assert 0 < found.tightest[name] <= 1 + 1e-12, name


def test_hunt_counts_kinks_and_overflow():
    def overflows(model, x, **options):
        path_bounds(model, 1e300 * x, **options)

    kink = strategies.Case(
        nn.Sequential(nn.ReLU(), nn.Linear(1, 1)).double(), torch.zeros(1, 1).double()
    )
    nets = strategies.st.just(kink)
    assert hunt(path_bounds, [("trace", "px")], nets, 3).kinks > 0
    ones = strategies.st.just(
        strategies.Case(nn.Sequential(nn.Linear(1, 1)).double(), torch.ones(1, 1).double())
    )
    assert hunt(overflows, [("trace", "px")], ones, 3).refused > 0


def test_shrinking_makes_the_counterexample_small():
    with shrinking():
        small = hunt(
            smaller, [("trace", "px")], strategies.mlps(), 100, names=["px"]
        ).counterexample
    assert small is not None
    assert len(small) < 200


class Smaller(Decomposition):
    """Give a third of R_edge."""

    def bounds(self):
        sums = super().bounds()
        return sums | {"edge": sums["edge"] / 3}


def test_sums_over_paths_are_hunted_too():
    def third(*args, **options):
        return Smaller(**vars(decompose(*args, **options)))

    nets = strategies.FAMILIES["residual"]
    found = hunt_sums([("trace", "edge")], nets, 50, third)
    assert found.counterexample is not None
    assert "exactly, trace = " in found.counterexample
    assert found.tightest["edge"] > 1
    right = hunt_sums([("trace", "edge")], nets, 50)
    assert right.counterexample is None
    assert 0 < right.tightest["edge"] <= 1


def one_weight():
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, 1.0)
    return strategies.Case(model, torch.ones(1, 1).double())


def test_rounding_is_excused_and_wrong_values_are_not():
    case = one_weight()
    judge_exactly(case, {"trace": 1 + 1e-15, "px": 1.0}, "trace", "px")
    with pytest.raises(Broken, match="exactly, trace = 1"):
        judge_exactly(case, {"trace": 1.001, "px": 1.0}, "trace", "px")


def test_bounds_that_are_no_sums_are_excused_by_rounding_only():
    case = one_weight()
    judge_exactly(case, {"trace": 1.0, "op": 1 - 1e-14}, "trace", "op")
    with pytest.raises(Broken, match=r"trace = 1\.0 > op = 0\.999"):
        judge_exactly(case, {"trace": 1.0, "op": 0.999}, "trace", "op")


def test_exactly_broken_sums_are_not_excused(monkeypatch):
    monkeypatch.setattr(
        Decomposition, "bounds", lambda self: {"trace": Fraction(1), "px": 1 - Fraction(1, 10**20)}
    )
    with pytest.raises(Broken, match="exactly, trace = 1 > px = 9"):
        judge_exactly(one_weight(), {"trace": 1.0, "px": 1.0}, "trace", "px")


def test_order_looks_at_pairs_that_are_there_and_at_nan():
    case = one_weight()
    in_order(case, {"trace": 1.0, "px": 1.0}, [("trace", "op"), ("trace", "px")])
    with pytest.raises(Broken):
        in_order(case, {"trace": 1.0, "op": 0.5}, [("trace", "op")])
    with pytest.raises(Broken):
        in_order(case, {"trace": float("nan"), "op": 0.5}, [("trace", "op")])


def test_values_are_upper_bounds_trace_and_lower_bounds():
    case = one_weight()
    values = values_of(path_bounds(case.model, case.x, names=["px", "last_layer"]))
    assert values == {"px": 1.0, "trace": 1.0, "last_layer": 1.0}


def test_enumeration_finds_a_wrong_value_on_drawn_networks_too():
    worst = Worst()
    wrong = with_upper(px=lambda recorded: torch.ones(()))
    assert compare_with_enumeration(wrong, ("px",), worst, 5, fixed=()) is not None
    assert not worst.holds


def test_comparison_looks_at_the_order_as_well():
    def above(model, x, **options):
        bounds = path_bounds(model, x, **options)
        return replace(bounds, lower={"euler": 2 * bounds.trace})

    found = compare_with_enumeration(above, ("px",), Worst(), 5, pairs=[("euler", "trace")])
    assert found is not None
    assert "euler" in found


def test_search_tries_fixed_cases_first():
    tried = []

    def check(case):
        tried.append(case)
        if case == 7:
            raise Broken("seven")

    found = search(strategies.st.integers(0, 3), check, 10, fixed=[7])
    assert found.counterexample == "seven"
    assert tried == [7]
