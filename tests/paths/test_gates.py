"""Whatever way a network calls its functions, its gates are recorded and replay f(x)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import functional, ntk_trace, path_bounds
from ntktheory.models import convnet, mlp
from ntktheory.paths.bounds import LOWER, UPPER
from ntktheory.paths.gates import record, replay
from proofs_check.cases import random_masks

LADDER = [
    ("abs", "edge_per_output"),
    ("edge_per_output", "edge"),
    ("edge", "px"),
    ("edge_per_output", "px_per_output"),
    ("px_per_output", "px"),
    ("half", "edge"),
    ("half_per_output", "half"),
    ("half_per_output", "edge_per_output"),
]


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Wrapped(nn.Module):
    """``head(function(inner(x), x))``; the head sees the flattened result."""

    def __init__(self, inner, function, features, outputs=2):
        super().__init__()
        self.inner, self.function = inner, function
        self.head = nn.Linear(features, outputs)
        for i, p in enumerate(self.parameters()):
            p.data = draw(*p.shape, seed=i)

    def forward(self, x):
        return self.head(self.function(self.inner(x), x).flatten(1))


def recorded(model, x):
    net = functional(model)
    return net, record(net.model_fn, net.params, x)


def assert_ladder(bounds):
    """Check trace ≤ every upper bound, every lower bound ≤ trace, and the order of the bounds."""
    slack = 1 + 1e-12
    assert bounds.trace > 0
    assert all(bounds.trace <= value * slack for value in bounds.upper.values())
    assert all(value <= bounds.trace * slack for value in bounds.lower.values())
    for small, large in LADDER:
        if small in bounds.upper and large in bounds.upper:
            assert bounds.upper[small] <= bounds.upper[large] * slack


# Every way to call a ReLU.

RELUS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda z: F.relu(z, inplace=True),
    "F.relu in place by position": lambda z: F.relu(z, True),
    "F.relu by keyword": lambda z: F.relu(input=z),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.relu_(),
    "in place, result unused": lambda z: (z.relu_(), z)[1],
}


def relu_net(relu):
    return Wrapped(nn.Linear(3, 5), lambda h, x: relu(h), 5)


@pytest.mark.parametrize("name", RELUS)
class TestRelus:
    def test_gates_and_replay(self, name):
        x = draw(4, 3, seed=7)
        net, run = recorded(relu_net(RELUS[name]), x)
        pre = F.linear(x, net.params["inner.weight"], net.params["inner.bias"])
        assert len(run.gates) == 1
        assert torch.equal(run.gates[0], pre > 0)
        assert torch.equal(run.outputs, net.model_fn(net.params, x))
        assert torch.equal(replay(net.model_fn)(net.params, (x, run.gates)), run.outputs)

    def test_the_gates_stay_at_other_parameters(self, name):
        x = draw(4, 3, seed=7)
        net, run = recorded(relu_net(RELUS[name]), x)
        theta = {key: draw(*p.shape, seed=50) for key, p in net.params.items()}
        pre = F.linear(x, theta["inner.weight"], theta["inner.bias"])
        assert not torch.equal(pre > 0, run.gates[0])
        expected = F.linear(pre * run.gates[0], theta["head.weight"], theta["head.bias"])
        found = replay(net.model_fn)(theta, (x, run.gates))
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)

    def test_without_gates_nothing_is_cut(self, name):
        x = draw(4, 3, seed=7)
        net, _ = recorded(relu_net(RELUS[name]), x)
        pre = F.linear(x, net.params["inner.weight"], net.params["inner.bias"])
        expected = F.linear(pre, net.params["head.weight"], net.params["head.bias"])
        assert torch.equal(replay(net.model_fn)(net.params, (x, None)), expected)

    def test_same_bounds(self, name):
        x = draw(4, 3, seed=7)
        found, expected = path_bounds(relu_net(RELUS[name]), x), path_bounds(relu_net(F.relu), x)
        assert found.upper == expected.upper
        assert found.lower == expected.lower


def test_gates_come_in_the_order_of_the_calls():
    def function(h, x):
        first, second = F.relu(h), F.relu(h + x)
        return F.relu(first + second)

    x = draw(4, 3, seed=7)
    net, run = recorded(Wrapped(nn.Linear(3, 3), function, 3), x)
    h = F.linear(x, net.params["inner.weight"], net.params["inner.bias"])
    expected = [h > 0, h + x > 0, (F.relu(h) + F.relu(h + x)) > 0]
    assert all(torch.equal(a, b) for a, b in zip(run.gates, expected, strict=True))
    assert torch.equal(replay(net.model_fn)(net.params, (x, run.gates)), run.outputs)


def test_a_unit_exactly_at_the_kink_is_off():
    """Pre-activations (0, 1, −1, 0): gates (0, 1, 0, 0), and no data reach Tr through the kinks."""
    net = mlp([2, 4, 1], dtype=torch.float64)
    weights = torch.tensor([[1.0, -1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    with torch.no_grad():
        net.layer1.weight.copy_(weights)
        net.layer2.weight.fill_(1.0)
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    _, run = recorded(net, x)
    assert run.gates[0].tolist() == [[False, True, False, False]]
    bounds = path_bounds(net, x)
    assert bounds.trace == 1 + 2
    assert bounds.upper["abs"] == bounds.trace


# What is only moved, summed or averaged.

MLP = (lambda: nn.Linear(4, 4), draw(3, 4, seed=7))
CONV = (lambda: nn.Conv2d(2, 2, 3, padding=1), draw(3, 2, 4, 4, seed=7))


def in_place_residual(h, x):
    h += x
    return F.relu(h)


STRUCTURES = {
    "residual": (MLP, lambda h, x: F.relu(h) + x),
    "residual by torch.add": (MLP, lambda h, x: torch.add(F.relu(h), x)),
    "residual by add_": (MLP, lambda h, x: (F.relu(h) + x).add_(x)),
    "residual by +=": (MLP, in_place_residual),
    "residual by the sum of a list": (MLP, lambda h, x: sum([F.relu(h), x, h])),
    "sum": (CONV, lambda h, x: F.relu(h).sum((2, 3))),
    "mean": (CONV, lambda h, x: F.relu(h).mean((2, 3))),
    "mean by torch.mean": (CONV, lambda h, x: torch.mean(F.relu(h), dim=1)),
    "cat": (MLP, lambda h, x: torch.cat([F.relu(h), x], 1)),
    "stack": (MLP, lambda h, x: torch.stack([F.relu(h), x], 2)),
    "chunk and cat": (MLP, lambda h, x: torch.cat(F.relu(h).chunk(2, 1)[::-1], dim=1)),
    "split": (MLP, lambda h, x: F.relu(h).split([1, 3], dim=1)[1]),
    "unbind": (CONV, lambda h, x: F.relu(h).unbind(1)[1]),
    "narrow": (MLP, lambda h, x: F.relu(h).narrow(1, 1, 2)),
    "indices": (MLP, lambda h, x: F.relu(h)[:, [2, 0, 0]]),
    "slices": (CONV, lambda h, x: F.relu(h)[..., ::2, 1:]),
    "transpose": (CONV, lambda h, x: F.relu(h).transpose(2, 3) + x),
    "mT": (CONV, lambda h, x: F.relu(h.mT)),
    "permute": (CONV, lambda h, x: F.relu(h).permute(0, 2, 3, 1)),
    "movedim": (CONV, lambda h, x: F.relu(h).movedim(1, 3)),
    "view": (MLP, lambda h, x: F.relu(h.view(-1, 2, 2)).reshape(-1, 4)),
    "unflatten": (MLP, lambda h, x: F.relu(h.unflatten(1, (2, 2))).contiguous()),
    "squeeze": (MLP, lambda h, x: F.relu(h.unsqueeze(2)).squeeze(2).clone()),
    "expand": (MLP, lambda h, x: F.relu(h)[:, :, None].expand(-1, -1, 3)),
    "pad": (CONV, lambda h, x: F.relu(F.pad(h, (1, 0, 2, 1)))),
    "pad, reflected": (CONV, lambda h, x: F.pad(F.relu(h), (1, 1, 0, 2), mode="reflect")),
    "avg_pool1d": (MLP, lambda h, x: F.avg_pool1d(F.relu(h)[:, None], 2)),
    "avg_pool2d": (CONV, lambda h, x: F.avg_pool2d(F.relu(h), 3, stride=1, padding=1)),
    "nn.AvgPool2d": (CONV, lambda h, x: nn.AvgPool2d(2)(F.relu(h))),
    "adaptive_avg_pool2d": (CONV, lambda h, x: F.adaptive_avg_pool2d(F.relu(h), (3, 1))),
    "nn.AdaptiveAvgPool2d": (CONV, lambda h, x: nn.AdaptiveAvgPool2d(1)(F.relu(h))),
    "F.dropout in eval mode": (MLP, lambda h, x: F.dropout(F.relu(h), 0.5, training=False)),
    "nn.Dropout in eval mode": (MLP, lambda h, x: nn.Dropout(0.5).eval()(F.relu(h))),
    "nn.Identity": (MLP, lambda h, x: nn.Identity()(F.relu(h))),
}


def structured(name):
    (build, x), function = STRUCTURES[name]
    features = function(build().double()(x), x).flatten(1).shape[1]
    return Wrapped(build(), function, features), x


@pytest.mark.parametrize("name", STRUCTURES)
class TestStructures:
    def test_replay_is_exact(self, name):
        model, x = structured(name)
        net, run = recorded(model, x)
        assert any(gate.any() and not gate.all() for gate in run.gates)
        assert torch.equal(run.outputs, net.model_fn(net.params, x))
        assert torch.equal(replay(net.model_fn)(net.params, (x, run.gates)), run.outputs)

    def test_ladder(self, name):
        model, x = structured(name)
        bounds = path_bounds(model, x)
        assert set(bounds.upper) | {"op"} == set(UPPER)
        assert bounds.t_sq > 0
        assert_ladder(bounds)


# What a recording says of layers.


def test_uses_count_weights_and_biases():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 2, bias=False)

        def forward(self, x):
            return self.head(self.inner(F.relu(self.inner(x))))

    _, run = recorded(Twice(), torch.ones(1, 3))
    assert run.uses == {"inner.weight": 2, "inner.bias": 2, "head.weight": 1}


def test_the_head_and_its_input():
    net, run = recorded(mlp([3, 4, 2], bias=True, dtype=torch.float64), draw(5, 3))
    name, hidden = run.head
    assert name == "layer2.weight"
    expected = hidden @ net.params[name].T + net.params["layer2.bias"]
    torch.testing.assert_close(run.outputs, expected, rtol=1e-14, atol=1e-14)


HEADLESS = {
    "convolution last": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()),
    "ReLU last": nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.ReLU()),
    "average last": nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Unflatten(1, (1, 4)),
                                  nn.AvgPool1d(2), nn.Flatten()),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADLESS)
def test_no_head(name):
    model, x = HEADLESS[name].double(), draw(2, 1, 3, 3)
    assert recorded(model, x)[1].head is None
    bounds = path_bounds(model, x)
    assert "last_layer" not in bounds.lower
    assert bounds.trace <= bounds.upper["edge"] * (1 + 1e-12)


# Networks with shortcuts.


class Shortcut(nn.Module):
    """f(x) = w3 (w2 relu(w1 x) + x)."""

    def __init__(self, *weights):
        super().__init__()
        self.l1, self.l2, self.l3 = (nn.Linear(1, 1, bias=False).double() for _ in range(3))
        for layer, weight in zip((self.l1, self.l2, self.l3), weights, strict=True):
            nn.init.constant_(layer.weight, weight)

    def forward(self, x):
        return self.l3(self.l2(F.relu(self.l1(x))) + x)


def test_residual_net_by_hand():
    """Paths w1 w2 w3 and w3, both from x = 2. h = w2 relu(w1 x) + x = 5.

    Gradient (w2 w3 x, w3, h) = (−6, −1, 5); A = (4, 4, 4 + 4); B = ((w2 w3)², (w1 w3)²,
    (w1 w2)² + 1) = (9, 1/4, 13/4); z1 = 4 + 4.
    """
    x = torch.tensor([[2.0]], dtype=torch.float64)
    bounds = path_bounds(Shortcut(0.5, 3.0, -1.0), x)
    edge = 4 * 9 + 4 * 0.25 + 8 * 3.25
    px = 8 * (9 + 0.25 + 3.25)
    assert bounds.trace == 36 + 1 + 25
    assert bounds.upper == {
        "px": px, "px_per_output": px, "edge": edge, "edge_per_output": edge,
        "half": pytest.approx(62), "half_per_output": pytest.approx(62), "abs": 62.0,
    }  # fmt: skip
    assert bounds.lower == {"last_layer": 25.0, "euler": 25.0}
    assert bounds.t_sq == 4 * 9 + 4 * 0.25 + 4 * 2.25 + 4 * 1


def test_residual_net_with_its_gate_closed():
    """For x = −2 only the path w3 is left: gradient (0, 0, −2); B is ungated."""
    x = torch.tensor([[-2.0]], dtype=torch.float64)
    bounds = path_bounds(Shortcut(0.5, 3.0, -1.0), x)
    assert bounds.trace == 4
    assert bounds.upper["abs"] == 4
    assert bounds.upper["edge"] == 4 * 3.25
    assert bounds.upper["px"] == 4 * (9 + 0.25 + 3.25)
    assert bounds.t_sq == 4


class Residual(nn.Module):
    """Convolutions with an identity shortcut, a strided 1×1 shortcut, and an averaging head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.block1 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.block2 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.shortcut = nn.Conv2d(3, 4, 1, stride=2, bias=False)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        h = self.relu(self.stem(x))
        h = self.relu(self.block1(h) + h)
        h = self.relu(self.block2(h) + self.shortcut(h))
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


def test_ladder_of_a_residual_convnet():
    model, x = Residual().double(), draw(3, 1, 6, 6)
    net, run = recorded(model, x)
    assert [list(gate.shape) for gate in run.gates] == [[3, 3, 6, 6], [3, 3, 6, 6], [3, 4, 3, 3]]
    assert torch.equal(replay(net.model_fn)(net.params, (x, run.gates)), run.outputs)
    bounds = path_bounds(model, x)
    assert set(bounds.upper) | {"op"} == set(UPPER)
    assert_ladder(bounds)


@pytest.mark.parametrize("name", LOWER)
def test_lower_bounds_of_a_convnet_are_positive(name):
    net = convnet([1, 2, 3], 2, image_size=5, stride=[1, 2], dtype=torch.float64)
    bounds = path_bounds(net, draw(3, 1, 5, 5), names=[name])
    assert bounds.upper == {}
    assert 0 < bounds.lower[name] < bounds.trace


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_last_layer_is_the_heads_own_block(density):
    net, x = mlp([3, 5, 4], bias=True, dtype=torch.float64), draw(6, 3)
    masks = random_masks(net, density)
    own = ntk_trace(net, x, per="layer", masks=masks, select=["layer2.weight"])["layer2.weight"]
    assert path_bounds(net, x, masks=masks).lower["last_layer"] == pytest.approx(
        own.item(), rel=1e-12
    )
