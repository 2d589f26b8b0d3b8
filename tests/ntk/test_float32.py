"""float32: sums that keep the trace to 1e-6 and the kernel to 1e-5, relative to float64."""

import pytest
import torch

from ntktheory import empirical_ntk, ntk_trace
from ntktheory.models import cifar_resnet, convnet, mlp
from proofs_check.compare import relative_gap

TRACE, KERNEL = 1e-6, 1e-5
BUILDERS = {
    "MLP": (lambda g: mlp([784, 512, 512, 10], bias=True, generator=g), (8, 784)),
    "small MLP": (lambda g: mlp([64, 32, 32, 10], bias=True, generator=g), (8, 64)),
    "conv net": (
        lambda g: convnet([3, 16, 32, 32], 10, image_size=16, stride=[1, 2, 1], bias=True, generator=g),
        (8, 3, 16, 16),
    ),
    "ResNet-20": (lambda g: cifar_resnet(20, 10, generator=g), (4, 3, 32, 32)),
}  # fmt: skip
NETWORKS = list(BUILDERS)
SLOW = [pytest.param(n, marks=[pytest.mark.slow] * (n == "ResNet-20")) for n in BUILDERS]


def build(name):
    """Return a network in float64 whose parameters are float32 numbers, and a batch of such numbers."""
    make, shape = BUILDERS[name]
    generator = torch.Generator().manual_seed(0)
    model = make(generator).double().eval()
    return model, torch.randn(shape, generator=generator).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_trace(name):
    model, x = build(name)
    by_sample = ntk_trace(model, x, per="sample")
    total = by_sample.sum()
    model, x = model.float(), x.float()
    assert relative_gap(ntk_trace(model, x), total) < TRACE
    found = ntk_trace(model, x, per="sample").double()
    assert float(((found - by_sample) / by_sample).abs().max()) < TRACE


@pytest.mark.parametrize("name", NETWORKS)
def test_trace_of_each_layer(name):
    model, x = build(name)
    exact = ntk_trace(model, x, per="layer")
    found = ntk_trace(model.float(), x.float(), per="layer")
    for key, value in exact.items():
        assert relative_gap(found[key], value) < TRACE, key


@pytest.mark.parametrize("name", SLOW)
def test_kernel(name):
    model, x = build(name)
    exact = empirical_ntk(model, x)
    found = empirical_ntk(model.float(), x.float())
    assert found.dtype == torch.float32
    assert relative_gap(found, exact) < KERNEL
    diagonal = exact.diagonal(dim1=2, dim2=3)
    found = empirical_ntk(model, x.float(), output="trace")
    assert relative_gap(found, diagonal.sum(-1)) < KERNEL
