"""Claims of No Free Prune about the law of robustness: F1 (Theorems 3 and 4), F1.discretisation."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import sympy as sp

from ntktheory.information.law_of_robustness import (
    LOSS_SHARES,
    robustness_from_information,
    robustness_lower_bound,
    samples_for_robustness,
)
from proofs_check.claim import Level, Outcome, claim

EPS, DELTA, A2, CC, N, DIM, INFO, ELL, L2 = sp.symbols("eps delta a2 c n d I ell L2", positive=True)
"""ε', δ, a₁², c, n, d, I, log(4/δ), L²: independent letters of one polynomial ring."""
PROVED_FORMS = ("repaired", "finer_net", "sharp")
SMALLEST_RADIUS = Fraction(1, 30)  # 2WJ/(rε) ≤ 60WJ/ε
PRECISION = 30
HALF = sp.Rational(1, 2)


def vanishes(expression: sp.Expr) -> bool:
    """Return whether a rational function of the letters is zero: its numerator as a polynomial."""
    numerator, _ = sp.fraction(sp.together(expression))
    return sp.Poly(numerator, EPS, DELTA, A2, CC, N, DIM, INFO, ELL, L2).is_zero


def tail_constant(lipschitz_squared: sp.Expr = L2) -> sp.Expr:
    """Return ``C₀`` of ``(1/n) Σ (f(x_i) − E f) z_i``: |z| ≤ 2, isoperimetry, mean of n."""
    isoperimetry = 2 * CC * lipschitz_squared / DIM
    return 18 * 2**2 * isoperimetry / N


def correlation_share() -> Fraction:
    """Return what is left of ε' for Lemma 1: ``2⟨F, Z⟩ ≥ ε' − ε'/6 − 2ε'/6``, less ε'/8."""
    return (1 - Fraction(1, 6) - Fraction(2, 6)) / 2 - Fraction(1, 8)


def printed_square(constant: int = 96, slack: sp.Expr = HALF) -> sp.Expr:
    """Return the square of ``ε'/(96 a₁ √(2c)) √(n d δ/(I + s δ log(4/δ)))``."""
    return EPS**2 * N * DIM * DELTA / (constant**2 * A2 * 2 * CC * (INFO + slack * DELTA * ELL))


def chain_holds(square: sp.Expr) -> bool:
    """Return whether L² = ``square`` is where Lemma 1 at δ/2 allows the correlation.

    ``(ε'/8)² = a₁² C₀(L²) (2I/δ + log(4/δ))``, as log(2/(δ/2)) = log(4/δ).
    """
    allowed = A2 * tail_constant(square) * (2 * INFO / DELTA + ELL)
    return vanishes(allowed - (sp.Rational(*correlation_share().as_integer_ratio()) * EPS) ** 2)


def hoeffding_holds(factor: Fraction) -> bool:
    """Return whether ``factor·k log(8k/δ) ≤ n ε'²`` makes the three other events rare: ≤ δ/2.

    ``(1/n) Σ z² ≤ σ² − ε'/6`` and ``(1/n) Σ z g ≤ −ε'/6`` (range 4) have exponent
    ``2(ε'/6)²/16 = ε'²/288``; the means of the components ``2k exp(−nε'²/(128k))`` (range 2, ε'/8 by
    Cauchy's inequality). Each exponential is at most δ/(8k), and (2 + 2k) δ/(8k) ≤ δ/2 for k ≥ 1.
    """
    single = 2 * Fraction(1, 36) / 16
    mixture = 2 * Fraction(1, 64) / 4
    return single * factor >= 1 and mixture * factor >= 1 and Fraction(2 + 2, 8) <= Fraction(1, 2)


def share_is_proved(share: Fraction) -> bool:
    """Return whether some net that p_eff pays for leaves this share of ε.

    A move by rε in the supremum norm raises the loss by at most ``rε(2 + rε) ≤ (2r + r²) ε`` (Cauchy's
    inequality; the loss and ε are at most 1). Smaller r is better, and r = 1/30 is the smallest that
    ``log2(1 + 60WJ/ε)`` pays for.
    """
    r = SMALLEST_RADIUS
    return share <= 1 - 2 * r - r**2


@cache
def exact_bound(form: str, bits: float, index: int) -> float:
    """Return the bound in one of ``SETTINGS`` from the chain's own factors, at 30 digits."""
    setting = SETTINGS[index]
    delta, c = sp.Rational(str(setting["delta"])), sp.Rational(str(setting["isoperimetry"]))
    share = Fraction(SHARES[form])
    kept = sp.Rational(str(setting["epsilon"])) * sp.Rational(*share.as_integer_ratio())
    cells = sp.Integer(setting["samples"] * setting["dimension"])
    if form == "sharp":
        half = delta / 2
        h = -half * sp.log(half) - (1 - half) * sp.log(1 - half)
        charged = (sp.Float(bits, PRECISION) * sp.log(2) + h) / half + sp.log(2)
        square = (kept / 8) ** 2 * cells / (5 * 4 * 2 * c * charged)
    else:
        charged = 2 * (sp.Float(bits, PRECISION) + 2 * delta * sp.log(4 / delta)) / delta
        square = (kept / 8) ** 2 * cells / (18 * 4 * 2 * c * 72 * charged)
    return float(sp.N(sp.sqrt(square), PRECISION))


SHARES = {"repaired": "1/2", "finer_net": "13/15", "sharp": "839/900"}
SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"samples": 10**7, "dimension": d, "epsilon": epsilon, "delta": delta, "isoperimetry": c}
    for d, epsilon, delta, c in product((1, 784), (0.25, 1.0), (0.01, 0.5), (0.5, 1.0))
)


def disagreements(bound: Callable[..., float]) -> list[str]:
    """Return where the library's bound is not that of the chain."""
    found = []
    for form, bits, (index, setting) in product(PROVED_FORMS, (0.0, 1000.0), enumerate(SETTINGS)):
        value, expected = bound(bits, form=form, **setting), exact_bound(form, bits, index)
        if not math.isclose(value, expected, rel_tol=1e-12):
            found.append(
                f"{form}, {bits} bits, {setting}: {value:.6g}, the chain gives {expected:.6g}"
            )
    return found


def condition_factor(samples: Callable[..., int]) -> Fraction:
    """Return the factor of ``k log(8k/δ)/ε'²`` in the smallest n, to the precision of its rounding."""
    n = samples(0.001, 0.5, components=2, form="published")
    return Fraction(round(n * 0.001**2 / (2 * math.log(32)), 3)).limit_denominator(1000)


def _share(**changed: Fraction) -> Callable[[], Mapping[str, Fraction]]:
    return lambda: LOSS_SHARES | changed


def _times(factor: float, only: str | None = None) -> Callable[..., float]:
    def wrong(bits: float, *, form: str, **setting: Any) -> float:
        found = robustness_lower_bound(bits, form=form, **setting)
        return found * factor if only in (None, form) else found

    return wrong


def _exact_slack(bits: float, *, form: str, **setting: Any) -> float:
    if form == "sharp":
        return robustness_lower_bound(bits, form=form, **setting)
    kept = setting | {"epsilon": setting["epsilon"] * float(LOSS_SHARES[form])}
    return robustness_from_information(bits, **kept)


@claim(
    "F1",
    subjects={
        "bound": robustness_lower_bound,
        "samples": samples_for_robustness,
        "shares": lambda: LOSS_SHARES,
        "square": printed_square,
    },
    mutants={
        "the loss of the net forgotten": {"shares": _share(repaired=Fraction(1))},
        "the net's loss without its square": {"shares": _share(sharp=Fraction(14, 15))},
        "96 where 192 is due": {"bound": _times(2, "repaired")},
        "√(2c) left out": {"bound": _times(math.sqrt(2))},
        "five percent too large": {"bound": _times(1.05, "finer_net")},
        "slack of the algebra for the printed one": {"bound": _exact_slack},
        "48 for 96": {"square": lambda: printed_square(48)},
        "δ/4 for δ/2": {"square": lambda: printed_square(slack=sp.Rational(1, 4))},
        "a₁ for a₁²": {"square": lambda: printed_square() / A2},
        "8² for 8³": {
            "samples": lambda *args, **options: samples_for_robustness(*args, **options) // 8
        },
    },
)
def check_law(
    level: Level,
    bound: Callable[..., float],
    samples: Callable[..., int],
    shares: Callable[[], Mapping[str, Fraction]],
    square: Callable[[], sp.Expr],
) -> Outcome:
    """Return the verdict on F1 with the repaired constants: every step of the chain, exactly."""
    share = shares()
    steps = {
        "correlation_is_eps_8": correlation_share() == Fraction(1, 8),
        "144_c_L2_over_nd": vanishes(tail_constant() - 144 * CC * L2 / (N * DIM)),
        "96_and_delta_half": chain_holds(square()),
        "printed_2_delta_is_weaker": vanishes(
            1 / printed_square(slack=sp.Integer(2)) - 1 / printed_square()
            - sp.Rational(3, 2) * DELTA * ELL * 96**2 * 2 * A2 * CC / (EPS**2 * N * DIM * DELTA)
        ),  # 1/L² grows by a positive term
        "other_events_below_delta_half": hoeffding_holds(condition_factor(samples)),
        "losses_of_nets": all(share_is_proved(share[form]) for form in PROVED_FORMS),
    }  # fmt: skip
    steps["net_of_60WJ"] = 2 / SMALLEST_RADIUS == 60
    differ = disagreements(bound)
    holds = all(steps.values()) and not differ
    return Outcome(
        status="holds" if holds else "refuted",
        kind="proved",
        scope="Constants 192 (net of ε/6), 1440/13 = 110.8 and 86400/839 = 103.0 (net of ε/30): "
        "identities in a polynomial ring over ε', δ, a₁², c, n, d, I, log(4/δ); Hoeffding's and "
        "Cauchy's inequalities, isoperimetry and Lemma 1 (F2) are used, not checked here. 0 in every "
        "weight set. Library against the chain at 30 digits.",
        evidence=steps
        | {
            "constants": {form: float(96 / share[form]) for form in LOSS_SHARES},
            "loss_of_eps_sixth_net": float(Fraction(2, 6) + Fraction(1, 36)),
            "comparisons": len(PROVED_FORMS) * 2 * len(SETTINGS),
        },
        counterexample=None if holds else f"{steps}; {differ[:1]}",
    )


# --- F1, step (i) ---------------------------------------------------------------------------------


def nearest_net_point(weight: Fraction, radius: Fraction) -> Fraction:
    """Return a point of the net for f_w(x) = w: as far away as the net allows, on the worse side."""
    return weight - radius


@claim(
    "F1.discretisation",
    subjects={"moved": nearest_net_point},
    mutants={
        "a net that holds the weight": {"moved": lambda weight, radius: weight},
        "a point on the better side": {"moved": lambda weight, radius: weight + radius},
    },
)
def check_discretisation(level: Level, moved: Callable[[Fraction, Fraction], Fraction]) -> Outcome:
    """Return the verdict on the step as printed: the net's network still has loss ≤ σ² − ε.

    Constant networks f_w(x) = w (J = 1), labels ±1 (σ² = 1) of which all n happen to be 1.
    """
    losses = []
    for eps, w in ((Fraction(1, 2), Fraction(1, 3)), (Fraction(3, 4), Fraction(1, 2))):
        after = (1 - moved(w, eps / 6)) ** 2
        losses.append(((1 - w) ** 2, after, 1 - eps, 1 - eps / 2))
    premise = all(before <= printed for before, _, printed, _ in losses)
    stays = all(after <= printed for _, after, printed, _ in losses)
    repaired = all(after <= half for _, after, _, half in losses)
    first, second, printed, half = (float(v) for v in losses[1])
    return Outcome(
        status="inconclusive" if not (premise and repaired) else "holds" if stays else "refuted",
        kind="exact-numeric",
        scope="Constant networks of one weight, net of radius ε/6, in rationals.",
        evidence={"loss_before": first, "loss_after": second, "sigma2_minus_eps": printed},
        counterexample=None
        if stays
        else f"f_w(x) = w, all labels 1, ε = 3/4, w = 1/2: training loss {first:.4g} ≤ σ² − ε = "
        f"{printed:.4g}; the net's point w − ε/6 has {second:.4g}. It is below σ² − ε/2 = {half:.4g}, "
        "as every net of that radius is: the loss grows by at most (ε/6)(2 + ε/6) ≤ 13ε/36.",
    )
