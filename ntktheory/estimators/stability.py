r"""How many realisations until a mask is stable: overlaps, and an anytime-valid confidence sequence.

Let S_1, S_2, ... be the realisations of a score with P weights, mu = E S, and k = the number kept.

*Overlaps* describe; they promise nothing. The overlap of the running mask with the last one tends to
1 by construction, as both are made of the same realisations. That of the masks of the odd and of the
even realisations is between independent halves.

*The confidence sequence* promises. Assume that every realisation, given those before it, has mean mu
and variance at most v_j in coordinate j. For every coordinate and side, the e-process of
``evidence.py`` (an average over six rates) rejects a candidate for mu_j once it reaches 2P/delta;
what is left is an interval [L_j, U_j], because each side's e-value is monotone in the candidate. By
Ville's inequality and a union bound over 2P sides,

    P(some mu_j is outside [L_j, U_j] at some time) <= delta,

whatever the law of S, dependent coordinates included. All statements below follow on that one event:

* weight j is *settled in* if at most k weights, j among them, have U_i >= L_j: it is then among the
  k largest of mu, however ties are broken;
* it is *settled out* if at least k weights have L_i > U_j;
* the gap mu_(k) - mu_(k+1) between the last kept and the first dropped weight is in
  [L_(k) - U_(k+1), U_(k) - L_(k+1)]. The null hypothesis "the k-th and (k+1)-th largest expected scores
  are equal" is rejected once the lower end is positive, falsely with probability at most delta.

Where weights are exchangeable, as in one layer of a perceptron under new weights and noise inputs, mu
has ties, and no number of realisations settles the mask.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.checks import check_choice, complaint
from ntktheory.estimators.catoni import TUNED_BIASES, psi, tuned_rate
from ntktheory.estimators.ntk_sap_score import SIGNS, Sign
from ntktheory.estimators.verdict import check_probability, read_samples, read_variance
from ntktheory.functional import Params

TOLERANCE_SD = 1e-9
"""Width, in standard deviations, to which an interval's end is found; it is rounded outwards."""

RATES = tuple(tuned_rate(bias) for bias in TUNED_BIASES)
CHUNK = 1 << 22
"""Numbers that the e-values of some coordinates may take at once."""


@dataclass(frozen=True)
class MaskStability:
    """A mask as realisations come in.

    Attributes:
        realizations: The numbers of realisations at which the rest was taken.
        with_last: Overlap of the mask at that time with the last one.
        between_halves: Overlap of the masks of the odd and of the even realisations; NaN at 1.
        stable_from: The first of ``realizations`` from which ``with_last`` stays at ``level`` or more.
        settled: Share of the weights whose membership is settled; None without a variance.
        gap: Interval for the gap at the threshold, in the unit of the score; None likewise.
        gap_settled_from: The first of ``realizations`` at which the gap's interval was above 0; None
            if it never was, or without a variance.
        delta: Probability that any statement in ``settled`` or ``gap`` is false, at any time.
        mask: The last mask.
    """

    realizations: tuple[int, ...]
    with_last: tuple[float, ...]
    between_halves: tuple[float, ...]
    stable_from: int
    settled: tuple[float, ...] | None
    gap: tuple[tuple[float, float], ...] | None
    gap_settled_from: int | None
    delta: float
    mask: Params


def mask_stability(
    scores: Iterable[Mapping[str, Tensor]],
    density: float,
    *,
    sign: Sign = "abs_of_mean",
    level: float = 0.95,
    variance: Mapping[str, Tensor] | float | None = None,
    delta: float = 0.05,
) -> MaskStability:
    """Follow the top-k set of a score over its realisations, at 1, 2, 4, 8, … and the last one.

    Args:
        scores: Signed realisations, as ``realization_scores`` yields them.
        density: Fraction of the weights kept, over all layers together.
        sign: "signed" keeps the largest means, "abs_of_mean" the largest ``|mean|``, "mean_of_abs" the
            largest means of ``|·|``.
        level: The overlap from which a mask counts as stable.
        variance: Upper bound on the variance of one realisation, by name or for all. Never an
            estimate from the same realisations: then nothing is guaranteed.
        delta: Probability that a statement of the confidence sequence is ever false.

    Returns:
        Overlaps and, given a variance, what is settled.

    Raises:
        TypeError: If the variance does not hold real numbers.
        ValueError: If there is no realisation, density or delta or level is out of range, the sign is
            unknown or has no confidence sequence ("mean_of_abs"), or a variance is negative, does not
            fit, or is 0 for a score that varies.

    Cost:
        Two running sums; with a variance, all realisations in float64 and some hundred evaluations
        of psi per number.

    Source:
        ``ntktheory.estimators.catoni``; Ville's inequality. Tested by enumeration and simulation.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> mean = torch.tensor([3.0, 2.0, 0.0, -5.0])
        >>> draws = [{"w": mean + torch.randn(4, generator=generator)} for _ in range(256)]
        >>> found = mask_stability(draws, 0.5, variance=1.0)
        >>> found.mask["w"], found.settled[-1], found.gap_settled_from
        (tensor([ True, False, False,  True]), 1.0, 128)
    """
    check_choice("sign", sign, SIGNS)
    check_probability("delta", delta)
    check_probability("level", level)
    if variance is not None and sign == "mean_of_abs":
        raise ValueError(
            complaint(
                "sign",
                '"signed" or "abs_of_mean" with a variance',
                repr(sign),
                "A bound on the variance of the score says nothing about that of its absolute value.",
            )
        )
    run = _Run(density, sign, keep=variance is not None)
    for score in scores:
        run.add(score)
    if not run.count:
        raise ValueError(
            complaint("scores", "at least one realisation", "none", "Draw some with sample_draws.")
        )
    run.note()
    times, last = list(run.masks), run.masks[run.count]
    overlaps = [float((mask & last).sum()) / run.kept for mask in run.masks.values()]
    settled, gaps = _certain(run, variance, delta)
    above = [r for r, (low, _) in zip(times, gaps or [], strict=False) if low > 0]
    unstable = [i for i, overlap in enumerate(overlaps) if overlap < level]
    return MaskStability(
        tuple(times),
        tuple(overlaps),
        tuple(run.halves.values()),
        times[unstable[-1] + 1 if unstable else 0],
        settled,
        gaps,
        above[0] if above else None,
        delta,
        _unflatten(last, run.like),
    )


class _Run:
    """Running sums of a score, and its masks at 1, 2, 4, 8, … realisations."""

    def __init__(self, density: float, sign: Sign, *, keep: bool) -> None:
        kept_count(1, density)  # checks the density before anything is drawn
        self.density, self.sign, self.keep = density, sign, keep
        self.count, self.kept = 0, 0
        self.like: Params = {}
        self.sums = torch.zeros(2, 0)
        self.rows: list[Tensor] = []
        self.masks: dict[int, Tensor] = {}
        self.halves: dict[int, float] = {}

    def add(self, score: Mapping[str, Tensor]) -> None:
        """Take in one realisation."""
        self.like = self.like or dict(score)
        flat = torch.cat([score[name].flatten() for name in self.like]).to(torch.float64)
        flat = flat.abs() if self.sign == "mean_of_abs" else flat
        if not self.count:
            self.kept = kept_count(len(flat), self.density)
            self.sums = torch.zeros(2, len(flat), dtype=flat.dtype, device=flat.device)
        self.sums[self.count % 2] += flat
        self.count += 1
        if self.keep:
            self.rows.append(flat)
        if self.count & (self.count - 1) == 0:
            self.note()

    def note(self) -> None:
        """Note the mask so far, and the overlap of those of both halves."""
        self.masks[self.count] = self._mask(self.sums.sum(0))
        odd, even = (self._mask(half) for half in self.sums)
        common = float((odd & even).sum()) / self.kept
        self.halves[self.count] = common if self.count > 1 else math.nan

    def _mask(self, total: Tensor) -> Tensor:
        return _top(total.abs() if self.sign == "abs_of_mean" else total, self.kept)


def top_mask(scores: Mapping[str, Tensor], density: float) -> Params:
    """Return the mask of the ``max(1, round(density·P))`` largest scores over all layers.

    Args:
        scores: Name -> score; larger = keep.
        density: Fraction kept.

    Returns:
        Name -> bool mask. The number kept is exact; ties go to the weight that comes first.

    Raises:
        ValueError: If the density is not in (0, 1].

    Example:
        >>> top_mask({"w": torch.tensor([1.0, 2.0, 2.0, 0.0])}, 0.25)
        {'w': tensor([False,  True, False, False])}
    """
    flat = torch.cat([s.flatten() for s in scores.values()])
    return _unflatten(_top(flat, kept_count(flat.numel(), density)), scores)


def mask_overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the share of a mask's kept weights that the other keeps too, for equal counts.

    Raises:
        ValueError: If the masks keep different numbers of weights, or none.
    """
    first = torch.cat([m.flatten().bool() for m in a.values()])
    second = torch.cat([b[name].flatten().bool() for name in a])
    if int(first.sum()) != int(second.sum()) or not bool(first.any()):
        raise ValueError(
            complaint(
                "b",
                f"a mask that keeps as many weights as a, {int(first.sum())}, and at least one",
                int(second.sum()),
                "Compare masks of one density.",
            )
        )
    return float((first & second).sum()) / float(first.sum())


def kept_count(total: int, density: float) -> int:
    """Return ``max(1, round(density·total))``.

    Raises:
        ValueError: If the density is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise ValueError(
            complaint("density", "in (0, 1]", density, "Give the fraction of weights kept.")
        )
    return max(1, round(density * total))


def mean_bounds(
    samples: Tensor, variance: Tensor | float, *, delta: float
) -> tuple[Tensor, Tensor]:
    """Return bounds on the means that hold at all times and for all coordinates together.

    Args:
        samples: [n, K], each with the same mean and at most the variance given those before it.
        variance: [K] or a number.
        delta: Probability that some mean is ever outside its bounds, over all n.

    Returns:
        Lower and upper bounds, [K] each, float64.

    Raises:
        ValueError: If delta is not in (0, 1), a shape does not fit, or a coordinate of variance 0
            varies.

    Cost:
        Some hundred evaluations of psi per number.

    Source:
        ``ntktheory.estimators.catoni``. Tested against its e-values and by enumeration.

    Example:
        >>> low, high = mean_bounds(torch.ones(100, 1), 1.0, delta=0.05)
        >>> round(float(low), 2), round(float(high), 2)
        (0.69, 1.31)
    """
    check_probability("delta", delta)
    x = read_samples("samples", samples)
    k = x.shape[1]
    sd = read_variance(variance, k).sqrt()
    fixed = sd == 0
    if bool((x[:, fixed] != x[0, fixed]).any()):
        raise ValueError(
            complaint(
                "variance",
                "positive where samples differ",
                "0",
                "Give an upper bound on the variance of one realisation.",
            )
        )
    threshold = math.log(2 * k) - math.log(delta)
    centre, scale = torch.where(fixed, x[0], x.mean(0)), torch.where(fixed, 1.0, sd)
    z = (x - centre) / scale
    low = torch.where(fixed, 0.0, -_reach(z, threshold))
    high = torch.where(fixed, 0.0, _reach(-z, threshold))
    return centre + low * scale, centre + high * scale


def _reach(z: Tensor, threshold: float) -> Tensor:
    """Return how far below 0 a mean can be, in standard deviations, before z rejects it, [K]."""
    size = max(1, CHUNK // (len(RATES) * len(z)))
    return torch.cat([_reach_together(part, threshold) for part in z.split(size, dim=1)])


def _reach_together(z: Tensor, threshold: float) -> Tensor:
    far = torch.ones(z.shape[1], dtype=z.dtype)
    while bool((open_ := _log_e(z + far) < threshold).any()):
        far = torch.where(open_, 2 * far, far)
    near = torch.zeros_like(far)
    while bool((far - near > TOLERANCE_SD * far.clamp(min=1.0)).any()):
        middle = (near + far) / 2
        rejected = _log_e(z + middle) >= threshold
        near, far = torch.where(rejected, near, middle), torch.where(rejected, middle, far)
    return far


def _log_e(errors: Tensor) -> Tensor:
    """Return the log of the average over rates of the e-values against "the mean is lower", [K]."""
    rates = torch.tensor(RATES, dtype=errors.dtype).view(-1, 1, 1)
    steps = psi(rates * errors) - rates.square() / 2
    return steps.sum(1).logsumexp(0) - math.log(len(RATES))


def _certain(
    run: _Run, variance: Mapping[str, Tensor] | float | None, delta: float
) -> tuple[tuple[float, ...] | None, tuple[tuple[float, float], ...] | None]:
    """Return the settled share and the gap's interval at each time."""
    if variance is None:
        return None, None
    bounds_on = (
        torch.cat([variance[name].flatten() for name in run.like])
        if isinstance(variance, Mapping)
        else variance
    )
    flat = torch.stack(run.rows)
    settled, gaps = [], []
    for r in run.masks:
        low, high = mean_bounds(flat[:r], bounds_on, delta=delta)
        if run.sign == "abs_of_mean":
            low, high = torch.maximum(low, -high).clamp(min=0), torch.maximum(low.abs(), high.abs())
        settled.append(float(settled_weights(low, high, run.kept).double().mean()))
        gaps.append(_gap(low, high, run.kept))
    return tuple(settled), tuple(gaps)


def settled_weights(low: Tensor, high: Tensor, kept: int) -> Tensor:
    """Return for each weight, [P], whether its being among the ``kept`` largest is decided.

    Args:
        low: Lower bounds on the expected scores, [P].
        high: Upper bounds.
        kept: k.

    Returns:
        True where the membership is settled, in or out.
    """
    highs, lows = high.sort().values, low.sort().values
    reachable = len(high) - torch.searchsorted(highs, low, right=False)  # i with U_i >= L_j
    above = len(low) - torch.searchsorted(lows, high, right=True)  # i with L_i > U_j
    return (reachable <= kept) | (above >= kept)


def _gap(low: Tensor, high: Tensor, kept: int) -> tuple[float, float]:
    """Return an interval for the k-th less the (k+1)-th largest expected score."""
    if kept == len(low):
        return math.inf, math.inf
    lows, highs = low.sort(descending=True).values, high.sort(descending=True).values
    return (
        max(0.0, float(lows[kept - 1] - highs[kept])),
        float(highs[kept - 1] - lows[kept]),
    )


def _unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> Params:
    parts = flat.split([s.numel() for s in like.values()])
    return {name: part.view(s.shape) for (name, s), part in zip(like.items(), parts, strict=True)}


def _top(score: Tensor, kept: int) -> Tensor:
    order = score.argsort(descending=True, stable=True)
    return torch.zeros_like(score, dtype=torch.bool).index_fill_(0, order[:kept], True)
