"""The kernels of three small networks against those that neural-tangents made, in float32.

``neural_tangents.json`` holds its numbers and versions; ``make_neural_tangents.py`` wrote it. Parameters
and inputs are cosines of their index, made here and there.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ntktheory import empirical_ntk, ntk_trace
from proofs_check.compare import relative_gap

RECORD = json.loads(Path(__file__).with_name("neural_tangents.json").read_text())
TOLERANCE = 1e-5


def mlp():
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)
    )  # fmt: skip


def strided():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip


BUILDERS = {"MLP": mlp, "strided": strided, "pooled": pooled}


def numbers(shape, phase, scale=1.0):
    """Return ``scale · cos(phase + 0.7 i + 0.01 i²)`` for i = 0, 1, …"""
    i = np.arange(np.prod(shape), dtype=np.float64)
    values = (scale * np.cos(phase + 0.7 * i + 0.01 * i * i)).astype(np.float32)
    return torch.from_numpy(values.reshape(shape))


def build(name, dtype=torch.float32):
    """Return the network, a batch, another one, and the two kernels of the record."""
    record = RECORD["networks"][name]
    model = BUILDERS[name]().eval()
    shapes = [list(p.shape) for p in model.parameters()]
    assert shapes == list(record["parameters"].values())
    with torch.no_grad():
        for phase, p in enumerate(model.parameters()):
            scale = 0.3 if p.ndim == 1 else 2 / np.prod(p.shape[1:]) ** 0.5
            p.copy_(numbers(tuple(p.shape), 1.0 + phase, scale))
    n, *shape = record["inputs"]
    x, other = numbers((n, *shape), 0.0), numbers((2, *shape), 0.5)
    thetas = [
        torch.tensor(record[kind]["values"], dtype=torch.float64).view(record[kind]["shape"])
        for kind in ("kernel", "kernel_of_two_batches")
    ]
    return model.to(dtype), x.to(dtype), other.to(dtype), thetas


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", ["layerwise", "jacobian", "ntk_vp"])
@pytest.mark.parametrize("name", BUILDERS)
def test_kernel(name, engine, dtype):
    model, x, other, thetas = build(name, dtype)
    for x2, theta in zip((None, other), thetas, strict=True):
        diagonal = theta.diagonal(dim1=2, dim2=3)
        outputs = {"full": theta, "trace": diagonal.sum(-1), "diagonal": diagonal}
        for output, expected in outputs.items():
            value = empirical_ntk(model, x, x2, output=output, engine=engine)
            assert value.dtype == dtype
            assert relative_gap(value, expected) < TOLERANCE, (output, x2 is None)


@pytest.mark.parametrize("name", BUILDERS)
def test_trace(name):
    model, x, _, (theta, _) = build(name)
    by_sample = theta.diagonal(dim1=2, dim2=3).sum(-1).diagonal()
    assert relative_gap(ntk_trace(model, x), by_sample.sum()) < TOLERANCE
    assert relative_gap(ntk_trace(model, x, per="sample"), by_sample) < TOLERANCE


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_enters_the_comparison(name):
    """The kernel of all parameters but one is further from the record than the tolerance."""
    model, x, _, (theta, _) = build(name)
    names = [key for key, _ in model.named_parameters()]
    for missing in names:
        value = empirical_ntk(model, x, select=[key for key in names if key != missing])
        assert relative_gap(value, theta) > 100 * TOLERANCE, missing


def test_record():
    assert RECORD["versions"]["neural-tangents"] == "0.6.5"
    assert RECORD["dtype"] == "float32"
    assert set(RECORD["networks"]) == set(BUILDERS)
    assert all(net["gap_between_implementations"] < 1e-6 for net in RECORD["networks"].values())
