"""Claims of No Free Prune about what mask and weights tell of the data: F3 and F1.mask.

Everything is enumerated: finite data with rational weights, finite classes, and learners that may
draw lots. A joint law is over tuples (mask, weights, data set, family).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

from ntktheory.information.effective_parameter_bounds import expected_class_bits
from ntktheory.information.effective_parameters import effective_parameter_count
from proofs_check.claim import Level, Outcome, claim
from proofs_check.exact_logs import Law, LogSum, entropy, information, log2_of, marginal

Mask = tuple[int, ...]
Weights = tuple[int, ...]
Signs = tuple[int, ...]
Choice = Mapping[tuple[Mask, Weights], Fraction]
Learner = Callable[[Signs], Choice]

MASK, WEIGHTS, DATA, FAMILY = range(4)
INPUTS = ((1, 0), (0, 1), (1, 1))
DATA_LAW: Mapping[Signs, Fraction] = {
    signs: Fraction(2 ** signs.count(-1), 27) for signs in product((-1, 1), repeat=3)
}
"""Labels of the three inputs: independent, +1 with probability 1/3."""
CLASS: Mapping[Any, tuple[Weights, ...]] = {
    (1, 0): tuple((w, 0) for w in (-1, 0, 1)),
    (0, 1): tuple((0, w) for w in (-1, 0, 1)),
    (1, 1): tuple(product((-1, 0, 1), repeat=2)),
}
FLOAT_TOLERANCE = 1e-12


def outputs(weights: Weights) -> tuple[int, ...]:
    """Return the linear network's values at the inputs."""
    return tuple(sum(w * v for w, v in zip(weights, x, strict=True)) for x in INPUTS)


def hits(weights: Weights, signs: Signs) -> int:
    """Return how many labels have the sign of the value."""
    return sum(value * sign > 0 for value, sign in zip(outputs(weights), signs, strict=True))


def best_fit(signs: Signs) -> Choice:
    """Return the mask and weights of least squared error; a tie goes to the first."""
    pairs = [(mask, weights) for mask, allowed in CLASS.items() for weights in allowed]
    errors = [
        sum((value - s) ** 2 for value, s in zip(outputs(w), signs, strict=True)) for _, w in pairs
    ]
    return {pairs[errors.index(min(errors))]: Fraction(1)}


def by_lot(signs: Signs) -> Choice:
    """Return a law: the mask by the first label, the weights with odds 1 + hits."""
    mask = (1, 1) if signs[0] > 0 else (0, 1)
    odds = {w: 1 + hits(w, signs) for w in CLASS[mask]}
    return {(mask, w): Fraction(o, sum(odds.values())) for w, o in odds.items()}


def agnostic(signs: Signs) -> Choice:
    """Return a mask drawn without the data, and the weights of most hits in it, first of ties."""
    law: dict[tuple[Mask, Weights], Fraction] = {}
    for mask, allowed in CLASS.items():
        law[mask, max(allowed, key=lambda w: hits(w, signs))] = Fraction(1, len(CLASS))
    return law


LEARNERS: Mapping[str, Learner] = {"best fit": best_fit, "by lot": by_lot, "agnostic": agnostic}


def family(signs: Signs) -> tuple[int, ...]:
    """Return ``X_t = Σ_i y_i f_t(x_i)`` for the networks of the first mask: it forgets a label."""
    return tuple(sum(v * s for v, s in zip(outputs(w), signs, strict=True)) for w in CLASS[(1, 0)])


def joint(learner: Learner) -> Law:
    """Return the law of (mask, weights, data set, family)."""
    return {
        (*chosen, signs, family(signs)): weight * share
        for signs, weight in DATA_LAW.items()
        for chosen, share in learner(signs).items()
    }


@cache
def one_to_one() -> Law:
    """Return a law that attains the bound: twelve data sets, one pair (mask, weights) for each."""
    pairs = [(m, w) for m in ((1, 0), (1, 1)) for w in CLASS[m]]
    return {(*pair, index, index): Fraction(1, len(pairs)) for index, pair in enumerate(pairs)}


def class_bits(law: Law) -> LogSum:
    """Return ``E log2 N_m``, N_m the number of weight settings that the mask allows."""
    total = LogSum({})
    for (mask,), weight in marginal(law, MASK).items():
        total = total + log2_of(Fraction(len(CLASS[mask]))) * weight
    return total


def pair_information(law: Law) -> LogSum:
    """Return ``I((m, w); D)``."""
    return information(law, (MASK, WEIGHTS), (DATA,))


def mask_information(law: Law) -> LogSum:
    """Return ``I(m; D)``."""
    return information(law, (MASK,), (DATA,))


def _log_of_mean(law: Law) -> LogSum:
    masks = marginal(law, MASK)
    return log2_of(sum((w * len(CLASS[m]) for (m,), w in masks.items()), Fraction(0)))


def _without_zero(law: Law) -> LogSum:
    total = LogSum({})
    for (mask,), weight in marginal(law, MASK).items():
        total = total + log2_of(Fraction(len(CLASS[mask]) - 1)) * weight
    return total


def _smallest(law: Law) -> LogSum:
    return log2_of(Fraction(min(len(CLASS[mask]) for (mask,) in marginal(law, MASK))))


@claim(
    "F3",
    subjects={"pair": pair_information, "mask": mask_information, "settings": class_bits},
    mutants={
        "logarithm of the mean": {"settings": _log_of_mean},
        "settings without zero": {"settings": _without_zero},
        "settings of the smallest mask": {"settings": _smallest},
        "settings left out": {"settings": lambda law: LogSum({})},
        "information of the mask left out": {"mask": lambda law: LogSum({})},
        "entropy of the mask": {"mask": lambda law: entropy(marginal(law, MASK))},
        "weights without the mask": {"pair": lambda law: information(law, (WEIGHTS,), (DATA,))},
        "entropy of the pair": {"pair": lambda law: entropy(marginal(law, MASK, WEIGHTS))},
    },
)
def check_chain(
    level: Level,
    pair: Callable[[Law], LogSum],
    mask: Callable[[Law], LogSum],
    settings: Callable[[Law], LogSum],
) -> Outcome:
    """Return the verdict on F3: ``I(W; {X_t}) ≤ I(W; D) = I((m, w); D) ≤ I(m; D) + E log2 N_m``."""
    broken, bits = [], {}
    for name, learner in LEARNERS.items():
        law = joint(learner)
        known = pair(law)
        bound = mask(law) + settings(law)
        steps = {
            "family ≤ data": (
                known - information(law, (MASK, WEIGHTS), (FAMILY,)), {0, 1}
            ),
            "pair = mask + weights given mask": (
                known - (mask(law) + weights_given_mask(law)), {0}
            ),
            "pair ≤ mask + settings": (bound - known, {0, 1}),
        }  # fmt: skip
        broken += [f"{name}: {step}" for step, (gap, ok) in steps.items() if gap.sign not in ok]
        bits[name] = {
            "family": information(law, (MASK, WEIGHTS), (FAMILY,)).bits,
            "pair": known.bits,
            "mask": mask(law).bits,
            "settings": settings(law).bits,
        }
        if abs(_library_count(law) - bound.bits) > FLOAT_TOLERANCE:
            broken.append(f"{name}: effective_parameter_count differs from the exact sum")
    attained = one_to_one()
    if (mask(attained) + settings(attained) - pair(attained)).sign != 0:
        broken.append("one-to-one learner: the bound should be attained")
    return Outcome(
        status="refuted" if broken else "holds",
        kind="exact-numeric",
        scope=f"Three labels ({len(DATA_LAW)} data sets), three masks, weights in {{−1, 0, 1}}; "
        "a deterministic, a randomised and a data-agnostic mask's learner, and one that attains the "
        "bound. Signs of sums of logarithms decided in integers.",
        evidence={"bits": bits, "attained_bits": pair(attained).bits},
        counterexample="; ".join(broken) or None,
    )


def weights_given_mask(law: Law) -> LogSum:
    """Return ``I(w; D | m) = Σ_m P(m) I(w; D | m = m)``, mask by mask."""
    total = LogSum({})
    for (mask,), share in marginal(law, MASK).items():
        given = {outcome: w / share for outcome, w in law.items() if outcome[MASK] == mask}
        total = total + information(given, (WEIGHTS,), (DATA,)) * share
    return total


def _library_count(law: Law) -> float:
    settings = [(w, len(CLASS[mask])) for (mask,), w in marginal(law, MASK).items()]
    return effective_parameter_count(
        mask_information(law).bits, expected_class_bits=expected_class_bits(settings)
    )


def function_of(mask: Mask, weights: Weights) -> tuple[int, ...]:
    """Return the function that a pair computes, as its weights with the mask applied."""
    return tuple(m * w for m, w in zip(mask, weights, strict=True))


@claim(
    "F3.functions",
    subjects={"function": function_of},
    mutants={"a function that remembers its mask": {"function": lambda mask, weights: mask}},
)
def check_functions(level: Level, function: Callable[[Mask, Weights], tuple]) -> Outcome:
    """Return the verdict on ``I(f^W; D) = I((m, w); D)`` with f^W as a function."""
    law = {
        ((1, 0), (0, 0), -1): Fraction(1, 2),
        ((0, 1), (0, 0), 1): Fraction(1, 2),
    }
    as_functions = {(function(m, w), d): share for (m, w, d), share in law.items()}
    gap = information(law, (0, 1), (2,)) - information(as_functions, (0,), (1,))
    pair_bits = information(law, (0, 1), (2,)).bits
    function_bits = information(as_functions, (0,), (1,)).bits
    return Outcome(
        status="holds" if gap.sign == 0 else "refuted",
        kind="exact-numeric",
        scope="Two masks of one weight each, chosen by a random sign, and zero weights.",
        evidence={"pair_bits": pair_bits, "function_bits": function_bits},
        counterexample=f"Both pairs compute the zero function: I((m, w); D) = {pair_bits:g} bit, "
        f"I(f; D) = {function_bits:g}."
        if gap.sign
        else None,
    )


# --- F1, step (ii) --------------------------------------------------------------------------------

Replacement = Callable[[Mask], Mask]
STEEP = 1  # the weight whose network is steeper than L


def fixed_replacement(mask: Mask) -> Mask:
    """Return the mask of one fixed flat network, whatever mask was learned."""
    return (0, 1)


def masks_before_and_after(
    replacement: Replacement, fine: Law
) -> dict[tuple[Mask, Mask, int], Fraction]:
    """Return the law of (learned mask, mask after steep networks are replaced, data set).

    Args:
        replacement: Learned mask -> mask of the replacing network.
        fine: Law of (learned mask, data set); the network is steep where the data set is odd.
    """
    law: dict[tuple[Mask, Mask, int], Fraction] = defaultdict(Fraction)
    for (mask, data), share in fine.items():
        after = replacement(mask) if data % 2 == STEEP else mask
        law[mask, after, data] += share
    return dict(law)


@claim(
    "F1.mask",
    subjects={"replacement": fixed_replacement},
    mutants={"the mask is kept": {"replacement": lambda mask: mask}},
)
def check_mask_of_replacement(level: Level, replacement: Replacement) -> Outcome:
    """Return the verdict on ``I(m after replacement; D) ≤ I(m; D)``, asserted without a condition."""
    fixed_mask = {((1, 0), data): Fraction(1, 2) for data in (0, 1)}
    learned = {((1, 0) if data < 3 else (1, 1), data): Fraction(1, 5) for data in range(5)}
    gains, within_a_bit = {}, True
    for name, fine in {"one mask": fixed_mask, "two masks": learned}.items():
        law = masks_before_and_after(replacement, fine)
        gain = information(law, (1,), (2,)) - information(law, (0,), (2,))
        gains[name] = gain
        within_a_bit &= (log2_of(Fraction(2)) - gain).sign >= 0
    grows = {name: gain.bits for name, gain in gains.items() if gain.sign > 0}
    status = "refuted" if grows else "holds"
    if not within_a_bit:
        status = "inconclusive"  # the repair claims at most one bit
    return Outcome(
        status=status,  # type: ignore[arg-type]
        kind="exact-numeric",
        scope="A steep network (by its weights, which follow the data) is replaced by a flat one of "
        "another mask; one or two learned masks, two or five data sets.",
        evidence={"gain_bits": {name: gain.bits for name, gain in gains.items()}},
        counterexample="The learned mask is always (1, 0), so I(m; D) = 0; its weight makes the "
        "network steep for one of two equally likely data sets, which is then replaced by a flat "
        f"network of mask (0, 1): I = {gains['one mask'].bits:g} bit. A replacement that keeps the "
        "mask (weights 0) gains nothing, and no replacement gains more than the bit that says "
        "whether it took place."
        if grows
        else None,
    )
