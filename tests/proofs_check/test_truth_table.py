"""P2.* and ladder.*: the verdicts, the planted errors, and values by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ntktheory import ntk_trace, path_bounds
from ntktheory.models import mlp
from ntktheory.paths.reference import decompose
from proofs_check import strategies
from proofs_check.cases import family_network
from proofs_check.claim import CLAIMS
from proofs_check.claims import beyond, counterexamples, ladder, mixed_gates, px, truth_table
from proofs_check.compare import Worst, relative_gap
from proofs_check.ledger import load_ledger
from proofs_check.runner import run_check, run_mutant
from proofs_check.search import Broken
from proofs_check.wrong_paths import by_two_passes, edge_and_px, fixed_edges, only

IDS = [
    *truth_table.COVERED, "P2.tied", "P2.max_pool_ungated", "P2.tied_autograd", "P2.train_batch_norm",
    "P2.secant_gelu", "P2.refused", "P2.mixed_gates", "P5", "ladder.one_hidden_layer",
    "ladder.operator", "ladder.flattened_kernel", "ladder.map_energy", "ladder.t_sq",
    "ladder.t_sq_mean", "ladder.t_sq_pooling", "ladder.looseness", "ladder.masks",
]  # fmt: skip
MUTANTS = [(id_, name) for id_ in IDS for name in CLAIMS[id_].mutants]


@pytest.mark.parametrize("id_", IDS)
def test_status(id_):
    outcome = run_check(CLAIMS[id_], "quick")
    assert outcome.status == load_ledger()[id_].expected
    assert outcome.false_alarm == 0
    assert (outcome.counterexample is None) == (outcome.status == "holds")


@pytest.mark.parametrize(("id_", "name"), MUTANTS)
def test_mutant_is_killed(id_, name):
    assert run_mutant(CLAIMS[id_], name, "quick", load_ledger()[id_].expected)["killed"]


# --- the ladder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAIMS["ladder"].mutants)
def test_mutant_of_the_ladder_is_killed_in_the_climb(name):
    (wrong,) = CLAIMS["ladder"].mutants[name].values()
    broken, _ = beyond.climb(wrong, Worst(), beyond.Effort(1, 15, 1))
    assert broken is not None


def test_climbing_the_true_ladder_finds_nothing_and_reports_every_bound():
    worst = Worst()
    broken, tightest = beyond.climb(path_bounds, worst, beyond.Effort(1, 2, 5))
    assert broken is None
    assert worst.holds
    assert list(tightest) == list(strategies.FAMILIES)
    for row in tightest.values():
        assert {*beyond.UPPER, "op", "refused_for_overflow", "on_a_kink"} == set(row)


def test_the_table_of_looseness_has_every_column():
    (row,) = beyond.looseness(path_bounds, [(2, 16)], seeds=1)
    assert set(row["ratios"]) == set(beyond.TABLE)
    assert row["ratios"]["px"] > row["ratios"]["edge"] > row["ratios"]["half"] > 1


def test_the_level_full_tries_ten_thousand_networks_of_every_family():
    assert beyond.EFFORT["full"].sums == 10_000


# --- checks of one case -----------------------------------------------------------------------------


def plain_case():
    net = family_network("MLP")
    return strategies.Case(net.model, net.x)


def test_a_drawn_case_is_checked_without_tolerance():
    case = counterexamples.case_of(mlp([1, 1]), [[3.0]], [[1.0]])
    d = decompose(case.model, case.x)
    truth_table.check_decomposition(case, d)
    d.J_v_f[0, 0] += 1e-15
    with pytest.raises(Broken, match="Σ v a x"):
        truth_table.check_decomposition(case, d)


def test_bounds_are_checked_by_value_by_differentiation_and_by_order():
    case = plain_case()
    b, d = path_bounds(case.model, case.x, names=["px", "edge"]), decompose(case.model, case.x)
    sums, trace = d.bounds(), b.trace
    truth_table.check_bounds(case, b, sums, trace)
    with pytest.raises(Broken, match=r"edge = .*, by its paths"):
        truth_table.check_bounds(case, b, sums | {"edge": 1.0}, trace)
    with pytest.raises(Broken, match="by differentiation"):
        truth_table.check_bounds(case, b, sums, 1.001 * trace)


def test_the_jacobian_has_a_column_for_every_kept_parameter():
    case = strategies.family_cases("residual")[1]
    j = truth_table.jacobian(case)
    d = decompose(case.model, case.x, masks=case.masks)
    assert j.shape == (len(case.x) * 2, len(d.parameters))
    trace = ntk_trace(case.model, case.x, masks=case.masks)
    assert relative_gap((j**2).sum(), trace) < 1e-12


@pytest.mark.parametrize("family", strategies.FAMILIES)
def test_sums_with_other_factors_are_the_bounds_where_the_factors_are_right(family):
    case = strategies.family_cases(family)[1]
    d = decompose(case.model, case.x, masks=case.masks)
    sums, c = d.bounds(), fixed_edges(d)
    found = edge_and_px(d, c, c)
    everything = only(d, lambda j: True)
    for name in ("edge", "px"):
        assert relative_gap(found[name], sums[name]) < 1e-12
        assert relative_gap(everything[name], sums[name]) < 1e-12
    assert relative_gap(everything["trace"], sums["trace"]) < 1e-12


@pytest.mark.parametrize("family", ["MLP", "MLP with biases", "convolution"])
def test_two_passes_give_the_bounds_of_a_chain_without_maxima(family):
    case = strategies.family_cases(family)[1]
    sums = decompose(case.model, case.x, masks=case.masks).bounds()
    for name, value in by_two_passes(case.model, case.x, case.masks).items():
        assert relative_gap(value, sums[name]) < 1e-12


# --- values by hand ---------------------------------------------------------------------------------


def test_two_chains_by_hand():
    case = counterexamples.two_chains()
    # The data's maximum is a tie of two ones; the weights' takes (4·3)² over (1·10)²: 3² + 4².
    assert by_two_passes(case.model, case.x)["px"] == 9 + 16
    assert float(ntk_trace(case.model, case.x)) == 100 + 1
    gated = path_bounds(case.model, case.x, names=["px", "edge"]).upper
    assert gated == {"px": 100 + 1 + 9 + 16, "edge": 100 + 1}


def test_theta_squared_by_hand():
    case = counterexamples.theta_squared(3.0, 2.0)
    assert by_two_passes(case.model, case.x) == {"px": 2 * 9 * 4, "edge": 4 * 9 * 4}
    assert float(ntk_trace(case.model, case.x)) == 4 * 9 * 4


def test_train_mode_batch_norm_by_hand():
    # z = (−1, 0, 1), σ² = 2/3, normalised ∓√1.5. The last sample alone passes: h = √1.5 − 1.
    # By the head h², by β 1, by γ 1.5. By the unit's weights, with P = I − 11ᵀ/3 − x̂x̂ᵀ/3: the first
    # coordinate is z itself and gives 0; the second (t, 0, 0) gives (P_31 t/σ)² = (t/6)²·1.5.
    eps = 2e-5
    for t in (1.0, 20.0, 1000.0):
        case = counterexamples.normed_by_its_batch(t)
        exact = (1.5**0.5 - 1) ** 2 + 1 + 1.5 + (t / 6) ** 2 * 1.5
        assert counterexamples.batch_trace(case.model, case.x) == pytest.approx(exact, rel=10 * eps)


def test_frozen_statistics_give_the_same_outputs():
    case = counterexamples.normed_by_its_batch(3.0)
    net = counterexamples.frozen(case.model, case.x)
    torch.testing.assert_close(net(case.x), case.model(case.x))
    assert not net.training


def test_secant_gates_by_hand():
    # φ(1) = Φ(1), φ'(1) = Φ(1) + the density at 1.
    case = counterexamples.chain_of_one(nn.GELU(), 1.0, 1.0, 1.0)
    phi = (1 + math.erf(1 / 2**0.5)) / 2
    slope = phi + math.exp(-0.5) / math.sqrt(2 * math.pi)
    assert float(ntk_trace(case.model, case.x)) == pytest.approx(phi**2 + slope**2, rel=1e-12)
    rule = CLAIMS["P2.secant_gelu"].subjects["rule"]
    assert rule(case.model, case.x) == pytest.approx(2 * phi**2, rel=1e-12)


def test_smooth_paths_of_one_unit():
    # v φ(w x + b) + c with softplus, φ(0) = log 2: paths w v, b v, φ(0) v and c.
    model = nn.Sequential(nn.Linear(1, 1), nn.Softplus(), nn.Linear(1, 1))
    case = counterexamples.case_of(model, [2, -1, 3, 5], [[0.5]])
    paths = list(mixed_gates.smooth_paths(case.model, case.x))
    assert sorted(len(p.parameters) for p in paths) == [1, 1, 2, 2]
    assert sorted(p.constant for p in paths) == pytest.approx([math.log(2), 1, 1, 1])
    secant, slope, offset = mixed_gates.gates_of(model[1], torch.zeros(1, dtype=torch.float64))
    assert secant == slope == 0.5  # z = 0: the derivative
    assert offset == pytest.approx(math.log(2))
    sums = mixed_gates.mixed_sums(case, mixed_gates.mixed)
    assert sums["outputs"] == pytest.approx(3 * math.log(2) + 5)
    assert sums["jacobian"] == pytest.approx(np.array([[0.5 * 3 * 0.5, 3 * 0.5, math.log(2), 1]]))


def test_every_uncovered_function_is_built_anew():
    for build, expected in counterexamples.UNCOVERED.values():
        assert build() is not build()
        assert expected


# --- R_op, T_sq, looseness ------------------------------------------------------------------------


def test_operator_bound_by_hand():
    # W₁ = diag(1, 2), W₂ = (3, 4), x = (1, 1): h = (1, 2).
    # Last: 5·κ, κ = 1. First: 2·κ, κ = ‖W₂‖_F² = 25.
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    case = counterexamples.case_of(model, [[1, 0, 0, 2], [3, 4]], [[1.0, 1.0]])
    assert ladder.operator_bound(case) == pytest.approx(55)
    # One more layer diag(5, 1) in front, h = (5, 1), (5, 2): 29 + 26·25, and for the first
    # κ = min(25·‖W₂‖₂², ‖W₂‖_F²·25) with ‖W₂‖₂² = 4, ‖W₂‖_F² = 5: 2·min(100, 125).
    layers = [nn.Linear(2, 2, bias=False), nn.ReLU(), *model]
    weights = [[5, 0, 0, 1], [1, 0, 0, 2], [3, 4]]
    case = counterexamples.case_of(nn.Sequential(*layers), weights, [[1.0, 1.0]])
    assert ladder.operator_bound(case) == pytest.approx(29 + 26 * 25 + 2 * 100)


def test_norms_and_energies_of_a_convolution_by_hand():
    module, h = nn.Conv1d(1, 1, 3, padding=1).double(), torch.ones(1, 1, 2).double()
    nn.init.ones_(module.weight)
    assert ladder.dense_norms(module, h) == pytest.approx((4, 4))  # [[1, 1], [1, 1]]
    assert ladder.flattened_norms(module, h) == pytest.approx((3, 3))
    assert ladder.unfolded_energy(module, h) == 4 + 2  # two taps at both places, and the bias
    assert ladder.map_energy(module, h) == 2 + 1


def test_flattened_kernels_and_map_energies_by_hand():
    case = ladder.ones_chain(2, 1)
    # First kernel: the sum of all is 4; second: taps meet 1, 2, 1 places; head: outputs 2, 2.
    assert float(ntk_trace(case.model, case.x)) == 16 + 6 + 8
    assert ladder.operator_bound(case) == pytest.approx(2 * 8 + 4 * 2 + 8)
    assert ladder.operator_bound(case, ladder.flattened_norms) == pytest.approx(2 * 6 + 4 * 2 + 8)
    case = ladder.one_kernel()
    assert float(ntk_trace(case.model, case.x)) == 36**2 + 4 * 30**2 + 4 * 25**2
    assert ladder.operator_bound(case, energy=ladder.map_energy) == pytest.approx(36 * 36)


def test_all_sign_patterns_are_there_once():
    _, params = ladder.signed(
        nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    )
    rows = torch.cat([p.flatten(1) for p in params.values()], 1)
    assert len({tuple(row) for row in rows.tolist()}) == 16
    assert torch.equal(rows.abs(), torch.tensor([1.0, 2.0, 4.0, 7.0]).double().expand(16, 4))


def test_expected_looseness_by_hand():
    # 8-64-4: 8·64·4 paths; edge 2048·(1/64 + 1/4)/72; half (8·4 + 64)/72, per output 1.
    found = ladder.expected_looseness([8, 64, 4])
    assert found["px"] == 2048
    assert found["edge"] == pytest.approx(2048 * (1 / 64 + 1 / 4) / 72)
    assert found["half"] == pytest.approx(96 / 72)
    assert found["half_per_output"] == pytest.approx(1)


def test_measured_looseness_comes_near_the_expected():
    found, expected = (
        ladder.measured_looseness([8, 32, 4], 200),
        ladder.expected_looseness([8, 32, 4]),
    )
    for name in ("px", "edge", "half", "t_sq"):
        assert found[name] == pytest.approx(expected[name], rel=0.1), name


# --- rescalings -----------------------------------------------------------------------------------


def test_rescalings_by_hand():
    found = {family: px.rescalings(fixed.model) for family, (fixed, _) in px._unbiased().items()}
    # 2-3-3-2: 3 + 3. CNN: 2 + 2 channels. Residual: streams 2 and 3, branches 3 and 2.
    assert found == {"MLP": 6, "CNN": 4, "residual": 10}


def test_the_rank_attains_its_limit_on_networks_without_zeros():
    for fixed, _ in px._unbiased().values():
        d = decompose(fixed.model, fixed.x)
        limit = len(d.parameters) - px.rescalings(fixed.model)
        assert px.integer_rank(d.J_theta_v) == limit == np.linalg.matrix_rank(d.J_theta_v)
