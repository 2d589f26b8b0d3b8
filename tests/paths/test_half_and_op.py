"""R_half and R_op by their own definitions, written out in loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import UnsupportedModule, path_bounds
from ntktheory.models import convnet, mlp
from ntktheory.paths.operator_norms import (
    frobenius_of_convolution,
    norm_of_convolution,
    spectral_of_convolution,
)
from ntktheory.paths.rules import Call, bind_layer
from proofs_check.cases import random_masks
from tests.paths.test_fixed_edges import seeded
from tests.paths.test_gates import draw


def half_of_mlp(model, x):
    """Σ_l Σ_{i,o} h_i(x)² · #active suffix paths of o · Σ suffix products of w², as in a table."""
    layers = [m for m in model if isinstance(m, nn.Linear)]
    total = 0.0
    for sample in x:
        h, inputs, gates = sample, [], []
        for layer in layers:
            inputs.append(h)
            z = layer.weight @ h
            gates.append((z > 0).double())
            h = torch.relu(z)
        for place, layer in enumerate(layers):
            active = torch.eye(len(layers[-1].weight), dtype=torch.float64)
            squares = active.clone()
            for later in range(len(layers) - 1, place, -1):
                ones = torch.ones_like(layers[later].weight)
                active = (active @ ones) * gates[later - 1]
                squares = squares @ layers[later].weight.square()
            suffix = active.sum(0) * squares.sum(0)
            total += float(inputs[place].square().sum() * suffix.sum())
            assert layer.weight.shape[0] == len(suffix)
    return total


@pytest.mark.parametrize("widths", [[2, 3], [3, 4, 2], [3, 4, 3, 2], [2, 3, 3, 2, 3]])
def test_half_of_an_mlp(widths):
    model, x = mlp(widths, dtype=torch.float64), draw(5, widths[0])
    with torch.no_grad():
        expected = half_of_mlp(model, x)
    assert path_bounds(model, x).upper["half"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_per_output_half_is_the_trace_of_one_hidden_layer(outputs, masked):
    model, x = seeded(mlp([4, 6, outputs], bias=True, dtype=torch.float64)), draw(7, 4)
    masks = random_masks(model, 0.6) if masked else None
    bounds = path_bounds(model, x, masks=masks)
    assert bounds.upper["half_per_output"] == pytest.approx(bounds.trace, rel=1e-12)
    if outputs == 1:
        assert bounds.upper["half"] == pytest.approx(bounds.trace, rel=1e-12)


def test_half_where_samples_are_folded_into_positions():
    """A network that merges the sample axis has one sample's activations line up with nothing."""

    class Folded(nn.Module):
        def __init__(self, fold):
            super().__init__()
            self.inner, self.head, self.fold = nn.Linear(3, 4), nn.Linear(4, 2), fold

        def forward(self, x):
            h = self.inner(x.flatten(0, 1) if self.fold else x)
            h = self.head(torch.relu(h))
            return (h.unflatten(0, x.shape[:2]) if self.fold else h).mean(1)

    x = draw(4, 5, 3)
    found, expected = (path_bounds(seeded(Folded(fold)), x) for fold in (True, False))
    for key in ("half", "half_per_output", "edge"):
        assert found.upper[key] == pytest.approx(expected.upper[key], rel=1e-12)


# R_op.


def op_of_mlp(weights, x, masks=None):
    """Σ_l Σ_x max_o Σ_{i kept by o} h_i² · κ_l."""
    masks = masks or [torch.ones_like(w) for w in weights]
    effective = [w * m for w, m in zip(weights, masks, strict=True)]
    total, h = 0.0, x
    for place, w in enumerate(effective):
        later = effective[place + 1 :]
        options = [
            v.square().sum() * torch.stack(
                [torch.linalg.matrix_norm(u, 2) ** 2 for k, u in enumerate(later) if k != m]
                + [torch.ones((), dtype=torch.float64)]
            ).prod()
            for m, v in enumerate(later)
        ]  # fmt: skip
        kappa = min(options) if options else len(effective[-1])
        kept = (h.square() @ masks[place].double().T).amax(1).sum()
        total += float(kept * kappa)
        h = torch.relu(h @ w.T)
    return total


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("widths", [[2, 3], [3, 4, 2], [4, 5, 3, 2], [2, 3, 4, 3, 2]])
def test_op_of_an_mlp(widths, masked):
    model, x = mlp(widths, dtype=torch.float64), draw(5, widths[0])
    masks = random_masks(model, 0.6) if masked else None
    weights = [p.detach() for p in model.parameters()]
    expected = op_of_mlp(weights, x, list(masks.values()) if masks else None)
    bounds = path_bounds(model, x, masks=masks)
    assert bounds.upper["op"] == pytest.approx(expected, rel=1e-12)
    assert bounds.trace <= bounds.upper["op"] * (1 + 1e-12)


def test_the_input_of_a_convolution_must_be_unfolded():
    """6×6 ones, a 3×3 kernel of ones with padding 1, and the sum of the outputs as a Linear.

    A tap sees 36, 30 or 25 ones: the kernel's block is 36² + 4·30² + 4·25² = 7396. With ‖h‖² = 36 and
    ‖head‖² = 36 it would be bounded by 1296; ‖unfold(h)‖² = 36 + 4·30 + 4·25 = 256. The head's inputs
    are 16 nines, 16 sixes and 4 fours: 1936.
    """
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Flatten(),
                          nn.Linear(36, 1, bias=False)).double()  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    bounds = path_bounds(model, torch.ones(1, 1, 6, 6, dtype=torch.float64))
    assert bounds.trace == 7396 + 1936
    assert bounds.upper["op"] == pytest.approx(256 * 36 + 1936, rel=1e-12)
    assert bounds.upper["op"] > bounds.trace > 36 * 36 + 1936


def matrix_of(layer, size, channels=1):
    """Return a convolution on a size × size map as a matrix, column by column."""
    count = channels * size * size
    basis = torch.eye(count, dtype=torch.float64).view(count, channels, size, size)
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(basis, layer.weight.detach(), None, *options).flatten(1).T


LAYERS = {
    "plain": nn.Conv2d(2, 3, 3),
    "padding": nn.Conv2d(2, 3, 3, padding=1),
    "much padding": nn.Conv2d(1, 2, 2, padding=3),
    "stride": nn.Conv2d(2, 3, 3, stride=2, padding=1),
    "stride beyond the kernel": nn.Conv2d(3, 2, 2, stride=3),
    "uneven": nn.Conv2d(2, 3, (1, 3), stride=(2, 1), padding=(0, 1)),
    "dilation": nn.Conv2d(2, 2, 2, dilation=3, padding=1),
    "groups": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "wide kernel": nn.Conv2d(1, 1, 7, padding=3),
}


@pytest.mark.parametrize("size", [5, 7])
@pytest.mark.parametrize("name", LAYERS)
def test_norms_of_convolutions(name, size):
    layer = seeded(LAYERS[name])
    x = torch.zeros(1, layer.in_channels, size, size, dtype=torch.float64)
    dense = matrix_of(layer, size, layer.in_channels)
    options = (None, layer.stride, layer.padding, layer.dilation, layer.groups)
    bound = bind_layer(Call(F.conv2d, (x, layer.weight.detach(), *options), {}))
    weight, sizes = layer.weight.detach(), (size, size)
    exact = frobenius_of_convolution(bound, weight, sizes)
    assert float(exact) == pytest.approx(float(dense.square().sum()), rel=1e-12)
    true = float(torch.linalg.matrix_norm(dense, 2) ** 2)
    upper = float(spectral_of_convolution(bound, weight, sizes))
    assert true * (1 - 1e-12) <= upper <= 4 * true
    assert float(norm_of_convolution(bound, weight, sizes)) == pytest.approx(true, rel=1e-12)
    vector = draw(dense.shape[1])
    for _ in range(30):  # power iteration never passes the norm
        vector = dense.T @ (dense @ vector)
        vector /= vector.norm()
    assert float((dense @ vector).square().sum()) <= upper * (1 + 1e-12)


def test_norm_of_a_circular_convolution_is_exact():
    """On a torus of the map's own size, a 1×1 convolution: the norm is that of its matrix."""
    layer = seeded(nn.Conv2d(3, 4, 1, bias=False))
    x = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    bound = bind_layer(Call(F.conv2d, (x, layer.weight.detach()), {}))
    expected = torch.linalg.matrix_norm(layer.weight.detach()[:, :, 0, 0], 2) ** 2
    found = spectral_of_convolution(bound, layer.weight.detach(), (5, 5))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


CHAINS = {
    "CNN": lambda: convnet([1, 2, 3], 2, image_size=6, stride=[1, 2], bias=True),
    "average pooling": lambda: convnet([1, 2, 3], 2, image_size=6, head="average"),
    "leaky ReLU and max pooling": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(-1.5), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2),
        nn.ReLU(inplace=True), nn.Dropout().eval(), nn.Flatten(), nn.Linear(8, 2)),
    "groups, dilation": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 2, dilation=2), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2), nn.ReLU(),
        nn.AvgPool2d(2, 1, count_include_pad=False), nn.Flatten(), nn.Linear(16, 2)),
    "convolution last": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 2)),
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_op_bounds_the_trace_of_a_chain(name, masked):
    for seed in range(4):
        model, x = seeded(CHAINS[name](), seed), draw(3, 1, 6, 6, seed=seed)
        masks = random_masks(model, 0.6, seed) if masked else None
        bounds = path_bounds(model, x, masks=masks, names=["op"])
        assert bounds.trace <= bounds.upper["op"] * (1 + 1e-12)
        if name == "one layer" and not masked:
            assert bounds.upper["op"] == pytest.approx(bounds.trace, rel=1e-12)


def test_kept_inputs_of_a_convolution():
    """One convolution, nothing after it but a Linear: the block is Σ kept unfolded inputs · ‖head‖²."""
    model = seeded(
        nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.Flatten(), nn.Linear(8, 1, False))
    )
    x, masks = draw(2, 1, 3, 3), random_masks(model, 0.5, 3)
    columns = F.unfold(x, 2).square().sum(2)  # [N, taps]
    kept = masks["0.weight"].flatten(1).double()
    first = (columns @ kept.T).amax(1).sum()
    head = (model[2].weight * masks["2.weight"]).square().sum()
    hidden = F.conv2d(x, model[0].weight * masks["0.weight"]).flatten(1)
    second = (hidden.square() @ masks["2.weight"].double().T).sum()
    expected = float(first * head + second)
    assert path_bounds(model, x, masks=masks).upper["op"] == pytest.approx(expected, rel=1e-12)


NO_CHAINS = {
    "shortcut": (lambda h, x: h + x, "the network is no chain of layers"),
    "overlapping max pooling": (
        lambda h, x: F.max_pool2d(h, 2, 1), "max_pool2d is no operator with a known norm"),
    "sum": (lambda h, x: h.sum(2), "sum is no operator with a known norm"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_CHAINS)
def test_op_is_undefined_elsewhere(name):
    function, why = NO_CHAINS[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return function(self.inner(x), x).flatten(1)

    x = draw(2, 1, 4, 4)
    assert "op" not in path_bounds(Net(), x).upper
    with pytest.raises(UnsupportedModule, match=f"got 'op': {why}"):
        path_bounds(Net(), x, names="op")
