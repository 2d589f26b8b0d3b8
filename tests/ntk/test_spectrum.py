"""Eigenvalues, spectral density, distances and alignment: by hand and against dense references."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackError, aslinearoperator
from torch import nn

from ntktheory import NumericalError, functional
from ntktheory.models import mlp
from ntktheory.ntk import reference
from ntktheory.ntk.alignment import label_alignment
from ntktheory.ntk.density import quadrature, smoothed, spectral_density
from ntktheory.ntk.eigsh import largest_eigenvalues
from ntktheory.ntk.lanczos import lanczos
from ntktheory.ntk.matrix import to_matrix
from ntktheory.ntk.operator import NTKOperator
from ntktheory.ntk.spectrum import NTKSpectrum, ntk_spectrum, spectral_distance
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-10
DOUBLE: dict[str, Any] = {"dtype": torch.float64}
CASES = [(name, masked) for name in cases.BUILDERS for masked in (False, True)]


def problem(name, masked):
    net = cases.network(name)
    f, masks = functional(net.model), cases.random_masks(net.model) if masked else None
    return net, masks, reference.ntk(f.model_fn, f.params, masks, net.x)


def tensor(*values):
    return torch.tensor(values, **DOUBLE)


def symmetric(n, seed=0):
    a = torch.randn(n, n + 2, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return a @ a.T


# --- eigenvalues


@pytest.mark.parametrize(("name", "masked"), CASES)
def test_spectrum(name, masked):
    net, masks, theta = problem(name, masked)
    expected = torch.linalg.eigvalsh(to_matrix(theta)).flip(0)
    whole = ntk_spectrum(net.model, net.x, masks=masks)
    assert whole.complete
    assert relative_gap(whole.eigenvalues, expected) < TOLERANCE
    for k in (1, 3, len(expected) - 1):
        part = ntk_spectrum(net.model, net.x, k=k, masks=masks)
        assert not part.complete
        assert relative_gap(part.eigenvalues, expected[:k]) < TOLERANCE, k
    again = ntk_spectrum(net.model, net.x, k=len(expected), masks=masks)
    assert torch.equal(again.eigenvalues, whole.eigenvalues)


def test_spectrum_of_a_parameter():
    net, masks, _ = problem("CNN", True)
    f = functional(net.model)
    name = next(iter(f.params))
    theta = reference.ntk(f.model_fn, f.params, masks, net.x, names=(name,))
    expected = torch.linalg.eigvalsh(to_matrix(theta)).flip(0)
    for k in (None, 3):
        part = ntk_spectrum(net.model, net.x, k=k, select=[name], masks=masks)
        assert relative_gap(part.eigenvalues, expected[:k]) < TOLERANCE


def test_hand_values():
    # f = W x with one output, x_1 = (2, 0), x_2 = (0, 1): Θ = diag(4, 1); p = (.8, .2).
    spectrum = ntk_spectrum(nn.Linear(2, 1, bias=False).double(), tensor([2.0, 0.0], [0.0, 1.0]))
    assert spectrum.eigenvalues.tolist() == [4.0, 1.0]
    assert spectrum.condition_number == 4.0
    assert spectrum.rank == 2
    assert spectrum.effective_rank == pytest.approx(0.8**-0.8 * 0.2**-0.2, rel=1e-14)
    assert spectrum.participation_ratio == pytest.approx(25 / 17, rel=1e-14)


def test_null_directions_of_either_sign_count_as_zero():
    spectrum = NTKSpectrum(tensor(3.0, 3.0, 1e-16, -1e-16), size=4)
    assert spectrum.eigenvalues[-1] < 0
    assert (spectrum.rank, spectrum.condition_number) == (2, math.inf)
    assert spectrum.effective_rank == pytest.approx(2)
    assert spectrum.participation_ratio == pytest.approx(2)


def test_a_network_that_ignores_its_parameters():
    net = nn.Linear(2, 2, bias=False).double()
    for k in (None, 2):
        spectrum = ntk_spectrum(net, torch.zeros(2, 2, **DOUBLE), k=k)
        assert not spectrum.eigenvalues.any()
    whole = ntk_spectrum(net, torch.zeros(2, 2, **DOUBLE))
    assert (whole.rank, whole.effective_rank, whole.participation_ratio) == (0, 0.0, 0.0)
    assert whole.condition_number == math.inf


def test_a_spectrum_far_below_zero_is_refused():
    with pytest.raises(
        NumericalError, match="eigenvalues must be non-negative up to rounding, got"
    ):
        NTKSpectrum(tensor(1.0, -1e-6), size=2)


@pytest.mark.parametrize(
    "quantity", ["rank", "condition_number", "effective_rank", "participation_ratio"]
)
def test_what_needs_every_eigenvalue_says_so(quantity):
    net = cases.network("MLP")
    part = ntk_spectrum(net.model, net.x, k=2)
    with pytest.raises(
        ValueError, match=f"k must be None for .{quantity}, got the 2 largest of 18"
    ):
        getattr(part, quantity)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("copies", [1, 3, 10])
def test_no_copy_is_missed(copies, dtype):
    for n, seed in ((8, 0), (30, 1), (30, 2), (30, 3)):
        matrix = np.kron(symmetric(n, seed).numpy(), np.eye(copies))
        expected = np.linalg.eigvalsh(matrix)[::-1].copy()
        for k in {1, 5, min(7, len(matrix) - 1), min(20, len(matrix) - 1)}:
            values = largest_eigenvalues(aslinearoperator(matrix.astype(dtype)), k)
            assert relative_gap(values, expected[:k]) < (1e-12 if dtype == np.float64 else 1e-5)


def test_linear_network_has_every_eigenvalue_once_per_output():
    net = nn.Linear(6, 10, bias=False).double()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1), **DOUBLE)
    expected = torch.linalg.eigvalsh(x @ x.T).flip(0).repeat_interleave(10)
    for k in (5, 25, 65):  # rank 60
        assert relative_gap(ntk_spectrum(net, x, k=k).eigenvalues, expected[:k]) < TOLERANCE


def test_float32():
    generator = torch.Generator().manual_seed(0)
    net, x = mlp([5, 7, 3], generator=generator), torch.randn(6, 5, generator=generator)
    whole, part = ntk_spectrum(net, x), ntk_spectrum(net, x, k=5)
    assert whole.eigenvalues.dtype == part.eigenvalues.dtype == torch.float32
    assert relative_gap(part.eigenvalues, whole.eigenvalues[:5]) < 1e-5


def test_failure_of_arpack_is_reported(monkeypatch):
    def fails(*args, **kwargs):
        raise ArpackError(-8)

    monkeypatch.setattr("scipy.sparse.linalg.eigsh", fails)
    net = cases.network("MLP")
    with pytest.raises(NumericalError, match="operator must be one whose eigenvalues ARPACK can"):
        ntk_spectrum(net.model, net.x, k=2)


def test_wrong_spectrum_arguments():
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="k must be a positive integer or None, got 0"):
        ntk_spectrum(net, torch.ones(2, 2), k=0)
    with pytest.raises(ValueError, match="k must be at most N·C = 4, got 5"):
        ntk_spectrum(net, torch.ones(2, 2), k=5)
    with pytest.raises(ValueError, match=r"model must be in torch\.float32 or torch\.float64, got"):
        ntk_spectrum(net.bfloat16(), torch.ones(2, 2).bfloat16())
    with pytest.raises(ValueError, match=r"theta must be of shape \[N, M, C, C\], got \[2, 2\]"):
        to_matrix(torch.eye(2))


# --- Lanczos and spectral density


def test_lanczos_factorises():
    A, start = symmetric(7), torch.randn(7, 2, generator=torch.Generator().manual_seed(1), **DOUBLE)
    alpha, beta = lanczos(lambda v: A @ v, start, 7)
    T = torch.diag_embed(alpha) + torch.diag_embed(beta, 1) + torch.diag_embed(beta, -1)
    values = torch.linalg.eigvalsh(A)
    for each in torch.linalg.eigvalsh(T):
        assert relative_gap(each, values) < TOLERANCE


def test_exhausted_krylov_space_adds_only_weight_zero():
    A = torch.diag(tensor(2.0, 2.0, 5.0, 5.0))
    nodes, weights = quadrature(lambda v: A @ v, tensor([1.0], [0.0], [1.0], [0.0]), 4)
    assert relative_gap((weights * nodes**3).sum(), (2**3 + 5**3) / 2) < TOLERANCE
    assert relative_gap(weights[0][(nodes[0] - 2).abs() < 1e-9].sum(), 0.5) < TOLERANCE
    assert weights[0][nodes[0].abs() < 1e-9].sum() < 1e-20


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_quadrature_is_exact_to_degree_2m_minus_1_and_no_further(steps):
    A = symmetric(9)
    A /= torch.linalg.matrix_norm(A, 2)
    start = torch.randn(9, 3, generator=torch.Generator().manual_seed(2), **DOUBLE)
    nodes, weights = quadrature(lambda v: A @ v, start, steps)
    q = start / start.norm(dim=0)
    for power in range(2 * steps + 1):
        moment = (weights * nodes**power).sum(1)
        exact = (q * (torch.linalg.matrix_power(A, power) @ q)).sum(0)
        assert (relative_gap(moment, exact) < TOLERANCE) == (power < 2 * steps), power


@pytest.mark.parametrize("name", ["MLP with biases", "CNN", "sequences"])
def test_density_over_a_basis_is_the_exact_one(name):
    net, _, theta = problem(name, False)
    operator, matrix = NTKOperator(net.model, net.x), to_matrix(theta)
    n = len(matrix)
    values = torch.linalg.eigvalsh(matrix)
    nodes, weights = quadrature(operator.matmat, torch.eye(n, **DOUBLE), n)
    grid, width = torch.linspace(0, float(values.max()), 50, **DOUBLE), 0.1 * float(values.max())
    exact = smoothed(values[None], torch.full((1, n), 1 / n, **DOUBLE), grid, width)
    assert relative_gap(smoothed(nodes, weights, grid, width), exact) < 1e-9


def test_spectral_density():
    net, _, theta = problem("CNN", False)
    matrix = to_matrix(theta)
    n = len(matrix)
    for source in ((net.model, net.x), (NTKOperator(net.model, net.x),)):
        generator = torch.Generator().manual_seed(5)
        density = spectral_density(*source, probes=4, steps=3, generator=generator)
        bits = torch.randint(0, 2, (n, 4), generator=torch.Generator().manual_seed(5))
        z = 2.0 * bits.double() - 1
        assert density.nodes.shape == density.weights.shape == (4, 3)
        assert relative_gap(density.weights.sum(1), torch.ones(4)) < TOLERANCE
        for power in range(6):
            exact = (z * (torch.linalg.matrix_power(matrix, power) @ z)).sum(0) / n
            assert relative_gap(density.moment(power), exact) < TOLERANCE
        assert float(torch.trapezoid(density.density, density.grid)) == pytest.approx(1, abs=4e-3)
    capped = spectral_density(net.model, net.x, steps=99, generator=generator)
    assert capped.nodes.shape == (8, n)


def test_smoothing_by_hand():
    density = smoothed(tensor([0.0, 2.0]), tensor([0.25, 0.75]), tensor(0.0), 1.0)
    expected = (0.25 + 0.75 * math.exp(-2)) / math.sqrt(2 * math.pi)
    assert density.item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"probes": 0}, ValueError, "probes must be at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "steps must be an int, got 1.5"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator, got int"),
        ({"width": 0.0}, ValueError, "width must be a positive number, got 0.0"),
        ({"grid": [1.0]}, TypeError, "grid must be a torch.Tensor, got list"),
        ({"grid": torch.ones(1, 1)}, ValueError, r"grid must be of shape \[G\], got \[1, 1\]"),
        ({"grid": torch.tensor([torch.inf])}, NumericalError, "grid must be finite"),
        (
            {"x": None},
            TypeError,
            "x must be missing with an NTKOperator .* got nothing with Linear",
        ),
        ({"x": torch.zeros(2, 2)}, NumericalError, "Theta must be other than 0, got only zeros"),
    ],
)
def test_wrong_density_arguments(options, error, text):
    given = {"x": torch.ones(2, 2), "generator": torch.Generator()} | options
    with pytest.raises(error, match=text):
        spectral_density(nn.Linear(2, 2, bias=False), **given)


def test_density_of_an_operator_takes_no_batch():
    operator = NTKOperator(nn.Linear(2, 2), torch.ones(2, 2))
    with pytest.raises(TypeError, match="got a batch with NTKOperator"):
        spectral_density(operator, torch.ones(2, 2), generator=torch.Generator())


# --- distances


def test_distances_by_hand():
    a, b = tensor(3.0, 4.0), tensor(5.0, 1.0)  # sorted (4, 3) and (5, 1): differences 1, −2
    assert spectral_distance(a, b).item() == pytest.approx(5**0.5 / 5)
    assert spectral_distance(a, b, norm="l1").item() == pytest.approx(3 / 7)
    # (4, 3)/7 and (5, 1)/6: differences 11/42, −11/42; ‖(4, 3)/7‖ = 5/7.
    shape = spectral_distance(a, b, norm="l2_normalised").item()
    assert shape == pytest.approx(11 / 42 * 2**0.5 * 7 / 5)
    assert spectral_distance(b, a).item() == pytest.approx((5 / 26) ** 0.5)
    assert spectral_distance(a, 2 * a, norm="l2_normalised").item() == pytest.approx(0, abs=1e-15)
    assert spectral_distance(a, 2 * a).item() == pytest.approx(1)


def test_distance_of_a_pruned_network():
    net, masks, _ = problem("MLP", True)
    dense, pruned = ntk_spectrum(net.model, net.x), ntk_spectrum(net.model, net.x, masks=masks)
    a, b = dense.eigenvalues, pruned.eigenvalues
    for norm in ("l2", "l2_normalised", "l1"):
        assert spectral_distance(dense, dense, norm=norm) == 0
        assert spectral_distance(dense, pruned, norm=norm) == spectral_distance(a, b, norm=norm) > 0
    first = ntk_spectrum(net.model, net.x, k=3), ntk_spectrum(net.model, net.x, k=3, masks=masks)
    expected = (a[:3] - b[:3]).norm() / a[:3].norm()
    assert relative_gap(spectral_distance(*first), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("a", "b", "norm", "error", "text"),
    [
        (tensor(1.0), tensor(1.0), "l3", ValueError, "norm must be one of 'l1', 'l2', 'l2_norm"),
        (tensor(1.0), tensor(1.0, 2.0), "l2", ValueError, "b must be a spectrum of 1 of 1 eigen"),
        (
            NTKSpectrum(tensor(1.0), 2), NTKSpectrum(tensor(1.0), 3), "l2", ValueError,
            "b must be a spectrum of 1 of 2 eigenvalues, like a, got 1 of 3",
        ),
        (
            NTKSpectrum(tensor(1.0), 2), NTKSpectrum(tensor(1.0), 2), "l2_normalised", ValueError,
            "norm must be \"l2\" or \"l1\" for spectra that are not complete",
        ),
        ([1.0], tensor(1.0), "l2", TypeError, "a must be an NTKSpectrum or a torch.Tensor, got list"),
        (tensor(1.0), tensor([1.0]), "l2", ValueError, r"b must be eigenvalues of shape \[K\]"),
        (tensor(torch.nan), tensor(1.0), "l2", NumericalError, "a must be finite"),
        (tensor(0.0), tensor(1.0), "l2", NumericalError, "a must be a spectrum with an eigenvalue"),
        (tensor(1.0), tensor(0.0), "l2_normalised", NumericalError, "b must be a spectrum with an"),
    ],
)  # fmt: skip
def test_wrong_distance_arguments(a, b, norm, error, text):
    with pytest.raises(error, match=text):
        spectral_distance(a, b, norm=norm)


# --- alignment


def explicit_alignment(theta, y, output, centred):
    """The definition, with the labels' kernel and the centring written out."""
    n, c = y.shape
    if output == "full":
        H = torch.kron(torch.eye(n) - 1 / n, torch.eye(c)).double()
        K, Ky = to_matrix(theta), torch.outer(y.flatten(), y.flatten())
    else:
        H = (torch.eye(n) - 1 / n).double()
        K, Ky = theta.diagonal(dim1=2, dim2=3).sum(-1), y @ y.T
    if centred:
        K, Ky = H @ K @ H, H @ Ky @ H
    return (K * Ky).sum() / (K.norm() * Ky.norm())


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize(("name", "masked"), CASES)
def test_alignment(name, masked, output, centred):
    net, masks, theta = problem(name, masked)
    generator = torch.Generator().manual_seed(6)
    y = torch.randn(theta.shape[1:3], generator=generator, **DOUBLE)
    options = {"output": output, "centred": centred}
    value = label_alignment(net.model, net.x, y, masks=masks, **options)
    expected = explicit_alignment(theta, y, output, centred)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10, abs=1e-12)
    kernel = theta if output == "full" else theta.diagonal(dim1=2, dim2=3).sum(-1)
    assert relative_gap(label_alignment(kernel, None, y, **options), value) < TOLERANCE


def test_alignment_by_hand():
    # Θ = diag(4, 1), y = (1, 1): yᵀΘy = 5, ‖Θ‖ = √17, ‖y‖² = 2. Centred, Θ becomes
    # (5/4)·[[1, −1], [−1, 1]], and y becomes 0; y = (1, −1) stays and is aligned perfectly.
    kernel, y = torch.diag(tensor(4.0, 1.0)), tensor([1.0], [1.0])
    assert label_alignment(kernel, None, y, output="trace").item() == pytest.approx(5 / 2 / 17**0.5)
    opposite = tensor([1.0], [-1.0])
    aligned = label_alignment(kernel, None, opposite, output="trace", centred=True)
    assert aligned.item() == pytest.approx(1)
    with pytest.raises(NumericalError, match="y must be other than 0, got only zeros"):
        label_alignment(kernel, None, y, output="trace", centred=True)
    with pytest.raises(NumericalError, match="Theta must be other than 0, got only zeros"):
        label_alignment(0 * kernel, None, y, output="trace")


@pytest.mark.parametrize(
    ("model", "x", "y", "output", "error", "text"),
    [
        (torch.eye(2), None, torch.ones(2, 1), "diagonal", ValueError, "output must be one of"),
        (torch.eye(2), None, torch.ones(2, 1), "full", ValueError, r"a kernel of shape \[N, N, C, C\]"),
        (torch.ones(2, 3), None, torch.ones(2, 1), "trace", ValueError, r"a kernel of shape \[N, N\]"),
        (torch.eye(2), torch.ones(2), torch.ones(2, 1), "trace", TypeError, "x must be None with a"),
        (nn.Linear(2, 2), None, torch.ones(2, 2), "full", TypeError, "got nothing with Linear"),
        (nn.Linear(2, 2), torch.ones(3, 2), torch.ones(3), "full", ValueError, r"of shape \[3, 2\]"),
        (torch.eye(2), None, torch.ones(2), "trace", ValueError, r"y must be of shape \[2, 1\]"),
        (torch.eye(2), None, [1.0], "trace", TypeError, "y must be a torch.Tensor, got list"),
        (torch.eye(2), None, torch.full((2, 1), torch.inf), "trace", NumericalError, "y must be finite"),
        (torch.nan * torch.eye(2), None, torch.ones(2, 1), "trace", NumericalError, "model must be f"),
    ],
)  # fmt: skip
def test_wrong_alignment_arguments(model, x, y, output, error, text):
    with pytest.raises(error, match=text):
        label_alignment(model, x, y, output=output)
