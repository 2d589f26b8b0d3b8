"""Gates beyond ReLU: leaky ReLU, maxima of every kind, and what they are worth by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import functional, ntk_trace, path_bounds
from ntktheory.paths.gates import check_replay, record, replay
from ntktheory.paths.networks import ones_net, squared_net
from ntktheory.paths.windows import average_weights, bind_pool, pool_axes, sum_windows
from proofs_check.compare import relative_gap
from tests.paths.test_gates import CONV, MLP, Wrapped, assert_ladder, draw, recorded

TOLERANCE = 1e-12


def in_place_leaky(z):
    return F.leaky_relu_(z, 0.3)


def values(result):
    return result[0]


GATED = {
    "leaky_relu": (MLP, lambda h, x: F.leaky_relu(h, 0.3)),
    "leaky_relu in place": (MLP, lambda h, x: in_place_leaky(h)),
    "leaky_relu by position": (MLP, lambda h, x: F.leaky_relu(h, 0.3, True)),
    "leaky_relu of negative slope": (MLP, lambda h, x: F.leaky_relu(h, -0.7)),
    "nn.LeakyReLU": (MLP, lambda h, x: nn.LeakyReLU(0.2, inplace=True)(h) + x),
    "nn.RReLU in eval mode": (MLP, lambda h, x: nn.RReLU().eval()(h)),
    "max_pool1d": (MLP, lambda h, x: F.max_pool1d(h[:, None], 2)),
    "max_pool2d": (CONV, lambda h, x: F.max_pool2d(h, 2)),
    "max_pool2d, overlap, padding": (CONV, lambda h, x: F.max_pool2d(h, 3, 1, 1)),
    "max_pool2d, dilation": (CONV, lambda h, x: F.max_pool2d(h, 2, 1, 1, 2)),
    "max_pool2d, ceil_mode": (CONV, lambda h, x: F.max_pool2d(h, 3, 2, ceil_mode=True)),
    "max_pool2d, one axis": (CONV, lambda h, x: F.max_pool2d(h, (2, 1), (1, 2))),
    "torch.max_pool2d": (CONV, lambda h, x: torch.max_pool2d(h, 2, 1)),
    "max_pool2d with indices": (CONV, lambda h, x: values(F.max_pool2d(h, 2, return_indices=True))),
    "nn.MaxPool3d": (CONV, lambda h, x: nn.MaxPool3d(2)(h[:, None])),
    "adaptive_max_pool1d": (MLP, lambda h, x: F.adaptive_max_pool1d(h[:, None], 3)),
    "nn.AdaptiveMaxPool2d": (CONV, lambda h, x: nn.AdaptiveMaxPool2d((3, 1))(h)),
    "adaptive_max_pool3d": (CONV, lambda h, x: F.adaptive_max_pool3d(h[:, None], (1, 3, 2))),
    "max along an axis": (MLP, lambda h, x: h.view(-1, 2, 2).max(1).values),
    "max, keepdim": (CONV, lambda h, x: torch.max(h, 2, keepdim=True)[0] + x),
    "amax": (CONV, lambda h, x: h.amax((2, 3))),
    "amax, keepdim": (CONV, lambda h, x: torch.amax(h, dim=(1, -1), keepdim=True)),
    "relu then max": (CONV, lambda h, x: F.max_pool2d(F.relu(h), 2, 1)),
}  # fmt: skip


def gated(name):
    (build, x), function = GATED[name]
    features = function(build().double()(x), x).flatten(1).shape[1]
    return Wrapped(build(), function, features), x


@pytest.mark.parametrize("name", GATED)
class TestGated:
    def test_replay_is_exact(self, name):
        model, x = gated(name)
        net, run = recorded(model, x)
        assert torch.equal(run.outputs, net.model_fn(net.params, x))
        found = replay(net.model_fn)(net.params, (x, run.gates))
        torch.testing.assert_close(found, run.outputs, rtol=1e-14, atol=1e-14)

    def test_replay_has_the_networks_own_derivative(self, name):
        model, x = gated(name)
        net, run = recorded(model, x)
        fixed = replay(net.model_fn)
        own = torch.func.jacrev(lambda p: net.model_fn(p, x))(net.params)
        held = torch.func.jacrev(lambda p: fixed(p, (x, run.gates)))(net.params)
        for key in own:
            torch.testing.assert_close(held[key], own[key], rtol=1e-12, atol=1e-12)

    def test_replay_is_affine_in_the_input(self, name):
        model, x = gated(name)
        net, run = recorded(model, x)
        f = replay(net.model_fn)
        zero, one, two = (f(net.params, (k * x, run.gates)) for k in (0, 1, 2))
        torch.testing.assert_close(two - one, one - zero, rtol=1e-11, atol=1e-11)

    def test_ladder(self, name):
        model, x = gated(name)
        bounds = path_bounds(model, x)
        assert bounds.kinks == 0 or name == "relu then max"  # zeros tie
        assert_ladder(bounds)
        alone = path_bounds(model, x[:1])
        assert_ladder(alone)

    def test_abs_is_the_sum_over_paths_of_one_sign(self, name):
        """With positive weights, biases and inputs, and the same gates, R_abs is the trace."""
        model, x = gated(name)
        if "negative" in name:
            return
        with torch.no_grad():
            for p in model.parameters():
                p.abs_()
        bounds = path_bounds(model, x.abs(), names=["abs"])
        assert relative_gap(bounds.upper["abs"], bounds.trace) < TOLERANCE


class TwoBranches(nn.Module):
    """f(x) = max(a·b·x, c·d·x), by max pooling."""

    def __init__(self, a, b, c, d):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([[a], [c]], dtype=torch.float64))
        self.second = nn.Parameter(torch.tensor([b, d], dtype=torch.float64))

    def forward(self, x):
        return F.max_pool1d((F.linear(x, self.first) * self.second)[:, None], 2)[:, 0]


def test_max_pool_by_hand():
    """f = max(1·10·x, −4·3·x), x = 1. Gradient (10, 1); B = (100, 1, 9, 16), A = 1 on the first branch.

    px = 1·126 and edge = 100 + 1. With the maximum in both nets the weights' sums would be those of one
    branch, of the larger squares: 9 + 16 = 25 < 101.
    """
    x = torch.ones(1, 1, dtype=torch.float64)
    bounds = path_bounds(TwoBranches(1.0, 10.0, -4.0, 3.0), x)
    assert bounds.trace == 101
    assert bounds.upper["px"] == 126
    assert bounds.upper["edge"] == bounds.upper["half"] == bounds.upper["abs"] == 101
    assert bounds.t_sq == 101


def test_maximum_sums_its_window_in_the_squared_net():
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2),
                          nn.Flatten()).double()  # fmt: skip
    net, x = functional(model), draw(1, 2)
    squares = net.params["0.weight"].square().sum(1)
    found = squared_net(net.model_fn, net.params, None, x).z
    torch.testing.assert_close(found, squares.view(1, 2, 2).sum(2))
    gates = record(net.model_fn, net.params, x).gates
    assert ones_net(net.model_fn, net.params, None, x, gates).z.tolist() == [
        [pytest.approx(float(x.square().sum()))] * 2
    ]


def test_leaky_relu_by_hand():
    """f = 3·φ(2x), slope ½, x = −1: gradient (−3/2, −1); A = (¼, ¼), B = (9, 4); z1 = ¼."""
    model = nn.Sequential(
        nn.Linear(1, 1, False), nn.LeakyReLU(0.5), nn.Linear(1, 1, False)
    ).double()
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[2].weight, 3.0)
    bounds = path_bounds(model, -torch.ones(1, 1, dtype=torch.float64))
    assert bounds.trace == bounds.upper["edge"] == bounds.upper["px"] == (9 + 4) / 4


# Kinks.


def test_kinks_are_counted():
    """Pre-activations (0, 1, −1, 0): two kinks; a tie in one of two windows: one."""
    model = nn.Sequential(nn.Linear(2, 4, False), nn.ReLU(), nn.Linear(4, 1, False)).double()
    with torch.no_grad():
        rows = [[1.0, -1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]
        model[0].weight.copy_(torch.tensor(rows))
    x = torch.ones(1, 2, dtype=torch.float64)
    assert path_bounds(model, x).kinks == 2
    assert path_bounds(model, x + torch.tensor([[0.5, 0.0]])).kinks == 1
    pool = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 1))
    images = torch.tensor([[1.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    assert path_bounds(pool.double(), images).kinks == 1


TIES = {
    "max_pool1d": lambda h: F.max_pool1d(h[:, None], 3)[:, 0],
    "adaptive_max_pool1d": lambda h: F.adaptive_max_pool1d(h[:, None], 2)[:, 0],
    "max": lambda h: h.max(1, keepdim=True).values,
    "amax": lambda h: h.amax(1, keepdim=True),
    "relu": lambda h: F.relu(h - 1),
    "leaky_relu": lambda h: F.leaky_relu(h - 1, 0.3),
}


@pytest.mark.parametrize("name", TIES)
def test_at_a_kink_the_gates_are_pytorchs_derivative(name):
    """Three equal entries: whatever share PyTorch gives each, the gates hold the same."""
    features = TIES[name](torch.ones(1, 3)).shape[1]
    model = Wrapped(nn.Linear(2, 3), lambda h, x: TIES[name](h), features)
    with torch.no_grad():
        model.inner.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
        model.inner.bias.zero_()
    x = torch.ones(1, 2, dtype=torch.float64)
    net, run = recorded(model, x)
    assert check_replay(net.model_fn, net.params, x, run) > 0
    fixed = replay(net.model_fn)
    own = torch.func.jacrev(lambda p: net.model_fn(p, x))(net.params)
    held = torch.func.jacrev(lambda p: fixed(p, (x, run.gates)))(net.params)
    for key in own:
        torch.testing.assert_close(held[key], own[key], rtol=1e-14, atol=0)
    assert_ladder(path_bounds(model, x))


# Windows.

POOLS = [
    ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("max_pool2d", {"kernel_size": 2, "stride": 2, "ceil_mode": True}),
    ("max_pool2d", {"kernel_size": (2, 3), "stride": (1, 2), "dilation": (2, 1)}),
    ("max_pool2d", {"kernel_size": 2, "padding": 1, "ceil_mode": True}),
    ("adaptive_max_pool2d", {"output_size": (3, 2)}),
    ("adaptive_max_pool2d", {"output_size": (None, 1)}),
    ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg_pool2d", {"kernel_size": 2, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", {"kernel_size": 2, "divisor_override": 7}),
    ("adaptive_avg_pool2d", {"output_size": 3}),
]


@pytest.mark.parametrize(("short", "options"), POOLS)
def test_windows_are_those_of_the_pool(short, options):
    """A window holds x_i iff its result moves with x_i alone being positive."""
    function = getattr(F, short)
    corner = torch.zeros(1, 1, 5, 6, dtype=torch.float64)
    axes = pool_axes(short, bind_pool(short, (corner,), options))
    for i in range(corner.numel()):
        one = corner.clone()
        one.view(-1)[i] = 1
        expected = function(one, **options)
        assert torch.equal(sum_windows(one, axes) > 0, expected > 0)


@pytest.mark.parametrize(("short", "options"), [p for p in POOLS if "avg" in p[0]])
def test_average_weights(short, options):
    x = draw(2, 3, 5, 6).abs()
    given = bind_pool(short, (x,), options)
    axes = pool_axes(short, given)
    found = sum_windows(x, axes) * average_weights(given, axes, x)
    torch.testing.assert_close(found, getattr(F, short)(x, **options), rtol=1e-13, atol=0)


def test_trace_of_a_pooled_net_is_the_sum_of_its_layers():
    model, x = gated("max_pool2d, overlap, padding")
    layers = ntk_trace(model, x, per="layer")
    assert path_bounds(model, x).trace == pytest.approx(float(sum(layers.values())), rel=1e-12)
