"""What path_bounds returns: which bounds, when, in which form."""

import pytest
import torch
from torch import nn

from ntktheory import UnsupportedModule, path_bounds
from ntktheory.models import convnet, mlp
from ntktheory.paths import ladder
from ntktheory.paths.bounds import LOWER, NAMES, UPPER
from tests.paths.test_fixed_edges import ENUMERABLE, seeded
from tests.paths.test_gates import draw


def test_everything_that_is_defined_comes_without_names():
    bounds = path_bounds(mlp([3, 4, 2], dtype=torch.float64), draw(5, 3))
    assert set(bounds.upper) == set(UPPER)
    assert set(bounds.lower) == set(LOWER)
    assert bounds.t_sq is not None
    assert set(bounds.seconds) == {"record", *NAMES}
    assert all(seconds >= 0 for seconds in bounds.seconds.values())
    assert bounds.kinks == 0


def test_what_is_not_affordable_comes_by_name_only(monkeypatch):
    """3·C·(multiply-adds) = 3·2·(5·3·4 + 5·4·2) = 600; norms of 4×3 and 2×4: 4·9·(4 + 24) + …"""
    model, x = mlp([3, 4, 2], dtype=torch.float64), draw(5, 3)
    everything = path_bounds(model, x)
    monkeypatch.setattr(ladder, "AFFORDABLE", 599)
    cheap = path_bounds(model, x)
    assert set(everything.upper) - set(cheap.upper) == {
        "px_per_output", "edge_per_output", "half_per_output", "op", "abs"
    }  # fmt: skip
    for name in ("abs", "edge_per_output", "op"):
        found = path_bounds(model, x, names=[name]).upper
        assert found == {name: pytest.approx(everything.upper[name])}
    monkeypatch.setattr(ladder, "AFFORDABLE", 600)
    assert "abs" in path_bounds(model, x).upper


def test_names_are_the_only_ones():
    bounds = path_bounds(mlp([3, 4, 2], dtype=torch.float64), draw(5, 3), names=("t_sq", "half"))
    assert set(bounds.upper) == {"half"}
    assert (bounds.lower, bounds.t_sq is None) == ({}, False)
    assert set(bounds.seconds) == {"record", "half", "t_sq"}


@pytest.mark.parametrize("name", ["edge", "half", "half_per_output", "t_sq", "px"])
def test_alone_as_in_company(name):
    """Bounds share passes; none depends on what else was asked for."""
    model, x = seeded(ENUMERABLE["residual block"][0]), draw(*ENUMERABLE["residual block"][1])
    together, alone = path_bounds(model, x), path_bounds(model, x, names=name)
    found = alone.t_sq if name == "t_sq" else alone.upper[name]
    assert found == (together.t_sq if name == "t_sq" else together.upper[name])


def test_single_precision_models_are_bounded_in_double():
    model, x = mlp([3, 4, 2]), draw(5, 3)
    double = mlp([3, 4, 2], dtype=torch.float64)
    double.load_state_dict(model.state_dict())
    assert path_bounds(model, x.float()).upper == path_bounds(double, x.float().double()).upper


@pytest.mark.parametrize("seed", range(3))
def test_euler_tries_the_layers_that_may_carry_f(seed):
    """Of a net with one bias in the middle, the layers behind it carry all of f, those before do not."""
    model = nn.Sequential(nn.Linear(3, 4, False), nn.ReLU(), nn.Linear(4, 4), nn.LeakyReLU(),
                          nn.Linear(4, 4, False), nn.LeakyReLU(), nn.Linear(4, 2, False))  # fmt: skip
    model, x = seeded(model, seed), draw(5, 3, seed=seed)
    squares = float(model(x).square().sum())
    expected = sum(squares / float(model[i].weight.square().sum()) for i in (4, 6))
    assert path_bounds(model, x).lower["euler"] == pytest.approx(expected, rel=1e-12)


def test_euler_needs_one_layer_that_carries_f():
    with pytest.raises(UnsupportedModule, match="'euler': biases or shortcuts bypass every layer"):
        path_bounds(convnet([1, 2], 2, image_size=4, bias=True).double(), draw(1, 1, 4, 4),
                    names="euler")  # fmt: skip
