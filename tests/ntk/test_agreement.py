"""Every engine, output and chunk size against the reference, on every network, masked and dense."""

import pytest
import torch

from ntktheory import empirical_ntk, functional, ntk_trace
from ntktheory.ntk import reference
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12
NETWORKS = list(cases.BUILDERS)
MASKED = [False, True]


def problem(name, masked):
    net = cases.network(name)
    return net, functional(net.model), cases.random_masks(net.model) if masked else None


def outputs_of(theta):
    diagonal = theta.diagonal(dim1=2, dim2=3)
    return {"full": theta, "diagonal": diagonal, "trace": diagonal.sum(-1)}


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("engine", ["auto", "jacobian", "ntk_vp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kernel(name, engine, masked):
    net, f, masks = problem(name, masked)
    other = torch.randn(2, *net.x.shape[1:], generator=torch.Generator().manual_seed(9)).double()
    for x2 in (None, other):
        expected = outputs_of(reference.ntk(f.model_fn, f.params, masks, net.x, x2))
        for output, theta in expected.items():
            for chunk_size in (None, 1, 2, 5):
                value = empirical_ntk(
                    net.model, net.x, x2, output=output, masks=masks, engine=engine,
                    chunk_size=chunk_size,
                )  # fmt: skip
                assert relative_gap(value, theta) < TOLERANCE, (x2 is None, output, chunk_size)


@pytest.mark.parametrize(
    "name", ["MLP", "MLP with biases", "CNN", "grouped, dilated, depthwise CNN", "layer used twice"]
)
def test_layerwise_engine_needs_no_fallback(name):
    net, f, _ = problem(name, False)
    value = empirical_ntk(net.model, net.x, engine="layerwise")
    assert relative_gap(value, reference.ntk(f.model_fn, f.params, None, net.x)) < TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_of_each_parameter(name):
    net, f, masks = problem(name, True)
    for parameter in f.params:
        expected = reference.ntk(f.model_fn, f.params, masks, net.x, names=(parameter,))
        value = empirical_ntk(net.model, net.x, select=[parameter], masks=masks)
        assert relative_gap(value, expected) < TOLERANCE, parameter


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("name", NETWORKS)
def test_trace(name, masked):
    net, f, masks = problem(name, masked)
    expected = reference.trace(f.model_fn, f.params, masks, net.x)
    jacobian = reference.jacobian(f.model_fn, f.params, masks, net.x)
    by_sample = sum(j.flatten(1).square().sum(1) for j in jacobian.values())
    for chunk_size in (None, 1, 3):
        options = {"masks": masks, "chunk_size": chunk_size}
        by_parameter = ntk_trace(net.model, net.x, per="parameter", **options)
        by_layer = ntk_trace(net.model, net.x, per="layer", **options)
        assert list(by_parameter) == list(by_layer) == list(f.params)
        for key, value in expected.items():
            assert relative_gap(by_parameter[key], value) < TOLERANCE, key
            assert relative_gap(by_layer[key], value.sum()) < TOLERANCE, key
        total = ntk_trace(net.model, net.x, **options)
        assert total.shape == ()
        assert relative_gap(total, by_sample.sum()) < TOLERANCE
        assert (
            relative_gap(ntk_trace(net.model, net.x, per="sample", **options), by_sample)
            < TOLERANCE
        )


def test_float32_agrees_to_its_precision():
    net = cases.network("CNN")
    model, x = net.model.to(torch.float32), net.x.float()
    try:
        theta = empirical_ntk(model, x)
        f = functional(model)
        assert theta.dtype == torch.float32
        assert relative_gap(theta, reference.ntk(f.model_fn, f.params, None, x)) < 1e-5
    finally:
        net.model.double()


def test_kernel_of_two_batches_is_a_block_of_the_whole():
    net = cases.network("CNN")
    whole = empirical_ntk(net.model, net.x)
    assert relative_gap(empirical_ntk(net.model, net.x[:1], net.x[1:]), whole[:1, 1:]) < TOLERANCE
