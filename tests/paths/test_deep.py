"""Deep and badly scaled networks: nothing over- or underflows on the way to a bound."""

import math

import pytest
import torch
from torch import nn

from ntktheory import NumericalError, functional, path_bounds
from ntktheory.models import cifar_resnet, mlp, vgg
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.scales import Scaled, dot, magnitude, presentable, squared, total, unscaled
from ntktheory.paths.survey import survey
from ntktheory.pruning.scorers import path_edge, px, synflow_l2, t_sq
from tests.paths.test_fixed_edges import seeded
from tests.paths.test_gates import assert_ladder, draw

SCORERS = {"px": px, "path_edge": path_edge, "t_sq": t_sq, "synflow_l2": synflow_l2}


def chain(depth, weight, x, dtype=torch.float64):
    """Width 1: every path sum is known. f = w^depth x, one path."""
    model = mlp([1] * (depth + 1), dtype=dtype)
    for p in model.parameters():
        nn.init.constant_(p, weight)
    return model, torch.full((1, 1), x, dtype=dtype)


@pytest.mark.parametrize(("depth", "weight"), [(200, 8.0), (200, 0.125), (300, 1.0), (60, 1e-5)])
def test_activations_far_out_of_range(depth, weight):
    """z₂ = w^(2·depth) leaves float64, f does not where x makes up for it."""
    shrink = weight ** (-depth / 2)
    model, x = chain(depth, weight, shrink)
    exact = depth * math.exp(2 * (depth - 1) * math.log(weight) + 2 * math.log(shrink))
    bounds = path_bounds(model, x, names=["px", "edge", "half", "op", "t_sq"])
    for value in (*bounds.upper.values(), bounds.t_sq):
        assert value == pytest.approx(exact, rel=1e-9)


def test_products_in_between_pass_float64():
    """16 layers of 2^60, then 16 of 2^−60: squares of products pass 2^1900 and come back."""
    model, x = chain(32, 1.0, 1.0)
    for i, p in enumerate(model.parameters()):
        nn.init.constant_(p, 2.0 ** (60 if i < 16 else -60))
    bounds = path_bounds(model, x, names=["px", "edge", "half", "t_sq"])
    exact = 16 * 2.0**120 + 16 * 2.0**-120
    for value in (*bounds.upper.values(), bounds.t_sq):
        assert value == pytest.approx(exact, rel=1e-12)


def test_a_bound_that_does_not_fit_names_its_logarithm():
    model, x = chain(400, 8.0, 8.0**-200)
    size = math.log10(400) + 2 * (199 * math.log10(8))
    with pytest.raises(NumericalError, match=f"Its decimal logarithm is {size:.1f}"):
        path_bounds(model, x, names="edge")


@pytest.mark.parametrize("name", ["px", "edge", "half"])
def test_two_hundred_layers(name):
    """Width 4, bias, residuals now and then: the number of paths is about 4^200."""

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(200)])
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x)) * 0.5 + x * 0.5
            return self.head(x)

    model, x = Deep().double(), draw(3, 4)
    bounds = path_bounds(model, x, names=[name])
    assert bounds.trace < bounds.upper[name] < 1e308


def test_vgg_and_resnet():
    x = draw(2, 3, 32, 32)
    for model in (vgg(16, 10, dtype=torch.float64), cifar_resnet(56, 10, dtype=torch.float64)):
        bounds = path_bounds(model, x, names=["px", "edge", "half", "t_sq", "last_layer"])
        assert_ladder(bounds)
        assert 0 < bounds.t_sq < 1e308


# Scores.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCORERS)
def test_scores_of_a_deep_net_are_finite(name, dtype):
    model = cifar_resnet(56, 10, width=4, dtype=dtype)
    f, x = functional(model), draw(2, 3, 8, 8).to(dtype)
    scores = SCORERS[name](f.model_fn, f.params, None, x)
    for key, score in scores.items():
        assert score.dtype == dtype
        assert bool(torch.isfinite(score).all())
        assert bool((score >= 0).all())
        assert "weight" not in key or bool((score > 0).any())


@pytest.mark.parametrize("name", SCORERS)
def test_single_precision_ranks_like_double(name):
    """Up to one factor, as px of 60 layers of width 8 has 8^60 paths, beyond float32."""
    layers = [m for _ in range(60) for m in (nn.Linear(8, 8, bias=False), nn.LeakyReLU(0.5))]
    model, x = seeded(nn.Sequential(*layers, nn.Linear(8, 3))), draw(4, 8)
    with torch.no_grad():
        for p in model.parameters():
            p.div_(3)
    f = functional(model)
    double = SCORERS[name](f.model_fn, f.params, None, x)
    g = functional(model.float())
    single = SCORERS[name](g.model_fn, g.params, None, x.float())
    a = torch.cat([s.flatten() for s in single.values()]).double()
    b = torch.cat([s.flatten() for s in double.values()])
    torch.testing.assert_close(a / a.sum(), b / b.sum(), rtol=2e-3, atol=1e-12)


# The numbers themselves.


def test_scaled_numbers():
    number = Scaled(torch.tensor([3.0, 0.0]).double(), torch.tensor(2000.0).double())
    assert number.value().tolist() == [math.inf, 0.0]
    assert number.shifted(-1999).value().tolist() == [6.0, 0.0]
    assert number.sum().log10() == pytest.approx(math.log10(3) + 2000 * math.log10(2))
    assert number.times(number).shifted(-4000).value().tolist() == [9.0, 0.0]
    small = Scaled(torch.tensor(1.0).double(), torch.tensor(-3000.0).double())
    assert small.value() == 0
    both = total([number.sum(), small, Scaled(small.mantissa * 0, small.exponent + 9000)])
    assert both.shifted(-2000).value() == 3
    assert total([small.times(small)]).shifted(6000).value() == 1
    nothing = total([Scaled(small.mantissa * 0, small.exponent)])
    assert nothing.value() == 0
    assert nothing.log10() == -math.inf


@pytest.mark.parametrize("value", [0.0, 1.0, 3.0, 0.75, 1e-300, 5e-324, 1e308])
def test_magnitude_and_squares(value):
    x = torch.tensor([0.0, -value], dtype=torch.float64)
    k = float(magnitude(x))
    if value > 1e-305:
        assert 2.0 ** (k - 1) <= value
        assert value / 2 < 2.0 ** (k - 1)
    square = squared(x)
    if value > 1e-305:
        expected = 2 * math.log10(value)
        assert square.sum().log10() == pytest.approx(expected, abs=1e-9)


def test_presentable_scores():
    values = {"a": unscaled(torch.tensor([1.0, 2.0])), "b": unscaled(torch.tensor([3.0]))}
    assert {k: v.tolist() for k, v in presentable(values).items()} == {"a": [1, 2], "b": [3]}
    large = {k: v.shifted(500) for k, v in values.items()}
    found = presentable(large)
    assert found["a"].tolist()[1] / found["a"].tolist()[0] == 2
    assert found["b"].tolist()[0] / found["a"].tolist()[0] == 3
    zero = presentable({"a": unscaled(torch.zeros(2)).shifted(500)})
    assert zero["a"].tolist() == [0, 0]


@pytest.mark.parametrize("masked", [False, True])
def test_edge_by_gradients_and_by_directions(masked):
    """Σ A_j B_j from two gradients is the derivative of the ones net along B."""
    model = seeded(cifar_resnet(8, 3, width=4, dtype=torch.float64))
    f, x = functional(model), draw(2, 3, 8, 8)
    masks = {k: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) < 0.6
             for k, p in f.params.items()} if masked else None  # fmt: skip
    net = survey(f.model_fn, f.params, masks, x)
    a = ones_net(f.model_fn, f.params, masks, x, net.run.gates).scaled_by_parameter()
    b = squared_net(f.model_fn, f.params, masks, x).scaled_by_parameter()
    expected = float(dot(a, b).value())
    assert path_bounds(model, x, masks=masks, names="edge").upper["edge"] == pytest.approx(
        expected, rel=1e-12
    )


def test_small_parameters_are_seen_beside_huge_ones_that_meet_dead_units():
    # f = relu(w1 x) 2^510 · 0 + b: the head's path is dead, the bias carries all of the trace.
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        model[0].weight.fill_(-1.0)
        model[0].bias.zero_()
        model[2].weight.fill_(2.0**510)
        model[2].bias.fill_(1.0)
    bounds = path_bounds(
        model, torch.ones(1, 1).double(), names=["edge", "half", "edge_per_output"]
    )
    assert bounds.trace == 1
    assert all(value >= 1 for value in bounds.upper.values())
