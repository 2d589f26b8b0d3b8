"""Scorers against hand-computed values, sums over paths, and the authors' own code."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import functional
from ntktheory.functional import masked
from ntktheory.models import convnet, mlp
from ntktheory.paths.reference import decompose
from ntktheory.pruning.scorers import px, px_bound, synflow_l2
from proofs_check.cases import random_masks

GOLDEN = Path(__file__).parents[1] / "golden" / "mlp.npz"
SCORERS = {"px": px, "px_bound": px_bound, "synflow_l2": synflow_l2}


def scores(scorer, model, x, masks=None):
    net = functional(model)
    return scorer(net.model_fn, net.params, masks, x)


def one_one_two():
    """f(x) = (θ2 relu(θ1 x), θ3 relu(θ1 x)) with θ = (0.1, 1, 1)."""
    model = mlp([1, 1, 2], dtype=torch.float64)
    nn.init.constant_(model.layer1.weight, 0.1)
    nn.init.ones_(model.layer2.weight)
    return model


# With s = θ²: z2 = (s1 s2, s1 s3), and z1 = (x², x²) for x > 0, else 0.
# px: Z = x² s1 (s2 + s3). px_bound: R = 2x² (s2 + s3 + 2 s1). synflow_l2: z2 = s1 (s2 + s3).
HAND = {
    ("px", 1.0): [0.02, 0.01, 0.01],
    ("px", 2.0): [0.08, 0.04, 0.04],
    ("px", -1.0): [0.0, 0.0, 0.0],
    ("px_bound", 1.0): [0.04, 2.0, 2.0],
    ("px_bound", 2.0): [0.16, 8.0, 8.0],
    ("px_bound", -1.0): [0.0, 0.0, 0.0],
    ("synflow_l2", 1.0): [0.02, 0.01, 0.01],
    ("synflow_l2", 2.0): [0.02, 0.01, 0.01],
    ("synflow_l2", -1.0): [0.02, 0.01, 0.01],
}


@pytest.mark.parametrize(("name", "x"), HAND)
def test_hand_values(name, x):
    found = scores(SCORERS[name], one_one_two(), torch.tensor([[x]], dtype=torch.float64))
    assert [list(score.shape) for score in found.values()] == [[1, 1], [2, 1]]
    flat = torch.cat([score.flatten() for score in found.values()])
    assert flat.tolist() == pytest.approx(HAND[name, x], rel=1e-14)


def test_hand_values_under_a_mask():
    """Without θ3 one path is left, z1 = (1, 0): Z = s1 s2, R = s2 + s1, z2 = (s1 s2, 0)."""
    masks = {"layer2.weight": torch.tensor([[True], [False]])}
    x = torch.ones(1, 1, dtype=torch.float64)
    expected = {"px": [0.01, 0.01, 0], "px_bound": [0.01, 1, 0], "synflow_l2": [0.01, 0.01, 0]}
    for name, values in expected.items():
        found = scores(SCORERS[name], one_one_two(), x, masks)
        flat = torch.cat([score.flatten() for score in found.values()])
        assert flat.tolist() == pytest.approx(values, rel=1e-14)


# Against every path, one by one.


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draw(*shape):
    return torch.randn(shape, generator=seeded(9), dtype=torch.float64)


def networks():
    options = {"generator": seeded(0), "dtype": torch.float64}
    return {
        "MLP": (mlp([3, 4, 3, 2], **options), draw(5, 3)),
        "MLP with biases": (mlp([2, 3, 2], bias=True, **options), draw(4, 2)),
        "CNN": (convnet([1, 2], 2, image_size=3, bias=True, **options), draw(2, 1, 3, 3)),
        "CNN, averaged": (
            convnet([1, 2, 2], 3, image_size=4, stride=[1, 2], head="average", **options),
            draw(2, 1, 4, 4),
        ),
    }


NETWORKS = networks()
DENSITIES = {"dense": None, "masked": 0.7}
CASES = pytest.mark.parametrize("network", NETWORKS)
MASKED = pytest.mark.parametrize("density", DENSITIES)


def case(network, density):
    model, x = NETWORKS[network]
    masks = None if DENSITIES[density] is None else random_masks(model, DENSITIES[density])
    return model, x, masks


def assert_scores(found, expected):
    """Compare scores with a dictionary (name, flat index) -> value; all others must be 0."""
    assert any(value > 0 for value in expected.values())
    for name, score in found.items():
        values = [float(expected.get((name, i), 0.0)) for i in range(score.numel())]
        wanted = torch.tensor(values, dtype=torch.float64).view(score.shape)
        torch.testing.assert_close(score, wanted, rtol=1e-12, atol=0)


@CASES
@MASKED
def test_px_is_a_sum_over_paths(network, density):
    model, x, masks = case(network, density)
    assert_scores(scores(px, model, x, masks), decompose(model, x, masks=masks).px_score())


@CASES
@MASKED
def test_synflow_l2_is_a_sum_over_paths(network, density):
    """θ_j² ∂/∂θ_j² of Σ_p c_p v_p² is the sum over the paths through j."""
    model, x, masks = case(network, density)
    paths = decompose(model, x, masks=masks)
    fixed = np.array([float(path.coefficient) for path in paths.paths])
    sums = (paths.v**2 * fixed) @ paths.multiplicity
    expected = dict(zip(paths.parameters, sums, strict=True))
    assert_scores(scores(synflow_l2, model, x, masks), expected)


@MASKED
@pytest.mark.parametrize("network", ["MLP", "MLP with biases", "CNN"])
def test_px_bound_is_a_difference_of_path_kernels(network, density):
    """Tr Π is affine in each θ_j², so θ_j² ∂Tr Π/∂θ_j² = Tr Π(θ) − Tr Π(θ with θ_j = 0)."""
    model, x, masks = case(network, density)
    paths = decompose(model, x, masks=masks)
    data, start = paths.activity.sum(), path_kernel_trace(model, x, masks)
    expected = {}
    for name, i in paths.parameters:
        changed = copy.deepcopy(model)
        with torch.no_grad():
            changed.get_parameter(name).view(-1)[i] = 0.0
        expected[name, i] = data * (start - path_kernel_trace(changed, x, masks))
    scale = max(expected.values())
    for name, score in scores(px_bound, model, x, masks).items():
        values = [expected.get((name, i), 0.0) for i in range(score.numel())]
        assert score.flatten().tolist() == pytest.approx(values, rel=1e-10, abs=1e-12 * scale)


def path_kernel_trace(model, x, masks):
    return float((decompose(model, x, masks=masks).J_theta_v ** 2).sum())


@CASES
@pytest.mark.parametrize("scorer", SCORERS)
def test_dropped_parameters_score_zero_and_do_not_matter(network, scorer):
    model, x, masks = case(network, "masked")
    net = functional(model)
    found = SCORERS[scorer](net.model_fn, net.params, masks, x)
    for name, score in found.items():
        assert not score[~masks[name]].any()
        assert (score >= 0).all()
    zeroed = SCORERS[scorer](net.model_fn, masked(net.params, masks), masks, x)
    assert all(torch.equal(zeroed[name], score) for name, score in found.items())


# Against the authors' code.


class Published(nn.Module):
    """The network of the golden scores."""

    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(12, 16, bias=False)
        self.l2 = nn.Linear(16, 16, bias=False)
        self.l3 = nn.Linear(16, 5, bias=False)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x.flatten(1))))))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def published(golden):
    model = Published().double()
    parts = [name for name in golden if name.startswith("param/")]
    model.load_state_dict({name.removeprefix("param/"): golden[name] for name in parts})
    return model


@pytest.mark.parametrize("layer", ["l1.weight", "l2.weight", "l3.weight"])
class TestPublishedCode:
    def test_synflow_l2_has_one_more_power_of_the_weight(self, golden, published, layer):
        score = scores(synflow_l2, published, golden["x"])[layer]
        ours = score / published.get_parameter(layer).detach().abs()
        theirs = golden[f"score/synflow_l2_px_repo/{layer}"]
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)

    def test_px(self, golden, published, layer):
        theirs = golden[f"score/px_repo_head/{layer}"]
        ours = scores(px, published, golden["x"])[layer]
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
