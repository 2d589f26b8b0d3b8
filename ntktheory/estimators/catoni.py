r"""Evidence about a mean when nothing but a bound on the variance is known.

Setting: X_1, X_2, ... independent (or adapted: given the past). Null hypothesis: E X_i = mu and
Var X_i <= v. Catoni's influence function psi(y) = sign(y) log(1 + |y| + y^2/2) is odd, increasing,
and grows only like log y^2, so that no single sample can dominate.

*False alarms.* For y >= 0, exp psi(y) = 1 + y + y^2/2. For y < 0, exp psi(y) = 1/(1 - y + y^2/2)
<= 1 + y + y^2/2, because (1 + y^2/2)^2 - y^2 = 1 + y^4/4 >= 1. Hence, for every number r,

    E exp psi(r (X_i - mu)) <= 1 + r 0 + r^2 v / 2 <= exp(r^2 v / 2),

so M_n = exp(sum_{i<=n} psi(r (X_i - mu)) - n r^2 v / 2) is a non-negative supermartingale with
M_0 = 1, and Ville's inequality gives P(M_n >= a for some n) <= 1/a: a = 2K/delta for each of two
signs of r and K coordinates sums to delta, at any stopping time, with a finite variance only. An
average of such M over signs, coordinates and rates r is again one, and a = 1/delta is enough.

*Missed biases.* Let E X_i = mu + b with b > 0 and Var X_i <= v around that mean, so that
E (X_i - mu)^2 <= v + b^2. As psi is odd, E exp(-psi(r (X_i - mu))) <= exp(-r b + r^2 (v + b^2)/2):
by Markov, with probability 1 - beta,

    sum psi - n r^2 v / 2 >= n (r b - r^2 (2v + b^2) / 2) - log(1/beta),

which reaches log(2K/delta) as soon as n (r b - r^2 (2v + b^2)/2) >= L := log(2K/(delta beta)). The
best rate r = b/(2v + b^2) asks n b^2 >= 2 L (2v + b^2), i.e. b >= 2 sqrt(v L/(n - 2L)). A *larger*
bias at the same r is caught at least as often: lower every sample by the excess; psi increases.
A biased X of larger variance w needs w + v in place of 2v.

Everything below works in standard deviations: z = (X - mu)/sqrt(v), rate = r sqrt(v).

Sources: Catoni (2012), Challenging the empirical mean and empirical variance; Wang and Ramdas
(2023), Catoni-style confidence sequences for heavy-tailed mean estimation; Ville (1939).
"""

import math
from typing import overload

import torch
from torch import Tensor

TUNED_BIASES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The biases, in standard deviations, to which the rates of the e-process are tuned."""

LARGEST_RATE = 1 / math.sqrt(8)
"""max over b of b/(2 + b^2), at b = sqrt(2): for when n is too small to tune anything."""


def psi(y: Tensor) -> Tensor:
    """Return sign(y) log(1 + |y| + y^2/2), without overflow for finite y.

    Args:
        y: Tensor of any shape.

    Returns:
        Tensor of the same shape and dtype.

    Cost: two logarithms per entry.

    Source: Catoni (2012). Tested against the direct formula.

    Example:
        >>> psi(torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)).exp()
        tensor([0.2000, 1.0000, 5.0000], dtype=torch.float64)
    """
    a = y.abs()
    # 1 + a + a^2/2 = (1 + a)(1 + a^2/(2(1 + a)))
    return y.sign() * (torch.log1p(a) + torch.log1p(a * (a / (2 + 2 * a))))


def increments(error: Tensor, sd: Tensor, rate: Tensor | float, atol: Tensor | float) -> Tensor:
    """Return psi(rate z) - rate^2/2 for z = (error - atol)/sd: steps of log M, for one sign.

    As psi increases, subtracting a bound ``atol`` on the rounding error of each sample keeps M a
    supermartingale. A coordinate with sd = 0 contributes +inf where error > atol and 0 elsewhere:
    under the null hypothesis the former has probability 0.

    Args:
        error: [n, K], sign times (X - mu).
        sd: [K], standard deviations.
        rate: [K] or a number, positive.
        atol: [K] or a number, in the unit of the samples.

    Returns:
        Tensor [n, K], float64.
    """
    excess = error - atol
    sure = torch.where(excess > 0, math.inf, 0.0).to(excess)
    z = (excess / torch.where(sd > 0, sd, 1.0)).clamp(-1e300, 1e300)
    return torch.where(sd > 0, psi(rate * z) - rate * rate / 2, sure)


@overload
def tuned_rate(bias: float) -> float: ...
@overload
def tuned_rate(bias: Tensor) -> Tensor: ...
def tuned_rate(bias: Tensor | float) -> Tensor | float:
    """Return b/(2 + b^2), the best rate against a bias of b standard deviations.

    Args:
        bias: b > 0, in standard deviations.

    Returns:
        The rate, of the type of ``bias``.
    """
    return 1 / (bias + 2 / bias)


def detectable_by_tuning(n: int, budget: float) -> float:
    """Return 2 sqrt(L/(n - 2L)), the bias that n samples catch with the rate tuned to it.

    Args:
        n: Number of samples.
        budget: L = log(2K/(delta beta)).

    Returns:
        The bias in standard deviations; ``math.inf`` if n <= 2L.
    """
    return 2 * math.sqrt(budget / (n - 2 * budget)) if n > 2 * budget else math.inf


def detectable_at_rate(n: int, budget: float, rate: float) -> float:
    """Return the bias that n samples catch with a given rate.

    The smaller root u = rate b of u - u^2/2 = L/n + rate^2.

    Args:
        n: Number of samples.
        budget: L = log(2K/(delta beta)).
        rate: The rate.

    Returns:
        The bias in standard deviations; ``math.inf`` if there is no root.
    """
    c = budget / n + rate * rate
    return 2 * c / (rate * (1 + math.sqrt(1 - 2 * c))) if 2 * c <= 1 else math.inf


def needed_samples(bias: float, budget: float) -> float:
    """Return 2 L (1 + 2/b^2), the n at which `detectable_by_tuning` reaches b.

    Args:
        bias: b > 0 in standard deviations; ``math.inf`` gives 2L.
        budget: L = log(2K/(delta beta)).

    Returns:
        The number of samples before rounding up, ``math.inf`` on overflow.
    """
    return 2 * budget * (1 + 2 / bias / bias)


def log_budget(delta: float, beta: float, directions: int) -> float:
    """Return L = log(directions/(delta beta)), without underflow.

    Args:
        delta: False-alarm probability.
        beta: Probability of missing a bias.
        directions: 2K for two signs and K coordinates; 12K for the e-process of six rates.

    Returns:
        L in nats.
    """
    return math.log(directions) - math.log(delta) - math.log(beta)


def extend_log_e(error: Tensor, sd: Tensor, atol: float, start: Tensor) -> tuple[Tensor, Tensor]:
    """Continue the e-process over new samples.

    Args:
        error: [n, K], X - mu.
        sd: [K], standard deviations.
        atol: Bound on the rounding error of a sample.
        start: [6, 2, K], log M of every rate, sign and coordinate so far; zeros at the beginning.

    Returns:
        The running log of the average of all M, [n], and the log M at the end, [6, 2, K].

    Cost: 12 n K evaluations of psi, and as many numbers in memory, in one sweep: with few samples
    at a time the calls would cost more than the numbers.
    """
    signs = error.new_tensor([1.0, -1.0]).view(2, 1, 1)
    rates = error.new_tensor([tuned_rate(bias) for bias in TUNED_BIASES]).view(-1, 1, 1, 1)
    steps = increments(signs * error, sd, rates, atol)
    walk = start.unsqueeze(2) + steps.cumsum(2)
    return torch.logsumexp(walk, dim=(0, 1, 3)) - math.log(start.numel()), walk[:, :, -1]
