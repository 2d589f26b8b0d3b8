"""Exact information between masks and data, enumerated over a finite law of the data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.information.code_words import code_word
from ntktheory.information.laws import FITS, Array, Law, entropy_bits, law, pushed, uniform


@dataclass(frozen=True)
class MaskInformation:
    """What a deterministic pruner's mask says about the data.

    Attributes:
        bits: ``I(m; D | init) = H(m | init)``, in bits; exactly 0.0 if and only if there is one mask.
        low_bits: The least value if masks with a near-tie at the cut were others.
        high_bits: The largest.
        near_tie_weight: The probability of the data sets with a near-tie.
        masks: How many masks occur.
    """

    bits: float
    low_bits: float
    high_bits: float
    near_tie_weight: float
    masks: int


def information_of_masks(
    codes: Any, data: Law, near_ties: Any = None, *, possible: int | None = None
) -> MaskInformation:
    """Return I(m; D | init) of a deterministic pruner from its mask on every data set.

    The interval lets every data set with a near-tie have any mask at all. The least entropy is then that
    of all having the likeliest mask. The largest is at most that of a fresh mask each, and at most that
    of their weight poured over the possible masks, the least likely first.

    Args:
        codes: Code word of the mask on every data set, [N].
        data: The law of the data sets.
        near_ties: Where the mask hangs on rounding, [N] bool; None = nowhere.
        possible: How many masks there are; None = any number.

    Returns:
        The information.

    Raises:
        ValueError: If there is not one code word, or not one flag, per data set, or more masks occur
            than are possible.

    Example:
        >>> information_of_masks([5, 5, 3, 6], uniform(4)).bits
        1.5
    """
    codes = _per_data_set("codes", codes, data)
    masks = pushed(codes, data)
    bits = entropy_bits(masks)
    if possible is not None and possible < len(masks.numerators):
        raise ValueError(
            complaint("possible", f"at least {len(masks.numerators)}", possible, "So many occur.")
        )
    near = np.zeros(len(codes), dtype=bool)
    if near_ties is not None:
        near = _per_data_set("near_ties", near_ties, data).astype(bool) & (data.numerators != 0)
    if not near.any():
        return MaskInformation(bits, bits, bits, 0.0, len(masks.numerators))
    loose = data.numerators[near]
    sure = data.numerators[~near]
    certain = pushed(codes[~near], Law(sure, data.total)).numerators if sure.any() else sure[:0]
    apart = Law(np.concatenate([certain, loose]), data.total)
    if certain.size:
        together = certain.copy()
        together[np.argmax(together)] += loose.sum()
        low = entropy_bits(Law(together, data.total))
    else:
        low = 0.0
    high = entropy_bits(apart)
    if possible is not None:
        high = min(high, _poured(certain.tolist(), int(loose.sum()), possible, data.total))
    share = int(loose.sum()) / data.total
    return MaskInformation(bits, low, high, share, len(masks.numerators))


def _poured(certain: list[int], loose: int, possible: int, total: int) -> float:
    """Return the largest entropy, in bits, of a law that adds ``loose`` to the weights ``certain``.

    All of the ``possible`` masks are filled up to one level (the Lagrange condition), which is found
    by lifting the m least likely ones, for the largest m whose common level exceeds them all. Those of
    weight 0 come first, and are only counted: there may be 10^17 of them.

    Args:
        certain: Weights of the masks that occur without a near-tie.
        loose: The weight to pour, at least 1.
        possible: How many masks there are, at least as many as ``certain``.
        total: The sum of all weights.
    """
    levels = sorted(certain)
    m, under = possible - len(levels), 0
    lifted = 0
    for level in levels:
        if under + loose <= m * level:
            break
        m, under, lifted = m + 1, under + level, lifted + 1
    even = (under + loose) / m / total
    rest = math.fsum(w / total * math.log2(total / w) for w in levels[lifted:])
    return rest - m * even * math.log2(even)


def mask_information(
    learner: Callable[[Any], Any],
    data_sets: Sequence[Any],
    weights: Sequence[Fraction | int] | None = None,
) -> MaskInformation:
    """Return I(m; D) of any deterministic finite learner, exactly.

    Args:
        learner: ``learner(data_set) -> mask``: 0 and 1, in one sequence, tensor, or mapping of tensors.
        data_sets: All of them.
        weights: Their probabilities, rational, summing to one exactly; None = equally likely.

    Returns:
        The information, in bits. Near-ties are not known here.

    Raises:
        TypeError: If a weight is no rational.
        ValueError: If the weights are no probabilities of these data sets, a mask is none, or a second
            call gives another mask.

    Cost:
        Two calls of the learner per data set.

    Reference:
        ``reference_enumeration.py``.

    Example:
        >>> mask_information(lambda d: [d > 1, d % 2], [0, 1, 2, 3]).bits
        2.0
    """
    data = uniform(len(data_sets)) if weights is None else law(weights)
    if len(data.numerators) != len(data_sets):
        raise ValueError(
            complaint("weights", f"one per data set ({len(data_sets)})", len(data.numerators),
                      "Weight every data set, if by 0.")
        )  # fmt: skip
    codes = [code_word(learner(each)) for each in data_sets]
    for each, first in zip(data_sets, codes, strict=True):
        check_repeats(first, code_word(learner(each)))
    return information_of_masks(codes, data)


def check_repeats(first: int, second: int) -> None:
    """Check that a second call has found the same mask.

    Raises:
        ValueError: If it has not.
    """
    if first != second:
        raise ValueError(
            complaint(
                "learner",
                "deterministic, given its initial weights",
                f"the masks {first:b} and {second:b} on one data set",
                "Fix its seed, and sort stably.",
            )
        )


def information_over_inits(codes: Any, data: Law, inits: Law | None = None) -> float:
    """Return I(m; D) in bits when the initial weights are drawn too, and are not known.

    ``H(m) + H(D) − H(m, D)``, with init and data independent. It is at most ``I(m; D | init)``, the
    mean over the inits of ``information_of_masks``.

    Args:
        codes: Code word of the mask for every init and data set, [I, N].
        data: The law of the data sets.
        inits: The law of the inits; None = equally likely.

    Returns:
        Bits; exactly 0.0 where mask and data are independent, decided in integers.

    Raises:
        ValueError: If the shape of the code words does not fit the laws.

    Example:
        >>> information_over_inits([[1, 2], [2, 1]], uniform(2))  # known given init, not without
        0.0
    """
    codes = np.asarray(codes)
    inits = uniform(len(codes)) if inits is None else inits
    shape = (len(inits.numerators), len(data.numerators))
    if codes.shape != shape:
        raise ValueError(
            complaint("codes", f"of shape {list(shape)}", list(codes.shape), "One row per init.")
        )
    total = inits.total * data.total
    weights = np.multiply.outer(
        inits.numerators.astype(object if total >= FITS else np.int64), data.numerators
    )
    joint = Law(weights.ravel(), total)
    _, names = np.unique(codes, return_inverse=True)
    names = names.reshape(shape)
    pairs = names * np.int64(shape[1]) + np.arange(shape[1])
    both = pushed(pairs.ravel(), joint)
    masks = pushed(names.ravel(), joint)
    if _independent(pairs.ravel(), both, masks, data, joint):
        return 0.0
    return entropy_bits(masks) + entropy_bits(data) - entropy_bits(both)


def joint_information(codes: Any, weights: Tensor | Array, data: Law) -> float:
    """Return ``I((m, w); D | init)`` in bits: the entropy of the classes of equal mask and weights.

    Weights are compared bit by bit as they are, so that −0 and 0 differ.

    Args:
        codes: Code word of the mask on every data set, [N].
        weights: The trained weights under the mask, [P, N].
        data: The law of the data sets.

    Returns:
        Bits.

    Raises:
        ValueError: If there is not one code word, or not one column of weights, per data set.

    Example:
        >>> joint_information([1, 1, 2], np.array([[0.5, 0.5, 0.5]]), uniform(3)) < 0.92
        True
    """
    codes = _per_data_set("codes", codes, data)
    rows = np.ascontiguousarray(np.asarray(weights, dtype=np.float64).T)
    if len(rows) != len(codes):
        raise ValueError(
            complaint(
                "weights", f"of shape [P, {len(codes)}]", list(rows.T.shape), "Transpose them."
            )
        )
    classes = np.concatenate([codes[:, None], rows.view(np.int64)], axis=1)
    _, names = np.unique(classes, axis=0, return_inverse=True)
    return entropy_bits(pushed(names.ravel(), data))


def _independent(pairs: Array, both: Law, masks: Law, data: Law, joint: Law) -> bool:
    """Say whether P(m, D) = P(m) P(D) everywhere, in integers."""
    width = len(data.numerators)
    found = np.unique(pairs[joint.numerators != 0])
    mask_names = np.unique(found // width)
    if len(found) != len(mask_names) * int((data.numerators != 0).sum()):
        return False
    of_mask = dict(zip(mask_names.tolist(), masks.numerators.tolist(), strict=True))
    of_data = data.numerators.tolist()
    return all(
        both_n * data.total == of_mask[pair // width] * of_data[pair % width]
        for pair, both_n in zip(found.tolist(), both.numerators.tolist(), strict=True)
    )


def _per_data_set(argument: str, values: Any, data: Law) -> Array:
    array = np.asarray(values)
    if array.shape != data.numerators.shape:
        raise ValueError(
            complaint(
                argument,
                f"of shape {list(data.numerators.shape)}, one per data set",
                list(array.shape),
                "Enumerate the data sets in one order.",
            )
        )
    return array
