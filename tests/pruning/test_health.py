"""The health of masks: by hand, and against every path one by one."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntktheory import UnsupportedModule, functional
from ntktheory.models import build_model, convnet, mlp
from ntktheory.pruning import apply_masks, from_torch_prune, mask_health, to_torch_prune
from ntktheory.pruning.health import LayerHealth
from ntktheory.pruning.reference_health import live_parameters
from proofs_check.cases import random_masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flags(rows):
    return torch.tensor(rows) > 0


class Residual(nn.Module):
    """Convolution, eval-mode batch norm with a shift, shortcut, pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 2, bias=True)
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 2)
        nn.init.constant_(self.norm.running_mean, 0.3)
        nn.init.constant_(self.norm.bias, -0.2)
        self.norm.num_batches_tracked += 1

    def forward(self, x):
        h = F.relu(self.stem(x))
        h = F.relu(h + self.norm(self.conv(h)))
        return self.head(self.pool(h).flatten(1))


def sequential(*modules):
    return nn.Sequential(*modules)


def pooled(pool):
    return sequential(nn.Conv2d(1, 2, 3, padding=1), pool, nn.Flatten(), nn.Linear(8, 2))


NETWORKS = {
    "MLP": (lambda: mlp([3, 4, 3, 2]), [3]),
    "MLP with biases": (lambda: mlp([2, 3, 2], bias=True), [2]),
    "CNN": (lambda: convnet([1, 2, 3], 2, image_size=4, bias=True), [1, 4, 4]),
    "residual": (Residual, [1, 3, 3]),
    "maximum": (lambda: pooled(nn.MaxPool2d(2)), [1, 4, 4]),
    "average": (lambda: pooled(nn.AvgPool2d(2)), [1, 4, 4]),
    "groups": (
        lambda: sequential(
            nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(4, 2)
        ),
        [2, 2, 2],
    ),
}  # fmt: skip


def prunable_masks(model, density, seed):
    masks = random_masks(model, density, seed)
    return {name: masks[name] for name in functional(model.eval()).prunable}


def test_by_hand():
    """2-3-2: unit 0 has no way in, unit 1 none out; unit 2 has one in from x_1 and one out to f_0."""
    net = mlp([2, 3, 2])
    masks = {
        "layer1.weight": flags([[0, 0], [1, 1], [0, 1]]),
        "layer2.weight": flags([[1, 0, 1], [0, 0, 0]]),
    }
    health = mask_health(net, masks, input_shape=[2])
    assert health.layers == {
        "layer1.weight": LayerHealth(6, 3, 1, 2, 1, 3, 2),
        "layer2.weight": LayerHealth(6, 2, 1, 3, 2, 2, 1),
    }
    assert health.log10_paths == 0.0
    assert (health.density, health.effective_density) == (5 / 12, 2 / 12)
    assert health.collapsed == ()
    assert health.widths == {"layer1.weight": 1, "layer2.weight": 1}
    assert health.live["layer1.weight"].tolist() == [[False] * 2, [False] * 2, [False, True]]


def test_dense():
    health = mask_health(mlp([2, 3, 4, 5]), input_shape=[2])
    assert health.log10_paths == pytest.approx(math.log10(2 * 3 * 4 * 5))
    assert (health.density, health.effective_density) == (1.0, 1.0)
    assert health.widths == {"layer1.weight": 3, "layer2.weight": 4, "layer3.weight": 5}


def test_a_collapsed_layer():
    masks = {"layer2.weight": torch.zeros(4, 3, dtype=torch.bool)}
    health = mask_health(mlp([2, 3, 4, 5], bias=True), masks, input_shape=[2])
    assert health.collapsed == ("layer2.weight",)
    assert health.log10_paths == -math.inf
    assert health.effective_density == 0.0
    assert health.density == 26 / 38
    assert set(health.widths.values()) == {0}


def test_a_shortcut_keeps_the_network_alive():
    masks = {"conv.weight": torch.zeros(2, 2, 3, 3, dtype=torch.bool)}
    health = mask_health(Residual().eval(), masks, input_shape=[1, 3, 3])
    assert health.collapsed == ("conv.weight",)
    # From each of 2·2 positions of 2 channels, with 4 weights each, to 2 outputs.
    assert health.log10_paths == pytest.approx(math.log10(4 * 2 * 4 * 2))
    assert health.widths == {"stem.weight": 2, "conv.weight": 0, "head.weight": 2}


def test_weights_that_only_meet_padding_are_on_no_path():
    """On a 1×1 map a padded 3×3 kernel has one weight that meets data."""
    net = sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Flatten())
    health = mask_health(net, input_shape=[1, 1, 1])
    assert health.live["0.weight"].flatten().nonzero().flatten().tolist() == [4]
    assert health.effective_density == 1 / 9


def test_units_of_groups_and_of_transposed_convolutions():
    grouped = sequential(nn.Conv1d(4, 6, 1, groups=2, bias=False), nn.Flatten())
    mask = flags([[1, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]]).unsqueeze(2)
    layer = mask_health(grouped, {"0.weight": mask}, input_shape=[4, 1]).layers["0.weight"]
    # Channels 0 and 3 lead on, to channels 0, 2 and 5.
    assert layer == LayerHealth(12, 3, 3, 4, 2, 6, 3)
    transposed = sequential(nn.ConvTranspose1d(4, 6, 1, groups=2, bias=False), nn.Flatten())
    mask = flags([[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 1]]).unsqueeze(2)
    layer = mask_health(transposed, {"0.weight": mask}, input_shape=[4, 1]).layers["0.weight"]
    assert layer == LayerHealth(12, 3, 3, 4, 2, 6, 3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("density", [1.0, 0.6, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_against_every_path(network, density, seed):
    build, shape = NETWORKS[network]
    model = build().eval()
    masks = prunable_masks(model, density, seed)
    health = mask_health(model, masks, input_shape=shape)
    count, live = live_parameters(model, masks, shape)
    expected = math.log10(count) if count else -math.inf
    assert health.log10_paths == pytest.approx(expected, abs=1e-12)
    for name, mask in health.live.items():
        on_path = [(name, i) in live for i in range(mask.numel())]
        assert mask.flatten().tolist() == on_path
    total = sum(mask.numel() for mask in masks.values())
    on_paths = sum(1 for name, _ in live if name in masks)
    assert health.effective_density == on_paths / total
    assert health.density == sum(int(m.sum()) for m in masks.values()) / total


def test_the_reference_sees_what_is_cut():
    """The comparison is not one of empty sets: some weights are live, some kept ones are not."""
    build, shape = NETWORKS["MLP"]
    seen = []
    for seed in range(3):
        masks = prunable_masks(build(), 0.6, seed)
        live = live_parameters(build(), masks, shape)[1]
        seen.append(0 < len(live) < sum(int(m.sum()) for m in masks.values()))
    assert any(seen)


@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.floats(0.1, 1), st.integers(0, 99))
def test_any_perceptron(widths, density, seed):
    model = mlp(widths)
    masks = prunable_masks(model, density, seed)
    health = mask_health(model, masks, input_shape=widths[:1])
    product = torch.eye(widths[0], dtype=torch.float64)
    for mask in masks.values():
        product = mask.double() @ product
    paths = float(product.sum())
    assert health.log10_paths == pytest.approx(math.log10(paths) if paths else -math.inf, abs=1e-12)
    for name, layer in health.layers.items():
        assert layer.live <= layer.kept <= layer.weights
        assert bool((health.live[name] <= masks[name]).all())


@pytest.mark.parametrize("seed", range(5))
def test_removing_what_is_on_no_path_changes_no_path(seed):
    model = convnet([1, 2, 3], 2, image_size=4, stride=[1, 2])
    masks = prunable_masks(model, 0.3, seed)
    health = mask_health(model, masks, input_shape=[1, 4, 4])
    again = mask_health(model, health.live, input_shape=[1, 4, 4])
    assert again.log10_paths == pytest.approx(health.log10_paths, abs=1e-12)
    assert again.density == again.effective_density == health.effective_density
    assert all(torch.equal(again.live[name], mask) for name, mask in health.live.items())


def test_weights_and_biases_do_not_matter_but_masks_do():
    model = convnet([1, 2, 3], 2, image_size=4, bias=True)
    masks = prunable_masks(model, 0.5, 0)
    expected = mask_health(model, masks, input_shape=[1, 4, 4])
    for p in model.parameters():
        nn.init.zeros_(p)
    found = mask_health(model, masks, input_shape=[1, 4, 4])
    assert (found.layers, found.log10_paths) == (expected.layers, expected.log10_paths)
    other = mask_health(model, prunable_masks(model, 0.5, 1), input_shape=[1, 4, 4])
    assert other.log10_paths != expected.log10_paths


def test_a_pruned_model_carries_its_masks():
    model = Residual().eval()
    masks = prunable_masks(model, 0.5, 0)
    expected = mask_health(model, masks, input_shape=[1, 3, 3])
    found = mask_health(apply_masks(model, masks), input_shape=[1, 3, 3])
    assert list(found.layers.values()) == list(expected.layers.values())
    assert found.log10_paths == expected.log10_paths
    assert found.density == expected.density < 1


def test_a_deep_network_does_not_overflow():
    health = mask_health(mlp([10] * 400), input_shape=[10])
    assert health.log10_paths == pytest.approx(400)  # past 1e308
    assert health.effective_density == 1.0


@pytest.mark.parametrize("name", ["resnet20", "vgg11"])
def test_real_networks(name):
    model = build_model(name, (3, 32, 32), generator=seeded())
    masks = prunable_masks(model, 0.3, 0)
    health = mask_health(model, masks, input_shape=[3, 32, 32])
    assert 10 < health.log10_paths < 100
    assert 0.25 < health.effective_density <= health.density
    dense = mask_health(model, input_shape=[3, 32, 32])
    assert dense.log10_paths > health.log10_paths


def test_smooth_activations_have_paths_too():
    smooth = sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    assert mask_health(smooth, input_shape=[3]).log10_paths == pytest.approx(math.log10(24))


def test_the_model_is_untouched():
    model = Residual().eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    mask_health(model, input_shape=[1, 3, 3])
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    assert not any(module.training for module in model.modules())


class Squaring(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x).softmax(1)


def test_networks_without_paths_are_refused():
    with pytest.raises(UnsupportedModule, match="softmax"):
        mask_health(Squaring(), input_shape=[3])


def test_a_network_that_reads_tokens_is_refused():
    net = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(UnsupportedModule, match="model must be a network of real inputs, got"):
        mask_health(net, input_shape=[3])
    assert mask_health(net[1:], input_shape=[3, 4]).density == 1


def test_what_does_not_fit():
    net = mlp([3, 4, 2])
    with pytest.raises(ValueError, match=r"masks\['layer1\.weight'\] must be of shape \[4, 3\]"):
        mask_health(net, {"layer1.weight": torch.ones(3, 4)}, input_shape=[3])
    with pytest.raises(ValueError, match="masks must be named like the parameters"):
        mask_health(net, {"layer9.weight": torch.ones(3, 4)}, input_shape=[3])
    with pytest.raises(TypeError, match=r"masks\['layer1\.weight'\] must be a torch\.Tensor"):
        mask_health(net, {"layer1.weight": [1, 0]}, input_shape=[3])
    with pytest.raises(ValueError, match="model must be a network with prunable weights"):
        mask_health(nn.LayerNorm(3), input_shape=[3])
    with pytest.raises(ValueError, match="model must be in eval mode"):
        mask_health(Residual(), input_shape=[1, 3, 3])
    with pytest.raises(ValueError, match="input_shape must be"):
        mask_health(net, input_shape=[4])
    for shape in ([-3], [0], [3.0], [True], ["3"]):
        with pytest.raises(ValueError, match="input_shape must be made of positive integers"):
            mask_health(net, input_shape=shape)
    for shape in (3, "3", None):
        with pytest.raises(TypeError, match="input_shape must be a sequence of integers"):
            mask_health(net, input_shape=shape)


@pytest.mark.parametrize("layer", ["conv1", "head"])
def test_a_layer_without_a_weight_of_its_own(layer):
    net = convnet([1, 2, 3], 2, image_size=4)
    pruned = to_torch_prune(net, {f"{layer}.weight": torch.ones_like(getattr(net, layer).weight)})
    with pytest.raises(ValueError, match=rf"model must be .*'{layer}' with a mask of torch"):
        mask_health(pruned, input_shape=[1, 4, 4])
    assert mask_health(net, from_torch_prune(pruned), input_shape=[1, 4, 4]).density == 1.0
