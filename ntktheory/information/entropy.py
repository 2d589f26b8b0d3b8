"""Entropy from samples: estimators, each with an interval, for where nothing can be enumerated.

The counts n_i of n samples are all they see. Formulas are in nats; results in bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntktheory.checks import check_choice, complaint

Array = np.ndarray[Any, Any]
NSB_NODES = 501


@dataclass(frozen=True)
class EntropyEstimate:
    """An estimate of an entropy.

    Attributes:
        bits: The estimate.
        low_bits: Lower end of its interval.
        high_bits: Upper end.
    """

    bits: float
    low_bits: float
    high_bits: float


def entropy_estimate(
    counts: Sequence[int] | Array,
    estimator: str = "plug_in",
    *,
    classes: int | None = None,
    level: float = 0.95,
) -> EntropyEstimate:
    """Return an estimate of the entropy of the law that the samples are drawn from.

    * ``plug_in``: ``H = −Σ p_i log p_i``, ``p_i = n_i/n``; low by about (support − 1)/(2n) nats.
    * ``miller_madow``: ``H + (K − 1)/(2n)``, K the classes seen.
    * ``jackknife``: ``nH − (n − 1)/n Σ_i n_i H₋ᵢ``, H₋ᵢ the plug-in without one sample of class i.
    * ``chao_shen``: ``−Σ C p_i log(C p_i)/(1 − (1 − C p_i)ⁿ)``, ``C = 1 − f₁/n`` the coverage, f₁ the
      classes seen once (n − 1 of them if that is all).
    * ``nsb``: the posterior mean under Dirichlet priors mixed so that the entropy is nearly uniform a
      priori (Nemenman, Shafee and Bialek); needs the number of classes.

    The interval is ``± z s``, with s² the variance of log p over n (jackknife's own for it); for ``nsb``
    s is the posterior standard deviation. It covers the noise, not the bias of an estimator.

    Args:
        counts: How often each class was seen, non-negative integers; zeros are classes not seen.
        estimator: A key of ``ESTIMATORS``.
        classes: How many classes there are, for ``nsb``; None = as many as there are counts.
        level: The normal law's probability inside the interval.

    Returns:
        The estimate and its interval, in bits, not cut off at 0.

    Raises:
        ValueError: If the estimator is unknown, the counts are no counts of at least two samples, there
            are fewer classes than were seen or than two for ``nsb``, or the level is not inside (0, 1).

    Source:
        Miller 1955; Zahl 1977; Chao and Shen 2003; Nemenman, Shafee and Bialek 2002, with the moments of
        Wolpert and Wolf 1995.

    Reference:
        Values known to 10 digits, and by loops over samples in the tests.

    Example:
        >>> round(entropy_estimate([4, 2, 3, 0, 2, 4, 0, 0, 2, 1, 1]).bits * math.log(2), 10)
        1.9683824087
    """
    from scipy.stats import norm

    check_choice("estimator", estimator, ESTIMATORS)
    seen = _checked(counts)
    if not 0 < level < 1:
        raise ValueError(complaint("level", "inside (0, 1)", level, "0.95 is usual."))
    number = len(np.asarray(counts)) if classes is None else classes
    if number < len(seen) or (estimator == "nsb" and number < 2):
        raise ValueError(
            complaint(
                "classes", f"at least {max(len(seen), 2)}", number, "Count all that can occur."
            )
        )
    nats, deviation = ESTIMATORS[estimator](seen, number)
    reach = float(norm.ppf((1 + level) / 2)) * deviation
    return EntropyEstimate(*(x / math.log(2) for x in (nats, nats - reach, nats + reach)))


def _checked(counts: Sequence[int] | Array) -> Array:
    """Return the positive counts as floats."""
    array = np.asarray(counts)
    whole = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iu"
    if not whole or array.min() < 0 or array.sum() < 2:
        raise ValueError(
            complaint("counts", "non-negative integers with a sum of at least 2",
                      f"{array.tolist()[:5]}…" if array.ndim else array.item(),
                      "Count the samples of each class.")
        )  # fmt: skip
    return array[array > 0].astype(np.float64)


def _plug_in(seen: Array, classes: int) -> tuple[float, float]:
    n = seen.sum()
    p = seen / n
    nats = float(-(p * np.log(p)).sum())
    variance = float((p * np.log(p) ** 2).sum()) - nats**2
    return nats, math.sqrt(max(variance, 0.0) / n)


def _miller_madow(seen: Array, classes: int) -> tuple[float, float]:
    nats, deviation = _plug_in(seen, classes)
    return nats + (len(seen) - 1) / (2 * float(seen.sum())), deviation


def _jackknife(seen: Array, classes: int) -> tuple[float, float]:
    if len(seen) == 1:
        return 0.0, 0.0  # where rounding would leave 1e-15
    n = float(seen.sum())
    nats, _ = _plug_in(seen, classes)
    rest = np.where(seen > 1, seen - 1, 1.0)
    total = float((seen * np.log(seen)).sum())
    without = math.log(n - 1) - (total - seen * np.log(seen) + (seen - 1) * np.log(rest)) / (n - 1)
    mean = float((seen * without).sum()) / n
    variance = (n - 1) / n * float((seen * (without - mean) ** 2).sum())
    return n * nats - (n - 1) * mean, math.sqrt(variance)


def _chao_shen(seen: Array, classes: int) -> tuple[float, float]:
    n, once = float(seen.sum()), float((seen == 1).sum())
    coverage = 1 - (once if once < n else n - 1) / n
    p = coverage * seen / n
    nats = float(-(p * np.log(p) / -np.expm1(n * np.log1p(-p))).sum()) if len(seen) > 1 else 0.0
    return nats, _plug_in(seen, classes)[1]


def _nsb(seen: Array, classes: int) -> tuple[float, float]:
    """Return the posterior mean and standard deviation.

    The prior on β is ``dξ/dβ``, ``ξ = ψ(Kβ + 1) − ψ(β + 1)`` the prior mean entropy; the integral over
    log β is a trapezoidal sum about the largest integrand, on a range where it falls by e⁻⁴⁰.
    """
    from scipy.special import gammaln, polygamma

    values, times = np.unique(seen, return_counts=True)
    values = np.append(values, 0.0)
    times = np.append(times, classes - len(seen)).astype(np.float64)
    n, k = float(seen.sum()), float(classes)

    def log_weight(beta: Array) -> Array:
        at = beta[:, None]
        likelihood = (times * (gammaln(values + at) - gammaln(at))).sum(1)
        slope = k * polygamma(1, k * beta + 1) - polygamma(1, beta + 1)
        total = gammaln(k * beta) - gammaln(n + k * beta)
        return likelihood + total + np.log(np.maximum(slope, 1e-300)) + np.log(beta)

    wide = np.exp(np.linspace(-30, 30, NSB_NODES))
    weights = log_weight(wide)
    inside = wide[weights > weights.max() - 40]
    beta = np.exp(np.linspace(math.log(inside[0]) - 0.1, math.log(inside[-1]) + 0.1, NSB_NODES))
    weights = log_weight(beta)
    share = np.exp(weights - weights.max())
    share /= share.sum()
    mean, square = _dirichlet_moments(values, times, beta, n, k)
    average = float((share * mean).sum())
    return average, math.sqrt(max(float((share * square).sum()) - average**2, 0.0))


def _dirichlet_moments(
    values: Array, times: Array, beta: Array, n: float, k: float
) -> tuple[Array, Array]:
    """Return E H and E H² under Dirichlet(n_i + β), for every β (Wolpert and Wolf)."""
    from scipy.special import digamma, polygamma

    a = values + beta[:, None]
    total = n + k * beta
    mean = digamma(total + 1) - (times * a * digamma(a + 1)).sum(1) / total
    u = digamma(a + 1) - digamma(total + 2)[:, None]
    w = digamma(a + 2) - digamma(total + 2)[:, None]
    common = polygamma(1, total + 2)
    pairs = (times * a * u).sum(1) ** 2 - (times * (a * u) ** 2).sum(1)
    pairs -= common * (total**2 - (times * a**2).sum(1))
    own = (times * a * (a + 1) * (w**2 + polygamma(1, a + 2) - common[:, None])).sum(1)
    return mean, (pairs + own) / (total * (total + 1))


ESTIMATORS: dict[str, Callable[[Array, int], tuple[float, float]]] = {
    "plug_in": _plug_in,
    "miller_madow": _miller_madow,
    "jackknife": _jackknife,
    "chao_shen": _chao_shen,
    "nsb": _nsb,
}
"""The estimators: positive counts and the number of classes -> estimate and deviation, in nats."""
