"""Claims of No Free Prune about selected variables: F2 (Lemma 1), its means, its simulation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from ntktheory.information.mutual_information_bounds import (
    A1_SQUARED,
    averaged_tail_constant,
    deviation_bound,
    information_lower_bound_nats,
)
from proofs_check.claim import Level, Outcome, claim

Bound = Callable[..., float]
FORMS = ("published", "sharp")
ROUNDING = 1e-12

# --- F2 -------------------------------------------------------------------------------------------

INFO, C, D, ELL, LOG2 = sp.symbols("I C delta ell log2", positive=True)
A2 = sp.Integer(A1_SQUARED)
"""Information, tail constant, δ, log(2/δ) and log 2, as independent letters."""


def published_square(a1_squared: sp.Expr = A2) -> sp.Expr:
    """Return the square of the published bound, ``a₁²((C/δ) I + C log(2/δ))``."""
    return a1_squared * (C / D * INFO + C * ELL)


def inverted(square: sp.Expr, a1_squared: sp.Expr = A2) -> sp.Expr:
    """Return the published lower bound on I at a deviation of this square."""
    return D * (square / (a1_squared * C) - ELL)


def sharp_square_above() -> sp.Expr:
    """Return what the sharp bound's square is at most: ``C(I/δ + log(2/δ) + 1)``.

    From ``h(δ) ≤ δ log(1/δ) + δ``, which `entropy_bound_slope` proves, and
    ``log(1/δ) + log 2 = log(2/δ)``.
    """
    return C * (INFO / D + ELL + 1)


def entropy_bound_slope() -> bool:
    """Return whether ``g(δ) = δ log(1/δ) + δ − h(δ)`` has g(0) = 0 and ``g' = −log(1−δ) ≥ 0``."""
    x = sp.Symbol("x", positive=True)
    log_rest = sp.Symbol("R")  # log(1 − x)
    g = x + (1 - x) * sp.log(1 - x)
    slope = sp.diff(g, x).subs(sp.log(1 - x), log_rest)
    numerator, _ = sp.fraction(sp.together(slope + log_rest))
    return sp.Poly(numerator, x, log_rest).is_zero and sp.limit(g, x, 0, "+") == 0


def vanishes(expression: sp.Expr) -> bool:
    """Return whether a rational function of the letters is zero, as a polynomial's zero test."""
    numerator, _ = sp.fraction(sp.together(expression))
    return sp.Poly(numerator, INFO, C, D, ELL, LOG2).is_zero


def published_is_above_sharp(square: sp.Expr) -> bool:
    """Return whether ``square − C(I/δ + ℓ + 1)`` is a sum of non-negative terms for ``ℓ ≥ log 2``.

    The difference over C is linear in I/δ and ℓ; its value at ``ℓ = log 2 + r`` has coefficients
    for I/δ, r and 1, all to be non-negative (log 2 > 69/100).
    """
    rest = sp.Symbol("r", nonnegative=True)
    difference = sp.expand((square - sharp_square_above()) / C).subs(ELL, LOG2 + rest)
    poly = sp.Poly(sp.expand(difference * D), INFO, D, rest, LOG2)
    per_term = poly.as_dict()
    at_information = per_term.pop((1, 0, 0, 0), sp.Integer(0))
    at_rest = per_term.pop((0, 1, 1, 0), sp.Integer(0))
    at_log2 = per_term.pop((0, 1, 0, 1), sp.Integer(0))
    constant = per_term.pop((0, 1, 0, 0), sp.Integer(0))
    enough = constant + at_log2 * sp.Rational(69, 100) >= 0
    return not per_term and bool(at_information >= 0 and at_rest >= 0 and at_log2 >= 0 and enough)


@dataclass(frozen=True)
class Known:
    """A selected variable of which everything is known.

    Attributes:
        information_nats: I(W; {X_t}), or a bound above.
        tail_constant: C.
        size: A number that ``|X_W|`` reaches …
        probability: … with this probability.
    """

    information_nats: float
    tail_constant: float
    size: float
    probability: float


def worst_law(u: float) -> Known:
    """Return one variable with ``P(|X| ≥ u) = min(1, 2e^{−u²})`` and an index that knows nothing."""
    return Known(0.0, 1.0, u, min(1.0, 2 * math.exp(-(u**2))))


def disjoint(selected: int, values: int) -> Known:
    """Return ``X_t = 1`` if V = t, else 0, V uniform on M values, and W = V if V ≤ N, else 1.

    Every X_t reaches 1 with probability 1/M, so ``C = 1/log(2M)``, and X_W = 1 with probability N/M.
    ``I(W; X) = H(W)``: V is known from the family but for values above N, where W = 1 anyway.
    """
    first = (values - selected + 1) / values
    rest = selected - 1
    entropy = -first * math.log(first) + rest / values * math.log(values)
    return Known(entropy, 1 / math.log(2 * values), 1.0, selected / values)


KNOWN: tuple[Known, ...] = (
    *(worst_law(u) for u in (0.9, 1.0, 1.5, 2.0, 3.0, 5.0)),
    *(disjoint(n, m) for m in (2, 10, 1000) for n in {1, m // 2, m}),
)


def overrun(known: Known, bound: Bound, form: str) -> bool:
    """Return whether ``|X_W|`` reaches the bound at a δ just below its probability."""
    delta = known.probability * (1 - 1e-9)
    if not 0 < delta < 1:
        return False
    found = bound(known.information_nats, known.tail_constant, delta, form=form)
    return found < known.size * (1 - ROUNDING)


def wrong_inversion(known: Known, invert: Bound, form: str) -> bool:
    """Return whether the inverted lemma asks for more information than there is."""
    delta = min(known.probability, 1 - 1e-9)
    need = invert(known.size, known.tail_constant, delta, form=form)
    return need > known.information_nats * (1 + ROUNDING) + 1e-8


def _scaled(factor: float, which: str) -> Bound:
    def wrong(i: float, c: float, d: float, *, form: str) -> float:
        return deviation_bound(i, c * factor if form == which else c, d, form=form)

    return wrong


def _without_entropy(i: float, c: float, d: float, *, form: str) -> float:
    found = deviation_bound(i, c, d, form=form)
    return math.sqrt(c * (i / d + math.log(2))) if form == "sharp" else found


def _bits_for_nats(i: float, c: float, d: float, *, form: str) -> float:
    return deviation_bound(i * math.log(2), c, d, form=form)


def _inverted_without_entropy(x: float, c: float, d: float, *, form: str) -> float:
    found = information_lower_bound_nats(x, c, d, form=form)
    return d * max(x**2 / c - math.log(2), 0) if form == "sharp" else found


@claim(
    "F2",
    subjects={
        "bound": deviation_bound,
        "invert": information_lower_bound_nats,
        "square": published_square,
        "solved": inverted,
    },
    mutants={
        "sharp, ten times too small": {"bound": _scaled(0.1, "sharp")},
        "sharp, one tenth too small": {"bound": _scaled(0.9, "sharp")},
        "sharp, without the entropy of δ": {"bound": _without_entropy},
        "information taken for bits": {"bound": _bits_for_nats},
        "published, two hundred times too small": {"bound": _scaled(0.005, "published")},
        "a₁² = 2 by algebra": {"square": lambda: published_square(sp.Integer(2))},
        "I without 1/δ": {"square": lambda: A2 * (C * INFO + C * ELL)},
        "inversion without a₁²": {"solved": lambda square: inverted(square, sp.Integer(1))},
        "inversion without δ": {"solved": lambda square: inverted(square) / D},
        "inversion without the entropy of δ": {"invert": _inverted_without_entropy},
        "inversion of half the constant": {
            "invert": lambda x, c, d, form: information_lower_bound_nats(x, c / 2, d, form=form)
        },
    },
)
def check_lemma_1(
    level: Level,
    bound: Bound,
    invert: Bound,
    square: Callable[[], sp.Expr],
    solved: Callable[[sp.Expr], sp.Expr],
) -> Outcome:
    """Return the verdict on F2: Lemma 1 by a proof of its own, and its inversion."""
    proofs = {
        "entropy_bound": entropy_bound_slope(),
        "published_above_sharp": published_is_above_sharp(square()),
        "inversion_undoes_it": vanishes(solved(square()) - INFO),
    }
    broken = [f"{form}: {k}" for form in FORMS for k in KNOWN if overrun(k, bound, form)]
    broken += [
        f"{form}, inverted: {k}"
        for form in FORMS
        for k in KNOWN
        if wrong_inversion(k, invert, form)
    ]
    tightest = min(
        bound(k.information_nats, k.tail_constant, k.probability * (1 - 1e-9), form="sharp")
        / k.size
        for k in KNOWN
    )
    holds = all(proofs.values()) and not broken
    return Outcome(
        status="holds" if holds else "refuted",
        kind="proved",
        scope="The data-processing inequality for the event |X_W| ≥ u (a textbook result, not "
        "checked here) with h(δ) ≤ δ log(1/δ) + δ and 71 log 2 ≥ 1 gives the lemma for every a₁² "
        f"≥ 1 + 1/log 2 = 2.443, without E X_t = 0; identities in polynomial rings. {len(KNOWN)} "
        "variables with known law, none above its bound.",
        evidence=proofs
        | {
            "a1_squared_printed": A1_SQUARED,
            "a1_squared_needed": 1 + 1 / math.log(2),
            "tightest_sharp_bound_over_size": tightest,
        },
        counterexample=None if holds else f"{proofs}; {broken[:2]}",
    )


# --- F2.average -----------------------------------------------------------------------------------


def kappa(average: Bound, form: str) -> Fraction:
    """Return κ from the tail constant 2κC/n of a mean."""
    return Fraction(average(1.0, 1, form=form)) / 2


def mgf_is_bounded(k: Fraction, orders: int = 40) -> bool:
    """Return whether ``1 + Σ_{k≥2} t^k Γ(k/2)/(k−1)! ≤ exp(κt²/2)`` is proved for all t ≥ 0.

    Term by term in even powers (odd ones by ``t^{2j+1} ≤ (t^{2j}+t^{2j+2})/2``, Γ(j+½) ≤ j!): the
    coefficient of t^{2j} is at most ``a_j + (b_j + b_{j−1})/2`` with ``a_j = (j−1)!/(2j−1)!``,
    ``b_j = j!/(2j)!``, b_0 = 0, to be at most ``κ^j/(2^j j!)``. Beyond the last order by induction:
    times 2^j j! it is at most j + 5/2, which grows more slowly than κ^j once κ ≥ 2.
    """

    def a(j: int) -> Fraction:
        return Fraction(math.factorial(j - 1), math.factorial(2 * j - 1))

    def b(j: int) -> Fraction:
        return Fraction(math.factorial(j), math.factorial(2 * j)) if j else Fraction(0)

    first = all(
        a(j) + (b(j) + b(j - 1)) / 2 <= k**j / (2**j * math.factorial(j))
        for j in range(1, orders + 1)
    )
    simple = all(
        (a(j) + (b(j) + b(j - 1)) / 2) * 2**j * math.factorial(j) <= j + Fraction(5, 2)
        for j in range(1, orders + 1)
    )
    return first and simple and k >= 2 and k**orders >= orders + Fraction(5, 2)


def largest_second_moment() -> float:
    """Return the largest E X² at C = 1: ``∫ 2u min(1, 2e^{−u²}) du = 1 + log 2``."""
    return 1 + math.log(2)


@claim(
    "F2.average",
    subjects={"average": averaged_tail_constant},
    mutants={
        "Gaussian variance proxy C": {
            "average": lambda c, n, form: averaged_tail_constant(c, n, form=form) / 9
        },
        "sharp κ = 3/2": {"average": lambda c, n, form: (3.0 if form == "sharp" else 18.0) * c / n},
        "published κ = 3/2": {
            "average": lambda c, n, form: (3.0 if form == "published" else 5.0) * c / n
        },
        "√n for n": {
            "average": lambda c, n, form: averaged_tail_constant(c, n, form=form) * n**0.5
        },
    },
)
def check_average(level: Level, average: Bound) -> Outcome:
    """Return the verdict on F2.average: a mean of n has tail constant 18 C/n (indeed 5 C/n)."""
    kappas = {form: kappa(average, form) for form in FORMS}
    proved = {form: mgf_is_bounded(k) for form, k in kappas.items()}
    too_small = [form for form, k in kappas.items() if float(k) < largest_second_moment()]
    scales = all(
        average(3.0, n, form=form) * n == average(3.0, 1, form=form)
        for form in FORMS
        for n in (2, 4, 64)
    )
    holds = all(proved.values()) and scales
    return Outcome(
        status="holds" if holds else "refuted",
        kind="proved",
        scope="E e^{sX} ≤ exp(κCs²/2) term by term in rationals to order 80, beyond by induction; "
        "then Chernoff's bound for independent variables.",
        evidence={"kappa": {f: str(k) for f, k in kappas.items()}, "proved": proved, "1/n": scales},
        counterexample=None
        if holds
        else f"κ too small for {too_small}: a symmetric X with P(|X| ≥ u) = min(1, 2e^(−u²)) has "
        f"E X² = {largest_second_moment():.3f}, above κ; proved: {proved}; 1/n: {scales}",
    )


# --- F2.simulated ---------------------------------------------------------------------------------

BUDGET = 1e-9
GRID: tuple[dict[str, Any], ...] = tuple(
    {"variables": t, "shared": shared, "honest": honest, "delta": delta}
    for t in (16, 256)
    for shared in (0.0, 0.9)
    for honest in (1.0, 0.5)
    for delta in (0.05, 0.5, 0.9)
)
"""Gaussian families with a shared part; the index is the argmax with probability ``honest``."""


def selected_sizes(
    variables: int, shared: float, honest: float, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ``|X_W|`` of independent draws: W = argmax |X_t|, or uniform with probability 1 − r."""
    common = rng.standard_normal((draws, 1))
    own = rng.standard_normal((draws, variables))
    x = np.abs(math.sqrt(shared) * common + math.sqrt(1 - shared) * own)
    chosen = np.where(rng.random(draws) < honest, x.argmax(1), rng.integers(0, variables, draws))
    return x[np.arange(draws), chosen]


@cache
def sizes_of_case(index: int, draws: int) -> np.ndarray:
    """Return the draws of one case of the grid, the same for every bound."""
    case, rng = GRID[index], np.random.default_rng([7, index])
    return selected_sizes(case["variables"], case["shared"], case["honest"], draws, rng)


def selection_information(variables: int, honest: float) -> float:
    """Return ``I(W; X) = log T − H(W|X)`` in nats: W is uniform, as the family is exchangeable."""
    top = honest + (1 - honest) / variables
    rest = (1 - honest) / variables
    conditional = -top * math.log(top)
    conditional -= (variables - 1) * rest * math.log(rest) if rest else 0.0
    return math.log(variables) - conditional


@claim(
    "F2.simulated",
    subjects={"bound": deviation_bound},
    mutants={
        "sharp, ten times too small": {"bound": _scaled(0.1, "sharp")},
        "sharp, three times too small": {"bound": _scaled(1 / 3, "sharp")},
        "published, two hundred times too small": {"bound": _scaled(0.005, "published")},
        "information left out": {
            "bound": lambda i, c, d, form: deviation_bound(0, c, d, form=form)
        },
        "δ left out": {"bound": lambda i, c, d, form: math.sqrt(c * (i * d + math.log(2)))},
    },
)
def check_simulation(level: Level, bound: Bound) -> Outcome:
    """Return the verdict on F2.simulated: how often the selected variable exceeds the bound."""
    from scipy.stats import binom

    draws = 2000 if level == "quick" else 40_000
    each = BUDGET / (len(GRID) * len(FORMS))
    rows, broken = [], []
    for index, case in enumerate(GRID):
        sizes, delta = sizes_of_case(index, draws), case["delta"]
        information = selection_information(case["variables"], case["honest"])
        for form in FORMS:
            limit = bound(information, 2.0, delta, form=form)  # P(|N(0,1)| ≥ u) ≤ e^{−u²/2}
            above = int((sizes >= limit).sum())
            chance = float(binom.sf(above - 1, draws, delta)) if above else 1.0
            rows.append(above / draws / delta)
            if chance <= each:
                broken.append(
                    f"{form}, {case}: {above} of {draws} above {limit:.3f}, chance ≤ {chance:.2g}"
                )
    return Outcome(
        status="refuted" if broken else "holds",
        kind="statistical",
        scope=f"{len(GRID)} Gaussian families of 16 and 256 variables, independent or with a "
        "shared part, index adversarial (argmax) or half of the time uniform; one-sided exact "
        f"binomial test of P(|X_W| ≥ bound) ≤ δ, {draws:,} draws each.",
        evidence={
            "tests": len(rows),
            "largest_frequency_over_delta": max(rows),
            "caught_at_delta_0.9_from": float(binom.isf(each, draws, 0.9)) / draws,
        },
        counterexample=broken[0] if broken else None,
        false_alarm=BUDGET,
    )
