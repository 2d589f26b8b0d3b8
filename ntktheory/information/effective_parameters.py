"""The effective parameter count of No Free Prune and the entropy of a uniformly drawn mask.

``p_eff = I(m; D) + E‖m‖₁ · Λ`` with ``Λ = log2(1 + 60 W J/ε)``, everything in bits: a mask that
depends on the data carries information about them and is charged for it.
"""

import math
from dataclasses import dataclass

from ntktheory.checks import complaint
from ntktheory.information.mutual_information_bounds import (
    check_amount,
    check_integer,
    check_positive,
    check_size,
)

EXACT_BELOW = 1000  # kept or pruned weights up to which the binomial is an exact integer
LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class LargestCount:
    """The largest effective parameter count over masks of a fixed size.

    Attributes:
        bits: ``max_k [log2 C(p, k) + kΛ]``.
        kept: The k that attains it.
    """

    bits: float
    kept: int


def log2_binomial(p: int, k: int) -> float:
    """Return ``log2 C(p, k)``, the entropy of a uniformly drawn mask that keeps k of p weights.

    From the exact integer while k or p − k is at most 1000, and by Stirling's series beyond, whose
    truncation (below 1e-17 bits there) is under the rounding of its terms. All leading terms are
    positive, so the relative error is a few units in the last place at any p.

    Args:
        p: Number of weights.
        k: Number of kept weights.

    Returns:
        Bits.

    Raises:
        TypeError: If ``p`` or ``k`` is no integer.
        ValueError: If ``p`` is negative or ``k`` is outside 0…p.

    Cost:
        ``min(k, p − k)`` ≤ 1000 big-integer products, or a constant.

    Reference:
        ``math.log2(math.comb(p, k))``.

    Example:
        >>> log2_binomial(4, 2) == math.log2(6)
        True
        >>> log2_binomial(21, 0)
        0.0
    """
    check_integer("p", p)
    check_integer("k", k)
    if p < 0:
        raise ValueError(complaint("p", "at least 0", p, "Pass the number of weights."))
    if not 0 <= k <= p:
        raise ValueError(complaint("k", f"in 0…{p}", k, "Pass the number of kept weights."))
    if min(k, p - k) <= EXACT_BELOW:
        return math.log2(math.comb(p, k))
    corrections = _binet(p) - _binet(k) - _binet(p - k)
    return mask_entropy_expansion(p, k / p) + corrections * LOG2_E


def mask_entropy_expansion(p: int, gamma: float) -> float:
    """Return F4's expansion of ``log2 C(p, γp)``.

    ``p[γ log2(1/γ) + (1−γ) log2(1/(1−γ))] − ½ log2(2πpγ(1−γ))``. What is left is
    ``(log2 e/12p)(1 − 1/γ − 1/(1−γ)) + O(p⁻³)`` (from Stirling's series).

    Args:
        p: Number of weights.
        gamma: Fraction kept (or pruned: the expression is symmetric), inside (0, 1).

    Returns:
        Bits.

    Raises:
        TypeError: If ``p`` is no integer.
        ValueError: If ``p`` < 1 or ``gamma`` is outside (0, 1).

    Source:
        No Free Prune (arXiv 2402.01089), effective parameter count of a mask of given sparsity.

    Example:
        >>> round(mask_entropy_expansion(100, 0.5) - log2_binomial(100, 50), 4)
        0.0036
    """
    check_size("p", p)
    if not 0 < gamma < 1:
        raise ValueError(
            complaint("gamma", "a fraction inside (0, 1)", gamma, "Use log2_binomial at the ends.")
        )
    entropy = -gamma * math.log2(gamma) - (1 - gamma) * math.log1p(-gamma) * LOG2_E
    return p * entropy - 0.5 * math.log2(2 * math.pi * p * gamma * (1 - gamma))


def discretisation_bits(weight_diameter: float, lipschitz: float, epsilon: float) -> float:
    """Return ``Λ = log2(1 + 60 W J/ε)``, the bits that one kept weight is charged.

    Args:
        weight_diameter: W, the diameter of the set of weights.
        lipschitz: J, the Lipschitz constant of weights ↦ function in the supremum norm.
        epsilon: ε, by how much the training loss is below the noise level.

    Returns:
        Bits per kept weight.

    Raises:
        ValueError: If one of them is not positive and finite.

    Source:
        No Free Prune, Theorem 4.

    Example:
        >>> discretisation_bits(weight_diameter=1.0, lipschitz=1.0, epsilon=60.0)
        1.0
    """
    named = {"weight_diameter": weight_diameter, "lipschitz": lipschitz, "epsilon": epsilon}
    for name, value in named.items():
        check_positive(name, value)
    return math.log2(1 + 60 * weight_diameter * lipschitz / epsilon)


def effective_parameter_count(
    information_bits: float,
    expected_kept: float | None = None,
    *,
    log_term: float | None = None,
    weight_diameter: float | None = None,
    lipschitz: float | None = None,
    epsilon: float | None = None,
    expected_class_bits: float | None = None,
) -> float:
    """Return ``p_eff = I(m; D) + E‖m‖₁ · Λ``, or ``I(m; D) + E log2 N_m`` for a finite class.

    Λ is ``log_term``, or ``log2(1 + 60 W J/ε)`` from the last three of the first form's arguments.
    The two forms exclude each other: the class's bits replace the second term.

    Args:
        information_bits: I(m; D), the mutual information of mask and data, in bits.
        expected_kept: E‖m‖₁, the mean number of kept weights.
        log_term: Λ, bits per kept weight.
        weight_diameter: W, the diameter of the set of weights.
        lipschitz: J, the Lipschitz constant of weights ↦ function in the supremum norm.
        epsilon: ε, by how much the training loss is below the noise level.
        expected_class_bits: E log2 N_m, with N_m the number of functions that the mask allows.

    Returns:
        Bits.

    Raises:
        ValueError: If the arguments name no form, two forms or half of one, or a quantity is
            negative, or not finite.

    Source:
        No Free Prune (arXiv 2402.01089), Theorem 4.

    Example:
        >>> effective_parameter_count(8.0, 13, log_term=1.0)
        21.0
        >>> effective_parameter_count(8.0, expected_class_bits=2.5)
        10.5
    """
    check_amount("information_bits", information_bits)
    lengths = (weight_diameter, lipschitz, epsilon)
    if expected_class_bits is not None:
        if expected_kept is not None or log_term is not None or lengths != (None, None, None):
            raise ValueError(
                complaint("expected_class_bits", "given alone with information_bits",
                          "expected_kept, log_term or lengths beside it",
                          "It replaces the second term; drop the others.")
            )  # fmt: skip
        check_amount("expected_class_bits", expected_class_bits)
        return information_bits + expected_class_bits
    if expected_kept is None:
        raise ValueError(
            complaint("expected_kept", "given", None, "Or pass expected_class_bits in its place.")
        )
    check_amount("expected_kept", expected_kept)
    return information_bits + expected_kept * _log_term(log_term, lengths)


def max_effective_parameter_count(p: int, log_term: float) -> LargestCount:
    """Return the largest p_eff of a mask of fixed size, ``max_k [log2 C(p, k) + kΛ]``.

    ``C(p, k)2^{kΛ}`` is a multiple of the binomial law with success probability ``1/(1 + 2^−Λ)``,
    so its largest term is at that law's mode ``⌊(p + 1)/(1 + 2^−Λ)⌋``. It is attained by a pruner
    that is one-to-one from equally likely data sets to the masks of that size. Masks of random
    size reach ``p log2(1 + 2^Λ)`` and no more (the Gibbs variational principle).

    Args:
        p: Number of weights.
        log_term: Λ, bits per kept weight.

    Returns:
        The largest count and the number of kept weights that attains it.

    Raises:
        TypeError: If ``p`` is no integer.
        ValueError: If ``p`` < 1, or ``log_term`` is negative or not finite.

    Source:
        No Free Prune, the remark that p_eff is at most p "up to logarithmic factors".

    Reference:
        The maximum over all k, in exact integers.

    Example:
        >>> largest = max_effective_parameter_count(21, 1.0)
        >>> largest.kept, round(largest.bits, 2)
        (14, 30.83)
    """
    check_size("p", p)
    check_amount("log_term", log_term)
    mode = math.floor((p + 1) / (1 + 2.0**-log_term))
    near = range(max(mode - 1, 0), min(mode + 1, p) + 1)  # the mode may round to its neighbour
    bits, kept = max((log2_binomial(p, k) + k * log_term, k) for k in near)
    return LargestCount(bits, kept)


def _log_term(log_term: float | None, lengths: tuple[float | None, ...]) -> float:
    given = [length for length in lengths if length is not None]
    if log_term is not None and not given:
        check_amount("log_term", log_term)
        return log_term
    if log_term is None and len(given) == len(lengths):
        return discretisation_bits(*given)
    raise ValueError(
        complaint(
            "log_term",
            "given, or weight_diameter, lipschitz and epsilon in its place",
            f"log_term={log_term} and {len(given)} of the three",
            "Pass one or the other.",
        )
    )


def _binet(n: int) -> float:
    """Return the first two terms of Stirling's series; the rest is below 1/(1260 n⁵) nats."""
    return 1 / (12 * n) - 1 / (360 * n**3)
