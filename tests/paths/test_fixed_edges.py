"""Fixed edges: batch norm, factors and constants; agreement with the sums over paths."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import UnsupportedModule, apply_masks, functional, path_bounds
from ntktheory.paths.gates import record, replay
from ntktheory.paths.reference import decompose
from proofs_check.cases import random_masks
from proofs_check.compare import relative_gap
from tests.paths.test_gates import CONV, MLP, Wrapped, assert_ladder, draw, recorded

TOLERANCE = 1e-12


def seeded(model, seed=0):
    """Fill parameters and statistics with seeded numbers."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape, generator=generator, dtype=b.dtype))
            if name.endswith("running_var"):
                b.copy_(torch.rand(b.shape, generator=generator, dtype=b.dtype) + 0.5)
    return model


class Block(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 2, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 2, bias=False)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))) + self.shortcut(x))


# Whatever the enumeration knows.

ENUMERABLE = {
    "max pooling": (
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                      nn.Linear(8, 2)), (3, 1, 4, 4)),
    "max pooling with overlap and padding": (
        nn.Sequential(nn.Conv2d(1, 2, 2), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.Flatten(),
                      nn.Linear(8, 2)), (3, 1, 4, 4)),
    "leaky ReLU": (
        nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.3), nn.Linear(4, 3), nn.LeakyReLU(-0.5),
                      nn.Linear(3, 2)), (3, 3)),
    "batch norm": (
        nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.BatchNorm2d(2), nn.ReLU(),
                      nn.AvgPool2d(3), nn.Flatten(), nn.Linear(2, 2)), (3, 1, 4, 4)),
    "batch norm without γ and β": (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 2)),
        (3, 3)),
    "residual block": (
        nn.Sequential(Block(1, 2), nn.Flatten(), nn.Linear(8, 2)), (2, 1, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ENUMERABLE)
def test_bounds_equal_their_sums_over_paths(name, masked):
    model, shape = ENUMERABLE[name]
    for seed in range(3):
        model, x = seeded(model, seed), draw(*shape, seed=100 + seed)
        masks = random_masks(model, 0.7, seed) if masked else None
        exact = decompose(model, x, masks=masks).bounds()
        bounds = path_bounds(model, x, masks=masks)
        found = dict(bounds.upper) | {"trace": bounds.trace, "t_sq": bounds.t_sq}
        for key, value in exact.items():
            assert relative_gap(found[key], value) < TOLERANCE, key


# Batch norm by hand.


def test_batch_norm_by_hand():
    """f = γ(wx − μ)/σ + β with w = 3, x = 2, μ = −1, σ = ½, γ = 5, β = 7.

    Gradient: w 5·2·2 = 20, γ 14, β 1. Paths γ w x/σ, −γ μ/σ, β: |c| = 2, 2, 1.
    A: w 2·4, γ 2·4 + 2, β 1. B: w 2·25, γ 2·9 + 2, β 1. z1 = 8 + 2 + 1.
    """
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, eps=0.0)).double().eval()
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].weight.fill_(5.0)
        model[1].bias.fill_(7.0)
        model[1].running_mean.fill_(-1.0)
        model[1].running_var.fill_(0.25)
    bounds = path_bounds(model, torch.full((1, 1), 2.0, dtype=torch.float64))
    assert bounds.trace == 400 + 196 + 1
    assert bounds.upper["edge"] == pytest.approx(8 * 50 + 10 * 20 + 1, rel=1e-14)
    assert bounds.upper["px"] == pytest.approx(11 * (50 + 20 + 1), rel=1e-14)
    # half: w h²/1 = 4 paths 2; γ: h = 14, Bpre = 2·9 + 2.
    assert bounds.upper["half"] == pytest.approx(400 + 196 / 20 * 20 + 1, rel=1e-14)
    assert bounds.upper["abs"] == pytest.approx(400 + 196 + 1, rel=1e-14)
    # t_sq: c² = 4, 4, 1: w 4·4·25, γ 4·9·4 + 4, β 1.
    assert bounds.t_sq == pytest.approx(400 + 148 + 1, rel=1e-14)


def test_batch_norm_is_the_layer_that_it_folds_into():
    """f of a network with its batch norm folded into the convolution has the same paths to W alone."""
    model = seeded(nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    x = draw(5, 3)
    masks = {"1.weight": torch.zeros(4, dtype=torch.bool)}
    assert path_bounds(model, x, masks=masks).upper["edge"] > 0  # β is left
    nothing = masks | {"1.bias": torch.zeros(4, dtype=torch.bool)}
    bounds = path_bounds(model, x, masks=nothing)
    assert (
        bounds.trace == bounds.upper["edge"] == bounds.upper["half"] > 0
    )  # the head's bias, and γ, β
    assert bounds.trace == path_bounds(model, 2 * x, masks=nothing).trace


class BatchStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return F.batch_norm(self.inner(x), torch.zeros(3), torch.ones(3), training=True)


def test_statistics_of_the_batch_are_refused():
    model = functional(BatchStatistics())
    with pytest.raises(UnsupportedModule, match="batch_norm with the statistics of the batch"):
        record(model.model_fn, model.params, torch.ones(2, 3))


# Factors and constants.

TABLE = torch.tensor([0.5, -2.0, 0.0, 1.5], dtype=torch.float64)
CONSTANTS = {
    "number times": (MLP, lambda h, x: 2 * F.relu(h)),
    "times number": (MLP, lambda h, x: F.relu(h) * -0.5 + x),
    "times number in place": (MLP, lambda h, x: F.relu(h.mul_(-0.3)).add(x)),
    "over number": (MLP, lambda h, x: F.relu(h) / 3),
    "over tensor": (MLP, lambda h, x: torch.div(F.relu(h), TABLE + 3)),
    "minus": (MLP, lambda h, x: F.relu(-h) - x),
    "sub, alpha": (MLP, lambda h, x: torch.sub(F.relu(h), x, alpha=0.5)),
    "number minus": (MLP, lambda h, x: 1.5 - F.relu(h)),
    "plus number": (MLP, lambda h, x: F.relu(h + 0.7)),
    "plus number in place": (MLP, lambda h, x: F.relu(h.add_(-0.7))),
    "plus tensor": (MLP, lambda h, x: F.relu(h + TABLE)),
    "tensor plus": (MLP, lambda h, x: TABLE + F.relu(h)),
    "times tensor": (MLP, lambda h, x: F.relu(h) * TABLE),
    "times zero": (MLP, lambda h, x: F.relu(h) * 0.0 + x),
    "linear of a constant weight": (MLP, lambda h, x: F.linear(F.relu(h), torch.outer(TABLE, TABLE))),
    "linear of a constant bias": (
        MLP, lambda h, x: F.linear(F.relu(h), torch.outer(TABLE, TABLE), TABLE)),
    "matmul of a constant": (MLP, lambda h, x: F.relu(h) @ torch.outer(TABLE, TABLE)),
    "convolution of a constant kernel": (
        CONV, lambda h, x: F.conv2d(F.relu(h), TABLE.view(1, 1, 2, 2).expand(2, 1, 2, 2), groups=2)),
    "cat of a constant": (MLP, lambda h, x: torch.cat([F.relu(h), TABLE.expand(len(h), 4)], 1)),
    "scaled residual": (CONV, lambda h, x: x + 0.1 * F.relu(h)),
    "mean minus": (CONV, lambda h, x: F.relu(h).mean((2, 3)) - 0.25),
}  # fmt: skip


def constant(name):
    (build, x), function = CONSTANTS[name]
    features = function(build().double()(x), x).flatten(1).shape[1]
    return Wrapped(build(), function, features), x


@pytest.mark.parametrize("name", CONSTANTS)
class TestConstants:
    def test_replay_is_exact(self, name):
        model, x = constant(name)
        net, run = recorded(model, x)
        found = replay(net.model_fn)(net.params, (x, run.gates))
        assert torch.equal(found, net.model_fn(net.params, x))

    def test_ladder(self, name):
        model, x = constant(name)
        bounds = path_bounds(model, x)
        assert bounds.t_sq > 0
        assert_ladder(bounds)

    def test_masked_ladder(self, name):
        model, x = constant(name)
        assert_ladder(path_bounds(model, x, masks=random_masks(model, 0.8)))


def test_exponents_of_a_factor_add_to_two():
    """f = w₂ c relu(w₁ x): with c folded into w₂ px and edge change by c² in w₁ only."""
    net = nn.Sequential(
        nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)
    ).double()

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net[2](3 * self.net[1](self.net[0](x)))

    nn.init.constant_(net[0].weight, 2.0)
    nn.init.constant_(net[2].weight, 5.0)
    x = torch.ones(1, 1, dtype=torch.float64)
    bounds = path_bounds(Scaled(), x)
    assert bounds.trace == 9 * (25 + 4)
    assert bounds.upper == {
        key: pytest.approx(9 * 29) for key in bounds.upper
    }  # one path: every rung is the trace
    assert bounds.t_sq == 9 * 29


def test_masks_in_the_network_are_masks():
    model, x = seeded(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))), draw(4, 3)
    masks = random_masks(model, 0.5)
    inside, outside = path_bounds(apply_masks(model, masks), x), path_bounds(model, x, masks=masks)
    assert inside.trace == pytest.approx(outside.trace, rel=1e-12)
    for key in ("px", "px_per_output", "edge", "edge_per_output", "half", "half_per_output", "abs"):
        assert inside.upper[key] == pytest.approx(outside.upper[key], rel=1e-12), key
    assert inside.t_sq == pytest.approx(outside.t_sq, rel=1e-12)


def test_edge_of_thirty_per_cent_density_needs_the_mask_in_the_ones_net():
    """With 1, not m, in the ones net the bound still holds, and is several times larger."""
    model, x = seeded(nn.Sequential(nn.Linear(6, 8, False), nn.ReLU(), nn.Linear(8, 8, False),
                                    nn.ReLU(), nn.Linear(8, 2, False))), draw(3, 6)  # fmt: skip
    masks = random_masks(model, 0.3)
    found = path_bounds(model, x, masks=masks).upper["edge"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(masks[name])
    loose = path_bounds(model, x).upper["edge"]  # zeros kept: m = 1 in the ones net, all j counted
    assert found < loose / 3
    assert relative_gap(found, decompose(model, x, masks=masks).bounds()["edge"]) < TOLERANCE


# Parameters that are no layer's own.


class Scale(nn.Module):
    """head(γ ⊙ relu(W x) + p), with a parameter as a factor and one as a summand."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.gamma, self.shift = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(1, 4))

    def forward(self, x):
        h = self.gamma * torch.relu(self.inner(x))
        h += self.shift
        return self.head(h)


def test_parameter_as_a_factor():
    """γ is a layer whose matrix is diagonal: its bounds are those of the masked layer."""
    model, x = seeded(Scale()), draw(5, 3)
    same = seeded(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2)))
    with torch.no_grad():
        same[0].load_state_dict(model.inner.state_dict())
        same[3].load_state_dict(model.head.state_dict())
        same[2].weight.copy_(torch.diag(model.gamma))
        same[2].bias.copy_(model.shift[0])
    masks = {"2.weight": torch.eye(4, dtype=torch.bool)}
    found, expected = path_bounds(model, x), path_bounds(same, x, masks=masks)
    assert found.trace == pytest.approx(expected.trace, rel=1e-12)
    for key, value in found.upper.items():
        assert value == pytest.approx(expected.upper[key], rel=1e-12), key
    assert found.t_sq == pytest.approx(expected.t_sq, rel=1e-12)
