"""Slow references: the chains of inequalities themselves, solved by bisection.

Nothing here is shared with the closed forms; every factor is the one of the step that brings it in.
"""

import math
from collections.abc import Callable


def bisect(increasing: Callable[[float], float], target: float) -> float:
    """Return the positive x with ``increasing(x) = target``, to the last bit or so."""
    low, high = 0.0, 1.0
    while increasing(high) < target:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if increasing(middle) < target:
            low = middle
        else:
            high = middle
    return high


def exceedance_divergence(delta: float, deviation: float, tail_constant: float) -> float:
    """Return ``d(δ‖q) − (1−δ) log(1/(1−q))`` with ``q = 2 exp(−u²/C)``: a bound on what I exceeds."""
    log_q = math.log(2) - deviation**2 / tail_constant
    return delta * (math.log(delta) - log_q) + (1 - delta) * math.log(1 - delta)


def deviation_bound(information_nats: float, tail_constant: float, delta: float) -> float:
    """Return Lemma 1's sharp bound: the u at which the divergence has reached I."""
    start = math.sqrt(tail_constant * math.log(2))  # q = 1

    def divergence(step: float) -> float:
        return exceedance_divergence(delta, start + step, tail_constant)

    return start + bisect(divergence, information_nats)


def xu_raginsky_bound(information_nats: float, tail_constant: float, delta: float) -> float:
    """Return Lemma 1's published bound: ``√(8σ²(I/δ + log(2/δ)))`` at ``σ² = 9C``."""
    variance_proxy = 9 * tail_constant
    return math.sqrt(
        8 * variance_proxy * information_nats / delta
        + 8 * variance_proxy * (math.log(2) - math.log(delta))
    )


def robustness_lower_bound(
    information_nats: float,
    *,
    samples: int,
    dimension: int,
    epsilon: float,
    delta: float,
    isoperimetry: float = 1.0,
    sharp: bool = False,
) -> float:
    """Return the L at which Lemma 1 at δ/2 allows a correlation of ε/8 with the noise.

    ``epsilon`` is what is left of ε after the net. One term ``(f(x) − E f) z`` with |z| ≤ 2 has tail
    constant ``4·2cL²/d``; the mean of n has 18/n (sharp: 5/n) of that.
    """

    def reachable(lipschitz: float) -> float:
        one_term = 2**2 * 2 * isoperimetry * lipschitz**2 / dimension
        constant = (5 if sharp else 18) * one_term / samples
        bound = deviation_bound if sharp else xu_raginsky_bound
        return bound(information_nats, constant, delta / 2)

    correlation = (epsilon - epsilon / 6 - 2 * epsilon / 6) / 2  # 2⟨F, Z⟩ ≥ ε − ε/6 − 2·ε/6
    return bisect(reachable, correlation - epsilon / 8)  # the means of the components take ε/8
