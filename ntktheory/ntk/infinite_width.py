"""Kernels of infinitely wide multi-layer perceptrons, in closed form.

A pair of inputs enters a layer only through the second moments of the two signals,
``a = E h²``, ``c = E h'²`` and ``k = E h h'``. For ReLU the next moments depend on the angle
``ϑ = acos(k/√(ac))``, of which acos and √ lose half of the digits near ±1. So the *gap* ``√(ac) − k``
and the *total* ``√(ac) + k`` are carried in place of k: both are sums of non-negative terms, and
``ϑ = 2 atan2(√gap, √total)`` keeps all digits, with nothing to clamp. (erf is smooth in k; there a
gap of −1 rounding error is set to 0.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.checks import check_batch, check_choice, check_finite, complaint

PARAMETRIZATIONS = ("ntk", "standard")
Variance = float | Sequence[float]


@dataclass(frozen=True)
class _Moments:
    """Second moments of a signal over the pairs of inputs.

    Attributes:
        left: ``a = E h(x)²``, shape [N, 1].
        right: ``c = E h(x')²``, shape [1, M].
        gap: ``√(ac) − k`` with ``k = E h(x) h(x')``, shape [N, M], not negative.
        total: ``√(ac) + k``, shape [N, M], not negative.
    """

    left: Tensor
    right: Tensor
    gap: Tensor
    total: Tensor

    @property
    def product(self) -> Tensor:
        """``k = E h(x) h(x')``."""
        return (self.total - self.gap) / 2

    @property
    def scale(self) -> Tensor:
        """``√(ac)``, the product at angle 0."""
        return self.left.sqrt() * self.right.sqrt()


def infinite_width_ntk(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    weight_variance: Variance = 2.0,
    bias_variance: Variance | None = None,
    activation: str = "relu",
    parametrization: str = "ntk",
    widths: Sequence[int] | None = None,
) -> Tensor:
    """Compute the tangent kernel of an infinitely wide multi-layer perceptron, for one output.

    The network has ``depth`` = L weight layers, ``z_l = W_l h_{l−1} + b_l``, ``h_l = φ(z_l)``,
    ``h_0 = x``, outputs ``z_L``. With ``w_l, v_l`` the variances given here and n_l the widths:

    * "ntk": ``z_l = √(w_l/n_{l−1}) W_l h_{l−1} + √v_l b_l``, entries of W_l and b_l from N(0, 1).
      The kernel has a limit as the hidden widths grow, and this is it.
    * "standard" (PyTorch): entries of W_l from N(0, w_l/n_{l−1}), of b_l from N(0, v_l). The kernel
      grows with the widths, so ``widths`` must be given: the result is the sum over layers of
      ``(n_{l−1} E h_{l−1}h'_{l−1} + [bias]) · Π_{k≥l} w_{k+1} E φ'(z_k)φ'(z'_k)`` with the moments of
      the limit.

    Weights and biases of every layer are trained. The kernel of the classes c, c' is δ_cc' times
    this one, so its sum over C classes is C times this one.

    The mean over the weights at *finite* widths is exactly this, in both parametrisations, for
    depth ≤ 2, and for ReLU of any depth where x = x'. Elsewhere it differs: for ReLU,
    depth 3, x' = −x and hidden widths of 2 by −68 % (claim ``N6.finite_width``).

    Args:
        x1: N inputs [N, ...], flattened to [N, n_0].
        x2: M inputs; None means x1.
        depth: Number of weight layers L; 1 is a linear model, 2 has one hidden layer.
        weight_variance: w, fan-in times the variance of a weight: one number, or one per layer. He
            initialisation is 2.
        bias_variance: v, likewise; None means no biases. In "standard", 0 means biases that start at
            0 and are trained.
        activation: φ, "relu" or "erf".
        parametrization: "ntk" or "standard".
        widths: Hidden widths n_1, …, n_{L−1}; for "standard" only.

    Returns:
        Tensor [N, M] in the inputs' dtype.

    Raises:
        TypeError: If x1 or x2 is not a tensor, or not of floating-point numbers.
        ValueError: If a batch is empty, the inputs' sizes differ, depth or a width is not positive,
            there are not as many variances or widths as layers, a variance is negative or not
            finite, a name is unknown, or widths are given for "ntk" or not given for "standard".
        NumericalError: If an input or the kernel is not finite.

    Cost:
        O(N·M·(n_0 + L)) time, O(N·M) memory. Accurate to rounding at every angle, 0 and π included;
        where a ReLU network's input is 0, φ'(0) = 0, as autograd has it.

    Source:
        Cho & Saul 2009 (arc-cosine kernels), Williams 1996 (erf), Jacot et al. 2018, Sohl-Dickstein
        et al. 2020 ("standard"). Tested against ``ntk/reference_infinite_width.py``.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> infinite_width_ntk(x, depth=2)
        tensor([[2.0000, 0.6366],
                [0.6366, 8.0000]], dtype=torch.float64)
    """
    check_choice("parametrization", parametrization, PARAMETRIZATIONS)
    w, v, moments = _read(x1, x2, depth, weight_variance, bias_variance, activation)
    input_size = x1[0].numel()
    rates = _learning_rates(parametrization, w, v, bias_variance is not None, widths, input_size)
    theta = torch.zeros_like(moments.gap)
    for layer, (weight_rate, bias_rate) in enumerate(rates):
        if layer:
            pre = _affine(moments, w[layer - 1], v[layer - 1])
            moments, slopes = ACTIVATIONS[activation](pre)
            theta = w[layer] * slopes * theta
        theta = theta + weight_rate * moments.product + bias_rate
    return _finite(theta)


def infinite_width_nngp(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    weight_variance: Variance = 2.0,
    bias_variance: Variance | None = None,
    activation: str = "relu",
) -> Tensor:
    """Compute the covariance of one output of an infinitely wide multi-layer perceptron.

    ``E f_c(x) f_c(x')`` over the weights at initialisation (the neural network Gaussian process);
    the same in both parametrisations. See `infinite_width_ntk` for the network and the arguments.

    Args:
        x1: N inputs [N, ...], flattened to [N, n_0].
        x2: M inputs; None means x1.
        depth: Number of weight layers L.
        weight_variance: Fan-in times the variance of a weight: one number, or one per layer.
        bias_variance: Variance of a bias, likewise; None means no biases.
        activation: "relu" or "erf".

    Returns:
        Tensor [N, M] in the inputs' dtype.

    Raises:
        TypeError: If x1 or x2 is not a tensor, or not of floating-point numbers.
        ValueError: If a batch is empty, the inputs' sizes differ, depth is not positive, there are
            not as many variances as layers, one is negative or not finite, or a name is unknown.
        NumericalError: If an input or the kernel is not finite.

    Cost:
        O(N·M·(n_0 + L)) time, O(N·M) memory.

    Source:
        Neal 1996, Lee et al. 2018. Tested against ``ntk/reference_infinite_width.py``.

    Example:
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> infinite_width_nngp(x, depth=3)  # He initialisation keeps the second moment
        tensor([[25.]])
    """
    w, v, moments = _read(x1, x2, depth, weight_variance, bias_variance, activation)
    for layer in range(depth - 1):
        moments, _ = ACTIVATIONS[activation](_affine(moments, w[layer], v[layer]))
    return _finite(_affine(moments, w[-1], v[-1]).product)


def expected_trace_at_init(
    x: Tensor, widths: Sequence[int], *, variances: Sequence[float] | None = None
) -> Tensor:
    """Compute the exact mean over the weights of each input's trace, ReLU MLP of finite widths.

    ``E Tr Θ(x, x) = C ‖x‖² σ_L² Π_{l<L}(n_l σ_l²/2) · Σ_l σ_l⁻²``, where the entries of W_l are
    independent with symmetric continuous laws of variance σ_l² (any such laws; they may differ),
    and there are no biases. Proof: flipping the sign of a row of W_l flips its pre-activation, so
    that given all earlier layers a gate is a fair coin, independent of the second moments of its
    row; summed from the outputs down, cross terms between rows vanish and every layer gives
    n_l σ_l²/2.

    The trace is heavy-tailed at small widths: a mean of few draws is far below this number.

    Args:
        x: N inputs [N, ...], flattened to [N, n_0].
        widths: n_0, …, n_L: units per layer, inputs first, outputs C last (as in `models.mlp`).
        variances: σ_1², …, σ_L², variances of single weights; None means He, 2/n_{l−1}.

    Returns:
        Tensor [N] in the inputs' dtype: the mean of ``Σ_c ‖∇_θ f_c(x_n)‖²``, summed over classes.

    Raises:
        TypeError: If x is not a tensor of floating-point numbers.
        ValueError: If the batch is empty, widths do not fit the inputs or are not positive, or
            there are not as many variances as layers or one is not positive.
        NumericalError: If x or the result is not finite.

    Cost:
        O(N·n_0 + L).

    Source:
        Theory page, N7; gates as coins: Hanin & Nica 2020. Tested by exact enumeration over
        discrete weights, and by Monte Carlo.

    Example:
        >>> expected_trace_at_init(torch.tensor([[3.0, 4.0]]), [2, 8, 3])  # 3 · 25/2 · (2 + 8)
        tensor([375.])
    """
    x = _inputs("x", x)
    _check_widths(widths)
    if len(widths) < 2 or widths[0] != x.shape[1]:
        raise ValueError(
            complaint(
                "widths",
                f"n_0, …, n_L with n_0 = {x.shape[1]} and L ≥ 1",
                list(widths),
                "Give the size of an input first and the outputs last.",
            )
        )
    if variances is None:
        variances = [2 / n for n in widths[:-1]]
    sigma2 = _per_layer("variances", variances, len(widths) - 1)
    if min(sigma2) <= 0:
        raise ValueError(
            complaint("variances", "positive", min(sigma2), "Leave out layers that are 0.")
        )
    hidden = math.prod(n * s / 2 for n, s in zip(widths[1:-1], sigma2[:-1], strict=True))
    factor = widths[-1] * sigma2[-1] * hidden * sum(1 / s for s in sigma2)
    return _finite(factor * x.square().sum(1))


def _relu(pre: _Moments) -> tuple[_Moments, Tensor]:
    """Return the moments of ``max(z, 0)`` and ``E 1{z>0} 1{z'>0}``.

    ``E h h' = ½ √(ac) κ1`` and ``κ0/2`` with ``κ0 = (π − ϑ)/π``,
    ``κ1 = (sin ϑ + (π − ϑ) cos ϑ)/π``; ``1 − κ1 = 2 sin²(ϑ/2) − (sin ϑ − ϑ cos ϑ)/π``.
    """
    angle = 2 * torch.atan2(pre.gap.sqrt(), pre.total.sqrt())
    sine, cosine = angle.sin(), angle.cos()
    gap = 2 * (angle / 2).sin().square() - (sine - angle * cosine) / math.pi
    total = 1 + (sine + (math.pi - angle) * cosine) / math.pi
    half = pre.scale / 2
    alive = (pre.left > 0) & (pre.right > 0)
    slopes = torch.where(alive, (math.pi - angle) / (2 * math.pi), 0.0)
    return _Moments(pre.left / 2, pre.right / 2, half * gap, half * total), slopes


def _erf(pre: _Moments) -> tuple[_Moments, Tensor]:
    """Return the moments of ``erf(z)`` and ``E erf'(z) erf'(z')``.

    ``E h h' = (2/π) asin(2k/√((1+2a)(1+2c)))`` and ``(4/π)/√((1+2a)(1+2c) − 4k²)``, where
    ``ac − k² = gap·total``.
    """
    norm = ((1 + 2 * pre.left) * (1 + 2 * pre.right)).sqrt()
    left, right = (2 / math.pi * (2 * a / (1 + 2 * a)).asin() for a in (pre.left, pre.right))
    product = 2 / math.pi * (2 * pre.product / norm).asin()
    scale = (left * right).sqrt()
    slopes = 4 / math.pi / (1 + 2 * (pre.left + pre.right) + 4 * pre.gap * pre.total).sqrt()
    gap, total = (scale - product).clamp(min=0), (scale + product).clamp(min=0)
    return _Moments(left, right, gap, total), slopes


ACTIVATIONS: dict[str, Callable[[_Moments], tuple[_Moments, Tensor]]] = {
    "relu": _relu,
    "erf": _erf,
}


def _affine(h: _Moments, weight: float, bias: float) -> _Moments:
    """Return the moments of ``z = W h + b``: weight times those of h, plus bias.

    ``√((a+b)(c+b)) = √(ac) + growth``, so ``gap += growth − b`` and ``total += growth + b``;
    ``growth − b = b(√a − √c)²/(√((a+b)(c+b)) + √(ac) + b)`` does not cancel.
    """
    left, right = weight * h.left + bias, weight * h.right + bias
    gap, total = weight * h.gap, weight * h.total
    if not bias:
        return _Moments(left, right, gap, total)
    difference = weight * (h.left.sqrt() - h.right.sqrt()).square()
    excess = bias * difference / (left.sqrt() * right.sqrt() + weight * h.scale + bias)
    return _Moments(left, right, gap + excess, total + excess + 2 * bias)


def _of_inputs(x1: Tensor, x2: Tensor) -> _Moments:
    """Return the moments of the inputs, means over the n_0 coordinates.

    With unit vectors u: ``gap = √(ac) ‖u − u'‖²/2`` and ``total = √(ac) ‖u + u'‖²/2``.
    """
    n1, n2 = (torch.linalg.vector_norm(x, dim=1) for x in (x1, x2))
    u1, u2 = (x / n.where(n > 0, 1)[:, None] for x, n in ((x1, n1), (x2, n2)))
    exact = "donot_use_mm_for_euclid_dist"
    half = n1[:, None] * n2 / (2 * x1.shape[1])
    gap, total = (torch.cdist(u1, u, compute_mode=exact).square() * half for u in (u2, -u2))
    left, right = n1[:, None].square() / x1.shape[1], n2.square() / x1.shape[1]
    return _Moments(left, right, gap, total)


def _learning_rates(
    parametrization: str,
    w: list[float],
    v: list[float],
    biased: bool,
    widths: Sequence[int] | None,
    input_size: int,
) -> list[tuple[float, float]]:
    """Return what multiplies ``E h h'`` and what is added in each layer's own term."""
    if parametrization == "ntk":
        if widths is not None:
            raise ValueError(
                complaint(
                    "widths",
                    'left out for parametrization="ntk"',
                    list(widths),
                    "The limit does not depend on them.",
                )
            )
        return list(zip(w, v, strict=True))
    if widths is None or len(widths) != len(w) - 1:
        raise ValueError(
            complaint(
                "widths",
                f'{len(w) - 1} hidden widths for parametrization="standard" and depth {len(w)}',
                None if widths is None else list(widths),
                "The standard kernel grows with the widths: give n_1, …, n_{L−1}.",
            )
        )
    _check_widths(widths)
    return [(float(n), float(biased)) for n in (input_size, *widths)]


def _read(
    x1: Tensor,
    x2: Tensor | None,
    depth: int,
    weight_variance: Variance,
    bias_variance: Variance | None,
    activation: str,
) -> tuple[list[float], list[float], _Moments]:
    """Check the arguments; return the variances per layer and the moments of the inputs."""
    check_choice("activation", activation, ACTIVATIONS)
    if not isinstance(depth, int) or depth < 1:
        raise ValueError(
            complaint("depth", "a positive integer", repr(depth), "Count the weight layers.")
        )
    w = _per_layer("weight_variance", weight_variance, depth)
    v = _per_layer("bias_variance", 0.0 if bias_variance is None else bias_variance, depth)
    x1 = _inputs("x1", x1)
    x2 = x1 if x2 is None else _inputs("x2", x2)
    if x1.shape[1] != x2.shape[1] or x1.dtype != x2.dtype:
        raise ValueError(
            complaint(
                "x2",
                f"of {x1.shape[1]} numbers of {x1.dtype} per input, like x1",
                f"{x2.shape[1]} of {x2.dtype}",
                "Give both sets one shape and dtype.",
            )
        )
    return w, v, _of_inputs(x1, x2)


def _inputs(argument: str, x: Tensor) -> Tensor:
    check_batch(argument, x)
    if not x.is_floating_point():
        raise TypeError(
            complaint(argument, "of floating-point numbers", x.dtype, "Convert it with x.double().")
        )
    return x.flatten(1) if x.ndim > 1 else x[:, None]


def _per_layer(argument: str, value: Variance, depth: int) -> list[float]:
    numbers = list(value) if isinstance(value, Sequence) else [value] * depth
    if len(numbers) != depth:
        raise ValueError(
            complaint(
                argument,
                f"one number, or {depth}",
                f"{len(numbers)} of them",
                "Give one per layer.",
            )
        )
    for number in numbers:
        if not 0 <= number < math.inf:
            raise ValueError(
                complaint(argument, "finite and not negative", number, "Pass a variance.")
            )
    return [float(number) for number in numbers]


def _check_widths(widths: Sequence[int]) -> None:
    for n in widths:
        if not isinstance(n, int) or n < 1:
            raise ValueError(
                complaint("widths", "positive integers", list(widths), "Count units per layer.")
            )


def _finite(kernel: Tensor) -> Tensor:
    check_finite("the result", kernel, "The inputs were finite: rescale them or use float64.")
    return kernel
