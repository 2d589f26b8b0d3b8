"""The law of robustness for sparse networks: a Lipschitz constant that fitting noise forces.

Data: n independent draws, y in [−1, 1], covariates from a mixture of k laws that are c-isoperimetric,
``P(|f(x) − E f| ≥ t) ≤ 2 exp(−d t²/(2cL²))`` for every L-Lipschitz f, mean conditional variance
σ² > 0 (1 ≥ σ² ≥ ε). With probability at least 1 − δ a training loss of at most σ² − ε forces

    Lip(f) ≥ ε'/(96 a₁ √(2c)) · √(n d δ/(I + s δ log(4/δ)))   if 8³ k log(8k/δ) ≤ n ε'².

Where 96 comes from: a loss of σ² − ε' means ``(1/n) Σ f(x_i) z_i ≥ ε'/4``, z the noise, but for two
Hoeffding events (ε'/6 each, together δ/4); the means of the k components take ε'/8 of that (δ/4);
what is left, ``(1/n) Σ (f(x_i) − E f) z_i ≥ ε'/8`` with |z| ≤ 2, has tail constant
``C₀ = 18·8·cL²/(dn) = 144 cL²/(nd)``, and Lemma 1 at δ/2 bounds it by ``a₁ √(C₀(2I/δ + log(4/δ)))``;
8·√144 = 96, √2 is that of 2/δ, and s = 1/2. The paper prints s = 2, which only weakens the bound.

A continuous class is replaced by a net of its weights, which moves the function by at most rε in the
supremum norm and the loss by as much as ``4rε`` (|2y − f − g| ≤ 4), or by ``rε(2 + rε)`` (Cauchy's
inequality with a loss of at most 1). A maximal separated set of that scale has at most
``(1 + 2WJ/(rε))^‖m‖₁`` points; ``1 + 60WJ/ε`` is r = 1/30.

==============  ==================================================  ===========  ==============
form            net                                                 ε'/ε         96 ε/ε'
==============  ==================================================  ===========  ==============
``published``   its loss is forgotten: not proved                   1            96
``repaired``    r = 1/6, loses at most ε/2                          1/2          192
``finer_net``   r = 1/30, loses at most 4ε/30                       13/15        110.8
``sharp``       r = 1/30, loses at most ε/15 + ε²/900               839/900      103.0
==============  ==================================================  ===========  ==============

``sharp`` also uses the sharp forms of `mutual_information_bounds` (``C₀ = 40 cL²/(nd)``, no a₁) and
the bits as what they are: ``Lip(f) ≥ (ε'/8) √(nd/(40c)) / √(2(I + h(δ/2))/δ + log 2)``, I in nats.
"""

import math
from fractions import Fraction

from ntktheory.checks import check_choice, complaint
from ntktheory.information.mutual_information_bounds import (
    A1_SQUARED,
    binary_entropy_nats,
    check_amount,
    check_positive,
    check_probability,
    check_size,
)

LOSS_SHARES: dict[str, Fraction] = {
    "published": Fraction(1),
    "repaired": Fraction(1, 2),
    "finer_net": Fraction(13, 15),
    "sharp": Fraction(839, 900),
}
"""ε'/ε: the part of ε that is left once the weights are replaced by a net's."""

FORMS = tuple(LOSS_SHARES)
SLACK = {"exact": 0.5, "printed": 2.0}


def samples_for_robustness(
    epsilon: float, delta: float, *, components: int = 1, form: str = "repaired"
) -> int:
    """Return the smallest n that Theorem 4 speaks about: ``8³ k log(8k/δ) ≤ n ε'²``.

    Exact but for the logarithm, which is a float.

    Args:
        epsilon: ε, by how much the training loss is below σ²; at most 1, as σ² is.
        delta: δ, the probability of the exception.
        components: k, the number of components of the mixture.
        form: Which proof; see the table in the file's first lines.

    Returns:
        The number of samples.

    Raises:
        ValueError: If ``epsilon`` is outside (0, 1], ``delta`` outside (0, 1), ``components`` < 1 or
            ``form`` unknown.
        TypeError: If ``components`` is no integer.

    Source:
        No Free Prune, Theorem 4.

    Example:
        >>> samples_for_robustness(1.0, 0.5, form="published")
        1420
        >>> samples_for_robustness(1.0, 0.5)
        5679
    """
    _check_setting(epsilon, delta, components, form)
    needed = 512 * components * Fraction(math.log(8 * components / delta))
    return math.ceil(needed / (Fraction(epsilon) * LOSS_SHARES[form]) ** 2)


def robustness_lower_bound(
    effective_bits: float,
    *,
    samples: int,
    dimension: int,
    epsilon: float,
    delta: float,
    isoperimetry: float = 1.0,
    components: int = 1,
    form: str = "repaired",
) -> float:
    """Return the Lipschitz constant that a training loss of σ² − ε forces (Theorem 4).

    ``ε'/(96 a₁ √(2c)) · √(n d δ/(p_eff + 2δ log(4/δ)))``, with probability at least 1 − δ over the
    data. Bits stand in for nats except in the sharp form, which weakens the bound.

    Args:
        effective_bits: p_eff in bits, with ``Λ = log2(1 + 60 W J/ε)`` per kept weight, or of a
            finite class; see `effective_parameter_count`. The weight sets must contain 0 (the
            network that is constant), or one bit more is due, and E‖m‖₁ is that of the replacement.
        samples: n, the number of data.
        dimension: d, the dimension of the covariates.
        epsilon: ε, by how much the training loss is below σ².
        delta: δ, the probability of the exception.
        isoperimetry: c; 1 for a Gaussian of covariance I/d.
        components: k, the number of components of the mixture.
        form: ``"repaired"``, ``"published"``, ``"finer_net"`` or ``"sharp"``; see the file's first
            lines.

    Returns:
        The bound on the Lipschitz constant, for Euclidean distance and functions clipped to [−1, 1].

    Raises:
        ValueError: If an amount is negative or not finite, ``epsilon`` is outside (0, 1], ``delta``
            outside (0, 1), a count below 1, ``form`` unknown, or n is too small for the theorem.
        TypeError: If a count is no integer.

    Source:
        No Free Prune (arXiv 2402.01089), Theorem 4, and the repair described above.

    Reference:
        ``reference_robustness.robustness_lower_bound``, which solves the proof's inequality.

    Example:
        >>> setting = dict(samples=60_000, dimension=784, epsilon=0.5, delta=0.5)
        >>> round(robustness_lower_bound(50_000.0, **setting), 4)
        0.0047
        >>> round(robustness_lower_bound(50_000.0, form="sharp", **setting), 4)
        0.1697
    """
    check_amount("effective_bits", effective_bits)
    setting = (samples, dimension, epsilon, delta, isoperimetry, components, form)
    if form == "sharp":
        return _bound(effective_bits * math.log(2), *setting)
    return _bound(effective_bits, *setting, slack=SLACK["printed"])


def robustness_from_information(
    information_nats: float,
    *,
    samples: int,
    dimension: int,
    epsilon: float,
    delta: float,
    isoperimetry: float = 1.0,
    components: int = 1,
    sharp: bool = False,
) -> float:
    """Return the Lipschitz constant forced, from the learner's own information (Theorem 3).

    ``ε/(96 a₁ √(2c)) · √(n d δ/(I + ½ δ log(4/δ)))``: no net, hence no loss of ε; the learner's
    output W may be any random element, and I is what it tells of the data.

    Args:
        information_nats: I(W; D) in nats.
        samples: n, the number of data.
        dimension: d, the dimension of the covariates.
        epsilon: ε, by how much the training loss is below σ².
        delta: δ, the probability of the exception.
        isoperimetry: c; 1 for a Gaussian of covariance I/d.
        components: k, the number of components of the mixture.
        sharp: Use ``C₀ = 40 cL²/(nd)`` and the sharp form of Lemma 1.

    Returns:
        The bound on the Lipschitz constant.

    Raises:
        ValueError: As `robustness_lower_bound`.
        TypeError: If a count is no integer.

    Source:
        No Free Prune, Theorem 3, with the slack that its algebra gives.

    Reference:
        ``reference_robustness.robustness_lower_bound``.

    Example:
        >>> setting = dict(samples=60_000, dimension=784, epsilon=0.5, delta=0.5)
        >>> round(robustness_from_information(1000.0, **setting), 4)
        0.0665
    """
    check_amount("information_nats", information_nats)
    setting = (samples, dimension, epsilon, delta, isoperimetry, components, "published")
    return _bound(information_nats, *setting, slack=None if sharp else SLACK["exact"])


def _bound(
    information: float,
    samples: int,
    dimension: int,
    epsilon: float,
    delta: float,
    isoperimetry: float,
    components: int,
    form: str,
    slack: float | None = None,
) -> float:
    """Return the bound; ``slack`` = s of the published chain, None = the sharp chain."""
    check_size("samples", samples)
    check_size("dimension", dimension)
    check_positive("isoperimetry", isoperimetry)
    needed = samples_for_robustness(epsilon, delta, components=components, form=form)
    if samples < needed:
        raise ValueError(
            complaint("samples", f"at least {needed} (8³ k log(8k/δ) ≤ n ε'²)", samples,
                      "The theorem says nothing below: take more data, or a larger epsilon or "
                      "delta.")
        )  # fmt: skip
    kept = epsilon * float(LOSS_SHARES[form])
    cells = samples * dimension
    if slack is None:
        charged = 2 * (information + binary_entropy_nats(delta / 2)) / delta + math.log(2)
        return kept / 8 * math.sqrt(cells / (40 * isoperimetry * charged))
    charged = information + slack * delta * math.log(4 / delta)
    return kept / 96 * math.sqrt(cells * delta / (2 * isoperimetry * A1_SQUARED * charged))


def _check_setting(epsilon: float, delta: float, components: int, form: str) -> None:
    if not 0 < epsilon <= 1:
        raise ValueError(
            complaint("epsilon", "in (0, 1]", epsilon, "With |y| ≤ 1 the variance is at most 1.")
        )
    check_probability("delta", delta)
    check_size("components", components)
    check_choice("form", form, FORMS)
