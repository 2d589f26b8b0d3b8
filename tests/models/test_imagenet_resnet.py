"""ResNet-18 and ResNet-50: counts, shapes, the blocks' formulas, the law of the weights, the kernel."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import empirical_ntk, ntk_trace
from ntktheory.functional import functional
from ntktheory.models import build_model, resnet18, resnet50
from ntktheory.models.imagenet_resnet import Bottleneck
from ntktheory.models.mlp import he_init
from ntktheory.ntk import reference

BUILDERS = pytest.mark.parametrize("build", [resnet18, resnet50])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


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


def count(build, *arguments, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in build(*arguments, **options).parameters())


def layer_by_layer(kind, blocks, outputs, stem):
    """Count convolutions (no bias) with their batch norms one by one, from the paper's table."""
    total, inputs = 0, 3

    def conv(size, before, after):
        nonlocal total
        total += size * size * before * after + 2 * after

    conv(7 if stem == "imagenet" else 3, 3, 64)
    inputs = 64
    for stage, repeats in enumerate(blocks):
        w = 64 * 2**stage
        after = w if kind == "basic" else 4 * w
        for block in range(repeats):
            if kind == "basic":
                conv(3, inputs, w)
                conv(3, w, w)
            else:
                conv(1, inputs, w)
                conv(3, w, w)
                conv(1, w, after)
            if block == 0 and (stage > 0 or inputs != after):
                conv(1, inputs, after)
            inputs = after
    return total + inputs * outputs + outputs


@pytest.mark.parametrize(
    ("build", "kind", "blocks", "outputs", "stem", "known"),
    [
        (resnet18, "basic", (2, 2, 2, 2), 1000, "imagenet", 11_689_512),
        (resnet18, "basic", (2, 2, 2, 2), 10, "cifar", 11_173_962),
        (resnet50, "bottleneck", (3, 4, 6, 3), 1000, "imagenet", 25_557_032),
        (resnet50, "bottleneck", (3, 4, 6, 3), 10, "cifar", 23_520_842),
    ],
)
def test_parameter_counts(build, kind, blocks, outputs, stem, known):
    assert layer_by_layer(kind, blocks, outputs, stem) == known
    assert count(build, outputs, stem=stem) == known


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize(("width", "channels", "outputs"), [(1, 1, 2), (3, 4, 5), (64, 3, 10)])
def test_parameter_formulas(stem, width, channels, outputs):
    w, k, c, s = width, channels, outputs, {"cifar": 9, "imagenet": 49}[stem]
    options = {"stem": stem, "width": w, "channels": k}
    assert count(resnet18, c, **options) == 2724 * w**2 + (s * k + 150) * w + 8 * w * c + c
    assert count(resnet50, c, **options) == 5724 * w**2 + (s * k + 830) * w + 32 * w * c + c


@pytest.mark.parametrize(("build", "depth"), [(resnet18, 18), (resnet50, 50)])
def test_depth_counts_the_layers_of_the_longest_path(build, depth):
    net = build(10, width=1)
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if "shortcut" not in name]) == depth


@BUILDERS
def test_names(build):
    common = ["stage1", "stage2", "stage3", "stage4", "pool", "flatten", "head"]
    start = ["conv1", "bn1", "activation1"]
    small = build(3, width=1, stem="cifar")
    assert [name for name, _ in small.named_children()] == [*start, *common]
    large = build(3, width=1, stem="imagenet")
    assert [name for name, _ in large.named_children()] == [*start, "stem_pool", *common]


@BUILDERS
@pytest.mark.parametrize(("stem", "shrinks"), [("cifar", 8), ("imagenet", 32)])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (33, 65)])
def test_shapes(build, stem, shrinks, height, width):
    net = build(7, width=2, stem=stem, channels=1)
    images = torch.zeros(2, 1, height, width)
    assert net(images).shape == (2, 7)
    stages = nn.Sequential(*[m for name, m in net.named_children() if name != "head"][:-2])
    channels = 16 if build is resnet18 else 64
    assert stages(images).shape == (2, channels, -(-height // shrinks), -(-width // shrinks))


@BUILDERS
def test_every_relu_is_used_once_and_not_in_place(build):
    net = build(3, width=1)
    calls = []
    relus = [m for m in net.modules() if isinstance(m, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: calls.append(module))
    net(torch.zeros(1, 3, 32, 32))
    assert len(relus) == (17 if build is resnet18 else 49)
    assert len(calls) == len(set(calls)) == len(relus)
    assert not any(relu.inplace for relu in relus)


def norm(h, bn):
    return F.batch_norm(h, bn.running_mean, bn.running_var, bn.weight, bn.bias)


@pytest.mark.parametrize(("inputs", "stride"), [(2, 2), (2, 1), (12, 1), (12, 2)])
def test_bottleneck_computes_its_formula(inputs, stride):
    block = shaken(Bottleneck(inputs, 3, stride, torch.float64).eval())
    for conv in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
        he_init(conv, seeded())
    x = torch.randn(4, inputs, 6, 6, generator=seeded(2), dtype=torch.float64)
    h = F.relu(norm(F.conv2d(x, block.conv1.weight), block.bn1))
    h = F.relu(norm(F.conv2d(h, block.conv2.weight, stride=stride, padding=1), block.bn2))
    h = norm(F.conv2d(h, block.conv3.weight), block.bn3)
    if (inputs, stride) == (12, 1):
        assert len(block.shortcut) == 0
        s = x
    else:
        s = norm(F.conv2d(x, block.shortcut.conv.weight, stride=stride), block.shortcut.bn)
    torch.testing.assert_close(block(x), F.relu(h + s), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_stem_and_head_compute_their_formulas(stem):
    net = shaken(resnet18(3, width=2, stem=stem, generator=seeded(), dtype=torch.float64))
    x = torch.randn(2, 3, 20, 20, generator=seeded(2), dtype=torch.float64)
    if stem == "cifar":
        h = F.relu(norm(F.conv2d(x, net.conv1.weight, padding=1), net.bn1))
    else:
        h = F.relu(norm(F.conv2d(x, net.conv1.weight, stride=2, padding=3), net.bn1))
        h = F.max_pool2d(h, 3, 2, 1)
    for stage in (net.stage1, net.stage2, net.stage3, net.stage4):
        h = stage(h)
    expected = h.mean((2, 3)) @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-13)


@BUILDERS
def test_eval_mode_and_dtype(build):
    net = build(3, width=1)
    assert not any(module.training for module in net.modules())
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    net = build(3, width=1, dtype=torch.float64)
    tensors = [*net.parameters(), *net.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}


@BUILDERS
def test_weights_come_from_the_generator(build):
    nets = [build(3, width=2, generator=seeded(seed)) for seed in (1, 1, 2)]
    one, two, other = (dict(net.named_parameters()) for net in nets)
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [name for name in one if ".bn" not in name and not name.startswith("bn")]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


@BUILDERS
def test_he_law(build):
    """Σ w² fan_in/2 has mean n and standard deviation √(2n): within 6 of them."""
    net = build(10, width=8, generator=seeded(3))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            w = module.weight.detach().double()
            n, fan_in = w.numel(), w[0].numel()
            assert abs(float(w.square().sum()) * fan_in / 2 - n) <= 6 * (2 * n) ** 0.5


@pytest.mark.parametrize(
    ("build", "options"),
    [(resnet18, {"stem": "imagenet", "width": 2}), (resnet50, {"stem": "cifar", "width": 1})],
)
def test_kernel_agrees_with_the_reference(build, options):
    net = functional(shaken(build(3, generator=seeded(), dtype=torch.float64, **options)))
    x = torch.randn(3, 3, 12, 12, generator=seeded(5), dtype=torch.float64)
    expected = reference.ntk(net.model_fn, net.params, None, x)
    gap = (empirical_ntk(net, x) - expected).abs().max() / expected.abs().max()
    assert float(gap) <= 1e-10
    diagonal = reference.trace(net.model_fn, net.params, None, x)
    total = sum(float(d.sum()) for d in diagonal.values())
    assert float(ntk_trace(net, x)) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_registry_builds_it(name):
    net = build_model(name, (1, 9, 8), outputs=3, width=2, stem="imagenet")
    assert "stem_pool" in dict(net.named_children())
    assert net(torch.ones(2, 1, 9, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"inputs of a ResNet must be images .*got \[8, 8\]"):
        build_model(name, (8, 8))


@BUILDERS
def test_the_stem_must_be_known(build):
    with pytest.raises(ValueError, match=r"stem must be one of 'cifar', 'imagenet', got 'mnist'"):
        build(10, stem="mnist")


@BUILDERS
@pytest.mark.parametrize("bad", [{"outputs": 0}, {"width": -1}, {"channels": 2.0}])
def test_numbers_must_be_positive(build, bad):
    options = {"outputs": 3} | bad
    with pytest.raises(ValueError, match="outputs, width and channels must be positive integers"):
        build(**options)
