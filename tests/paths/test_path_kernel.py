"""Trace and rank of the path kernel against every path."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import NumericalError, UnsupportedModule
from ntktheory.models import mlp
from ntktheory.paths import path_kernel_rank, path_kernel_trace
from ntktheory.paths.path_kernel import rank_modulo_prime
from ntktheory.paths.reference import decompose
from proofs_check import cases
from tests.paths.test_fixed_edges import ENUMERABLE, seeded
from tests.paths.test_gates import draw

NETWORKS = {net.name: (net.model, net.x) for net in cases.enumerable_networks()} | {
    name: (seeded(model), draw(*shape)) for name, (model, shape) in ENUMERABLE.items()
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_trace_and_rank(name, masked):
    model, x = NETWORKS[name]
    masks = cases.random_masks(model, 0.7) if masked else None
    jacobian = decompose(model, x[:1], masks=masks).J_theta_v
    trace = path_kernel_trace(model, x, masks=masks)
    assert trace == pytest.approx(float((jacobian**2).sum()), rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    rank = path_kernel_rank(model, x, masks=masks, generator=generator)
    # Columns scaled to one size, so that the numerical rank is clear.
    scale = np.abs(jacobian).max(0, initial=0)
    assert rank == np.linalg.matrix_rank(jacobian / np.where(scale > 0, scale, 1))


def test_rank_of_an_mlp_is_its_parameters_less_its_rescalings():
    model = mlp([4, 5, 3, 2], dtype=torch.float64)
    found = path_kernel_rank(model, torch.ones(1, 4), generator=torch.Generator().manual_seed(1))
    assert found == 20 + 15 + 6 - (5 + 3)


def test_zero_weights():
    """1-1-1 with w = (0, 3): w_p = (3, 0), so Tr Π = 9 and the rank is 1; both 0: none."""
    model = mlp([1, 1, 1], dtype=torch.float64)
    nn.init.zeros_(model.layer1.weight)
    nn.init.constant_(model.layer2.weight, 3.0)
    x = torch.ones(1, 1, dtype=torch.float64)
    assert (path_kernel_trace(model, x), path_kernel_rank(model, x)) == (9.0, 1)
    nn.init.zeros_(model.layer2.weight)
    assert (path_kernel_trace(model, x), path_kernel_rank(model, x)) == (0.0, 0)


@pytest.mark.parametrize(
    ("matrix", "rank"),
    [([[1, 2], [2, 4]], 1), ([[0, 1], [1, 0]], 2), ([[0, 0]], 0), ([[2**31 - 1, 0]], 0),
     ([[3, 5, 7], [1, -1, 2], [4, 4, 9]], 2)],
)  # fmt: skip
def test_rank_modulo_a_prime(matrix, rank):
    assert rank_modulo_prime(np.array(matrix, dtype=np.int64)) == rank


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(F.relu(self.layer(x)))


@pytest.mark.parametrize("function", [path_kernel_trace, path_kernel_rank])
def test_weight_used_twice(function):
    with pytest.raises(
        UnsupportedModule, match=r"uses every parameter once, got 'layer\.\w+' used"
    ):
        function(Twice(), torch.ones(1, 2))


def test_too_large():
    with pytest.raises(ValueError, match="a network of at most 2000 kept parameters, got 2500"):
        path_kernel_rank(nn.Linear(50, 50, bias=False), torch.ones(1, 50))


def test_overflow():
    model = mlp([1, 1, 1, 1], dtype=torch.float64)
    for p in model.parameters():
        nn.init.constant_(p, 1e100)
    with pytest.raises(NumericalError, match=r"its decimal logarithm is 400\.5"):
        path_kernel_trace(model, torch.zeros(1, 1))


def test_too_deep_for_whole_numbers():
    model = mlp([8] * 12 + [1], dtype=torch.float64)
    with pytest.raises(NumericalError, match="small enough for whole numbers below 2\\^53"):
        path_kernel_rank(model, torch.ones(1, 8), generator=torch.Generator().manual_seed(0))
