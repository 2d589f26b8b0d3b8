"""Products with the kernel: against the reference, by hand, over chunks, through scipy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from ntktheory import NumericalError, functional
from ntktheory.models import mlp
from ntktheory.ntk import operator as module
from ntktheory.ntk import reference
from ntktheory.ntk.attention import exact_attention
from ntktheory.ntk.matrix import to_matrix
from ntktheory.ntk.operator import NTKOperator, ntk_products, planned_chunks
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-12
DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def dense(net, masks, names=None):
    f = functional(net.model)
    return to_matrix(reference.ntk(f.model_fn, f.params, masks, net.x, None, names))


def columns(rows, count, seed=3):
    return torch.randn(rows, count, generator=torch.Generator().manual_seed(seed), **DOUBLE)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", list(cases.BUILDERS))
def test_agreement(name, masked, monkeypatch):
    net = cases.network(name)
    masks = cases.random_masks(net.model) if masked else None
    theta, operator = dense(net, masks), NTKOperator(net.model, net.x, masks=masks)
    identity = torch.eye(len(theta), **DOUBLE)
    assert operator.shape == theta.shape
    assert relative_gap(operator.matmat(identity), theta) < TOLERANCE
    v = columns(len(theta), 1)[:, 0]
    assert relative_gap(operator.matvec(v), theta @ v) < TOLERANCE
    for parameter in functional(net.model).params:
        part = NTKOperator(net.model, net.x, select=[parameter], masks=masks)
        assert relative_gap(part.matvec(v), dense(net, masks, (parameter,)) @ v) < TOLERANCE
    monkeypatch.setattr(module, "planned_chunks", lambda *args, **kwargs: (2, 2))
    assert relative_gap(operator.matmat(identity[:, :5]), theta[:, :5]) < TOLERANCE


def test_hand_value():
    # f(x) = W x: ∂f_c/∂W_c'd = δ_cc' x_d, so Θ[(n, c), (m, c')] = δ_cc' x_n·x_m with
    # x_1 = (1, 2), x_2 = (0, 3): x_1·x_1 = 5, x_1·x_2 = 6, x_2·x_2 = 9.
    net = nn.Linear(2, 2, bias=False).double()
    operator = NTKOperator(net, torch.tensor([[1.0, 2.0], [0.0, 3.0]], **DOUBLE))
    assert operator.shape == (4, 4)
    assert operator.matvec(torch.tensor([1.0, 0.0, 0.0, 0.0], **DOUBLE)).tolist() == [5, 0, 6, 0]
    assert operator.matvec(torch.tensor([0.0, 1.0, 0.0, -1.0], **DOUBLE)).tolist() == [0, -1, 0, -3]
    # Without the weight W_12, ∂f_1/∂W_1 = (x_1, 0): 1, 0, 0.
    masks = {"weight": torch.tensor([[True, False], [True, True]])}
    operator = NTKOperator(net, torch.tensor([[1.0, 2.0], [0.0, 3.0]], **DOUBLE), masks=masks)
    assert operator.matvec(torch.tensor([1.0, 1.0, 0.0, 0.0], **DOUBLE)).tolist() == [1, 5, 0, 6]


def test_float32_keeps_its_dtype():
    net, x = mlp([5, 7, 3], generator=torch.Generator().manual_seed(0)), columns(6, 5).float()
    operator = NTKOperator(net, x)
    f = functional(net)
    theta = to_matrix(reference.ntk(f.model_fn, f.params, None, x))
    product = operator.matmat(torch.eye(18))
    assert operator.dtype == product.dtype == torch.float32
    assert relative_gap(product, theta) < 1e-5


def test_vmap_over_parameters_masks_and_vectors_is_a_loop():
    net = cases.network("CNN")
    f = functional(net.model)
    generator = torch.Generator().manual_seed(4)
    sets = [
        {k: torch.randn(p.shape, generator=generator, **DOUBLE) for k, p in f.params.items()}
        for _ in range(3)
    ]
    masks = [cases.random_masks(net.model, 0.8, seed) for seed in range(3)]
    V = torch.stack([columns(len(net.x) * 3, 2, seed) for seed in range(3)])

    def products(params, mask, vectors):
        return ntk_products(f.model_fn, params, mask, net.x, vectors)

    looped = [products(*arguments) for arguments in zip(sets, masks, V, strict=True)]
    stacked = [{k: torch.stack([s[k] for s in group]) for k in f.params} for group in (sets, masks)]
    assert relative_gap(torch.func.vmap(products)(*stacked, V), torch.stack(looped)) < TOLERANCE


def test_scipy():
    net = cases.network("MLP with biases")
    theta = dense(net, None).numpy()
    operator = NTKOperator(net.model, net.x).to_scipy()
    V = columns(len(theta), 3).numpy()
    assert operator.dtype == np.float64
    assert relative_gap(operator @ V, theta @ V) < TOLERANCE
    assert relative_gap(operator @ V[:, 0], theta @ V[:, 0]) < TOLERANCE
    assert relative_gap(operator.T @ V, theta @ V) < TOLERANCE
    assert relative_gap(operator.rmatvec(V[:, 0]), theta @ V[:, 0]) < TOLERANCE
    values = np.sort(eigsh(operator, k=3, return_eigenvectors=False))
    assert relative_gap(values, np.linalg.eigvalsh(theta)[-3:]) < 1e-10
    single = NTKOperator(mlp([5, 4]), torch.ones(2, 5)).to_scipy()
    assert single.dtype == np.float32
    assert (single @ np.ones(8, np.float32)).dtype == np.float32


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0]).mean(1)


def test_attention():
    model = Attends().double().eval()
    x = columns(3, 20).view(3, 5, 4)
    f = functional(model)
    theta = to_matrix(reference.ntk(f.model_fn, f.params, None, x))
    product = NTKOperator(model, x).matmat(torch.eye(6, **DOUBLE))
    assert relative_gap(product, theta) < TOLERANCE


def test_attention_settings_are_restored():
    def settings():
        return torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()

    def fails():
        with exact_attention():
            assert settings() == (False, False)
            raise KeyError

    assert settings() == (True, True)
    with pytest.raises(KeyError):
        fails()
    assert settings() == (True, True)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_chunks_stay_within_the_budget(on_cpu):
    for columns_, samples, parameters, activations in (
        (1, 1, 1, 1),
        (1000, 1000, 270_000, 500_000),
        (10, 10, 10**10, 10**10),
        (10, 10, 1000, 10**7),
        (16, 32, 39_776, 88_074),
    ):
        at_once, chunk = planned_chunks(
            columns_, samples, parameters, activations, element_bytes=4, on_cpu=on_cpu
        )
        assert 1 <= at_once <= columns_
        assert 1 <= chunk <= samples
        held = 16 * at_once * (parameters + chunk * activations)
        assert held <= module.CHUNK_BYTES or at_once == 1
        small = at_once * (parameters + samples * activations) <= module.CPU_NUMBERS
        assert not on_cpu or small or at_once == 1


X = torch.tensor([[1.0, -2.0], [0.0, 1.0]], **DOUBLE)


@pytest.fixture
def linear():
    return NTKOperator(nn.Linear(2, 3).double(), X)


@pytest.mark.parametrize(
    ("v", "error", "text"),
    [
        ([1.0] * 6, TypeError, "v must be a torch.Tensor, got list"),
        (torch.ones(5, **DOUBLE), ValueError, r"v must be of shape \[6\], got \[5\]"),
        (torch.ones(6, 1, **DOUBLE), ValueError, r"v must be of shape \[6\], got \[6, 1\]"),
        (torch.ones(6), ValueError, "v must be torch.float64 on cpu, .* got torch.float32 on cpu"),
        (torch.full((6,), torch.nan, **DOUBLE), NumericalError, "v must be finite, got 6 of 6"),
    ],
)
def test_wrong_vectors(linear, v, error, text):
    with pytest.raises(error, match=text):
        linear.matvec(v)


def test_wrong_matrices(linear):
    with pytest.raises(ValueError, match=r"V must be of shape \[6, K\], got \[6\]"):
        linear.matmat(torch.ones(6, **DOUBLE))
    with pytest.raises(ValueError, match=r"V must be of shape \[6, K\], got \[6, 0\]"):
        linear.matmat(torch.ones(6, 0, **DOUBLE))


def test_overflow_is_reported():
    operator = NTKOperator(nn.Linear(2, 3).double(), 1e200 * X)
    with pytest.raises(NumericalError, match="Theta V must be finite"):
        operator.matvec(torch.ones(6, **DOUBLE))


def test_wrong_precision_for_scipy():
    operator = NTKOperator(nn.Linear(2, 3).bfloat16(), X.bfloat16())
    with pytest.raises(ValueError, match=r"model must be in torch\.float32 or torch\.float64 for"):
        operator.to_scipy()


def test_wrong_networks():
    with pytest.raises(ValueError, match="model must be in eval mode"):
        NTKOperator(nn.Sequential(nn.Linear(2, 3), nn.Dropout()), X.float())
    with pytest.raises(ValueError, match="masks must be named like the parameters"):
        NTKOperator(nn.Linear(2, 3), X.float(), masks={"no": torch.ones(1)})
    with pytest.raises(ValueError, match="select must be one of"):
        NTKOperator(nn.Linear(2, 3), X.float(), select=["no"])
    with pytest.raises(ValueError, match="x must be a non-empty batch"):
        NTKOperator(nn.Linear(2, 3), X[:0].float())
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got ndarray"):
        NTKOperator(nn.Linear(2, 3), X.numpy())
