"""VGG: counts, shapes, what it computes, the law of the weights, and its kernel."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import empirical_ntk, ntk_trace
from ntktheory.functional import functional
from ntktheory.models import build_model, vgg
from ntktheory.ntk import reference

# The columns A, B, D and E of the paper's table 1; "M" is max pooling.
TABLE = {
    11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    16: [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"],
    19: [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
}
DEPTHS = pytest.mark.parametrize("depth", TABLE)
FORMS = pytest.mark.parametrize("form", ["cifar", "imagenet"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(depth=11, **options):
    return vgg(depth, 3, width=options.pop("width", 2), **options)


def count(depth, outputs, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in vgg(depth, outputs, **options).parameters())


def layer_by_layer(depth, heads, *, bias, batch_norm):
    """Count the table's convolutions, then the linear layers of the given widths."""
    total, inputs = 0, 3
    for units in TABLE[depth]:
        if units != "M":
            total += 9 * inputs * units + bias * units + 2 * batch_norm * units
            inputs = units
    for before, after in pairwise(heads):
        total += before * after + bias * after
    return total


@DEPTHS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_parameter_counts(depth, bias, batch_norm):
    options = {"bias": bias, "batch_norm": batch_norm}
    assert count(depth, 10, **options) == layer_by_layer(depth, [512, 10], **options)
    heads = [512 * 49, 4096, 4096, 1000]
    assert count(depth, 1000, form="imagenet", **options) == layer_by_layer(depth, heads, **options)


@pytest.mark.parametrize(
    ("depth", "outputs", "options", "known"),
    [
        (16, 10, {"batch_norm": True}, 14_728_266),
        (16, 10, {}, 14_719_818),
        (11, 1000, {"form": "imagenet"}, 132_863_336),
        (16, 1000, {"form": "imagenet"}, 138_357_544),
        (19, 1000, {"form": "imagenet"}, 143_667_240),
    ],
)
def test_known_totals(depth, outputs, options, known):
    """For VGG-16 and 10 classes: 9·(3·64 + … ) = 14,710,464 weights, 4,224 channels, a head of 5,130.

    A channel has a bias, and with batch norm a scale and a shift.
    """
    assert 14_710_464 + 4_224 + 5_130 == 14_719_818
    assert 14_710_464 + 3 * 4_224 + 5_130 == 14_728_266
    assert count(depth, outputs, **options) == known


@DEPTHS
def test_layers_are_those_of_the_table(depth):
    net = vgg(depth, 10, width=1)
    found = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
            found.append(64 * module.out_channels)
        elif isinstance(module, nn.MaxPool2d):
            assert (module.kernel_size, module.stride) == (2, 2)
            found.append("M")
    assert found == TABLE[depth]
    weights = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules())
    assert weights == depth - 2
    large = vgg(depth, 10, width=1, form="imagenet")
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in large.modules()) == depth


@FORMS
def test_names(form):
    net = tiny(batch_norm=True, form=form)
    stages = [f"stage{i}" for i in range(1, 6)]
    classifier = [
        f"{name}{i}" for i in (1, 2) for name in ("layer", "activation", "dropout")
    ]  # fmt: skip
    middle = ["flatten"] if form == "cifar" else ["pool", "flatten", *classifier]
    assert [name for name, _ in net.named_children()] == [*stages, *middle, "head"]
    assert [name for name, _ in net.stage1.named_children()] == [
        "conv1", "bn1", "activation1", "pool"
    ]  # fmt: skip


@FORMS
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (63, 40)])
def test_it_computes_its_layers(form, batch_norm, size):
    net = tiny(13, form=form, batch_norm=batch_norm, generator=seeded(), dtype=torch.float64)
    generator = seeded(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)
    h = x = torch.randn(2, 3, *size, generator=seeded(2), dtype=torch.float64)
    for stage in (net.stage1, net.stage2, net.stage3, net.stage4, net.stage5):
        for i in ("1", "2"):
            conv = getattr(stage, f"conv{i}")
            h = F.conv2d(h, conv.weight, conv.bias, padding=1)
            if batch_norm:
                bn = getattr(stage, f"bn{i}")
                h = F.batch_norm(h, bn.running_mean, bn.running_var, bn.weight, bn.bias)
            h = F.relu(h)
        h = F.max_pool2d(h, 2)
    assert h.shape == (2, 16, 1, 1)
    h = h.flatten(1)
    if form == "imagenet":  # the average of a 1×1 map fills all 49 positions
        h = h.repeat_interleave(49, dim=1)
        for layer in (net.layer1, net.layer2):
            h = F.relu(h @ layer.weight.T + layer.bias)
    expected = h @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-13)


def test_the_large_form_averages_to_seven_by_seven():
    net = vgg(11, 2, width=1, form="imagenet", dtype=torch.float64)
    maps = torch.randn(1, 8, 14, 14, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(net.pool(maps), F.avg_pool2d(maps, 2), rtol=1e-13, atol=1e-14)
    assert net(torch.zeros(1, 3, 224, 224, dtype=torch.float64)).shape == (1, 2)


@FORMS
def test_every_relu_is_used_once_and_not_in_place(form):
    net = tiny(16, form=form)
    calls = []
    relus = [m for m in net.modules() if isinstance(m, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: calls.append(module))
    net(torch.zeros(1, 3, 32, 32))
    assert len(relus) == (13 if form == "cifar" else 15)
    assert len(calls) == len(set(calls)) == len(relus)
    assert not any(relu.inplace for relu in relus)


@FORMS
def test_eval_mode_and_dtype(form):
    net = tiny(form=form, batch_norm=True)
    assert not any(module.training for module in net.modules())
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    net = tiny(form=form, batch_norm=True, dtype=torch.float64)
    tensors = [*net.parameters(), *net.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}


@pytest.mark.parametrize("bias", [True, False])
def test_bias_option(bias):
    names = [name for name, _ in tiny(bias=bias, form="imagenet").named_parameters()]
    assert any(name.endswith("bias") for name in names) is bias


def test_weights_come_from_the_generator():
    nets = [tiny(form="imagenet", generator=seeded(seed)) for seed in (1, 1, 2)]
    one, two, other = (dict(net.named_parameters()) for net in nets)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_he_law():
    """Σ w² fan_in/2 has mean n and standard deviation √(2n): within 6 of them."""
    net = vgg(11, 10, width=4, form="imagenet", generator=seeded(3))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            w = module.weight.detach().double()
            n, fan_in = w.numel(), w[0].numel()
            assert abs(float(w.square().sum()) * fan_in / 2 - n) <= 6 * (2 * n) ** 0.5
            assert float(module.bias.detach().abs().max()) <= fan_in**-0.5


@pytest.mark.parametrize(
    "options", [{"batch_norm": True}, {"bias": False}, {"form": "imagenet", "width": 1}]
)
def test_kernel_agrees_with_the_reference(options):
    net = functional(tiny(generator=seeded(), dtype=torch.float64, **options))
    x = torch.randn(3, 3, 32, 32, generator=seeded(5), dtype=torch.float64)
    expected = reference.ntk(net.model_fn, net.params, None, x)
    gap = (empirical_ntk(net, x) - expected).abs().max() / expected.abs().max()
    assert float(gap) <= 1e-10
    diagonal = reference.trace(net.model_fn, net.params, None, x)
    total = sum(float(d.sum()) for d in diagonal.values())
    assert float(ntk_trace(net, x)) == pytest.approx(total, rel=1e-10)


@DEPTHS
def test_registry_builds_it(depth):
    options = {"outputs": 3, "width": 1, "batch_norm": True, "bias": False}
    net = build_model(f"vgg{depth}", (1, 40, 63), **options)
    assert net(torch.ones(2, 1, 40, 63)).shape == (2, 3)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == depth - 3
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == depth - 3
    large = build_model(f"vgg{depth}", (3, 64, 64), form="imagenet", **options)
    assert large(torch.ones(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "shape", "form"),
    [
        (r"inputs of a VGG must be images .*got \[64\]", (64,), "cifar"),
        (r"VGG of form cifar must be images of 32 to 63 pixels a side, got", (3, 8, 8), "cifar"),
        (r"got \[3, 32, 64\]\. It halves them five times", (3, 32, 64), "cifar"),
        (r"VGG of form imagenet must be images of at least 32 pixels", (3, 31, 64), "imagenet"),
    ],
)
def test_images_that_do_not_fit(text, shape, form):
    with pytest.raises(ValueError, match=text):
        build_model("vgg11", shape, form=form, width=1)


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        (r"depth must be 11, 13, 16 or 19, got 12", {"depth": 12}),
        (r"form must be one of 'cifar', 'imagenet', got 'tiny'", {"form": "tiny"}),
        (r"outputs, width and channels must be positive integers", {"outputs": 0}),
        (r"got 3, 0 and 3", {"width": 0}),
        (r"got 3, 64 and True", {"channels": True}),
    ],
)
def test_bad_input(text, bad):
    with pytest.raises(ValueError, match=text):
        vgg(**({"depth": 11, "outputs": 3} | bad))
