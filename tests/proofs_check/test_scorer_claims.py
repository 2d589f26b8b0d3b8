"""Claims on scorers: verdicts, planted errors, and the helpers that their evidence rests on."""

import math

import pytest
import torch
from torch import nn

from ntktheory.models import cifar_resnet, mlp
from ntktheory.pruning import SCORERS, score
from ntktheory.pruning.scorers import px, synflow_l2, t_sq
from proofs_check import flows
from proofs_check.claim import CLAIMS
from proofs_check.claims import (
    code_departures,
    code_in_steps,
    collapse,
    collapse_records,
    real_networks,
    rescaling,
)
from proofs_check.compare import Worst
from proofs_check.ledger import load_ledger
from proofs_check.runner import run_check, run_mutant

MODULES = (code_departures, code_in_steps, collapse, collapse_records, real_networks, rescaling)
IDS = [id_ for id_, c in CLAIMS.items() if c.check.__module__ in {m.__name__ for m in MODULES}]
MUTANTS = [(id_, name) for id_ in IDS for name in CLAIMS[id_].mutants]


@pytest.mark.parametrize("id_", IDS)
def test_status(id_):
    outcome = run_check(CLAIMS[id_], "quick")
    assert outcome.status == load_ledger()[id_].expected
    assert outcome.false_alarm == 0
    assert (outcome.counterexample is None) == (outcome.status in ("holds", "supported"))


@pytest.mark.parametrize(("id_", "name"), MUTANTS)
def test_mutant_is_killed(id_, name):
    assert run_mutant(CLAIMS[id_], name, "quick", load_ledger()[id_].expected)["killed"]


# --- flows -----------------------------------------------------------------------------------------


def test_a_block_has_junctions_inside_its_branch_and_one_where_it_ends():
    net = cifar_resnet(8, 3, width=2, channels=1)
    part = flows.walk(net)
    found = {tuple(writers): readers for writers, readers in part.junctions}
    assert found["stage2.0.conv1",] == ["stage2.0.bn1"]
    assert found["stage2.0.bn2", "stage2.0.shortcut.bn"] == [
        "stage3.0.conv1",
        "stage3.0.shortcut.conv",
    ]
    assert part.first == ["conv1"]
    assert part.last == ["head"]


def test_units_of_a_two_layer_net_by_hand():
    net = collapse.chain([[1, 2]], [[3]])
    scores = flows.scores_of(synflow_l2, net, torch.ones(1, 2, dtype=torch.float64))
    assert flows.inflow(scores, "0").tolist() == [45.0]  # 9·1 + 9·4
    assert flows.outflow(scores, "2", 1, 0.0).tolist() == [45.0]
    assert flows.layer_sums(net, scores) == {"0": 45.0, "2": 45.0}


def test_a_unit_that_leaks_is_seen():
    net, x = flows.biased_mlp()
    scores = flows.scores_of(t_sq, net, x)
    worst = Worst()
    flows.see_units(worst, "whole", net, scores, flows.EXPONENTS["t_sq"])
    assert worst.holds
    scores["layer2.weight"] = scores["layer2.weight"] * (1 + 1e-8)
    flows.see_units(worst, "leaky", net, scores, flows.EXPONENTS["t_sq"])
    assert not worst.holds


def test_nothing_as_a_shortcut_leaves_the_branch_alone():
    net, x = flows.resnet20(False)
    with torch.no_grad():
        assert torch.isfinite(net(x)).all()
    assert isinstance(net.get_submodule("stage1.0.shortcut.0"), flows.Nothing)


# --- collapse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", range(2, 9))
def test_the_steepest_round_removes_fewer_than_its_share_and_one_more_does_not(layers):
    for kept in range(layers + 1, 300):
        count = collapse.steepest(kept, layers)
        assert layers <= count < kept
        assert (kept - count) * (layers - 1) < count
        assert (kept - count + 1) * (layers - 1) >= count - 1


def test_equal_halves_are_emptied_by_the_first_round_that_may():
    case = collapse._equal_halves()
    assert collapse.emptied_in_rounds(px, case, collapse.steepest)[0] is None
    text, rounds = collapse.emptied_in_rounds(px, case, collapse._one_more)
    assert text.startswith("8 → 4 weights empty layer 2.weight")
    assert rounds == 1


def test_a_hundred_rounds_are_enough_for_these_depths():
    assert collapse.deepest()["density 0.001"] == 14
    assert 0.001 ** (1 / 100) > 13 / 14
    assert 0.001 ** (1 / 100) < 14 / 15


def test_scores_of_the_misaligned_net_by_hand():
    case = collapse.misaligned(3)
    scores = flows.scores_of(collapse.path_edge, case.model, case.x)
    assert scores["0.weight"].tolist() == [[82.0, 82.0, 82.0]]  # 1 · (1 + 81)
    assert scores["2.weight"].tolist() == [[9.0], [0.0]]  # 3 · 3, and no active path
    assert scores["4.weight"].tolist() == [[9.0, 0.0]]


# --- records ---------------------------------------------------------------------------------------


def row(count, silent=None, seed=0):
    event = {"emptied_at": count, "cut_at": count, "layer": None if count is None else "l"}
    return {
        "network": "mlp", "scorer": "px", "seed": seed, "weights": 1000, "layers": 10,
        "in_rounds": event | {"silent_at": silent}, "at_once": event,
    }  # fmt: skip


def test_an_event_that_did_not_happen_is_beyond_all_others():
    assert collapse_records.middle([None, 100, 10], 1000) == 2.0
    assert collapse_records.middle([None, None, 10], 1000) is None
    assert collapse_records.middle([100], 1000) == 1.0


def test_the_table_counts_seeds_that_reached_the_end():
    cell = collapse_records.table([row(None), row(100, seed=1)])["mlp"]["px"]["in_rounds"]
    assert cell == [1, 2, 1.0, 1.0, None]
    cell = collapse_records.table([row(100, silent=200)])["mlp"]["px"]
    assert cell == {"in_rounds": [0, 1, 1.0, 1.0, 0.699], "at_once": [0, 1, 1.0, 1.0]}


def test_one_row_that_does_not_hold_is_not_support():
    rows = [row(None), row(100, seed=1)]
    found = collapse_records.judged(rows, lambda r: collapse_records.reached(r, "in_rounds"), str)
    assert found.status == "not-supported"
    assert found.evidence["seeds_in_all_of_which_it_holds"] == 1
    assert collapse_records.judged([], bool, str).status == "inconclusive"


def test_three_seeds_of_three_bound_the_share_from_below():
    assert collapse_records.lower_end(3, 3) == pytest.approx(0.025 ** (1 / 3))
    assert collapse_records.lower_end(0, 3) == 0


def test_a_row_is_described_with_the_round_that_fell_silent():
    assert collapse_records.describe(row(20, 26)).endswith(
        "layer l emptied at 20 of 1000 weights, all scores 0 at 26"
    )


# --- scales and code -------------------------------------------------------------------------------


def test_every_scorer_is_in_the_table_of_scales():
    assert {entry.scorer for entry in rescaling.TABLE.values()} == set(SCORERS)


def test_a_scorer_of_the_table_that_is_gone_is_no_reason_to_skip_it(monkeypatch):
    entry = rescaling.Entry("gone", True, True, True)
    monkeypatch.setattr(rescaling, "TABLE", {"gone": entry})
    with pytest.raises(ValueError, match=r"scorer must be one of .* got 'gone'"):
        rescaling.what_scales_change("quick", score)


def test_ties_at_the_cut_by_hand():
    scores = dict.fromkeys(code_departures.NAMES, torch.tensor([3.0, 0.0]))
    kept = code_in_steps.keep_ties(scores, 2)  # the second highest is 3, four times
    assert code_in_steps.kept_by(kept) == 4
    assert code_in_steps.kept_by(code_in_steps.keep_ties(scores, 5)) == 8


def test_prospr_through_two_steps_is_snip_without_a_learning_rate():
    net, x, y = code_departures.network()
    found = code_in_steps.through_two_steps(net, (x, y), 0.0, 0.9)
    wanted = code_in_steps.saliency(net, (x, y), {})
    assert all(torch.equal(s, wanted[n]) for n, s in found.items())


def test_rescaling_changes_weights_and_not_the_function():
    net = rescaling.plain()
    other, x = rescaling.rescaled(net), flows.images(3, 2)
    torch.testing.assert_close(other(x), net(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(other.layer1.weight, net.layer1.weight, rtol=0.1)


def test_ratios_that_spread_are_seen():
    a, b = {"w": torch.tensor([2.0, 4.0, 0.0])}, {"w": torch.tensor([1.0, 2.0, 0.0])}
    assert rescaling.spread_of_ratios(a, b) == 0
    assert rescaling.spread_of_ratios({"w": torch.tensor([2.0, 5.0, 0.0])}, b) == 0.25
    assert rescaling.spread_of_ratios({"w": torch.tensor([2.0, 4.0, 1.0])}, b) == math.inf


def test_overlap_of_two_scores():
    a, b = {"w": torch.tensor([4.0, 3.0, 2.0, 1.0])}, {"w": torch.tensor([4.0, 1.0, 2.0, 3.0])}
    assert code_departures.common(a, b, 0.5) == 0.5
    assert code_departures.common(a, a, 0.5) == 1


def test_fresh_affine_changes_a_copy():
    net, _, _ = code_departures.network()
    before = net.get_submodule("n1").weight.clone()
    fresh = code_departures.with_fresh_affine(net)
    assert bool((fresh.get_submodule("n1").weight == 1).all())
    assert torch.equal(net.get_submodule("n1").weight, before)


def test_one_power_less_by_hand():
    net = mlp([1, 1], dtype=torch.float64)
    nn.init.constant_(net.layer1.weight, -3.0)
    less = real_networks.first_power(synflow_l2)
    x = torch.ones(1, 1, dtype=torch.float64)
    assert flows.scores_of(less, net, x)["layer1.weight"].item() == 3.0
