"""Infinite-width kernels against quadrature, 60 digits, exact finite means, and other forms."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import erf

from ntktheory import NumericalError
from ntktheory.ntk import reference_infinite_width as reference
from ntktheory.ntk.infinite_width import (
    expected_trace_at_init,
    infinite_width_nngp,
    infinite_width_ntk,
)
from proofs_check.exact_means import drawn_kernels, kernels

FUNCTIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
    "erf": (erf, lambda z: 2 / math.sqrt(math.pi) * np.exp(-(z**2))),
}
W, V = [2.0, 1.5, 0.7], [0.3, 0.0, 0.5]


def inputs():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([x, -2 * x[:1]])


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("bias", [None, V])
@pytest.mark.parametrize("widths", [None, [4, 5]])
def test_agrees_with_quadrature(activation, bias, widths):
    x = inputs()
    options = {"depth": 3, "weight_variance": W, "bias_variance": bias, "activation": activation}
    kind = "ntk" if widths is None else "standard"
    theta = infinite_width_ntk(x, parametrization=kind, widths=widths, **options)
    sigma = infinite_width_nngp(x, **options)
    phi, slope = FUNCTIONS[activation]
    for i, j in ((0, 0), (0, 1), (0, 2)):
        exact = reference.ntk_and_nngp(
            x[i].numpy(),
            x[j].numpy(),
            phi=phi,
            slope=slope,
            weight_variance=W,
            bias_variance=bias,
            widths=widths,
        )
        assert [float(theta[i, j]), float(sigma[i, j])] == pytest.approx(
            exact, rel=1e-11, abs=1e-12
        )


def sixty_digits(x, y, w, v):
    """The recursion as printed, κ0 and κ1 of ρ, with 60 digits."""
    with mpmath.workdps(60):
        x, y = [mpmath.mpf(t) for t in x], [mpmath.mpf(t) for t in y]
        moments = [mpmath.fdot(p, q) / len(x) for p, q in ((x, x), (y, y), (x, y))]
        theta, pre = mpmath.mpf(0), moments
        for layer in range(len(w)):
            if layer:
                scale = mpmath.sqrt(pre[0] * pre[1])
                rho = max(mpmath.mpf(-1), min(mpmath.mpf(1), pre[2] / scale))
                rest = mpmath.pi - mpmath.acos(rho)
                k1 = (rho * rest + mpmath.sqrt(1 - rho**2)) / mpmath.pi
                moments = [pre[0] / 2, pre[1] / 2, scale / 2 * k1]
                theta *= w[layer] * rest / (2 * mpmath.pi)
            pre = [mpmath.mpf(w[layer]) * m + mpmath.mpf(v[layer]) for m in moments]
            theta += pre[2]
        return float(theta)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 5e-6)])
@pytest.mark.parametrize("bias", [[0.0] * 3, V])
def test_keeps_its_digits_at_every_angle(dtype, tolerance, bias):
    generator = torch.Generator().manual_seed(1)
    x, d = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    for size in (0, 1e-16, 1e-12, 1e-9, 1e-8, 1e-6, 1e-3, 1, 1e4, 1e8):
        for scale in (1, -1, 2, -3):
            one, two = x.to(dtype), (scale * x + size * d).to(dtype)
            options = {"weight_variance": W, "bias_variance": bias}
            value = infinite_width_ntk(one[None], two[None], depth=3, **options)
            exact = sixty_digits(one.tolist(), two.tolist(), W, bias)
            assert float(value) == pytest.approx(exact, rel=tolerance)


def test_is_symmetric_and_positive_semi_definite():
    x = torch.cat([inputs(), inputs()])
    for activation in FUNCTIONS:
        theta = infinite_width_ntk(x, depth=4, activation=activation, bias_variance=0.1)
        assert torch.equal(theta, theta.T)
        assert float(torch.linalg.eigvalsh(theta)[0]) > -1e-12 * float(theta.trace())
        torch.testing.assert_close(
            infinite_width_ntk(x[:2], x, depth=4, activation=activation, bias_variance=0.1),
            theta[:2],
            rtol=1e-14,
            atol=0,
        )


def test_a_linear_model_is_the_gram_matrix():
    x = inputs()
    gram = x @ x.T
    torch.testing.assert_close(infinite_width_ntk(x, depth=1, weight_variance=3.0), gram)
    standard = infinite_width_ntk(
        x, depth=1, weight_variance=0.5, bias_variance=0, parametrization="standard", widths=[]
    )
    torch.testing.assert_close(standard, gram + 1)


def test_on_the_diagonal_he_networks_of_the_ntk_parametrisation_have_depth_times_the_covariance():
    x = inputs()
    for depth in (1, 2, 5):
        sigma = infinite_width_nngp(x, depth=depth).diagonal()
        torch.testing.assert_close(infinite_width_ntk(x, depth=depth).diagonal(), depth * sigma)


def test_the_standard_kernel_has_the_mean_trace_on_its_diagonal():
    x, widths, variances = inputs(), [3, 4, 5, 2], [0.7, 0.2, 1.3]
    w = [n * s for n, s in zip(widths[:-1], variances, strict=True)]
    theta = 2 * infinite_width_ntk(
        x, depth=3, weight_variance=w, parametrization="standard", widths=[4, 5]
    )
    mean = expected_trace_at_init(x, widths, variances=variances)
    torch.testing.assert_close(theta.diagonal(), mean, rtol=1e-14, atol=0)


def test_he_initialisation_is_the_default_of_the_mean_trace():
    x = inputs()
    mean = expected_trace_at_init(x, [3, 7, 5, 2])
    torch.testing.assert_close(mean, 2 * x.square().sum(1) / 3 * (3 + 7 + 5))


def test_an_input_of_zero():
    x = torch.cat([torch.zeros(1, 3, dtype=torch.float64), inputs()])
    theta = infinite_width_ntk(x, depth=3)
    assert torch.equal(theta[0], torch.zeros(4, dtype=torch.float64))
    assert bool(torch.isfinite(infinite_width_ntk(x, depth=3, bias_variance=0.1)).all())
    # φ'(0) = 0: only the last layer's bias, which starts at 0 and is trained, sees the input.
    options = {"parametrization": "standard", "widths": [4, 4], "bias_variance": 0.0}
    assert infinite_width_ntk(x, depth=3, **options)[0].tolist() == [1.0] * 4


def test_an_input_of_zero_is_treated_as_autograd_does():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    torch.nn.init.zeros_(net[0].bias)
    net(torch.zeros(1, 3)).backward()
    assert float(net[0].bias.grad.abs().sum()) == 0


def test_inputs_of_any_shape_are_flattened():
    x = torch.randn(2, 1, 2, 3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(infinite_width_ntk(x, depth=2), infinite_width_ntk(x.flatten(1), depth=2))


def test_many_wide_networks_have_this_mean():
    x = inputs()[:2]
    draws = drawn_kernels([3, 256, 1], [2 / 3, 2 / 256], x, 400, seed=0).mean(0) / 256
    limit = infinite_width_ntk(
        x, depth=2, parametrization="standard", widths=[256]
    ) / 256  # fmt: skip
    torch.testing.assert_close(draws, limit, rtol=0.05, atol=0)


def test_the_mean_trace_needs_no_gaussian():
    generator = torch.Generator().manual_seed(3)
    x, widths = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64), [3, 8, 8, 2]
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    uniform = [torch.rand(50_000, *s, generator=generator, dtype=x.dtype) * 2 - 1 for s in shapes]
    mean = expected_trace_at_init(x, widths, variances=[1 / 3] * 3)
    assert kernels(widths, uniform, x).mean() == pytest.approx(float(mean), rel=0.02)


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, r"depth must be a positive integer, got 0", {"depth": 0}),
        (
            ValueError,
            r"activation must be one of 'erf', 'relu', got 'tanh'",
            {"activation": "tanh"},
        ),
        (ValueError, r"parametrization must be one of", {"parametrization": "mup"}),
        (
            ValueError,
            r"widths must be 1 hidden widths .* got None",
            {"parametrization": "standard"},
        ),
        (ValueError, r"widths must be left out", {"widths": [3]}),
        (
            ValueError,
            r"widths must be positive integers, got \[0\]",
            {"parametrization": "standard", "widths": [0]},
        ),
        (
            ValueError,
            r"weight_variance must be one number, or 2, got 3",
            {"weight_variance": [1.0] * 3},
        ),
        (ValueError, r"weight_variance must be finite and not neg", {"weight_variance": -1.0}),
        (ValueError, r"bias_variance must be finite and not neg", {"bias_variance": math.inf}),
        (ValueError, r"x2 must be of 3 numbers", {"x2": torch.ones(2, 4)}),
        (ValueError, r"x1 must be a non-empty batch", {"x1": torch.ones(0, 3)}),
        (TypeError, r"x1 must be a torch.Tensor, got list", {"x1": [[1.0]]}),
        (TypeError, r"x1 must be of floating-point numbers", {"x1": torch.ones(2, 3).long()}),
        (NumericalError, r"x1 must be finite", {"x1": torch.full((2, 3), math.nan)}),
        (NumericalError, r"the result must be finite", {"x1": torch.full((2, 3), 1e30)}),
    ],
)
def test_bad_input(error, text, call):
    with pytest.raises(error, match=text):
        infinite_width_ntk(**({"x1": X, "depth": 2} | call))


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, r"widths must be n_0, …, n_L with n_0 = 3", {"widths": [4, 2]}),
        (ValueError, r"widths must be n_0, …, n_L with n_0 = 3", {"widths": [3]}),
        (ValueError, r"widths must be positive integers", {"widths": [3, -1, 2]}),
        (ValueError, r"variances must be positive, got 0", {"variances": [1.0, 0.0]}),
        (ValueError, r"variances must be one number, or 2", {"variances": [1.0]}),
        (TypeError, r"x must be of floating-point numbers", {"x": X.long()}),
        (NumericalError, r"the result must be finite", {"x": torch.full((2, 3), 1e30)}),
    ],
)
def test_bad_input_of_the_mean_trace(error, text, call):
    with pytest.raises(error, match=text):
        expected_trace_at_init(**({"x": X, "widths": [3, 5, 2]} | call))
