"""Checks of stochastic estimators whose false-alarm probability is a theorem.

| question | check | assumes under the null hypothesis |
|---|---|---|
| is the mean what theory says, n fixed before the data | `check_mean` | a bound on the variance |
| the same, stopping as soon as the answer is no | `check_mean_sequential` | the same |
| do two implementations draw from one law | `check_same_distribution` | nothing at all |

`min_samples` and `min_detectable_bias` plan the first; derivations stand in
`ntktheory.estimators.catoni`. Use none of them where an exact design settles the matter
(`ntktheory.probes`). All numbers are float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.estimators.catoni import (
    LARGEST_RATE,
    TUNED_BIASES,
    detectable_at_rate,
    detectable_by_tuning,
    extend_log_e,
    increments,
    log_budget,
    needed_samples,
    tuned_rate,
)
from ntktheory.estimators.verdict import (
    Numbers,
    Verdict,
    check_probability,
    read_coordinates,
    read_samples,
    read_variance,
)

__all__ = [
    "Verdict",
    "check_mean",
    "check_mean_sequential",
    "check_same_distribution",
    "log_e_values",
    "min_detectable_bias",
    "min_samples",
]


def min_detectable_bias(
    n: int, variance: float, *, delta: float, beta: float = 1e-9, coordinates: int = 1
) -> float:
    """Return the smallest bias that `check_mean` catches with n samples.

    2 sqrt(v L/(n - 2L)) with L = log(2K/(delta beta)): a bias of at least that, with a variance of
    at most v, is missed with probability at most beta.

    Args:
        n: Number of samples.
        variance: v, exact or an upper bound.
        delta: False-alarm probability of the check.
        beta: Probability of missing the bias.
        coordinates: K.

    Returns:
        The bias in the unit of the samples; ``math.inf`` if n <= 2L, 0.0 if v = 0.

    Raises:
        TypeError: If variance is not a real number.
        ValueError: If n or coordinates < 1, variance < 0, or delta or beta is not in (0, 1).
        NumericalError: If variance is NaN or Inf.

    Cost: O(1).

    Source: `ntktheory.estimators.catoni`. Tested against simulation and `min_samples`.

    Example:
        >>> round(min_detectable_bias(16941, 1.0, delta=1e-9), 4)
        0.1
    """
    budget = _plan(delta, beta, coordinates)
    _check_at_least_one("n", n)
    v = read_variance(variance, 1).item()
    return math.sqrt(v) * detectable_by_tuning(n, budget) if v else 0.0


def min_samples(
    bias: float, variance: float, *, delta: float, beta: float = 1e-9, coordinates: int = 1
) -> int:
    """Return the number of samples with which `check_mean` catches a bias.

    ceil(2 L (1 + 2v/b^2)) with L = log(2K/(delta beta)), to 12 digits before rounding up.

    Args:
        bias: b > 0 in the unit of the samples.
        variance: v, exact or an upper bound.
        delta: False-alarm probability of the check.
        beta: Probability of missing the bias.
        coordinates: K.

    Returns:
        The number of samples; 1 if v = 0.

    Raises:
        TypeError: If bias or variance is not a real number.
        ValueError: If bias <= 0 or so small that no number of samples is enough, variance < 0,
            coordinates < 1, or delta or beta is not in (0, 1).
        NumericalError: If bias or variance is NaN or Inf.

    Cost: O(1).

    Source: `ntktheory.estimators.catoni`. Tested against known values and `min_detectable_bias`.

    Example:
        >>> [min_samples(b, 1.0, delta=1e-9) for b in (1.0, 0.3, 0.1)]
        [253, 1958, 16941]
    """
    budget = _plan(delta, beta, coordinates)
    b, v = _read_bias(bias, 1).item(), read_variance(variance, 1).item()
    needed = _needed(b, v, budget)
    if math.isinf(needed):
        raise ValueError(
            complaint(
                "bias",
                "large enough for some number of samples to show it",
                f"{b} at variance {v}",
                "Ask for a larger bias.",
            )
        )
    return math.ceil(needed)


def check_mean(
    samples: Numbers,
    expected: Numbers,
    variance: Numbers,
    *,
    delta: float,
    beta: float = 1e-9,
    bias: Numbers | None = None,
    atol: float = 0.0,
) -> Verdict:
    """Check that independent samples have the mean that theory says.

    Null hypothesis: E X = expected and Var X <= variance, in every coordinate. It is rejected when,
    for one sign and one coordinate, sum_i psi(+-r (X_i - expected)) - n r^2 v / 2 >= log(2K/delta).
    That happens with probability at most delta under the null hypothesis, whatever the law: no
    normality, no moments but the second. Coordinates may depend on each other, samples may not. The
    number n must be fixed before the data are seen; otherwise use `check_mean_sequential`.

    The rate r is tuned to ``bias`` if given, else to the bias that n samples can show (at n <= 2L
    it is 1/sqrt(8v), and only a gross error can be seen). A coordinate with variance 0 is compared
    exactly: any difference beyond ``atol`` is a "fail".

    Args:
        samples: [n] or [n, K].
        expected: Scalar or [K].
        variance: Scalar or [K], exact or an upper bound; never estimated from the same samples.
        delta: False-alarm probability.
        beta: Probability of missing a bias.
        bias: The bias asked for, scalar or [K], in the unit of the samples.
        atol: Bound on the deterministic rounding error of each sample (X = exact sample + at most
            atol). The null hypothesis is then about the exact sample; atol is added to the bias of
            the samples that is detectable.

    Returns:
        A Verdict of kind "mean". "fail": rejected. "inconclusive": not rejected, and n is below
        `min_samples` of ``bias`` (without one: n <= 2L). "pass": neither; a bias of
        ``detectable_bias`` (at most ``bias``, plus atol) in the coordinate with the largest would
        have been caught with probability 1 - beta, if it leaves the variance at most v.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If there is no sample, a shape does not fit, variance or atol < 0, bias <= 0, or
            delta or beta is not in (0, 1).
        NumericalError: If an entry is NaN or Inf; names the first bad sample.

    Cost: 2 n K evaluations of psi.

    Source: `ntktheory.estimators.catoni`. Tested against a loop over samples, against exhaustive
    enumeration of small laws, and by simulation on chi-squared, products and heavy tails.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, generator=generator, dtype=torch.float64) ** 2
        >>> check_mean(x, 1.0, 2.0, delta=1e-9).status
        'pass'
        >>> check_mean(x, 1.5, 2.0, delta=1e-9, bias=0.45).status
        'fail'
    """
    x = read_samples("samples", samples)
    n, k = x.shape
    mean = read_coordinates("expected", expected, k)
    v = read_variance(variance, k)
    budget = _plan(delta, beta, k)
    _check_atol(atol)
    asked = None if bias is None else _read_bias(bias, k)

    sd = v.sqrt()
    rates, detectable = _tune(n, v, budget, asked)
    enough = n > 2 * budget or not v.any()
    if asked is not None:
        enough = all(n >= _needed(b, s, budget) for b, s in _pairs(asked, v))
    sides = torch.stack([increments(s * (x - mean), sd, rates, atol).sum(0) for s in (1, -1)])
    evidence = sides.amax(0)
    threshold = math.log(2 * k) - math.log(delta)
    failed = bool((evidence >= threshold).any())
    return Verdict(
        status="fail" if failed else "pass" if enough else "inconclusive",
        kind="mean",
        n=n,
        delta=delta,
        beta=beta,
        detectable_bias=max(detectable) + atol,
        observed=tuple(x.mean(0).tolist()),
        expected=tuple(mean.tolist()),
        worst=int(evidence.argmax()),
        statistic=evidence.max().item(),
        threshold=threshold,
    )


def log_e_values(
    samples: Numbers, expected: Numbers, variance: Numbers, *, atol: float = 0.0
) -> Tensor:
    """Return the running log of an e-process against the mean that theory says.

    Its n-th entry is the log of the average, over six rates, two signs and K coordinates, of
    exp(sum_{i<=n} psi(+-r (X_i - expected)) - n r^2 v / 2); the rates are tuned to biases of 0.02,
    0.05, 0.1, 0.2, 0.5 and 1 standard deviations. Under the null hypothesis of `check_mean` the
    probability that it *ever* reaches log(1/delta) is at most delta, so one may look at every n,
    stop at will, and multiply with later e-values.

    Args:
        samples: [n] or [n, K], in the order in which they were drawn.
        expected: Scalar or [K].
        variance: Scalar or [K], exact or an upper bound.
        atol: Bound on the deterministic rounding error of each sample.

    Returns:
        Tensor [n], float64, in nats; +inf from where a coordinate of variance 0 differs.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If there is no sample, a shape does not fit, or variance or atol < 0.
        NumericalError: If an entry is NaN or Inf; names the first bad sample.

    Cost: 12 n K evaluations of psi.

    Source: `ntktheory.estimators.catoni`. Tested against a loop, and by exhaustive enumeration: its
    exponential has mean at most 1.

    Example:
        >>> x = torch.full((500,), 2.0, dtype=torch.float64)
        >>> log_e = log_e_values(x, 1.0, 1.0)
        >>> int((log_e >= math.log(1e9)).nonzero()[0])
        85
    """
    x = read_samples("samples", samples)
    k = x.shape[1]
    mean = read_coordinates("expected", expected, k)
    sd = read_variance(variance, k).sqrt()
    _check_atol(atol)
    return extend_log_e(x - mean, sd, atol, _origin(k))[0]


def check_mean_sequential(
    draw: Callable[[int], Numbers],
    expected: Numbers,
    variance: Numbers,
    *,
    delta: float,
    max_samples: int,
    batch: int,
    beta: float = 1e-9,
    bias: Numbers | None = None,
    atol: float = 0.0,
) -> Verdict:
    """Check the mean while drawing, and stop at the first sample that settles a "fail".

    Null hypothesis: that of `check_mean`, each sample given those before it. It is rejected at the
    first n at which the e-process of `log_e_values` reaches log(1/delta); the probability of that
    at any n is at most delta. Not having to know the size of the bias costs log 6 in L.

    Args:
        draw: ``draw(count)`` returns the next ``count`` samples, [count] or [count, K].
        expected: Scalar or [K].
        variance: Scalar or [K], exact or an upper bound.
        delta: False-alarm probability.
        max_samples: Number of samples after which to give up.
        batch: Samples drawn at a time.
        beta: Probability of missing a bias.
        bias: The bias asked for, scalar or [K], in the unit of the samples.
        atol: Bound on the deterministic rounding error of each sample.

    Returns:
        A Verdict of kind "sequential mean". "fail" at the n that settles it; at max_samples "pass",
        or "inconclusive" if the bias that the best of the six rates can show by then exceeds
        ``bias`` or is infinite.

    Raises:
        TypeError: If samples, expected, variance or bias are not real numbers.
        ValueError: If draw returns another number of samples or coordinates, a shape does not fit,
            variance or atol < 0, bias <= 0, max_samples or batch < 1, or delta or beta is not in
            (0, 1).
        NumericalError: If an entry is NaN or Inf; names the first bad sample of its batch.

    Cost: 12 n K evaluations of psi.

    Source: `ntktheory.estimators.catoni`. Tested against `log_e_values`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draw = lambda count: 1 + torch.randn(count, generator=generator)
        >>> verdict = check_mean_sequential(
        ...     draw, 0.0, 1.0, delta=1e-9, max_samples=10000, batch=100)
        >>> verdict.status, verdict.n < 200
        ('fail', True)
    """
    check_probability("delta", delta)
    check_probability("beta", beta)
    _check_at_least_one("max_samples", max_samples)
    _check_at_least_one("batch", batch)
    _check_atol(atol)
    threshold = -math.log(delta)
    drawn, state, total = 0, torch.zeros(0), torch.zeros(0)
    while True:
        x = _next_batch(draw, min(batch, max_samples - drawn), state.shape[-1])
        if not drawn:
            k = x.shape[1]
            mean, v = read_coordinates("expected", expected, k), read_variance(variance, k)
            asked = None if bias is None else _read_bias(bias, k)
            state, total = _origin(k), torch.zeros(k, dtype=torch.float64)
        path, after = extend_log_e(x - mean, v.sqrt(), atol, state)
        crossed = (path >= threshold).nonzero()
        if len(crossed):  # what was drawn beyond the stop is not evidence
            x = x[: int(crossed[0]) + 1]
            path, after = extend_log_e(x - mean, v.sqrt(), atol, state)
        drawn, total, state = drawn + len(x), total + x.sum(0), after
        if len(crossed) or drawn == max_samples:
            break
    detectable = _detectable_by_mixture(drawn, v, delta, beta)
    wanted = torch.full_like(v, math.inf) if asked is None else asked
    enough = all(math.isfinite(b) and b <= a for b, a in zip(detectable, wanted, strict=True))
    return Verdict(
        status="fail" if len(crossed) else "pass" if enough else "inconclusive",
        kind="sequential mean",
        n=drawn,
        delta=delta,
        beta=beta,
        detectable_bias=max(detectable) + atol,
        observed=tuple((total / drawn).tolist()),
        expected=tuple(mean.tolist()),
        worst=int(state.amax((0, 1)).argmax()),
        statistic=path[-1].item(),
        threshold=threshold,
    )


def check_same_distribution(a: Numbers, b: Numbers, *, delta: float) -> Verdict:
    """Check that two implementations with independent seeds draw from one and the same law.

    Null hypothesis: *the same distribution*; precisely, swapping a_i and b_i in any of the pairs
    changes nothing about the joint law. Then the signs of the differences D_i = a_i - b_i are fair
    coins given their sizes, and Hoeffding's inequality gives, with no moment condition,
    P(|sum D_i| > t sqrt(sum D_i^2)) <= 2 exp(-t^2/2): rejected above t = sqrt(2 log(2K/delta)),
    6.545 at delta = 1e-9, K = 1.

    This is **not** a test of equal means: with equal means and different laws it raises false
    alarms without bound. For that use `check_mean` on the differences, with an exact variance. As
    |sum D_i| <= sqrt(n) sqrt(sum D_i^2), it cannot reject unless n > t^2 (43 differing pairs at
    delta = 1e-9): below that it is "inconclusive". And it sees only shifts of the mean difference,
    of a size it does not promise: a "pass" excludes nothing by itself.

    Args:
        a: [n] or [n, K], independent samples of one implementation.
        b: The same shape, of the other, independent of ``a``.
        delta: False-alarm probability.

    Returns:
        A Verdict of kind "same distribution", with ``beta`` and ``detectable_bias`` nan. "fail":
        rejected. "inconclusive": not rejected, and n <= t^2, or some coordinate differs in 1 to t^2
        pairs only. "pass": neither; also when n > t^2 pairs are all equal.

    Raises:
        TypeError: If a or b are not real numbers.
        ValueError: If there is no sample, the shapes differ, or delta is not in (0, 1).
        NumericalError: If an entry is NaN or Inf; names the first bad sample.

    Cost: O(n K).

    Source: Efron (1969), Student's t-test under symmetry conditions; Hoeffding (1963). Tested by
    enumeration of all signs, and on Cauchy samples.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> a, b = torch.randn(2, 1000, generator=generator)
        >>> check_same_distribution(a, b, delta=1e-9).status
        'pass'
        >>> check_same_distribution(a, b + 1, delta=1e-9).status
        'fail'
    """
    check_probability("delta", delta)
    x, y = read_samples("a", a), read_samples("b", b)
    if x.shape != y.shape:
        raise ValueError(
            complaint(
                "b",
                f"of the shape of a, {list(x.shape)}",
                list(y.shape),
                "Draw as many samples from both.",
            )
        )
    n, k = x.shape
    threshold = math.sqrt(2 * (math.log(2 * k) - math.log(delta)))
    differences = x - y
    ratio = _self_normalised(x, y)
    differing = (x != y).sum(0)
    powerless = ((differing > 0) & (differing <= threshold**2)).any()
    failed = bool((ratio > threshold).any())
    enough = n > threshold**2 and not powerless
    return Verdict(
        status="fail" if failed else "pass" if enough else "inconclusive",
        kind="same distribution",
        n=n,
        delta=delta,
        beta=math.nan,
        detectable_bias=math.nan,
        observed=tuple(differences.mean(0).tolist()),
        expected=(0.0,) * k,
        worst=int(ratio.argmax()),
        statistic=ratio.max().item(),
        threshold=threshold,
    )


def _self_normalised(x: Tensor, y: Tensor) -> Tensor:
    # Scaled by the largest difference of each coordinate, so that no square over- or underflows.
    halves = x / 2 - y / 2
    scale = halves.abs().amax(0)
    d = halves / torch.where(scale > 0, scale, 1.0)
    norm = d.square().sum(0).sqrt()
    return torch.where(norm > 0, d.sum(0).abs() / norm, 0.0)


def _tune(n: int, v: Tensor, budget: float, asked: Tensor | None) -> tuple[Tensor, list[float]]:
    """Return the rates [K], and the bias that each coordinate can show, in its own unit."""
    if asked is None:
        b = detectable_by_tuning(n, budget)
        rate = tuned_rate(b) if math.isfinite(b) else LARGEST_RATE
        return torch.full_like(v, rate), [math.sqrt(s) * b if s else 0.0 for s in v.tolist()]
    rates, detectable = torch.full_like(v, LARGEST_RATE), []
    for k, (bias, s) in enumerate(_pairs(asked, v)):
        if s == 0:
            detectable.append(0.0)
            continue
        rates[k] = tuned_rate(min(bias / math.sqrt(s), 1e100))
        shown = math.sqrt(s) * detectable_at_rate(n, budget, rates[k].item())
        detectable.append(min(shown, bias) if n >= _needed(bias, s, budget) else shown)
    return rates, detectable


def _detectable_by_mixture(n: int, v: Tensor, delta: float, beta: float) -> list[float]:
    budget = log_budget(delta, beta, 2 * len(TUNED_BIASES) * len(v))
    best = min(detectable_at_rate(n, budget, tuned_rate(b)) for b in TUNED_BIASES)
    return [math.sqrt(s) * best if s else 0.0 for s in v.tolist()]


def _needed(bias: float, variance: float, budget: float) -> float:
    # 12 digits: a bias computed from n must not ask for n + 1 by rounding.
    if variance == 0:
        return 1.0
    return needed_samples(bias / math.sqrt(variance), budget) * (1 - 1e-12)


def _pairs(bias: Tensor, variance: Tensor) -> list[tuple[float, float]]:
    return list(zip(bias.tolist(), variance.tolist(), strict=True))


def _origin(coordinates: int) -> Tensor:
    return torch.zeros(len(TUNED_BIASES), 2, coordinates, dtype=torch.float64)


def _next_batch(draw: Callable[[int], Numbers], count: int, coordinates: int) -> Tensor:
    x = read_samples("draw(count)", draw(count))
    if len(x) != count or coordinates not in (0, x.shape[1]):
        wanted = f"{count} samples" + (f" of {coordinates} coordinates" if coordinates else "")
        raise ValueError(
            complaint(
                "draw(count)",
                wanted,
                f"shape {list(x.shape)}",
                "Return exactly as many samples as asked for.",
            )
        )
    return x


def _plan(delta: float, beta: float, coordinates: int) -> float:
    check_probability("delta", delta)
    check_probability("beta", beta)
    _check_at_least_one("coordinates", coordinates)
    return log_budget(delta, beta, 2 * coordinates)


def _read_bias(bias: Numbers, coordinates: int) -> Tensor:
    value = read_coordinates("bias", bias, coordinates)
    if (value <= 0).any():
        raise ValueError(
            complaint("bias", "positive", value.min().item(), "Ask for a bias to be detected.")
        )
    return value


def _check_at_least_one(argument: str, value: int) -> None:
    if value < 1:
        raise ValueError(complaint(argument, "at least 1", value, "Pass a positive number."))


def _check_atol(atol: float) -> None:
    if not 0 <= atol < math.inf:
        raise ValueError(
            complaint("atol", "finite and non-negative", atol, "Pass 0.0 for exact samples.")
        )
