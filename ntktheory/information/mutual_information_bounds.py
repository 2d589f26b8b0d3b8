"""What a selected variable can reach when its index knows little about the data: Lemma 1.

A family ``X_t`` with ``P(|X_t| ≥ u) ≤ 2 exp(−u²/C)`` for every fixed t, read at an index W that was
chosen from data, leaves its typical size only as far as W carries information about the family.
Information is in **nats** throughout this file; divide bits by ``log2 e``.

Two forms of the constant, named by ``form``:

``"published"``
    ``|X_W| < a₁ √((C/δ) I + C log(2/δ))``, a₁² = 72, from Xu and Raginsky's 8σ² and σ² = 9C.

``"sharp"``
    ``|X_W| < √(C [(I + h(δ))/δ + log 2])``, h the binary entropy in nats. Derivation: let E be the
    event ``|X_W| ≥ u``, of probability at most ``q = 2e^{−u²/C}`` if W is drawn independently of the
    family. By the data-processing inequality ``I ≥ d(P(E)‖q)``; were P(E) > δ ≥ q, then
    ``I > δ log(1/q) − h(δ)``, which the choice of u excludes. With ``h(δ) ≤ δ log(1/δ) + δ`` it is at
    most ``√(1 + 1/log 2) √((C/δ) I + C log(2/δ))``: 2.443 in place of 72, and no mean is needed.
"""

import math

from ntktheory.checks import check_choice, complaint

A1_SQUARED = 72
"""The constant a₁² of the published lemma: 8 of Xu and Raginsky times 9 of `averaged_tail_constant`."""

VARIANCE_FACTORS: dict[str, float] = {"published": 9.0, "sharp": 2.5}
"""κ in ``E e^{sX} ≤ exp(κ C s²/2)`` for a centred X with ``P(|X| ≥ u) ≤ 2 exp(−u²/C)``."""

FORMS = tuple(VARIANCE_FACTORS)


def binary_entropy_nats(delta: float) -> float:
    """Return ``h(δ) = −δ log δ − (1−δ) log(1−δ)``.

    Args:
        delta: A probability inside (0, 1).

    Returns:
        Nats.

    Raises:
        ValueError: If ``delta`` is outside (0, 1).

    Example:
        >>> binary_entropy_nats(0.5) == math.log(2)
        True
    """
    check_probability("delta", delta)
    return -delta * math.log(delta) - (1 - delta) * math.log1p(-delta)


def deviation_bound(
    information_nats: float, tail_constant: float, delta: float, *, form: str = "published"
) -> float:
    """Return what ``|X_W|`` stays below with probability at least 1 − δ (Lemma 1).

    Args:
        information_nats: I, the mutual information of the index W and the family, in nats.
        tail_constant: C in ``P(|X_t| ≥ u) ≤ 2 exp(−u²/C)``, the unit of X squared.
        delta: δ, the probability of the exception.
        form: ``"published"`` or ``"sharp"``; see the file's first lines.

    Returns:
        The bound, in the unit of X.

    Raises:
        ValueError: If the information is negative, the constant not positive, one of them not
            finite, ``delta`` outside (0, 1) or ``form`` unknown.

    Source:
        No Free Prune (arXiv 2402.01089), Lemma 1; Xu and Raginsky 2017. The sharp form is ours.

    Reference:
        ``reference_robustness.deviation_bound``, which bisects the exceedance probability.

    Example:
        >>> round(deviation_bound(0.0, 2.0, 0.5), 3)
        14.129
        >>> round(deviation_bound(0.0, 2.0, 0.5, form="sharp"), 3)
        2.039
    """
    check_amount("information_nats", information_nats)
    check_positive("tail_constant", tail_constant)
    check_probability("delta", delta)
    check_choice("form", form, FORMS)
    if form == "published":
        scale = A1_SQUARED * tail_constant
        return math.sqrt(scale * (information_nats / delta + math.log(2 / delta)))
    charged = (information_nats + binary_entropy_nats(delta)) / delta
    return math.sqrt(tail_constant * (charged + math.log(2)))


def information_lower_bound_nats(
    deviation: float, tail_constant: float, delta: float, *, form: str = "published"
) -> float:
    """Return the information that W must carry if ``P(|X_W| ≥ deviation) ≥ δ`` (Lemma 1, inverted).

    Published: ``I ≥ δ (X²/(a₁² C) − log(2/δ))``. Sharp: ``I ≥ d(δ ‖ 2e^{−X²/C})``, the divergence of
    two coins, where the second probability is below δ. Where that is negative, 0 is all there is to
    say. This is the only sense in which a correlation with noise bounds information from below.

    Args:
        deviation: X, a size that ``|X_W|`` reaches with probability at least δ.
        tail_constant: C in ``P(|X_t| ≥ u) ≤ 2 exp(−u²/C)``.
        delta: δ, that probability.
        form: ``"published"`` or ``"sharp"``.

    Returns:
        Nats, at least 0.

    Raises:
        ValueError: If the deviation is negative, the constant not positive, one of them not finite,
            ``delta`` outside (0, 1) or ``form`` unknown.

    Source:
        No Free Prune, Lemma 1, solved for I; the sharp form is the data-processing inequality.

    Reference:
        ``reference_robustness.deviation_bound``, which it inverts.

    Example:
        >>> bound = deviation_bound(3.0, 2.0, 0.1)
        >>> round(information_lower_bound_nats(bound, 2.0, 0.1), 12)
        3.0
        >>> information_lower_bound_nats(1.0, 2.0, 0.1)
        0.0
    """
    check_amount("deviation", deviation)
    check_positive("tail_constant", tail_constant)
    check_probability("delta", delta)
    check_choice("form", form, FORMS)
    exponent = deviation**2 / tail_constant
    if form == "published":
        return max(delta * (exponent / A1_SQUARED - math.log(2 / delta)), 0.0)
    if exponent <= math.log(2 / delta):
        return 0.0
    against = delta * (exponent - math.log(2)) - (1 - delta) * math.log1p(-2 * math.exp(-exponent))
    return max(against - binary_entropy_nats(delta), 0.0)


def averaged_tail_constant(tail_constant: float, samples: int, *, form: str = "published") -> float:
    """Return the tail constant of a mean of n independent centred variables: ``2κC/n``.

    From ``P(|X| ≥ u) ≤ 2 exp(−u²/C)`` and E X = 0 follows ``E e^{sX} ≤ exp(κ C s²/2)``, and from
    that, by Chernoff's bound, ``P(|X̄| ≥ u) ≤ 2 exp(−u² n/(2κC))``. Published κ = 9 (18 C/n). Sharp
    κ = 5/2 (5 C/n): ``E|X|^k ≤ k C^{k/2} Γ(k/2)``, odd powers by ``t^{2j+1} ≤ (t^{2j} + t^{2j+2})/2``
    and ``Γ(j + ½) ≤ j!``; then the coefficient of ``t^{2j}``, times ``2^j j!``, is at most 5/2 for
    j = 1 and j + 5/2 beyond, hence at most κ^j.

    Args:
        tail_constant: C of one variable.
        samples: n, the number of independent variables.
        form: ``"published"`` or ``"sharp"``.

    Returns:
        The constant of their mean.

    Raises:
        ValueError: If the constant is not positive and finite, ``samples`` < 1 or ``form`` unknown.
        TypeError: If ``samples`` is no integer.

    Source:
        No Free Prune, proof of Theorem 3 (18·8·cL²/(dn)); the sharp form is ours.

    Example:
        >>> averaged_tail_constant(8.0, 4)
        36.0
        >>> averaged_tail_constant(8.0, 4, form="sharp")
        10.0
    """
    check_positive("tail_constant", tail_constant)
    check_size("samples", samples)
    check_choice("form", form, FORMS)
    return 2 * VARIANCE_FACTORS[form] * tail_constant / samples


def check_amount(argument: str, value: float) -> None:
    """Check that ``value`` is non-negative and finite.

    Raises:
        ValueError: If it is not.
    """
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(
            complaint(argument, "non-negative and finite", value, "Check where it comes from.")
        )


def check_positive(argument: str, value: float) -> None:
    """Check that ``value`` is positive and finite.

    Raises:
        ValueError: If it is not.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(complaint(argument, "positive and finite", value, "Pass its upper bound."))


def check_probability(argument: str, value: float) -> None:
    """Check that ``value`` is inside (0, 1).

    Raises:
        ValueError: If it is not.
    """
    if not 0 < value < 1:
        raise ValueError(
            complaint(argument, "inside (0, 1)", value, "Pass the probability of the exception.")
        )


def check_integer(argument: str, value: int) -> None:
    """Check that ``value`` is an integer.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(
            complaint(argument, "an int", type(value).__name__, "Convert it with int().")
        )


def check_size(argument: str, value: int) -> None:
    """Check that ``value`` is a positive integer.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is below 1.
    """
    check_integer(argument, value)
    if value < 1:
        raise ValueError(complaint(argument, "at least 1", value, "Pass how many there are."))
