"""The loop: exact and nested masks, its history, and runs that are continued, killed or refused."""

import copy
import functools
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ntktheory import NumericalError, functional
from ntktheory.models import convnet, mlp
from ntktheory.pruning import SCORERS, Scorer, apply_masks, carried_masks, iterative, prune, score
from ntktheory.pruning.schedules import densities
from ntktheory.pruning.scorers import px, synflow_l2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return mlp([3, 5, 4, 2], generator=seeded(), dtype=torch.float64)  # 15 + 20 + 8 = 43 weights


def images():
    return torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)


def counted(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def scorer(monkeypatch):
    """Register a scorer for one test."""

    def register(function, **published):
        monkeypatch.setitem(SCORERS, "own", Scorer("own", function, "for a test", **published))

    return register


@pytest.fixture
def magnitudes(scorer):
    scorer(lambda params, names: {name: params[name].abs() for name in names})


def test_by_hand(magnitudes):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -4.0], [2.0, 3.0]]))
        model[1].weight.copy_(torch.tensor([[-5.0, 0.5]]))
    result = prune(model, "own", 0.5)
    assert result.masks["0.weight"].tolist() == [[False, True], [False, True]]
    assert result.masks["1.weight"].tolist() == [[True, False]]
    assert result.masks["1.weight"].dtype == torch.bool
    assert result.density == 0.5
    assert result.per_layer == {"0.weight": 0.5, "1.weight": 0.5}
    (entry,) = result.history
    assert (entry.density, entry.threshold) == (0.5, 3.0)
    assert entry.kept == {"0.weight": 2, "1.weight": 1}
    assert (entry.minimum, entry.median, entry.maximum) == (0.5, 2.0, 5.0)
    assert entry.mass == pytest.approx({"0.weight": 10 / 15.5, "1.weight": 5.5 / 15.5})
    assert entry.seconds > 0


def test_history_is_of_the_weights_that_were_left(magnitudes):
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    first, second = prune(model, "own", 0.25, rounds=2).history
    assert (first.minimum, first.threshold, first.density) == (1.0, 3.0, 0.5)
    assert (second.minimum, second.median, second.threshold, second.density) == (
        3.0,
        3.0,
        4.0,
        0.25,
    )
    assert second.mass == {"weight": 1.0}


def test_history_of_zeros(scorer):
    scorer(lambda params, names: {name: torch.zeros_like(params[name]) for name in names})
    (entry,) = prune(network(), "own", 0.1).history
    assert set(entry.mass.values()) == {0.0}
    assert entry.threshold == 0.0


def test_rounds_nest_and_score_under_the_masks(scorer):
    seen = []

    def flipping(params, masks, names):
        kept = masks or {n: torch.ones_like(params[n], dtype=torch.bool) for n in names}
        seen.append({name: mask.clone() for name, mask in kept.items()})
        flip = -1 if len(seen) % 2 else 1  # in turn the first and the last weights look best
        return {n: flip * torch.arange(params[n].numel()).view(params[n].shape) for n in names}

    scorer(flipping)
    result = prune(network(), "own", 0.1, rounds=3)
    counts = [counted(masks) for masks in [*seen, result.masks]]
    assert counts == [43, *(max(1, round(43 * 0.1 ** (t / 3))) for t in (1, 2, 3))]
    for before, after in zip(seen, [*seen[1:], result.masks], strict=True):
        assert all(bool((after[name] <= before[name]).all()) for name in before)


@pytest.mark.parametrize("regrows", [False, True])
def test_only_a_scorer_that_regrows_takes_weights_back(scorer, regrows):
    calls = []

    def turning(params, names):
        calls.append(None)
        flip = -1 if len(calls) % 2 else 1
        return {n: flip * torch.arange(params[n].numel()).view(params[n].shape) for n in names}

    scorer(turning, regrows=regrows)
    model = nn.Linear(8, 1, bias=False)
    result = prune(model, "own", 0.25, rounds=2)
    assert result.history[0].kept == {"weight": 4}
    expected = [6, 7] if regrows else [2, 3]
    assert result.masks["weight"].flatten().nonzero().flatten().tolist() == expected
    assert result.history[1].minimum == 0.0


@pytest.mark.parametrize("schedule", ["exponential", "linear", "inverse", "one_shot"])
def test_densities_are_those_of_the_schedule(schedule):
    result = prune(network(), "synflow_l2", 0.2, rounds=5, schedule=schedule, input_shape=[3])
    expected = [round(43 * d) for d in densities(0.2, 5, schedule)]
    assert [sum(entry.kept.values()) for entry in result.history] == expected
    assert [entry.density for entry in result.history] == [n / 43 for n in expected]


def test_the_same_as_a_loop_by_hand():
    """Three rounds with scores of the pure function, sorted in Python."""
    model, x = network(), images()
    net = functional(model)
    masks = {name: torch.ones_like(net.params[name], dtype=torch.bool) for name in net.prunable}
    for t in (1, 2, 3):
        scores = px(net.model_fn, net.params, masks, x)
        kept = [(float(s), n, i) for n in masks for i, s in enumerate(scores[n].flatten())
                if masks[n].flatten()[i]]  # fmt: skip
        kept.sort(key=lambda entry: -entry[0])
        masks = {n: torch.zeros_like(m) for n, m in masks.items()}
        for _, n, i in kept[: round(43 * 0.3 ** (t / 3))]:
            masks[n].view(-1)[i] = True
    assert same(prune(model, "px", 0.3, rounds=3, batch=x).masks, masks)


def test_published_defaults(scorer):
    def zeros(params, names, power=1):
        return {name: torch.zeros_like(params[name]) for name in names}

    scorer(zeros, rounds=4, schedule="linear", budget="uniform")
    result = prune(network(), "own", 0.2, power=2)
    assert {k: v for k, v in result.settings.items() if k != "scorer"} == {
        "density": 0.2, "rounds": 4, "schedule": "linear", "budget": "uniform", "floor": 0,
        "options": {"power": 2},
    }  # fmt: skip
    assert len(result.history) == 4
    assert result.per_layer == {
        "layer1.weight": 3 / 15,
        "layer2.weight": 4 / 20,
        "layer3.weight": 2 / 8,
    }
    spelled = prune(network(), "own", 0.2, rounds=None, schedule="exponential", budget="global")
    assert spelled.settings["schedule"] == "exponential"
    assert spelled.history[0].kept == {"layer1.weight": 15, "layer2.weight": 14, "layer3.weight": 0}


def test_a_batch_by_round(scorer):
    seen = []

    def batch(number):
        seen.append(number)
        return images() + number, torch.zeros(4)

    scorer(lambda params, names, x: {n: x.sum() * torch.ones_like(params[n]) for n in names})
    result = prune(network(), "own", 0.5, rounds=3, batch=batch)
    assert seen == [0, 1, 2]
    sums = [float((images() + number).sum()) for number in seen]
    assert [entry.maximum for entry in result.history] == pytest.approx(sums)


@pytest.mark.parametrize("budget", ["uniform", "erk", {"layer1.weight": 0.1, "layer3.weight": 0.9}])
def test_budgets_are_kept_in_every_round(budget):
    result = prune(network(), "px", 0.3, rounds=4, budget=budget, batch=images(), floor=2)
    assert [sum(e.kept.values()) for e in result.history] == [
        round(43 * d) for d in densities(0.3, 4)
    ]
    assert min(result.history[-1].kept.values()) >= 2
    # Of 13, shares are 4.53, 6.05, 2.42; ERK's are 13·(8, 9, 6)/23 = 4.52, 5.09, 3.39; and for densities
    # 0.1 and 0.9 beside a dense layer, 13·(1.5, 20, 7.2)/28.7 with two kept of the first at least.
    shares = {"uniform": (4.53, 6.05, 2.42), "erk": (4.52, 5.09, 3.39)}.get(
        str(budget), (2, 8.1, 2.9)
    )
    kept = result.history[-1].kept.values()
    assert all(abs(k - share) < 1 for k, share in zip(kept, shares, strict=True))


@pytest.mark.parametrize("floor", [0, 2])
@pytest.mark.parametrize("scorer", ["synflow", "magnitude", "force"])  # the last one regrows
@pytest.mark.parametrize("carrying", [False, True])
def test_a_budget_that_empties_a_layer_is_kept_in_rounds(scorer, floor, carrying):
    """Rounds keep at most what the other layers hold: 20 + 8, and the floor of the empty one."""
    model, room = network(), 28 + floor
    if carrying:
        own = torch.ones(4, 5, dtype=torch.bool)
        own[0] = False
        model, room = apply_masks(model, {"layer2.weight": own}), room - 5
    first = functional(model).prunable[0]
    data = {"batch": (images(), torch.tensor([0, 1, 0, 1]))}
    for nothing in (0.0, torch.zeros(5, 3, dtype=torch.bool)):
        budget = {first: nothing}
        found = prune(model, scorer, 0.3, rounds=5, budget=budget, floor=floor, **data)
        counts = [sum(e.kept.values()) for e in found.history]
        assert counts == [min(room, round(43 * d)) for d in densities(0.3, 5)]
        assert counts[0] == room
        assert all(e.kept[first] == floor for e in found.history)
        once = prune(model, scorer, 0.3, rounds=1, budget=budget, floor=floor, **data)
        assert once.history[-1].kept == found.history[-1].kept


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_budget_that_cannot_hold_the_density_is_refused_before_scoring(scorer, rounds):
    seen = []
    scorer(lambda params, names: seen.append(1) or {n: params[n].abs() for n in names})
    budget = {"layer1.weight": 0.0}
    expected = "budget must be one that lets layers keep 29 weights, got one that keeps at most 28"
    with pytest.raises(ValueError, match=expected):
        prune(network(), "own", 29 / 43, rounds=rounds, budget=budget)
    assert not seen
    assert counted(prune(network(), "own", 28 / 43, rounds=rounds, budget=budget).masks) == 28


def test_a_floor_keeps_layers_alive(scorer):
    scorer(
        lambda params, names: {n: torch.full_like(params[n], n == "layer2.weight") for n in names}
    )
    assert prune(network(), "own", 0.2).history[-1].kept["layer1.weight"] == 0
    kept = prune(network(), "own", 0.2, floor=2).history[-1].kept
    assert kept == {"layer1.weight": 2, "layer2.weight": 5, "layer3.weight": 2}


def test_a_functional_model():
    net = functional(network())
    found = prune(net, "px", 0.3, rounds=2, batch=images()).masks
    assert same(found, prune(network(), "px", 0.3, rounds=2, batch=images()).masks)


def test_a_tied_parameter_counts_once():
    model = mlp([3, 3, 3, 2], generator=seeded(2), dtype=torch.float64)
    model.layer2.weight = model.layer1.weight
    result = prune(model, "synflow_l2", 0.4, rounds=2, input_shape=[3])
    assert list(result.masks) == ["layer1.weight", "layer3.weight"]
    assert counted(result.masks) == 6


def test_progress_is_shown_only_if_asked_for(capsys):
    prune(network(), "px", 0.3, rounds=2, batch=images())
    assert capsys.readouterr() == ("", "")
    prune(network(), "px", 0.3, rounds=2, batch=images(), progress=True)
    printed = capsys.readouterr()
    assert "Pruning" in printed.err
    assert printed.out == ""


# Models that carry masks already.


def test_a_pruned_model_is_pruned_further():
    model, x = network(), images()
    first = prune(model, "px", 0.5, rounds=2, batch=x).masks
    pruned = apply_masks(model, first)
    names = {f"{n.removesuffix('.weight')}.parametrizations.weight.original": n for n in first}
    assert same({names[n]: m for n, m in carried_masks(pruned).items()}, first)
    result = prune(pruned, "px", 0.3, rounds=1, batch=x)
    assert result.density == 13 / 43
    assert list(result.masks) == list(names)
    for name, mask in result.masks.items():
        assert bool((mask <= first[names[name]]).all())
    # One more round under the first masks is the same.
    scores = score(model, "px", batch=x, masks=first)
    best = sorted((-float(s), n, i) for n in first for i, s in enumerate(scores[n].flatten()))[:13]
    for _, n, i in best:
        masks = {names[k]: m for k, m in result.masks.items()}
        assert masks[n].flatten()[i]
    twice = apply_masks(pruned, result.masks)
    assert same(carried_masks(twice), result.masks)
    assert list(twice.state_dict()) == list(pruned.state_dict())
    assert same(carried_masks(pruned), {k: first[n] for k, n in names.items()})
    plain = apply_masks(model, {names[n]: m for n, m in result.masks.items()})
    assert torch.equal(twice(x), plain(x))


@pytest.mark.parametrize("scorer", ["px", "force"])  # the second regrows
def test_masks_to_start_from(scorer):
    """The same as a model that carries them; both together keep what both keep."""
    model, data = network(), {"batch": (images(), torch.tensor([0, 1, 0, 1])), "rounds": 3}
    first = prune(model, "random", 0.6, generator=seeded()).masks
    other = {"layer1.weight": torch.rand(5, 3, generator=seeded(7)) < 0.6}
    found = prune(model, scorer, 0.2, masks=first, **data)
    assert list(found.masks) == list(first)
    assert found.density == 9 / 43
    assert all(bool((m <= first[n]).all()) for n, m in found.masks.items())
    carried = prune(apply_masks(model, first), scorer, 0.2, **data).masks
    assert all(
        torch.equal(a, b) for a, b in zip(found.masks.values(), carried.values(), strict=True)
    )
    name = "layer1.parametrizations.weight.original"
    both = prune(apply_masks(model, first), scorer, 0.2, masks={name: other["layer1.weight"].float()},
                 **data).masks  # fmt: skip
    first["layer1.weight"] &= other["layer1.weight"]
    once = prune(model, scorer, 0.2, masks=first, **data).masks
    assert all(torch.equal(a, b) for a, b in zip(both.values(), once.values(), strict=True))


def test_a_masked_bias_is_no_prunable_weight():
    model = mlp([3, 4, 2], bias=True, generator=seeded())
    masked = apply_masks(model, {"layer1.bias": torch.tensor([True, False, True, True])})
    result = prune(masked, "magnitude", 0.5)
    assert same(result.masks, prune(model, "magnitude", 0.5).masks)


def test_dropped_weights_of_a_pruned_model_do_not_come_back(magnitudes):
    model = network()
    masks = {"layer2.weight": torch.zeros(4, 5, dtype=torch.bool)}
    result = prune(apply_masks(model, masks), "own", 0.5)
    assert result.history[0].kept["layer2.parametrizations.weight.original"] == 0
    assert counted(result.masks) == round(43 / 2)
    with pytest.raises(
        ValueError, match=r"density must be at most 0\.534884, what the first masks keep"
    ):
        prune(apply_masks(model, masks), "own", 0.6)


# What is refused; the model stays as it was.


class Untouched:
    """Checks that nothing about a model changed."""

    def __init__(self, model):
        self.model, self.state = model, copy.deepcopy(model.state_dict())
        self.modes = [module.training for module in model.modules()]
        self.random = torch.get_rng_state()

    def check(self):
        assert same(dict(self.model.state_dict()), dict(self.state))
        assert [module.training for module in self.model.modules()] == self.modes
        assert all(p.grad is None and p.requires_grad for p in self.model.parameters())
        assert torch.equal(torch.get_rng_state(), self.random)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"density": 0}, ValueError, r"density must be a fraction in \(0, 1\], got 0"),
        ({"density": 1.1}, ValueError, r"density must be a fraction in \(0, 1\], got 1\.1"),
        ({"density": -0.5}, ValueError, r"density must be a fraction in \(0, 1\]"),
        ({"density": float("nan")}, ValueError, r"density must be a fraction in \(0, 1\]"),
        ({"density": "0.5"}, ValueError, r"density must be a fraction in \(0, 1\]"),
        ({"density": 0.01}, ValueError, r"density must be at least 0\.0233, one weight of 43"),
        ({"scorer": "pxx"}, ValueError, "scorer must be one of"),
        ({"batch": None}, ValueError, "batch must be given for 'px'"),
        ({"batch": images()[:, :2]}, ValueError, "batch must be a batch that the model takes"),
        ({"batch": images() * torch.nan}, NumericalError, "batch must be finite"),
        ({"batch": "digits"}, TypeError, r"batch must be a torch\.Tensor"),
        ({"rounds": 0}, ValueError, "rounds must be a positive integer"),
        ({"schedule": "cosine"}, ValueError, "schedule must be one of"),
        ({"budget": "layer"}, ValueError, "budget must be one of"),
        ({"budget": {"layer9.weight": 0.5}}, ValueError, r"budget must be one of 'layer1\.weight'"),
        ({"masks": {"a": torch.ones(5, 3)}}, ValueError, "masks must be named like the parameters"),
        ({"masks": {"layer1.weight": torch.ones(3, 5)}}, ValueError, "must be of shape"),
        ({"masks": [1]}, TypeError, "masks must be a mapping"),
        ({"floor": 9}, ValueError, "floor must be affordable with 22 kept weights, got 9, which"),
        ({"power": 2}, ValueError, "option of 'px' must be left out, got 'power'"),
        ({"resume": "no/such/folder/run.safetensors"}, ValueError, "resume must be a file in an"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    model = network()
    untouched = Untouched(model)
    given = {"scorer": "px", "density": 0.5, "batch": images()} | arguments
    with pytest.raises(error, match=text):
        prune(model, given.pop("scorer"), given.pop("density"), **given)
    untouched.check()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_name_their_layer(scorer, value):
    def broken(params, names, masks):
        scores = {name: params[name].abs().clone() for name in names}
        if masks and not masks["layer2.weight"].all():
            scores["layer2.weight"][0, 0] = value
        return scores

    scorer(broken)
    model = network()
    untouched = Untouched(model)
    with pytest.raises(NumericalError, match=r"score of 'layer2\.weight' by 'own' must be finite"):
        prune(model, "own", 0.1, rounds=3)
    untouched.check()


def test_nothing_to_prune():
    expected = "model must be a network with prunable weights, got none"
    empty = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 3))
    for model in (nn.Embedding(3, 2), nn.LayerNorm(3), empty):
        for rounds in (1, 2):
            with pytest.raises(ValueError, match=expected):
                prune(model, "synflow_l2", 0.5, rounds=rounds, input_shape=[3])
        with pytest.raises(ValueError, match=expected):
            score(model, "magnitude")
    partly = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 3), nn.Linear(3, 2))
    assert counted(prune(partly, "magnitude", 0.5).masks) == 3


def test_scores_that_are_no_real_numbers(scorer):
    scorer(lambda params, names: {n: params[n] > 0 for n in names})
    with pytest.raises(
        TypeError, match=r"score of 'layer1\.weight' .* real numbers, got torch\.bool"
    ):
        prune(network(), "own", 0.5)


def test_train_mode():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="model must be in eval mode"):
        prune(model, "px", 0.5, batch=images().float())


def test_the_model_is_untouched():
    model = convnet([1, 3, 4], 2, image_size=4, bias=True, generator=seeded())
    untouched = Untouched(model)
    prune(model, "px", 0.1, rounds=3, batch=torch.randn(2, 1, 4, 4, generator=seeded()))
    untouched.check()


# Runs that are continued.

DRAWING = {"rounds": 6, "input_shape": [3]}


def drawn(path=None, batch=None, seed=5, **changed):
    """Prune with a scorer that draws in every round."""
    given = {"scorer": "ntk_sap", "density": 0.1, **DRAWING} | changed
    model = given.pop("model", None) or network()
    return prune(
        model,
        given.pop("scorer"),
        given.pop("density"),
        batch=batch or images_of,
        generator=seeded(seed),
        resume=path,
        **given,
    )


def images_of(number):
    return torch.randn(4, 3, generator=seeded(number), dtype=torch.float64)


def stopping(at, error):
    def batch(number):
        if number == at:
            raise error
        return images_of(number)

    return batch


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("power cut")])
def test_a_continued_run_is_the_uninterrupted_one(tmp_path, at, error):
    path = tmp_path / "run.safetensors"
    with pytest.raises(type(error)):
        drawn(path, stopping(at, error))
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    expected = drawn()
    continued = drawn(path)
    assert same(continued.masks, expected.masks)
    assert [e.threshold for e in continued.history] == [e.threshold for e in expected.history]
    assert not same(drawn(seed=6).masks, expected.masks)


def test_what_is_left_behind_is_the_last_complete_round(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        drawn(path, stopping(2, KeyboardInterrupt()))
    masks = {n: t for n, t in load_file(path).items() if n.startswith("mask/")}
    assert counted(masks) == round(43 * densities(0.1, 6)[1])
    assert all(mask.dtype == torch.bool for mask in masks.values())


KILLED = """
import os, signal, sys
from tests.pruning import test_prune as t

def batch(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.images_of(number)

t.drawn(sys.argv[1], batch)
"""


def test_a_killed_run_is_continued(tmp_path):
    path = tmp_path / "run.safetensors"
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    continued = drawn(path)
    assert same(continued.masks, drawn().masks)
    assert len(continued.history) == 6


def test_a_finished_run_is_returned_without_scoring(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    finished = drawn(path)
    monkeypatch.setattr(iterative, "score", None)
    again = drawn(path)
    assert same(again.masks, finished.masks)
    assert again.history == finished.history


def other_weights():
    return mlp([3, 5, 4, 2], generator=seeded(9), dtype=torch.float64)


def other_shapes():
    return mlp([3, 4, 4, 2], generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"scorer": "synflow_l2"}, 'scorer "ntk_sap" for "synflow_l2"'),
        ({"density": 0.2}, r"density 0\.1 for 0\.2"),
        ({"rounds": 5}, "rounds 6 for 5"),
        ({"schedule": "linear"}, 'schedule "exponential" for "linear"'),
        ({"budget": "erk"}, 'budget "global" for "erk"'),
        ({"floor": 1}, "floor 0 for 1"),
        ({"masks": {"layer1.weight": torch.ones(5, 3)}}, r'masks null for {"layer1\.weight"'),
        ({"realizations": 2}, r'options {.*"realizations": 5.* for {.*"realizations": 2'),
        ({"seed": 6}, "seed 5 for 6"),
        ({"batch": images()}, "batch of round 0 "),
        ({"model": other_weights()}, "model tensors "),
        ({"model": other_shapes()}, r'model shapes {"layer1\.weight": \[5, 3\]'),
    ],
)
def test_another_run_is_refused(tmp_path, changed, text):
    path = tmp_path / "run.safetensors"
    with pytest.raises(RuntimeError):
        drawn(path, stopping(1, RuntimeError()))
    before = path.read_bytes()
    changed = dict(changed)
    batch = changed.pop("batch", None)
    given = {"batch": batch} if batch is None else {"batch": lambda number: batch}
    with pytest.raises(ValueError, match="resume must be a file of this run, got .* with " + text):
        drawn(path, given["batch"], **changed)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (np.ones(3), np.arange(3.0)),
        ([np.ones((2, 2))[::2]], [np.zeros((1, 2))]),
        (np.ones(2), np.ones(2, np.float32)),
        (np.float32(0.5), np.float32(0.25)),
        (torch.float32, torch.float64),
        (functools.partial(round, ndigits=1), functools.partial(round, ndigits=2)),
        (nn.CrossEntropyLoss(torch.ones(2)), nn.CrossEntropyLoss(torch.zeros(2))),
    ],
)
def test_options_are_known_by_their_contents(tmp_path, scorer, value, other):
    scorer(lambda params, names, option=None: {n: params[n].abs() for n in names})
    given = {"rounds": 2, "resume": tmp_path / "run.safetensors"}
    first = prune(network(), "own", 0.3, option=value, **given)
    again = prune(network(), "own", 0.3, option=copy.deepcopy(value), **given)
    assert again.history == first.history
    with pytest.raises(
        ValueError, match=r"resume must be a file of this run, got .* with options "
    ):
        prune(network(), "own", 0.3, option=other, **given)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), seeded()])
def test_what_cannot_be_compared_is_refused_with_resume(tmp_path, scorer, value):
    seen = []
    scorer(lambda params, names, option=None: seen.append(1) or {n: params[n].abs() for n in names})
    expected = r"options\['option'\]\[0\] must be made of tensors, .* keep no file to resume from"
    path = tmp_path / "run.safetensors"
    with pytest.raises(TypeError, match=expected):
        prune(network(), "own", 0.3, option=[value], resume=path)
    with pytest.raises(TypeError, match=r"batch\[1\] must be made of tensors"):
        prune(network(), "own", 0.3, batch=lambda _: (images(), value), resume=path)
    assert not seen
    assert not path.exists()
    assert counted(prune(network(), "own", 0.3, option=[value]).masks) == 13


def test_batches_are_known_by_their_contents(tmp_path):
    path, x = tmp_path / "run.safetensors", images()
    prune(network(), "px", 0.3, rounds=2, batch=x, resume=path)
    prune(network(), "px", 0.3, rounds=2, batch=x.clone(), resume=path)
    with pytest.raises(ValueError, match="with batch "):
        prune(network(), "px", 0.3, rounds=2, batch=x + 1, resume=path)


def labelled(number, scale=1.0, flipped=False):
    y = torch.tensor([0, 1, 1, 0])
    return scale * images_of(number), y.flip(0).roll(1) if flipped else y


@pytest.mark.parametrize("option", [{"scale": 5.0}, {"flipped": True}])
def test_batches_by_round_are_known_by_their_contents(tmp_path, option):
    """Two functions of one name, as two lambdas in one place are."""
    path = tmp_path / "run.safetensors"

    def run(**options):
        batch = lambda number: labelled(number, **options)  # noqa: E731
        return prune(network(), "snip", 0.3, rounds=2, batch=batch, resume=path).masks

    first = run()
    before = path.read_bytes()
    assert same(run(), first)
    with pytest.raises(ValueError, match="with batch of round 0 "):
        run(**option)
    assert path.read_bytes() == before


@pytest.mark.parametrize("differs_at", [2, 3])
def test_the_last_batch_is_compared_too(tmp_path, differs_at):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        drawn(path, stopping(3, KeyboardInterrupt()))
    calls = []

    def other(number):
        calls.append(number)
        return images_of(number) + (number == differs_at)

    if differs_at == 2:
        with pytest.raises(ValueError, match=r"got .* with batch of round 2 "):
            drawn(path, other)
        assert calls == [0, 2]
    else:  # what is still to come may be anything
        assert len(drawn(path, other).history) == 6
        assert calls == [0, 2, 3, 4, 5]


def test_comparing_batches_leaves_the_generator_where_it_was(tmp_path):
    path, generator = tmp_path / "run.safetensors", seeded(5)
    with pytest.raises(KeyboardInterrupt):
        drawn(path, stopping(3, KeyboardInterrupt()))

    def greedy(number):
        if number < 3:
            torch.rand(7, generator=generator)
        return images_of(number)

    found = prune(
        network(), "ntk_sap", 0.1, batch=greedy, generator=generator, resume=path, **DRAWING
    )
    assert same(found.masks, drawn().masks)


def test_one_batch_for_all_rounds_and_one_by_round_are_different_runs(tmp_path):
    path, x = tmp_path / "run.safetensors", images()
    prune(network(), "px", 0.3, rounds=2, batch=x, resume=path)
    with pytest.raises(ValueError, match='for "by round"'):
        prune(network(), "px", 0.3, rounds=2, batch=lambda number: x, resume=path)


def test_a_loss_is_known_by_its_name(tmp_path):
    path = tmp_path / "run.safetensors"
    given = {"rounds": 2, "batch": labelled(0), "resume": path}

    def squares(z, y):
        return (z**2).mean()

    first = prune(network(), "snip", 0.3, **given, loss_fn=squares)
    assert same(prune(network(), "snip", 0.3, **given, loss_fn=squares).masks, first.masks)
    with pytest.raises(ValueError, match=r"with loss function .*squares.* for null"):
        prune(network(), "snip", 0.3, **given)


@pytest.mark.parametrize("kind", ["weights", "damaged"])
def test_foreign_files_are_left_alone(tmp_path, kind):
    path = tmp_path / "run.safetensors"
    if kind == "weights":
        save_file(network().state_dict(), path)
        text = "resume must be a file that prune wrote"
    else:
        path.write_bytes(b"something else")
        text = "resume must be a readable safetensors file"
    before = path.read_bytes()
    with pytest.raises(ValueError, match=text):
        drawn(path)
    assert path.read_bytes() == before


def test_the_file_says_what_it_is(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "run.safetensors"
    drawn(path)
    with safe_open(path, "pt") as file:
        said = file.metadata()
    assert json.loads(said["run"])["scorer"] == "ntk_sap"
    assert len(json.loads(said["history"])) == 6
    assert {"ntktheory", "torch"} <= set(json.loads(said["versions"]))


def test_scores_of_the_pure_function_are_those_that_prune_ranks():
    net = functional(network())
    expected = synflow_l2(net.model_fn, net.params, None, images()[:1])
    (entry,) = prune(network(), "synflow_l2", 0.5, rounds=1, input_shape=[3]).history
    assert entry.maximum == float(max(expected[name].max() for name in net.prunable))
