"""Claims of No Free Prune about entropy and effective parameter counts: F4, F5, F6."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from typing import Any

import sympy as sp

from ntktheory.information.effective_parameters import (
    LargestCount,
    effective_parameter_count,
    log2_binomial,
    mask_entropy_expansion,
    max_effective_parameter_count,
)
from proofs_check.claim import Level, Outcome, Status, claim

LOG2_E = math.log2(math.e)
ROUNDING = 16 * 2.0**-52  # allowance for the expansion's float64 terms, relative to p

# --- F4 -------------------------------------------------------------------------------------------

LARGE_P = (200, 1000, 5000, 20000)
KEPT_PERCENT = (1, 10, 25, 50, 90, 99)
GAMMAS_TO_ONE = (0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-12)


def robbins_bracket(p: int, k: int) -> tuple[float, float]:
    """Return bounds in bits on ``log2 C(p, k) − expansion``.

    Robbins: ``n! = √(2πn)(n/e)ⁿ e^{r_n}`` with ``1/(12n+1) < r_n < 1/(12n)``, and the remainder is
    ``r_p − r_k − r_{p−k}``.
    """
    low = Fraction(1, 12 * p + 1) - Fraction(1, 12 * k) - Fraction(1, 12 * (p - k))
    high = Fraction(1, 12 * p) - Fraction(1, 12 * k + 1) - Fraction(1, 12 * (p - k) + 1)
    return float(low) * LOG2_E, float(high) * LOG2_E


@cache
def exact_log2_binomial(p: int, k: int) -> float:
    """Return ``log2 C(p, k)`` from the exact integer."""
    return math.log2(math.comb(p, k))


@cache
def limit_of_ratio() -> sp.Expr:
    """Return ``lim_{γ→1} [(H(γ) + (1−γ))/(1−γ)] / log2(1/(1−γ))`` by symbolic calculus."""
    e = sp.Symbol("e", positive=True)  # e = 1 − γ
    entropy_nats = -(1 - e) * sp.log(1 - e) - e * sp.log(e)
    ratio = (entropy_nats + e * sp.log(2)) / (-e * sp.log(e))
    return sp.limit(ratio, e, 0, "+")


def _ratio_of_counts(gamma: float, count: Callable[..., float]) -> float:
    """Return the two effective counts' ratio at Λ = 1 and sparsity γ, over ``log2(1/(1−γ))``."""
    entropy = -gamma * math.log2(gamma) - (1 - gamma) * math.log2(1 - gamma)
    learned = count(entropy, 1 - gamma, log_term=1.0)
    agnostic = count(0.0, 1 - gamma, log_term=1.0)
    return learned / agnostic / -math.log2(1 - gamma)


def _excess_outside(p: int, k: int, expansion: Callable[[int, float], float]) -> float:
    """Return by how many bits the remainder leaves Robbins' bracket, beyond rounding; 0 inside."""
    low, high = robbins_bracket(p, k)
    remainder = exact_log2_binomial(p, k) - expansion(p, k / p)
    outside = max(low - remainder, remainder - high, 0.0)
    return outside if outside > ROUNDING * p else 0.0


@claim(
    "F4",
    subjects={"expansion": mask_entropy_expansion, "count": effective_parameter_count},
    mutants={
        "without the half logarithm": {
            "expansion": lambda p, g: p * (-g * math.log2(g) - (1 - g) * math.log2(1 - g))
        },
        "γ log(1/(1−γ)) in place of γ log(1/γ)": {
            "expansion": lambda p, g: mask_entropy_expansion(p, g) + p * g * math.log2(g / (1 - g))
        },
        "half logarithm of 2πp": {
            "expansion": lambda p, g: mask_entropy_expansion(p, g) + 0.5 * math.log2(g * (1 - g))
        },
        "one weight too few": {
            "expansion": lambda p, g: mask_entropy_expansion(p, max(g - 1 / p, 0.5 / p))
        },
        "constant of the error counted in": {
            "expansion": lambda p, g: (
                mask_entropy_expansion(p, g) + LOG2_E / (12 * p) * (1 - 1 / g - 1 / (1 - g))
            )
        },
        "information left out": {
            "count": lambda bits, kept, log_term: effective_parameter_count(
                0.0, kept, log_term=log_term
            )
        },
    },
)
def check_entropy_expansion(
    level: Level, expansion: Callable[[int, float], float], count: Callable[..., float]
) -> Outcome:
    """Return the verdict on F4: the expansion of ``log2 C(p, γp)`` and the two counts' ratio."""
    small = range(2, 61 if level == "quick" else 401)
    pairs = [(p, k) for p in small for k in range(1, p)]
    pairs += [(p, p * percent // 100) for p in LARGE_P for percent in KEPT_PERCENT]
    worst, at = max((_excess_outside(p, k, expansion), (p, k)) for p, k in pairs)
    p = LARGE_P[-1]
    constants = {
        percent / 100: p
        * (exact_log2_binomial(p, p * percent // 100) - expansion(p, percent / 100))
        for percent in KEPT_PERCENT
    }
    predicted = {g: LOG2_E / 12 * (1 - 1 / g - 1 / (1 - g)) for g in constants}
    drift = max(abs(constants[g] / predicted[g] - 1) for g in constants)
    ratios = {g: _ratio_of_counts(g, count) for g in GAMMAS_TO_ONE}
    values = list(ratios.values())
    falls_to_one = all(a > b > 1 for a, b in pairwise(values))
    limit = limit_of_ratio()
    holds = worst == 0 and drift < 1e-3 and falls_to_one and limit == 1
    return Outcome(
        status="holds" if holds else "refuted",
        kind="exact-numeric",
        scope=f"log2 of exact integers against the expansion and Robbins' bounds: all 0 < k < p < "
        f"{small.stop} and p up to {p}; the ratio's limit by symbolic calculus.",
        evidence={
            "pairs": len(pairs),
            "largest_excess_bits": worst,
            "error_times_p": {str(g): round(value, 6) for g, value in constants.items()},
            "error_times_p_predicted": {str(g): round(v, 6) for g, v in predicted.items()},
            "ratio_over_log": {str(g): value for g, value in ratios.items()},
            "ratio_limit": str(limit),
        },
        counterexample=None
        if holds
        else f"p, k = {at}: {worst:.3g} bits outside Robbins' bounds; constants off by "
        f"{drift:.2g}; ratios {ratios}",
    )


# --- F5 -------------------------------------------------------------------------------------------

PAPER_P = 21
Largest = Callable[[int, float], LargestCount]


def _without_entropy(p: int, log_term: float) -> LargestCount:
    return LargestCount(p * log_term, p)


def _entropy_only(p: int, log_term: float) -> LargestCount:
    return LargestCount(log2_binomial(p, p // 2), p // 2)


def _without_log_term(p: int, log_term: float) -> LargestCount:
    return max_effective_parameter_count(p, 0.0)


def _consistent(p: int, log_term: int, found: LargestCount) -> bool:
    """Return whether the count's bits are those of the exact integer ``C(p, k)·2^{kΛ}``."""
    exact = math.log2(math.comb(p, found.kept) << (found.kept * log_term))
    return abs(found.bits - exact) <= 1e-12 * max(exact, 1.0)


@claim(
    "F5.at_one",
    subjects={"largest": max_effective_parameter_count},
    mutants={
        "entropy left out": {"largest": _without_entropy},
        "kept weights left out": {"largest": _entropy_only},
        "Λ = 0": {"largest": _without_log_term},
    },
)
def check_at_most_p(level: Level, largest: Largest) -> Outcome:
    """Return the verdict on F5 at Λ = 1: "p_eff can never be larger than p"."""
    found = {p: largest(p, 1.0) for p in range(1, PAPER_P + 1)}
    # p_eff > p for a mask of k weights ⟺ C(p, k)·2^k > 2^p
    broken = [p for p, f in found.items() if math.comb(p, f.kept) << f.kept > 1 << p]
    honest = all(_consistent(p, 1, f) for p, f in found.items())
    status: Status = "refuted" if PAPER_P in broken else "holds"
    if not honest:
        status = "inconclusive"
    at_paper = found[PAPER_P]
    above = math.comb(PAPER_P, at_paper.kept) << at_paper.kept
    return Outcome(
        status=status,
        kind="exact-numeric",
        scope=f"Masks of fixed size on p = 1…{PAPER_P} weights, Λ = 1 bit per kept weight, exact "
        "integers; any pruner one-to-one from equally likely data sets to the masks attains it.",
        evidence={
            "p": PAPER_P,
            "largest_bits": at_paper.bits,
            "kept": at_paper.kept,
            "smallest_p_broken": broken[0] if broken else None,
            "random_size_bits": PAPER_P * math.log2(3),
        },
        counterexample=f"p = {PAPER_P}, k = {at_paper.kept}: C(p,k)·2^k = {above} > 2^p = "
        f"{1 << PAPER_P}, so p_eff = {at_paper.bits:.2f} bits > {PAPER_P}. With masks of random "
        "size p = 1 is enough: three equally likely data sets, the weight kept for two of them: "
        f"p_eff = H(1/3) + 2/3 = {math.log2(3):.3f} > 1."
        if status == "refuted"
        else None,
    )


def count_rate(log_term: sp.Expr) -> sp.Expr:
    """Return ``log2(1 + 2^Λ)``, the largest p_eff per weight as p → ∞."""
    return sp.log(1 + 2**log_term) / sp.log(2)


def _limit_relative_to_p_lambda(rate: Callable[[sp.Expr], sp.Expr]) -> sp.Expr:
    """Return ``lim_{Λ→∞} rate(Λ)/Λ``, in the variable ``t = 2^Λ``."""
    t = sp.Symbol("t", positive=True)
    return sp.limit(rate(sp.log(t) / sp.log(2)) * sp.log(2) / sp.log(t), t, sp.oo)


@cache
def _exact_maximum(p: int, log_term: int) -> int:
    """Return ``max_k C(p, k)·2^{kΛ}`` over every k."""
    return max(math.comb(p, k) << (k * log_term) for k in range(p + 1))


@claim(
    "F5.limit",
    subjects={"largest": max_effective_parameter_count, "rate": count_rate},
    mutants={
        "mode of the binomial law off by one": {
            "largest": lambda p, log_term: LargestCount(
                log2_binomial(p, max(max_effective_parameter_count(p, log_term).kept - 1, 0)),
                max(max_effective_parameter_count(p, log_term).kept - 1, 0),
            )
        },
        "entropy left out": {"largest": _without_entropy},
        "Λ off by one": {
            "largest": lambda p, log_term: max_effective_parameter_count(p, log_term + 1)
        },
        "rate log2(1+Λ)": {"rate": lambda log_term: sp.log(1 + log_term) / sp.log(2)},
        "rate log2(2+2^Λ)": {"rate": lambda log_term: sp.log(2 + 2**log_term) / sp.log(2)},
        "rate 1+Λ": {"rate": lambda log_term: 1 + log_term},
    },
)
def check_limit(level: Level, largest: Largest, rate: Callable[[sp.Expr], sp.Expr]) -> Outcome:
    """Return the verdict on F5 as p, Λ → ∞: ``max_k [log2 C(p,k) + kΛ] ~ p log2(1+2^Λ) ~ pΛ``."""
    sizes = range(1, 65 if level == "quick" else 257)
    terms = range(1, 7)
    far = 20000
    rates = {bits: float(rate(sp.Integer(bits))) for bits in terms}
    broken = [
        (p, bits)
        for p, bits in product(sizes, terms)
        if not _sandwiched(p, bits, largest(p, float(bits)))
    ]
    # (1+2^Λ)^p ≤ (p+1)·max, so the rate per weight is reached within log2(p+1)/p
    reached = {bits: largest(far, float(bits)).bits / far for bits in terms}
    gap = max(abs(reached[bits] - rates[bits]) for bits in terms)
    limit = _limit_relative_to_p_lambda(rate)
    holds = not broken and gap <= math.log2(far + 1) / far and limit == 1
    return Outcome(
        status="holds" if holds else "refuted",
        kind="exact-numeric",
        scope=f"max ≤ (1+2^Λ)^p ≤ (p+1)·max in exact integers for p = 1…{sizes[-1]}, Λ = 1…"
        f"{terms[-1]} (for all p by the binomial theorem); the limit Λ → ∞ by symbolic calculus.",
        evidence={
            "cases": len(sizes) * len(terms),
            "rate_gap": gap,
            "rate_gap_allowed": math.log2(far + 1) / far,
            "per_p_lambda": {str(bits): rates[bits] / bits for bits in terms},
            "limit": str(limit),
        },
        counterexample=None
        if holds
        else f"(p, Λ) = {broken[:3]}; gap of the rate {gap:.3g}; limit {limit}",
    )


def _sandwiched(p: int, log_term: int, found: LargestCount) -> bool:
    top = math.comb(p, found.kept) << (found.kept * log_term)
    total = (1 + 2**log_term) ** p  # Σ_k C(p, k)·2^{kΛ}
    maximal = top == _exact_maximum(p, log_term)
    return maximal and _consistent(p, log_term, found) and top <= total <= (p + 1) * top


# --- F6 -------------------------------------------------------------------------------------------

Weights = tuple[int, ...]
Sample = tuple[tuple[int, ...], int]
Mask = tuple[int, ...]
Masks = Mapping[Mask, Fraction]  # a law over masks
Pruner = Callable[[Weights, Sample], Masks]

INITS: tuple[Weights, ...] = tuple(product((1, 2, 3), repeat=3))
DATA: tuple[Sample, ...] = tuple(
    (x, y) for x in product((0, 1, 2), repeat=3) if any(x) for y in (-1, 1)
)


def _keep_largest(scores: tuple[int, ...]) -> Mask:
    """Return the mask that keeps one weight; a tie goes to the lower index."""
    best = scores.index(max(scores))
    return tuple(int(j == best) for j in range(len(scores)))


def magnitude_pruner(init: Weights, sample: Sample) -> Masks:
    """Return the mask of the largest weight; the sample is not looked at."""
    return {_keep_largest(init): Fraction(1)}


def random_pruner(init: Weights, sample: Sample) -> Masks:
    """Return the law that keeps one weight drawn uniformly, whatever the sample."""
    return {
        tuple(int(i == kept) for i in range(len(init))): Fraction(1, len(init))
        for kept in range(len(init))
    }


def snip_pruner(init: Weights, sample: Sample) -> Masks:
    """Return the mask of the weight with the largest ``|w ∂ℓ/∂w|`` for ``ℓ = (w·x − y)²``."""
    return {_keep_largest(snip_scores(init, sample)): Fraction(1)}


def snip_scores(init: Weights, sample: Sample) -> tuple[int, ...]:
    """Return ``|w_j · 2(w·x − y)x_j|``."""
    x, y = sample
    residual = sum(w * v for w, v in zip(init, x, strict=True)) - y
    return tuple(abs(2 * residual * w * v) for w, v in zip(init, x, strict=True))


def _snip_with_coin(init: Weights, sample: Sample) -> Masks:
    """Return SNIP's mask, ties broken by a coin: no longer deterministic."""
    scores = snip_scores(init, sample)
    ties = [j for j, score in enumerate(scores) if score == max(scores)]
    return {tuple(int(i == j) for i in range(len(scores))): Fraction(1, len(ties)) for j in ties}


def _magnitude_of_fitted(init: Weights, sample: Sample) -> Masks:
    """Return the mask of the largest weight after one gradient step: it has seen the sample."""
    x, y = sample
    residual = sum(w * v for w, v in zip(init, x, strict=True)) - y
    moved = tuple(abs(w - residual * v) for w, v in zip(init, x, strict=True))
    return {_keep_largest(moved): Fraction(1)}


def joint_law(pruner: Pruner) -> dict[tuple[Mask, Sample, Weights], Fraction]:
    """Return P(m, D, init) for init and data set uniform and independent."""
    each = Fraction(1, len(INITS) * len(DATA))
    return {
        (mask, sample, init): each * share
        for init, sample in product(INITS, DATA)
        for mask, share in pruner(init, sample).items()
    }


def marginal(law: Mapping[tuple, Fraction], *axes: int) -> dict[tuple, Fraction]:
    """Return the law of the coordinates ``axes``."""
    total: dict[tuple, Fraction] = defaultdict(Fraction)
    for outcome, weight in law.items():
        total[tuple(outcome[axis] for axis in axes)] += weight
    return dict(total)


def _mask_independent_of_data(law: Mapping[tuple, Fraction]) -> bool:
    """Return whether I(m; D) = 0 ⟺ P(m, D) = P(m)P(D) everywhere, decided in rationals."""
    joint, masks, data = marginal(law, 0, 1), marginal(law, 0), marginal(law, 1)
    return all(
        joint.get((*m, *d), Fraction(0)) == p_m * p_d
        for (m, p_m), (d, p_d) in product(masks.items(), data.items())
    )


def _information_is_entropy(law: Mapping[tuple, Fraction]) -> bool:
    """Return whether I(m; D | init) = H(m | init) term by term.

    That is ``P(m,D|i)/(P(m|i)P(D|i)) = 1/P(m|i)`` wherever ``P(m,D,i) > 0``.
    """
    with_init, seen, inits = marginal(law, 0, 2), marginal(law, 1, 2), marginal(law, 2)
    return all(
        weight * inits[(i,)] / (with_init[m, i] * seen[d, i]) == inits[(i,)] / with_init[m, i]
        for (m, d, i), weight in law.items()
    )


def _bits(law: Mapping[Any, Fraction]) -> float:
    return -sum(float(w) * math.log2(w) for w in law.values())


@claim(
    "F6",
    subjects={
        "fixed": magnitude_pruner,
        "drawn": random_pruner,
        "deterministic": snip_pruner,
    },
    mutants={
        "magnitude after a training step": {"fixed": _magnitude_of_fitted},
        "random pruner replaced by SNIP": {"drawn": snip_pruner},
        "SNIP breaks ties by a coin": {"deterministic": _snip_with_coin},
        "SNIP that never sees the data": {"deterministic": magnitude_pruner},
    },
)
def check_mask_information(
    level: Level, fixed: Pruner, drawn: Pruner, deterministic: Pruner
) -> Outcome:
    """Return the verdict on F6: I(m; D) = 0 of agnostic masks, H(m | D, init) = 0 of others."""
    agnostic = {"fixed": joint_law(fixed), "drawn": joint_law(drawn)}
    law = joint_law(deterministic)
    independent = {name: _mask_independent_of_data(one) for name, one in agnostic.items()}
    point_masses = len(law) == len(INITS) * len(DATA)  # H(m | D, init) = 0
    equal = _information_is_entropy(law)
    visible = not _mask_independent_of_data(law)  # else the first two would say nothing
    conditional = _bits(marginal(law, 0, 2)) - _bits(marginal(law, 2))
    information = _bits(marginal(law, 0)) + _bits(marginal(law, 1)) - _bits(marginal(law, 0, 1))
    holds = all(independent.values()) and point_masses and equal and visible
    return Outcome(
        status="holds" if holds else "refuted",
        kind="exact-numeric",
        scope=f"Three-weight linear regression, {len(INITS)} initialisations × {len(DATA)} "
        "one-sample data sets enumerated with rational weights; magnitude, random and SNIP masks.",
        evidence={
            "independent": independent,
            "deterministic_mask_given_data_and_init_entropy_is_zero": point_masses,
            "information_equals_entropy_given_init": equal,
            "snip_entropy_given_init_bits": conditional,
            "snip_information_bits": information,
        },
        counterexample=None
        if holds
        else f"independent: {independent}; deterministic: {point_masses}; equal: {equal}; data "
        f"seen: {visible}",
    )
