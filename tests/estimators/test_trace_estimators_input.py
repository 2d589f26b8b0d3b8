"""What the trace estimators refuse, and what they say."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import aslinearoperator
from torch import nn

from ntktheory import NTKOperator, NumericalError
from ntktheory.estimators.diagonal import hutchinson_diagonal
from ntktheory.estimators.estimate import Estimate
from ntktheory.estimators.frobenius import hutchinson_frobenius
from ntktheory.estimators.hutchinson import hutchinson_trace, quadratic_form_variance
from ntktheory.estimators.hutchpp import hutchpp_trace
from ntktheory.estimators.output_probes import output_probe_trace
from ntktheory.estimators.xtrace import xtrace

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
A = torch.diag(torch.arange(1.0, 6.0, **DOUBLE))
ESTIMATORS = [
    hutchinson_trace,
    hutchinson_frobenius,
    hutchinson_diagonal,
    hutchpp_trace,
    xtrace,
]
ids = [estimator.__name__ for estimator in ESTIMATORS]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)


def generator():
    return torch.Generator().manual_seed(0)


class Made:
    """An operator of order 5 from a function of V."""

    def __init__(self, matmat, **attributes):
        self.shape, self.dtype, self.matmat = (5, 5), torch.float64, matmat
        for name, value in attributes.items():
            setattr(self, name, value)


@each
@pytest.mark.parametrize(
    ("operator", "error", "text"),
    [
        (torch.ones(3, 4), ValueError, r"operator must be square, .* got \[3, 4\]"),
        (torch.ones(4), ValueError, r"operator must be square, of shape \[n, n\], got \[4\]"),
        (torch.ones(0, 0), ValueError, r"operator must be square, .* got \[0, 0\]"),
        (
            aslinearoperator(np.ones((3, 4))),
            ValueError,
            r"operator must be square, .* got \[3, 4\]",
        ),
        ([[1.0]], TypeError, "operator must be a tensor, or an object with shape .* got list"),
        (np.eye(3), TypeError, "object with matmat or matvec, got ndarray"),
        (csr_array(np.eye(3)), TypeError, "matmat or matvec, got csr_array. .* aslinearoperator"),
        (torch.eye(3).bfloat16(), TypeError, "of float32 or float64 numbers, got torch.bfloat16"),
        (torch.eye(3).long(), TypeError, "of float32 or float64 numbers, got torch.int64"),
        (
            torch.eye(3).to(torch.complex64),
            TypeError,
            "of float32 or float64 numbers, got torch.complex64",
        ),
        (aslinearoperator(np.eye(3) * 1j), TypeError, "numbers, got complex128"),
        (aslinearoperator(np.eye(3, dtype=np.float16)), TypeError, "numbers, got float16"),
    ],
)
def test_operators(estimator, operator, error, text):
    with pytest.raises(error, match=text):
        estimator(operator, products=6, generator=generator())


@each
def test_products_of_another_shape(estimator):
    with pytest.raises(ValueError, match=r"whose products have shape \[5, .*\], got \[4"):
        estimator(Made(lambda V: V[:4]), products=6, generator=generator())


@each
def test_number_of_products(estimator):
    with pytest.raises(TypeError, match=r"products must be an int, got 6\.0"):
        estimator(A, products=6.0, generator=generator())
    with pytest.raises(TypeError, match="products must be an int, got True"):
        estimator(A, products=True, generator=generator())
    with pytest.raises(ValueError, match=r"products must be .* at least [123], got 0"):
        estimator(A, products=0, generator=generator())


def test_too_few_or_too_many_products():
    with pytest.raises(ValueError, match="products must be a number of at least 3, got 2"):
        hutchpp_trace(A, products=2, generator=generator())
    with pytest.raises(ValueError, match=r"at most 15, got 16. .* the exact trace, in n of them"):
        hutchpp_trace(A, products=16, generator=generator())
    for odd in (1, 3):
        with pytest.raises(ValueError, match=f"an even number of at least 2, got {odd}"):
            xtrace(A, products=odd, generator=generator())
    with pytest.raises(ValueError, match="products must be at most 10, got 12"):
        xtrace(A, products=12, generator=generator())
    with pytest.raises(ValueError, match="products must be a number of at least 3, got 2"):
        hutchinson_diagonal(A, products=2, law="gaussian", generator=generator())


@each
def test_laws_and_generators(estimator):
    with pytest.raises(ValueError, match=r"law must be one of 'gaussian', 'rademacher'.* 'cauchy'"):
        estimator(A, products=6, law="cauchy", generator=generator())
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        estimator(A, products=6, generator=0)


class Breaks:
    """Products that turn bad at a given one, counted over all calls."""

    shape, dtype = (9, 9), torch.float64

    def __init__(self, index, value):
        self.index, self.value, self.taken = index, value, 0

    def matvec(self, v):
        self.taken += 1
        return torch.full_like(v, self.value) if self.taken == self.index + 1 else 2 * v


@each
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("index", [0, 1, 4])
def test_which_product_is_not_finite(estimator, index, value):
    with pytest.raises(NumericalError, match=f"NaN or Inf in product {index}, counted from 0"):
        estimator(Breaks(index, value), products=6, generator=generator())


@pytest.mark.parametrize(
    ("estimator", "accepted", "index"),
    [(hutchinson_trace, 0, 0), (hutchpp_trace, 1, 2), (hutchpp_trace, 2, 4), (xtrace, 1, 3)],
)
def test_which_product_an_operator_itself_refuses(estimator, accepted, index):
    """An operator with a check of its own is asked again, one product at a time."""
    calls = []

    def refusing(V):
        calls.append(V.shape[1])
        if len(calls) > accepted:
            raise NumericalError("no")
        return V

    with pytest.raises(
        NumericalError, match=f"finite products, got NaN or Inf in product {index},"
    ):
        estimator(Made(refusing), products=6, generator=generator())


def test_the_first_refused_product_is_named():
    signs = torch.randint(0, 2, (40, 5), generator=generator(), **DOUBLE) * 2 - 1
    first = int((signs[:, 0] < 0).nonzero()[0])

    def refusing(V):
        if bool((V[0] < 0).any()):
            raise NumericalError("no")
        return V

    with pytest.raises(NumericalError, match=f"in product {first}, counted") as caught:
        hutchinson_trace(Made(refusing), products=40, generator=generator())
    assert str(caught.value.__cause__) == "no"


def test_an_overflowing_network():
    operator = NTKOperator(nn.Linear(2, 3).double(), torch.full((2, 2), 1e200, **DOUBLE))
    with pytest.raises(NumericalError, match="in product 0, counted from 0") as caught:
        hutchpp_trace(operator, products=3, generator=generator())
    assert "Theta V must be finite" in str(caught.value.__cause__)


def test_an_overflowing_estimate():
    with pytest.raises(NumericalError, match="estimate must be finite, got 1 of 1 entries"):
        hutchinson_frobenius(1e200 * A, products=2, generator=generator())
    with pytest.raises(NumericalError, match="estimate must be finite"):
        Estimate(torch.tensor(torch.nan), torch.tensor(0.0), 1)


def test_variance_formula():
    with pytest.raises(ValueError, match=r"matrix must be square, of shape \[n, n\], got \[2, 3\]"):
        quadratic_form_variance(torch.ones(2, 3), "gaussian")
    with pytest.raises(ValueError, match="law must be one of"):
        quadratic_form_variance(torch.ones(2, 2), "sphere")


NET, X = nn.Linear(2, 3).double(), torch.ones(4, 2, **DOUBLE)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"probes": 0}, ValueError, "probes must be a number of at least 1, got 0"),
        ({"probes": 1.5}, TypeError, "probes must be an int, got 1.5"),
        (
            {"law": "sphere"},
            ValueError,
            "law must be one of 'gaussian', 'rademacher', got 'sphere'",
        ),
        ({"per": "layer"}, ValueError, "per must be one of 'sample', 'total', got 'layer'"),
        ({"generator": None}, TypeError, r"generator must be a torch\.Generator, got NoneType"),
        ({"select": ["no"]}, ValueError, "select must be one of"),
        ({"masks": {"no": torch.ones(1)}}, ValueError, "masks must be named like the parameters"),
        ({"x": X[:0]}, ValueError, "x must be a non-empty batch"),
        ({"x": X * torch.nan}, NumericalError, "x must be finite"),
        ({"x": X * 1e200}, NumericalError, "estimate must be finite"),
        ({"model": nn.Sequential(NET, nn.Dropout())}, ValueError, "model must be in eval mode"),
        ({"model": lambda x: x}, TypeError, r"model must be an nn\.Module or a FunctionalModel"),
    ],
)
def test_output_probes(changed, error, text):
    arguments = {"model": NET, "x": X, "probes": 2, "generator": generator()} | changed
    with pytest.raises(error, match=text):
        output_probe_trace(**arguments)
