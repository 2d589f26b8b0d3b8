"""Generalisation from information: Theorems 5 and 6 as sample sizes and gaps.

For a loss in [0, b] and n independent data, Hoeffding's inequality gives the gap of a fixed function
the tail ``2 exp(−2nu²/b²)``; with ``C = b²/n`` (twice what is needed) Lemma 1 reads, with probability
at least 1 − δ,

    |test − training|² < κ (b²/n) (I/δ + log(2/δ)),   I = I(W; D) in nats, at most p_eff in bits.

=====================  ==========  ==================================================================
form                   κ           status
=====================  ==========  ==================================================================
``theorem_5_printed``  4 a₁²       valid, loose
``theorem_5_proof``    2 a₁²       valid, loose
``algebra``            a₁² = 72    what Lemma 1 gives
``theorem_6_printed``  a₁², b¹     fails: b where the algebra gives b², too small by b for b > 1
``sharp``              —           ``(b²/2n) [(I + h(δ))/δ + log 2]``, the sharp form of Lemma 1
=====================  ==========  ==================================================================
"""

import math

from ntktheory.checks import check_choice
from ntktheory.information.mutual_information_bounds import (
    A1_SQUARED,
    binary_entropy_nats,
    check_amount,
    check_positive,
    check_probability,
    check_size,
)

FORMS = ("theorem_5_printed", "theorem_5_proof", "algebra", "theorem_6_printed", "sharp")
KAPPAS = {
    "theorem_5_printed": 4 * A1_SQUARED,
    "theorem_5_proof": 2 * A1_SQUARED,
    "algebra": A1_SQUARED,
    "theorem_6_printed": A1_SQUARED,
}


def generalisation_gap_bound(
    information_nats: float,
    *,
    samples: int,
    delta: float,
    loss_bound: float = 1.0,
    form: str = "algebra",
) -> float:
    """Return what the gap of test and training loss stays below with probability at least 1 − δ.

    Args:
        information_nats: I(W; D) in nats; p_eff in bits, times log 2, bounds it from above.
        samples: n, the number of data.
        delta: δ, the probability of the exception.
        loss_bound: b, the loss being in [0, b].
        form: Which constant; see the file's first lines. ``"theorem_6_printed"`` is no bound for
            large b; it is here to be compared.

    Returns:
        The bound, in the unit of the loss.

    Raises:
        ValueError: If the information is negative, ``loss_bound`` not positive, one of them not
            finite, ``delta`` outside (0, 1), ``samples`` < 1 or ``form`` unknown.
        TypeError: If ``samples`` is no integer.

    Source:
        No Free Prune (arXiv 2402.01089), Theorems 5 and 6.

    Reference:
        ``reference_robustness.deviation_bound`` at ``C = b²/n`` (sharp: ``b²/2n``).

    Example:
        >>> round(generalisation_gap_bound(100.0, samples=60_000, delta=0.5), 3)
        0.492
        >>> round(generalisation_gap_bound(100.0, samples=60_000, delta=0.5, form="sharp"), 3)
        0.041
    """
    check_size("samples", samples)
    return math.sqrt(_gap_times_samples(information_nats, delta, loss_bound, form) / samples)


def samples_for_gap(
    gap: float,
    information_nats: float,
    *,
    delta: float,
    loss_bound: float = 1.0,
    form: str = "algebra",
) -> int:
    """Return the smallest n at which `generalisation_gap_bound`, as it is rounded, is at most ``gap``.

    Args:
        gap: The wanted gap, in the unit of the loss.
        information_nats: I(W; D) in nats, taken as fixed.
        delta: δ, the probability of the exception.
        loss_bound: b, the loss being in [0, b].
        form: Which constant; see the file's first lines.

    Returns:
        The number of samples.

    Raises:
        ValueError: If ``gap`` or ``loss_bound`` is not positive, the information negative, one of
            them not finite, ``delta`` outside (0, 1) or ``form`` unknown.

    Cost:
        ``2 log2 n`` bounds.

    Source:
        No Free Prune, Theorems 5 and 6.

    Example:
        >>> samples_for_gap(0.1, 100.0, delta=0.5)
        1449982
        >>> samples_for_gap(0.1, 100.0, delta=0.5, form="sharp")
        10104
    """
    check_positive("gap", gap)

    def enough(samples: int) -> bool:
        bound = generalisation_gap_bound(
            information_nats, samples=samples, delta=delta, loss_bound=loss_bound, form=form
        )
        return bound <= gap

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:  # the quotient's ceiling may be off by its rounding
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _gap_times_samples(
    information_nats: float, delta: float, loss_bound: float, form: str
) -> float:
    """Return n times the square of the bound on the gap."""
    check_amount("information_nats", information_nats)
    check_probability("delta", delta)
    check_positive("loss_bound", loss_bound)
    check_choice("form", form, FORMS)
    if form == "sharp":
        charged = (information_nats + binary_entropy_nats(delta)) / delta + math.log(2)
        return loss_bound**2 / 2 * charged
    scale = loss_bound if form == "theorem_6_printed" else loss_bound**2
    return KAPPAS[form] * scale * (information_nats / delta + math.log(2 / delta))
