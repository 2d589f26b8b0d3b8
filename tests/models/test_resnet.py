"""The CIFAR ResNets: shapes, parameter counts, the law of the weights, and their kernel."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import empirical_ntk, ntk_trace
from ntktheory.functional import functional
from ntktheory.models import build_model, cifar_resnet
from ntktheory.ntk import reference

SHORTCUTS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # 1×1 convolutions and their batch norms: 2,752


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(**options):
    return cifar_resnet(8, 3, width=2, **options)


def shaken(net, seed=1):
    """Give batch norms scales, shifts and statistics that could not be mistaken for one another."""
    generator = seeded(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return net


@pytest.mark.parametrize(
    ("depth", "with_zero_padding"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)]
)
def test_parameter_counts(depth, with_zero_padding):
    """Zero-padding shortcuts have no parameters; ours add four tensors, whatever the depth."""
    count = sum(p.numel() for p in cifar_resnet(depth, 10).parameters())
    assert count == with_zero_padding + SHORTCUTS


@pytest.mark.parametrize(("depth", "width", "channels", "outputs"), [(8, 2, 1, 3), (14, 3, 4, 5)])
def test_parameter_formula(depth, width, channels, outputs):
    b, w, k, c = (depth - 2) // 6, width, channels, outputs
    net = cifar_resnet(depth, outputs, width=width, channels=channels)
    expected = (378 * b - 80) * w * w + (28 * b + 9 * k + 14) * w + 4 * w * c + c
    assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.parametrize("depth", [8, 20])
def test_depth_counts_the_layers_of_the_longest_path(depth):
    net = cifar_resnet(depth, 10)
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if "shortcut" not in name]) == depth


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (9, 13)])
def test_shapes(height, width):
    net = cifar_resnet(8, 7, width=4)
    features = net[:6](torch.zeros(2, 3, height, width))
    assert features.shape == (2, 16, -(-height // 4), -(-width // 4))
    assert net(torch.zeros(2, 3, height, width)).shape == (2, 7)


def test_block_computes_its_formula():
    net = shaken(tiny(generator=seeded(), dtype=torch.float64))
    block = net.stage2[0]

    def norm(h, bn):
        return F.batch_norm(h, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    x = torch.randn(4, 2, 6, 6, generator=seeded(2), dtype=torch.float64)
    h = F.relu(norm(F.conv2d(x, block.conv1.weight, stride=2, padding=1), block.bn1))
    h = norm(F.conv2d(h, block.conv2.weight, padding=1), block.bn2)
    s = norm(F.conv2d(x, block.shortcut.conv.weight, stride=2), block.shortcut.bn)
    torch.testing.assert_close(block(x), F.relu(h + s), rtol=1e-12, atol=1e-13)
    assert len(net.stage1[0].shortcut) == 0


def test_eval_mode_and_dtype():
    assert not any(module.training for module in tiny().modules())
    assert {p.dtype for p in tiny().parameters()} == {torch.float32}
    net = tiny(dtype=torch.float64)
    tensors = [*net.parameters(), *net.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}


def test_weights_come_from_the_generator():
    one, two, other = (dict(tiny(generator=seeded(s)).named_parameters()) for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [name for name in one if "bn" not in name]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_he_law():
    """Σ w² fan_in/2 has mean n and standard deviation √(2n): within 6 of them."""
    net = cifar_resnet(20, 10, generator=seeded(3))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            w = module.weight.detach().double()
            n, fan_in = w.numel(), w[0].numel()
            assert abs(float(w.square().sum()) * fan_in / 2 - n) <= 6 * (2 * n) ** 0.5


def test_kernel_agrees_with_the_reference():
    net = functional(shaken(tiny(generator=seeded(), dtype=torch.float64)))
    x = torch.randn(4, 3, 8, 8, generator=seeded(5), dtype=torch.float64)
    expected = reference.ntk(net.model_fn, net.params, None, x)
    gap = (empirical_ntk(net, x) - expected).abs().max() / expected.abs().max()
    assert float(gap) <= 1e-10
    diagonal = reference.trace(net.model_fn, net.params, None, x)
    total = sum(float(d.sum()) for d in diagonal.values())
    assert float(ntk_trace(net, x)) == pytest.approx(total, rel=1e-10)


def test_registry_builds_it():
    net = build_model("resnet20", (1, 8, 8), outputs=3, width=2)
    assert net(torch.ones(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"inputs of a ResNet must be images"):
        build_model("resnet20", (8, 8))


@pytest.mark.parametrize("depth", [2, 9, 18, 21])
def test_depth_must_be_of_the_family(depth):
    with pytest.raises(ValueError, match=r"depth must be 6b \+ 2"):
        cifar_resnet(depth, 10)


@pytest.mark.parametrize("bad", [{"outputs": 0}, {"width": 0}, {"channels": 0}])
def test_numbers_must_be_positive(bad):
    options = {"outputs": 3} | bad
    with pytest.raises(ValueError, match="outputs, width and channels must be positive"):
        cifar_resnet(8, **options)
