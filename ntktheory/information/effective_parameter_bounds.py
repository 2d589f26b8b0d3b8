"""Bounds on the effective parameter count that need no mutual information, and finite classes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ntktheory.checks import complaint
from ntktheory.information.effective_parameters import log2_binomial
from ntktheory.information.mutual_information_bounds import check_amount, check_size


@dataclass(frozen=True)
class CountRange:
    """Between what the effective parameter count of a mask of fixed size lies.

    Attributes:
        low_bits: ``kΛ``: reached by a mask that was drawn without the data.
        high_bits: ``min(log2 C(p, k), H(D)) + kΛ``.
    """

    low_bits: float
    high_bits: float


def effective_parameter_range(
    p: int, k: int, log_term: float, *, data_bits: float = math.inf
) -> CountRange:
    """Return the range of p_eff for masks that keep k of p weights.

    ``0 ≤ I(m; D) ≤ min(H(m), H(D))`` and ``H(m) ≤ log2 C(p, k)``. Both ends are reached: by a mask
    drawn without the data, and by one that is one-to-one from equally likely data sets to all masks
    of that size.

    Args:
        p: Number of weights.
        k: Number of kept weights, the same for every data set.
        log_term: Λ, bits per kept weight; ``log2 q`` for a finite class of q values each.
        data_bits: H(D) where it is finite, such as ``n`` for n random signs.

    Returns:
        Both ends, in bits.

    Raises:
        TypeError: If ``p`` or ``k`` is no integer.
        ValueError: If ``k`` is outside 0…p, ``log_term`` is negative or not finite, or
            ``data_bits`` is negative or not a number.

    Source:
        No Free Prune (arXiv 2402.01089), effective parameter count of a mask of given sparsity.

    Example:
        >>> effective_parameter_range(21, 1, 1.0, data_bits=2.0)
        CountRange(low_bits=1.0, high_bits=3.0)
    """
    mask_bits = log2_binomial(p, k)
    check_amount("log_term", log_term)
    if not data_bits >= 0:
        raise ValueError(
            complaint("data_bits", "at least 0", data_bits, "Leave it out where it is unknown.")
        )
    low = k * log_term
    return CountRange(low, min(mask_bits, data_bits) + low)


def max_count_of_random_size(p: int, log_term: float) -> float:
    """Return ``p log2(1 + 2^Λ)``, the largest p_eff of masks whose size may vary.

    ``max_P [H(m) + E‖m‖₁ Λ] = log2 Σ_m 2^{‖m‖₁ Λ}`` (the Gibbs variational principle), reached
    where every weight is kept independently with probability ``1/(1 + 2^−Λ)``.

    Args:
        p: Number of weights.
        log_term: Λ, bits per kept weight.

    Returns:
        Bits.

    Raises:
        TypeError: If ``p`` is no integer.
        ValueError: If ``p`` < 1, or ``log_term`` is negative or not finite.

    Source:
        No Free Prune, the remark that p_eff is at most p "up to logarithmic factors": it is this.

    Example:
        >>> max_count_of_random_size(4, 0.0)
        4.0
        >>> round(max_count_of_random_size(21, 1.0), 3)
        33.284
    """
    check_size("p", p)
    check_amount("log_term", log_term)
    return p * (log_term + math.log1p(2.0**-log_term) / math.log(2))


def expected_class_bits(law: Iterable[tuple[Fraction | int, int]]) -> float:
    """Return ``E log2 N_m`` of a finite class, from the law of its masks.

    Args:
        law: For each mask its probability, a `Fraction` (or an int), and N_m, the number of weight
            settings it allows. The probabilities sum to one exactly.

    Returns:
        Bits.

    Raises:
        TypeError: If a probability is no rational number or an N_m no integer.
        ValueError: If a probability is negative, they do not sum to one, or an N_m is below 1.

    Source:
        No Free Prune, Lemma 3: the second term of p_eff for a finite class.

    Example:
        >>> expected_class_bits([(Fraction(1, 4), 8), (Fraction(3, 4), 2)])
        1.5
    """
    pairs = list(law)
    for probability, count in pairs:
        if not isinstance(probability, Fraction | int):
            raise TypeError(
                complaint("probabilities of law", "Fractions", type(probability).__name__,
                          "Convert counts with Fraction(count, total).")
            )  # fmt: skip
        if probability < 0:
            raise ValueError(
                complaint("probabilities of law", "at least 0", probability, "Check the counts.")
            )
        check_size("N_m of law", count)
    total = sum((Fraction(probability) for probability, _ in pairs), Fraction(0))
    if total != 1:
        raise ValueError(
            complaint("probabilities of law", "summing to 1", total, "Divide by their sum.")
        )
    return math.fsum(float(probability) * math.log2(count) for probability, count in pairs)
