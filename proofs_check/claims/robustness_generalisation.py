"""Claims of No Free Prune about generalisation: F10 (Theorem 5) and F10.printed (Theorem 6)."""

import math
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

from ntktheory.information.generalisation import KAPPAS, generalisation_gap_bound
from proofs_check.claim import Level, Outcome, claim

Gap = Callable[..., float]
VALID = ("theorem_5_printed", "theorem_5_proof", "algebra", "sharp")
SAMPLES, RULES, BOUNDS = (1, 2, 5, 20, 100), (1, 2, 30, 10**6), (0.01, 1.0, 1000.0)
LARGE_B = 1000.0


@cache
def reached(samples: int, rules: int) -> tuple[tuple[float, float], ...]:
    """Return the gaps in units of b and the probabilities to reach them, for the best of T rules.

    Every rule's loss is b or 0 by a fair coin of its own; the learner takes the rule of smallest
    training loss. Its test loss is b/2, its information at most log T. With T = 1 the gap is that of
    a constant learner, both signs counted.
    """
    below = [math.comb(samples, k) / 2**samples for k in range(samples + 1)]
    found = []
    for k in range(samples // 2 + 1):
        gap = 0.5 - k / samples
        tail = sum(below[: k + 1])
        if gap <= 0:
            continue
        once = min(2 * tail, 1.0) if rules == 1 else tail
        found.append((gap, -math.expm1(rules * math.log1p(-once)) if once < 1 else 1.0))
    return tuple(found)


def overruns(gap_bound: Gap, form: str) -> list[str]:
    """Return where a bound is reached with a probability above its δ."""
    broken = []
    for samples, rules, b in product(SAMPLES, RULES, BOUNDS):
        for gap, probability in reached(samples, rules):
            delta = probability * (1 - 1e-9)
            limit = gap_bound(
                math.log(rules), samples=samples, delta=delta, loss_bound=b, form=form
            )
            if limit < gap * b * (1 - 1e-12):
                broken.append(
                    f"{form}: n = {samples}, T = {rules}, b = {b:g}: gap {gap * b:g} with "
                    f"probability {probability:.4g}, bound {limit:.4g}"
                )
    return broken


def _scaled(factor: float) -> Gap:
    def wrong(i: float, **options: Any) -> float:
        return factor * generalisation_gap_bound(i, **options)

    return wrong


def _linear_in_b(i: float, *, loss_bound: float, **options: Any) -> float:
    found = generalisation_gap_bound(i, loss_bound=1.0, **options)
    return math.sqrt(loss_bound) * found


@claim(
    "F10",
    subjects={"gap": generalisation_gap_bound},
    mutants={
        "b where the algebra gives b²": {"gap": _linear_in_b},
        "information left out": {
            "gap": lambda i, **options: generalisation_gap_bound(0, **options)
        },
        "half": {"gap": _scaled(0.5)},
        "four times too large": {"gap": _scaled(4.0)},
        "without n": {
            "gap": lambda i, *, samples, **options: generalisation_gap_bound(
                i, samples=1, **options
            )
        },
    },
)
def check_theorem_5(level: Level, gap: Gap) -> Outcome:
    """Return the verdict on F10: every constant of Theorem 5 is valid, a₁² follows, 4a₁² is loose."""
    broken = [text for form in VALID for text in overruns(gap, form)]
    ratios, exact = {}, True
    for i, n, delta, b in product((0.0, 2.0, 500.0), (1, 50), (0.01, 0.5), (0.5, 20.0)):
        unit = b * b / n * (i / delta + math.log(2 / delta))
        for form, kappa in KAPPAS.items():
            if form == "theorem_6_printed":
                continue
            found = gap(i, samples=n, delta=delta, loss_bound=b, form=form) ** 2 / unit
            exact &= math.isclose(found, kappa, rel_tol=1e-12)
            ratios[form] = found
        # Hoeffding: C = b²/(2n); κ = a₁²/2 is all that Lemma 1 asks for
        exact &= ratios["algebra"] >= 72 / 2
        sharp = gap(i, samples=n, delta=delta, loss_bound=b, form="sharp") ** 2 / unit
        ratios["sharp"] = max(ratios.get("sharp", 0.0), sharp)
    exact &= ratios["sharp"] <= (1 + 1 / math.log(2)) / 2 * (1 + 1e-12)
    holds = exact and not broken
    return Outcome(
        status="holds" if holds else "refuted",
        kind="exact-numeric",
        scope="Lemma 1 at C = b²/n (Hoeffding gives b²/2n): κ b²/n (I/δ + log(2/δ)); the best of up "
        "to 10⁶ coin-flipping rules on up to 100 data, whose gap is known exactly, stays below.",
        evidence={"kappa": ratios, "a1_squared": 72, "kappa_needed": (1 + 1 / math.log(2)) / 2},
        counterexample=None if holds else (broken[0] if broken else f"constants {ratios}"),
    )


def theorem_6(i: float, **options: Any) -> float:
    """Return Theorem 6's bound as printed, with b for b²."""
    return generalisation_gap_bound(i, form="theorem_6_printed", **options)


@claim(
    "F10.printed",
    subjects={"gap": theorem_6},
    mutants={
        "b² as derived": {
            "gap": lambda i, **options: generalisation_gap_bound(i, form="algebra", **options)
        },
        "b² and the sharp form": {
            "gap": lambda i, **options: generalisation_gap_bound(i, form="sharp", **options)
        },
    },
)  # fmt: skip
def check_theorem_6(level: Level, gap: Gap) -> Outcome:
    """Return the verdict on Theorem 6 as printed, with b in the place of b²."""
    found = {
        n: gap(0.0, samples=n, delta=0.5, loss_bound=LARGE_B) for n in (1, 100)
    }  # a constant learner carries no information
    largest = LARGE_B / 2  # n = 1: the training loss is 0 or b, the test loss b/2, always
    broken = found[1] < largest
    # the same at n = 100: the gap that a fair coin reaches with probability above 1/2
    median = max(g for g, probability in reached(100, 1) if probability > 0.5) * LARGE_B
    threshold = 4 * 72 * math.log(4)
    return Outcome(
        status="refuted" if broken else "holds",
        kind="exact-numeric",
        scope="A constant learner (I = 0, one function) whose loss is 0 or b by a fair coin.",
        evidence={
            "bound_n1": found[1],
            "gap_n1": largest,
            "bound_n100": found[100],
            "gap_n100_with_probability_above_half": median,
            "fails_from_b": threshold,
            "saved_by_slack_below_b": 72 / ((1 + 1 / math.log(2)) / 2),
        },
        counterexample=f"b = {LARGE_B:g}, n = 1, δ = 1/2: the gap is {largest:g} with probability 1, "
        f"the printed bound √(72·{LARGE_B:g}·log 4) = {found[1]:.1f}. It scales with √b, the gap "
        f"with b: at n = 1, δ = 1/2 it fails from b = {threshold:.1f}. For b ≤ 58.9 the slack of a₁² "
        "still covers it."
        if broken
        else None,
    )
