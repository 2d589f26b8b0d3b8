"""Products by oneDNN: the sums of the plain product, and only where they suit."""

import pytest
import torch
from torch import nn

from ntktheory import empirical_ntk, ntk_trace
from ntktheory.models import mlp
from ntktheory.ntk import products
from ntktheory.ntk.products import products_by_onednn, times_transpose
from proofs_check.compare import relative_gap

FLOAT32 = 1e-6

needs_onednn = pytest.mark.skipif(products._onednn is None, reason="a build without oneDNN")


def matrix(rows, columns, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture
def handed_over(monkeypatch):
    """Count the products that oneDNN gets; None where torch has none."""
    real, shapes = products._onednn, []

    def counted(a, b, *rest):
        shapes.append((tuple(a.shape), tuple(b.shape)))
        return real(a, b, *rest)

    if real is not None:
        monkeypatch.setattr(products, "_onednn", counted)
    return shapes


@pytest.fixture(params=["with oneDNN", "without oneDNN"])
def library(request, monkeypatch):
    if request.param == "without oneDNN":
        monkeypatch.setattr(products, "_onednn", None)
    return request.param


def layouts():
    a = matrix(6, 8)
    return {
        "contiguous": a,
        "transposed": matrix(8, 6).T,
        "every second column": matrix(6, 16)[:, ::2],
        "every second row": matrix(12, 8)[::2],
        "a slice": matrix(9, 11)[2:8, 1:9],
        "one row for all": matrix(1, 8).expand(6, 8),
        "one row": matrix(1, 8),
        "no rows": a[:0],
    }


@pytest.mark.parametrize("right", layouts())
@pytest.mark.parametrize("left", layouts())
def test_times_transpose(library, left, right):
    a, b = layouts()[left], layouts()[right]
    value = times_transpose(a, b)
    expected = a.double() @ b.double().T
    assert value.dtype == torch.float32
    assert value.shape == expected.shape == (a.shape[0], b.shape[0])
    if expected.numel():
        assert relative_gap(value, expected) < FLOAT32


@pytest.mark.parametrize("shapes", [((3, 0), (4, 0)), ((0, 0), (0, 0)), ((0, 5), (4, 5))])
def test_empty_sums_are_zero(library, shapes):
    a, b = (torch.ones(shape) for shape in shapes)
    value = times_transpose(a, b)
    assert torch.equal(value, torch.zeros(shapes[0][0], shapes[1][0]))


@pytest.mark.parametrize("columns", [1, 7, 513])
def test_products_inside(library, columns):
    a, b = matrix(5, columns), matrix(columns, 3, 1)
    bias, square = matrix(1, 3, 2)[0], matrix(5, 3, 3)
    with products_by_onednn():
        found = {
            "a b": a @ b,
            "a b, transposed": (b.T @ a.T).T,
            "a b + bias": torch.addmm(bias, a, b),
            "linear": nn.functional.linear(a, b.T, bias),
            "a b + a matrix": torch.addmm(square, a, b),
            "2 bias + 3 a b": torch.addmm(bias, a, b, beta=2, alpha=3),
            "a b + a number": torch.addmm(bias[:1], a, b),
            "stretched bias": torch.addmm(bias.expand(5, 3), a, b),
        }
    a, b, bias, square = (t.double() for t in (a, b, bias, square))
    product = a @ b
    expected = {
        "a b": product,
        "a b, transposed": product,
        "a b + bias": product + bias,
        "linear": product + bias,
        "a b + a matrix": product + square,
        "2 bias + 3 a b": 2 * bias + 3 * product,
        "a b + a number": product + bias[0],
        "stretched bias": product + bias,
    }
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert relative_gap(found[name], value) < FLOAT32, name


def test_empty_products_inside(library):
    with products_by_onednn():
        assert torch.equal(torch.ones(3, 0) @ torch.ones(0, 2), torch.zeros(3, 2))
        assert torch.equal(
            torch.addmm(torch.ones(2), torch.ones(3, 0), torch.ones(0, 2)), torch.ones(3, 2)
        )
        assert (torch.ones(0, 4) @ torch.ones(4, 2)).shape == (0, 2)


@needs_onednn
def test_what_onednn_gets(handed_over):
    a, b, bias = matrix(5, 7), matrix(7, 3, 1), matrix(1, 3, 2)[0]
    times_transpose(a, b.T)
    assert handed_over == [((5, 7), (3, 7))]
    with products_by_onednn():
        torch.addmm(bias, a, b)
        a @ b
    assert handed_over[1:] == [((5, 7), (3, 7))] * 2
    torch.addmm(bias, a, b)  # outside again: plain
    assert len(handed_over) == 3


@needs_onednn
def test_what_takes_the_plain_product(handed_over):
    a, b, bias = matrix(5, 7), matrix(3, 7, 1), matrix(1, 3, 2)[0]
    followed = a.clone().requires_grad_()
    expected = a.double() @ b.double().T

    def gap(value):
        return relative_gap(value.detach(), expected)

    assert times_transpose(a.double(), b.double()).dtype == torch.float64
    assert gap(times_transpose(a.double(), b.double())) < 1e-15
    assert gap(times_transpose(followed, b)) < FLOAT32
    assert gap(times_transpose(b, followed).T) < FLOAT32
    assert gap(torch.func.vmap(lambda row: times_transpose(row[None], b)[0])(a)) < FLOAT32
    tangent = torch.func.jvp(lambda t: times_transpose(t, b), (a,), (a,))[1]
    assert gap(tangent) < FLOAT32
    with products_by_onednn():
        assert gap(a.double() @ b.double().T) < 1e-15
        for value in (torch.addmm(bias, a, b.T, beta=0), torch.addmm(matrix(5, 3), a, b.T, beta=0)):
            assert gap(value) < FLOAT32
    assert handed_over == []


def test_derivatives_of_times_transpose(library):
    a, b = matrix(4, 5), matrix(3, 5, 1)
    value = torch.func.grad(lambda a: times_transpose(a, b).square().sum())(a)
    expected = 2 * (a.double() @ b.double().T) @ b.double()
    assert relative_gap(value, expected) < FLOAT32
    followed = a.clone().requires_grad_()
    times_transpose(followed, b).square().sum().backward()
    assert relative_gap(followed.grad, expected) < FLOAT32


def test_derivatives_inside(library):
    """Backward passes, also under vmap, are made of products that are handed over."""
    a, weight, bias = matrix(4, 5), matrix(3, 5, 1), matrix(1, 3, 2)[0]
    gs = torch.stack([matrix(4, 3, seed) for seed in (3, 4, 5)])

    def outputs(a, weight, bias):
        return torch.tanh(nn.functional.linear(a, weight, bias))

    def pulled(*tensors):
        _, pullback = torch.func.vjp(outputs, *tensors)
        return torch.func.vmap(pullback)(gs.to(tensors[0].dtype))

    with products_by_onednn():
        found = pulled(a, weight, bias)
    expected = pulled(a.double(), weight.double(), bias.double())
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert relative_gap(value, reference) < FLOAT32


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
def test_kernel_and_trace_by_either_library(monkeypatch, handed_over, bias):
    model = mlp([6, 9, 8, 3], bias=bias, generator=torch.Generator().manual_seed(0))
    x = matrix(5, 6)
    exact = empirical_ntk(model.double(), x.double())
    model.float()
    by_onednn = empirical_ntk(model, x), ntk_trace(model, x)
    assert len(handed_over) > 0
    monkeypatch.setattr(products, "_onednn", None)
    plain = empirical_ntk(model, x), ntk_trace(model, x)
    for kernel, trace in (by_onednn, plain):
        assert relative_gap(kernel, exact) < FLOAT32
        assert relative_gap(trace, exact.diagonal(dim1=2, dim2=3).diagonal().sum()) < FLOAT32


def test_linear_without_onednn_is_refused(monkeypatch):
    monkeypatch.setattr(products, "_onednn", None)
    with pytest.raises(RuntimeError, match="this build of torch has no oneDNN"):
        products._linear(torch.ones(2, 2), torch.ones(2, 2), None)
