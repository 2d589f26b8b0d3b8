"""S2.gate_flips: what the kink of one ReLU does to the finite difference, averaged over weights.

``f = relu(θx)`` with ``Δ ~ N(0, σ²)`` and θ of density p around 0. Scaling by x leaves
``x²·E[D(u, δ)]``, ``D = (relu(u+δ) − relu(u))² − δ² 1[u>0]``, which is zero unless the step
crosses the kink:

* δ = t > 0 and −t < u < 0 (the unit wakes up): D = (u+t)², the difference gains;
* δ = −t < 0 and 0 < u < t (the unit falls asleep): D = u² − t², it loses more.
"""

import math
from functools import cache

import sympy as sp


def waking_gain(u: sp.Symbol, t: sp.Symbol) -> sp.Expr:
    """Return ``∫ D du`` over the points that a step t > 0 wakes up."""
    return sp.integrate((u + t) ** 2, (u, -t, 0))


def sleeping_gain(u: sp.Symbol, t: sp.Symbol) -> sp.Expr:
    """Return ``∫ D du`` over the points that a step −t < 0 puts to sleep; it is negative."""
    return sp.integrate(u**2 - t**2, (u, 0, t))


@cache
def absolute_moment(order: int) -> sp.Expr:
    """Return ``E|ξ|^order`` of a standard normal, by symbolic integration."""
    t = sp.Symbol("t", positive=True)
    return sp.integrate(2 * t**order * sp.exp(-(t**2) / 2) / sp.sqrt(2 * sp.pi), (t, 0, sp.oo))


def gate_flip_law() -> sp.Expr:
    """Return the bias divided by ``p(0) x² σ³`` for a locally constant density p.

    Half of all steps go each way, and both integrals are multiples of t³.

    Returns:
        The exact constant, ``(1/2)(waking + sleeping)/t³ · E|ξ|³``.
    """
    u, t = sp.Symbol("u", real=True), sp.Symbol("t", positive=True)
    per_cube = sp.cancel((waking_gain(u, t) + sleeping_gain(u, t)) / (2 * t**3))
    return per_cube * absolute_moment(3)


def gate_flip_correction() -> sp.Expr:
    """Return c of ``bias/law = 1 + c σ² + O(σ⁴)`` for ``θ ~ N(0, 1)``.

    The density is ``p(0)(1 − u²/2 + …)`` at the crossing points u, so the correction weighs the two
    integrands by −u²/2.
    """
    u, t = sp.Symbol("u", real=True), sp.Symbol("t", positive=True)
    weight = -(u**2) / 2
    waking = sp.integrate(weight * (u + t) ** 2, (u, -t, 0))
    sleeping = sp.integrate(weight * (u**2 - t**2), (u, 0, t))
    per_fifth = sp.cancel((waking + sleeping) / (2 * t**5))
    return sp.nsimplify(per_fifth * absolute_moment(5) / gate_flip_law())


def averaged_bias(sigma: float) -> float:
    """Return the bias of ``relu(θ)`` for ``θ ~ N(0, 1)`` by two-dimensional quadrature.

    From the definition: ``E[(relu(θ+Δ) − relu(θ))² − Δ² 1[θ>0]]``, without the case distinction.

    Args:
        sigma: The noise's standard deviation.

    Returns:
        The mean, negative.
    """
    from scipy.integrate import quad

    def inner(delta: float) -> float:
        def integrand(theta: float) -> float:
            return difference_excess(theta, delta) * normal_density(theta)

        reach = abs(delta)  # beyond it both signs agree and the integrand is zero
        left, _ = quad(integrand, -reach, 0.0)
        right, _ = quad(integrand, 0.0, reach)
        return left + right

    def outer(delta: float) -> float:
        return inner(delta) * normal_density(delta / sigma) / sigma

    waking, _ = quad(outer, 0.0, 10 * sigma)
    sleeping, _ = quad(outer, -10 * sigma, 0.0)
    return waking + sleeping


def fixed_point_bias(theta: float, sigma: float) -> float:
    """Return the bias of ``relu`` at a fixed point ``θ > 0`` by quadrature over the step."""
    from scipy.integrate import quad

    def integrand(delta: float) -> float:
        return difference_excess(theta, delta) * normal_density(delta / sigma) / sigma

    return quad(integrand, -theta - 10 * sigma, -theta)[0]


def fixed_point_ceiling(theta: float, sigma: float) -> float:
    """Return ``σ²(r φ(r) + Q(r))``, ``r = θ/σ``: what the bias at a fixed point cannot exceed.

    Only steps below −θ flip the gate; there ``|θ² − Δ²| ≤ Δ²``, and this is
    ``E Δ² 1[Δ<−θ]``, at most ``σ² (r + 1) e^{−r²/2}``.
    """
    r = theta / sigma
    return sigma**2 * (r * normal_density(r) + 0.5 * math.erfc(r / math.sqrt(2)))


def difference_excess(theta: float, delta: float) -> float:
    """Return ``(relu(θ+δ) − relu(θ))² − δ² 1[θ>0]``."""
    step = max(theta + delta, 0.0) - max(theta, 0.0)
    return step**2 - (delta**2 if theta > 0 else 0.0)


def normal_density(z: float) -> float:
    """Return the standard normal density."""
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
