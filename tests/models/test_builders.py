"""Builders: shapes, names, and the law of the weights."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from torch import nn

from ntktheory.models import convnet, mlp


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(**options):
    return mlp([6, 5, 4, 3], **options)


def conv(**options):
    return convnet([2, 3, 4], 5, image_size=6, stride=[1, 2], **options)


BUILDERS = pytest.mark.parametrize("build", [dense, conv])


def test_mlp_is_what_its_widths_say():
    names = ["flatten", "layer1", "activation1", "layer2", "activation2", "layer3"]
    net = dense()
    assert [name for name, _ in net.named_children()] == names
    assert {name: list(p.shape) for name, p in net.named_parameters()} == {
        "layer1.weight": [5, 6], "layer2.weight": [4, 5], "layer3.weight": [3, 4]
    }  # fmt: skip


def test_mlp_computes_layers_and_activations():
    net = mlp([6, 5, 3], bias=True, activation=nn.Tanh, dtype=torch.float64)
    x = torch.randn(4, 2, 3, generator=seeded(), dtype=torch.float64)
    hidden = torch.tanh(x.flatten(1) @ net.layer1.weight.T + net.layer1.bias)
    expected = hidden @ net.layer2.weight.T + net.layer2.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-13, atol=1e-14)


def test_single_layer_is_linear():
    assert [name for name, _ in mlp([4, 2]).named_children()] == ["flatten", "layer1"]


@pytest.mark.parametrize("bias", [True, False])
def test_bias_option(bias):
    for net in (dense(bias=bias), conv(bias=bias)):
        assert any(name.endswith("bias") for name, _ in net.named_parameters()) is bias


def test_convnet_is_what_its_channels_say():
    names = ["conv1", "activation1", "conv2", "activation2", "flatten", "head"]
    net = conv()
    assert [name for name, _ in net.named_children()] == names
    assert {name: list(p.shape) for name, p in net.named_parameters()} == {
        "conv1.weight": [3, 2, 3, 3], "conv2.weight": [4, 3, 3, 3], "head.weight": [5, 4 * 3 * 3]
    }  # fmt: skip


@pytest.mark.parametrize("head", ["flatten", "average"])
@pytest.mark.parametrize(
    ("size", "stride", "kernel", "padding", "last"),
    [(6, 1, 3, 1, 6), (7, 2, 3, 1, 2), (8, [2, 1], 5, 2, 4), (6, 1, 2, 0, 4)],
)
def test_convnet_computes_its_layers(size, stride, kernel, padding, last, head):
    options = {"stride": stride, "kernel_size": kernel, "padding": padding, "bias": True}
    net = convnet([2, 3, 4], 5, image_size=size, head=head, dtype=torch.float64, **options)
    x = torch.randn(3, 2, size, size, generator=seeded(), dtype=torch.float64)
    strides = [stride, stride] if isinstance(stride, int) else stride
    h = x
    for layer, step in zip((net.conv1, net.conv2), strides, strict=True):
        h = F.relu(F.conv2d(h, layer.weight, layer.bias, step, padding))
    assert h.shape == (3, 4, last, last)
    features = h.mean((2, 3)) if head == "average" else h.flatten(1)
    expected = features @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-13)


@BUILDERS
def test_eval_mode_and_dtype(build):
    assert not any(module.training for module in build().modules())
    assert {p.dtype for p in build(bias=True).parameters()} == {torch.float32}
    assert {p.dtype for p in build(bias=True, dtype=torch.float64).parameters()} == {torch.float64}


@BUILDERS
def test_weights_come_from_the_generator(build):
    one, two, other = (build(bias=True, generator=seeded(s)).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@BUILDERS
def test_without_a_generator_torchs_seed_decides(build):
    def draw(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build(bias=True).state_dict()

    one, two, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_he_law():
    """N(0, 2/fan_in): Σ w² fan_in/2 is χ²; biases fill ±1/√fan_in.

    Each sum leaves its interval with probability 1e-12; the largest of 300 biases is below 0.9 of
    its bound with probability 2e-14.
    """
    wide = {
        "dense": (mlp([200, 300], bias=True, generator=seeded(3)).layer1, 200),
        "conv": (convnet([20, 300], 2, image_size=4, bias=True, generator=seeded(4)).conv1, 180),
    }
    for layer, fan_in in wide.values():
        w, bias = layer.weight.detach().double().flatten(), layer.bias.detach()
        low, high = chi2.ppf(5e-13, len(w)), chi2.isf(5e-13, len(w))
        assert low <= float(w.square().sum() * fan_in / 2) <= high
        assert abs(float(w.sum())) <= 7.2 * (2 / fan_in * len(w)) ** 0.5
        assert 0.9 <= float(bias.abs().max()) * fan_in**0.5 <= 1 + 1e-6
        assert bias.min() < 0 < bias.max()
