"""Bounds by passes against the sums over all paths, and the enumeration against autodiff."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from ntktheory import functional, path_bounds
from ntktheory.functional import masked
from ntktheory.models import mlp
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.reference import decompose
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12
NETWORKS = {net.name: net for net in cases.enumerable_networks()}


def problem(name, with_masks):
    net = NETWORKS[name]
    return net.model, net.x, cases.random_masks(net.model, 0.7) if with_masks else None


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_equal_their_sums_over_paths(name, with_masks):
    model, x, masks = problem(name, with_masks)
    exact = decompose(model, x, masks=masks).bounds()
    bounds = path_bounds(model, x, masks=masks)
    found = dict(bounds.upper) | {"trace": bounds.trace, "t_sq": bounds.t_sq}
    assert set(found) - {"op"} == set(exact)
    for key, value in exact.items():
        assert relative_gap(found[key], value) < TOLERANCE, key
    assert bounds.trace <= bounds.upper["op"] * (1 + TOLERANCE)


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_enumeration_equals_autodiff(name, with_masks):
    model, x, masks = problem(name, with_masks)
    f = functional(model)
    paths = decompose(model, x, masks=masks)
    outputs = f.model_fn(masked(f.params, masks), x).flatten()
    assert relative_gap(torch.as_tensor(paths.J_v_f @ paths.v), outputs) < TOLERANCE
    jacobian = ntk_reference.jacobian(f.model_fn, f.params, masks, x)
    columns = [jacobian[key].flatten(2)[..., i].flatten() for key, i in paths.parameters]
    assert relative_gap(torch.as_tensor(paths.jacobian()), torch.stack(columns, 1)) < TOLERANCE


def test_exact_enumeration_is_in_fractions():
    model, x, masks = problem("CNN, average pooling", True)
    exact = decompose(model, x[:1], masks=masks, exact=True).bounds()
    rounded = decompose(model, x[:1], masks=masks).bounds()
    for key, value in exact.items():
        assert isinstance(value, Fraction)
        assert relative_gap(float(value), rounded[key]) < TOLERANCE, key


def test_number_of_paths():
    model, x, _ = problem("MLP 3-4-3-2", False)
    assert len(decompose(model, x).paths) == 3 * 4 * 3 * 2
    model, x, _ = problem("MLP 3-4-3-2 with biases", False)
    assert len(decompose(model, x).paths) == ((3 + 1) * 4 + 1) * 3 * 2 + 2


def test_hand_values():
    # 1-2-1, W1 = (2, 3), W2 = (5, 7), x = 1, both units active: paths v = 10 and 21.
    # Tr = (5² + 7²) + (2² + 3²) = 87. Σ a²x² = 2 and Σ_j B_j = 87, so R_PX = 174.
    # Every weight lies on one path: A_j = 1, so R_edge = Σ_j B_j = 87.
    model = mlp([1, 2, 1], dtype=torch.float64)
    with torch.no_grad():
        model.layer1.weight.copy_(torch.tensor([[2.0], [3.0]]))
        model.layer2.weight.copy_(torch.tensor([[5.0, 7.0]]))
    bounds = path_bounds(model, torch.ones(1, 1, dtype=torch.float64))
    assert bounds.trace == 87
    assert bounds.upper == {
        "px": 174, "px_per_output": 174, "edge": 87, "edge_per_output": 87, "half": 87,
        "half_per_output": 87, "op": pytest.approx(87), "abs": 87,
    }  # fmt: skip
    # f = 31; Euler: 31²/13 + 31²/74. Last layer: 2² + 3².
    assert bounds.lower == {"last_layer": 13, "euler": pytest.approx(31**2 / 13 + 31**2 / 74)}


def test_masked_bounds_are_those_of_the_smaller_network():
    dense = mlp([2, 3, 2], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small = mlp([2, 2, 2], dtype=torch.float64)
    with torch.no_grad():
        small.layer1.weight.copy_(dense.layer1.weight[:2])
        small.layer2.weight.copy_(dense.layer2.weight[:, :2])
    masks = {
        "layer1.weight": torch.tensor([[True, True], [True, True], [False, False]]),
        "layer2.weight": torch.tensor([[True, True, False], [True, True, False]]),
    }
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pruned, expected = path_bounds(dense, x, masks=masks), path_bounds(small, x)
    assert pruned.upper == pytest.approx(expected.upper, rel=1e-12)
    assert pruned.lower == pytest.approx(expected.lower, rel=1e-12)
    assert pruned.t_sq == pytest.approx(expected.t_sq, rel=1e-12)
    assert pruned.trace == pytest.approx(expected.trace, rel=1e-12)


def test_weight_twice_on_a_path():
    # f = θ²x: Tr = R_edge = 4θ²x². R_PX as a product of passes would be 2θ²x²: it is absent.
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False).double()
            nn.init.constant_(self.layer.weight, 3.0)

        def forward(self, x):
            return self.layer(self.layer(x))

    bounds = path_bounds(Square(), torch.tensor([[2.0]], dtype=torch.float64))
    assert bounds.trace == bounds.upper["edge"] == bounds.upper["abs"] == 144
    assert "px" not in bounds.upper


def test_path_kernel_of_a_chain():
    model = mlp([1, 1, 1], dtype=torch.float64)
    with torch.no_grad():
        model.layer1.weight.fill_(2.0)
        model.layer2.weight.fill_(3.0)
    paths = decompose(model, torch.ones(1, 1, dtype=torch.float64))
    assert np.array_equal(paths.path_kernel(), [[13.0]])
    assert np.array_equal(paths.ntk(), [[13.0]])
