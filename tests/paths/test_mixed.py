"""Smooth activations: mixed gates against the definition, and secant gates that fail."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import UnsupportedModule, path_bounds
from ntktheory.paths import mixed_gate_bounds, secant_gate_sum
from proofs_check.cases import random_masks
from tests.paths.test_fixed_edges import seeded
from tests.paths.test_gates import draw

ACTIVATIONS = {
    "GELU": nn.GELU(),
    "GELU, tanh": nn.GELU("tanh"),
    "SiLU": nn.SiLU(),
    "SiLU in place": nn.SiLU(inplace=True),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(2.0),
    "ELU": nn.ELU(0.7),
    "SELU": nn.SELU(),
    "CELU": nn.CELU(2.0, inplace=True),
    "Mish": nn.Mish(),
    "softsign": nn.Softsign(),
    "hardswish": nn.Hardswish(),
    "F.elu in place by position": lambda z: F.elu(z, 0.5, True),
    "Tensor.tanh": lambda z: z.tanh(),
    "torch.sigmoid_": lambda z: torch.sigmoid_(z),
}
SLACK = 1 + 1e-10


class Net(nn.Module):
    """Layers with one activation between them."""

    def __init__(self, activation, widths, bias=True):
        super().__init__()
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList([nn.Linear(i, o, bias) for i, o in pairs])
        self.activation = activation

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def scalar(activation, z):
    """Return φ(0), the secant gate and the derivative of φ at a number."""
    z = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    phi = activation(z * 1)
    (slope,) = torch.autograd.grad(phi, z)
    zero = float(activation(torch.zeros((), dtype=torch.float64)))
    secant = (float(phi) - zero) / float(z) if float(z) else float(slope)
    return zero, secant, float(slope)


def two_layers_by_definition(model, activation, x):
    """Σ_j A_j B_j of one hidden layer, path by path, in Python numbers."""
    w1, b1 = model.layers[0].weight.tolist(), model.layers[0].bias.tolist()
    w2 = model.layers[1].weight.tolist()
    total = 0.0
    for sample in x.tolist():
        # Of the paths through the second layer: its own inputs, gated by secants, and the biases.
        for r, row in enumerate(w1):
            z = sum(w * v for w, v in zip(row, sample, strict=True)) + b1[r]
            zero, secant, slope = scalar(activation, z)
            squares = sum(w**2 for w in row) + b1[r] ** 2
            outputs = len(w2)
            # w1[r][i] and b1[r]: prefix is the input, the gate after the edge is φ'.
            after = sum(w2[c][r] ** 2 for c in range(outputs))
            ones = sum(v**2 for v in sample) + 1
            total += slope**2 * ones * outputs * after
            # w2[c][r]: prefix is every path into unit r, gated by the secant, and φ(0).
            data = secant**2 * ones + abs(zero)
            total += outputs * data * (squares + abs(zero))
        total += len(w2)  # the second layer's biases
    return total


@pytest.mark.parametrize("name", ACTIVATIONS)
class TestMixedGates:
    def test_edge_by_definition(self, name):
        model, x = seeded(Net(ACTIVATIONS[name], [2, 3, 2])), draw(4, 2)
        found = mixed_gate_bounds(model, x, names="edge").upper["edge"]
        expected = two_layers_by_definition(model, ACTIVATIONS[name], x)
        assert found == pytest.approx(expected, rel=1e-11)

    @pytest.mark.parametrize("masked", [False, True])
    def test_ladder(self, name, masked):
        for seed in range(3):
            model, x = seeded(Net(ACTIVATIONS[name], [3, 4, 3, 2]), seed), draw(4, 3, seed=seed)
            masks = random_masks(model, 0.8, seed) if masked else None
            bounds = mixed_gate_bounds(model, x, masks=masks)
            assert bounds.lower == {}
            for low, high in [
                ("half_per_output", "half"), ("half", "edge"), ("edge_per_output", "edge"),
                ("half_per_output", "edge_per_output"),
            ]:  # fmt: skip
                assert bounds.trace <= bounds.upper[low] * SLACK
                assert bounds.upper[low] <= bounds.upper[high] * SLACK

    def test_per_output_half_is_the_trace_of_one_hidden_layer(self, name):
        model, x = seeded(Net(ACTIVATIONS[name], [3, 5, 2])), draw(4, 3)
        bounds = mixed_gate_bounds(model, x, names=["half_per_output"])
        assert bounds.upper["half_per_output"] == pytest.approx(bounds.trace, rel=1e-10)

    def test_refused_in_the_plain_ladder(self, name):
        model = seeded(Net(ACTIVATIONS[name], [2, 3, 2]))
        with pytest.raises(UnsupportedModule, match="mixed_gate_bounds covers it"):
            path_bounds(model, draw(2, 2))


def test_relu_has_one_kind_of_gate():
    model, x = seeded(Net(nn.ReLU(), [3, 4, 3, 2])), draw(4, 3)
    mixed, plain = mixed_gate_bounds(model, x), path_bounds(model, x)
    for name, value in mixed.upper.items():
        assert value == plain.upper[name]
    assert secant_gate_sum(model, x) == plain.upper["edge"]


def test_secant_gates_alone_are_no_bound():
    """f = w₂ gelu(w₁x) at w = (1, 1), x = −3: φ' = −0.0119, φ/z = 0.00135.

    Tr = (φ'·3)² + φ²; with the secant after w₁ it would be (φ/z)²·9 + φ².
    """
    model = Net(nn.GELU(), [1, 1, 1], bias=False).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    x = torch.full((1, 1), -3.0, dtype=torch.float64)
    bounds = mixed_gate_bounds(model, x)
    _, secant, slope = scalar(nn.GELU(), -3.0)
    value = 3 * secant
    assert bounds.trace == pytest.approx(9 * slope**2 + value**2, rel=1e-12)
    assert bounds.upper["edge"] == pytest.approx(bounds.trace, rel=1e-12)
    assert secant_gate_sum(model, x) == pytest.approx(9 * secant**2 + value**2, rel=1e-12)
    assert secant_gate_sum(model, x) < bounds.trace / 30


def test_pre_activation_zero():
    """At z = 0 the secant is the derivative: tanh'(0) = 1."""
    model = Net(nn.Tanh(), [1, 1, 1], bias=False).double()
    nn.init.zeros_(model.layers[0].weight)
    nn.init.constant_(model.layers[1].weight, 2.0)
    bounds = mixed_gate_bounds(model, torch.ones(1, 1, dtype=torch.float64))
    assert bounds.trace == bounds.upper["edge"] == 4


def test_unknown_names():
    with pytest.raises(ValueError, match="names must be one of 'edge', 'edge_per_output', 'half'"):
        mixed_gate_bounds(Net(nn.GELU(), [1, 1]), torch.ones(1, 1), names="px")
