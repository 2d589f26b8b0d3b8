"""The definition of the infinite-width kernels, by quadrature. Fast code never imports this file.

``E F(z, z')`` over a Gaussian pair is a double integral in ``z = √a s``, ``z' = √c (ρ s + √(1−ρ²) t)``
with s, t independent standard normals, by Gauss–Legendre on the pieces between the kinks ``z = 0``
and ``z' = 0``. One pair of inputs at a time, no closed form, any activation.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
REACH = 10.0  # standard normal mass beyond: 2e-23
NODES, WEIGHTS = np.polynomial.legendre.leggauss(80)


def gaussian_mean(f: Function, a: float, c: float, k: float) -> float:
    """Return ``E f(z) f(z')`` for a Gaussian pair of variances a, c and covariance k."""
    scale = math.sqrt(a * c)
    rho = max(-1.0, min(1.0, k / scale)) if scale else 0.0
    sine, total = math.sqrt((1 - rho) * (1 + rho)), 0.0
    for s, weight in zip(*_piecewise([0.0]), strict=True):
        kink = -rho * s / sine if sine else 0.0
        t, inner = _piecewise([kink] if abs(kink) < REACH else [])
        second = f(math.sqrt(c) * (rho * s + sine * t))
        total += weight * float(f(np.array(math.sqrt(a) * s))) * float(inner @ second)
    return total


def ntk_and_nngp(
    x1: Sequence[float],
    x2: Sequence[float],
    *,
    phi: Function,
    slope: Function,
    weight_variance: Sequence[float],
    bias_variance: Sequence[float] | None = None,
    widths: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Return the tangent kernel and the output covariance for one pair of inputs.

    Args:
        x1: An input.
        x2: Another.
        phi: The activation.
        slope: Its derivative.
        weight_variance: w_l per layer.
        bias_variance: v_l per layer; None means no biases.
        widths: Hidden widths for the standard parametrisation; None means the NTK one.

    Returns:
        Θ(x1, x2) and Σ_L(x1, x2), for one output.
    """
    x, y = np.asarray(x1, dtype=float), np.asarray(x2, dtype=float)
    v = [0.0] * len(weight_variance) if bias_variance is None else bias_variance
    fan_in = [len(x), *(widths or [])]
    h = [float(p @ q) / len(x) for p, q in ((x, x), (y, y), (x, y))]
    theta, pre = 0.0, h
    for layer, w in enumerate(weight_variance):
        if layer:
            variances = (pre[0], pre[0], pre[0]), (pre[1], pre[1], pre[1]), pre
            theta *= w * gaussian_mean(slope, *pre)
            h = [gaussian_mean(phi, *moments) for moments in variances]
        pre = [w * moment + v[layer] for moment in h]
        own = pre[2] if widths is None else fan_in[layer] * h[2] + (bias_variance is not None)
        theta += own
    return theta, pre[2]


def _piecewise(breaks: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights for the mean of a function that is smooth between the breaks."""
    ends = sorted([-REACH, -3.0, 3.0, REACH, *breaks])
    middle = [((p + q) / 2, (q - p) / 2) for p, q in itertools.pairwise(ends)]
    nodes = np.concatenate([m + half * NODES for m, half in middle])
    weights = np.concatenate([half * WEIGHTS for _, half in middle])
    return nodes, weights * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
