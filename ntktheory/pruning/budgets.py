"""Budgets: how many of the kept weights each layer gets.

A layerwise budget gives layer l a weight r_l: its number of weights P_l ("uniform"), the sum of its
axes ``n_out + n_in + k_h + k_w`` ("erk", whose density is thus proportional to the sum over the product
of the axes), or what a mask or a density keeps of it. Its share is ``s_l = clip(λ r_l, a_l, b_l)``, a_l
the floor and b_l what is left of the layer, with the one λ for which the shares add up to the count:
what a saturated layer cannot take goes to the others. Shares become whole numbers by largest
remainders, so that the total is exact. All of it is done in fractions: nothing is rounded before that.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, cast

import torch
from torch import Tensor

from ntktheory.checks import check_choice, check_masks, complaint
from ntktheory.pruning.topk import keep_highest

Layerwise = Mapping[str, float] | Mapping[str, Tensor]
NamedBudget = Literal["global", "uniform", "erk"]
Budget = NamedBudget | Layerwise
BUDGETS = ("global", "uniform", "erk")

Shapes = Mapping[str, Sequence[int]]
Counts = dict[str, int]


def check_budget(budget: Budget, shapes: Shapes) -> None:
    """Check that a budget is a known name, or has a density or a mask for layers that exist.

    Args:
        budget: ``"global"``, ``"uniform"``, ``"erk"``, or layer name -> density or bool mask.
        shapes: The shapes of the prunable weights.

    Raises:
        TypeError: If it is neither, or an entry is neither a number nor a tensor.
        ValueError: If a name is unknown, a mask does not fit, or a density is not in [0, 1].
    """
    if isinstance(budget, str):
        check_choice("budget", budget, BUDGETS)
        return
    if not isinstance(budget, Mapping):
        raise TypeError(
            complaint(
                "budget",
                "a name or a mapping from layers to densities or masks",
                type(budget).__name__,
                f"The names are {', '.join(BUDGETS)}.",
            )
        )
    for name, value in budget.items():
        check_choice("budget", name, shapes)
        if isinstance(value, Tensor):
            check_masks(
                {name: value}, {name: torch.empty(*shapes[name], device="meta")}, binary=True
            )
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(
                complaint(
                    f"budget[{name!r}]",
                    "a density or a mask",
                    type(value).__name__,
                    "Pass a number in [0, 1] or a bool tensor.",
                )
            )
        elif not 0 <= value <= 1:
            raise ValueError(
                complaint(
                    f"budget[{name!r}]",
                    "a fraction in [0, 1]",
                    repr(value),
                    "It is the fraction of the layer's weights that is kept.",
                )
            )


def layer_counts(
    budget: Budget,
    count: int,
    shapes: Shapes,
    *,
    available: Mapping[str, int] | None = None,
    floor: int = 0,
) -> Counts:
    """Return how many weights each layer keeps under a layerwise budget; they add up to ``count``.

    Args:
        budget: ``"uniform"``, ``"erk"``, or layer name -> density or bool mask (layers without one
            count as dense). Densities and masks are scaled by one factor until the total is right.
        count: How many weights to keep in all.
        shapes: Layer name -> shape of its weight.
        available: Layer name -> how many weights it has left; None means all.
        floor: How many weights every layer keeps at least, if it has as many.

    Returns:
        Layer name -> count. Shares are rounded by largest remainders, ties by the order of layers.

    Raises:
        TypeError: If the budget is neither a name nor a mapping.
        ValueError: If the budget is unknown, does not fit or is "global", which depends on scores; if
            ``count`` or what is available is no whole number, or of other layers; or if the floor
            needs more weights than ``count``, or the budget's layers have fewer.

    Cost:
        O(L² log L) operations on fractions for L layers.

    Source:
        ERK: Evci et al. 2020, after Mocanu et al. 2018. Tested against ``reference_budgets.py``.

    Example:
        >>> layer_counts("uniform", 6, {"a": (2, 4), "b": (4, 1)})
        {'a': 4, 'b': 2}
        >>> layer_counts("erk", 6, {"a": (2, 4), "b": (4, 1)})
        {'a': 3, 'b': 3}
    """
    check_budget(budget, shapes)
    if budget == "global":
        raise ValueError(
            complaint("budget", "layerwise", "'global'", "It has no counts without scores.")
        )
    _check_whole("count", count)
    sizes = {name: _numel(shape) for name, shape in shapes.items()}
    most = sizes if available is None else _checked(available, sizes)
    least = floors(most, count, floor)
    shares = _shares(_weights(budget, shapes), least, most, count)
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: count - sum(counts.values())]:
        counts[name] += 1
    return counts


def most_kept(
    budget: Budget, shapes: Shapes, *, available: Mapping[str, int], floor: int = 0
) -> int:
    """Return how many weights all layers together can keep under a budget.

    Args:
        budget: See ``layer_counts``, or "global".
        shapes: Layer name -> shape of its weight.
        available: Layer name -> how many weights it has left.
        floor: How many weights every layer keeps at least, if it has as many.

    Returns:
        All that is left of the layers to which the budget gives anything, and the floor of the others.

    Example:
        >>> most_kept({"a": 0.0}, {"a": (2, 4), "b": (4, 1)}, available={"a": 8, "b": 3}, floor=1)
        4
    """
    if budget == "global":
        return sum(available.values())
    weights = _weights(budget, shapes)
    return sum(n if weights[name] else min(floor, n) for name, n in available.items())


def floors(available: Mapping[str, int], count: int, floor: int) -> Counts:
    """Return how many weights every layer keeps whatever the budget.

    Raises:
        ValueError: If the floor is not a whole number, or the layers together need more than ``count``.
    """
    if isinstance(floor, bool) or not isinstance(floor, int) or floor < 0:
        raise ValueError(
            complaint("floor", "a whole number of weights", repr(floor), "0 means no floor.")
        )
    least = {name: min(floor, n) for name, n in available.items()}
    if sum(least.values()) > count:
        raise ValueError(
            complaint(
                "floor",
                f"affordable with {count} kept weights",
                f"{floor}, which keeps {sum(least.values())}",
                "Lower it, or raise the density.",
            )
        )
    return least


def keep_by_budget(
    scores: Mapping[str, Tensor],
    count: int,
    budget: Budget = "global",
    *,
    candidates: Mapping[str, Tensor] | None = None,
    floor: int = 0,
) -> dict[str, Tensor]:
    """Return masks that keep exactly ``count`` weights with the highest scores under a budget.

    "global" ranks all weights together; with a floor, the ``floor`` best of every layer go first. The
    other budgets rank within each layer, and keep ``layer_counts`` of it.

    Args:
        scores: Layer name -> finite scores; larger = keep.
        count: How many weights to keep in all.
        budget: See ``layer_counts``, or "global".
        candidates: Layer name -> bool mask of the weights that may be kept; None means all.
        floor: How many weights every layer keeps at least, if it has as many candidates.

    Returns:
        Layer name -> bool mask; ties go by index.

    Raises:
        TypeError: If the budget is neither a name nor a mapping.
        ValueError: If the budget does not fit, ``count`` is no whole number, or there are fewer
            candidates.
        NumericalError: If a score is NaN.

    Example:
        >>> keep_by_budget({"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([1.0, 0.0])}, 2, "uniform")
        {'a': tensor([ True, False]), 'b': tensor([ True, False])}
    """
    shapes = {name: tuple(s.shape) for name, s in scores.items()}
    check_budget(budget, shapes)
    _check_whole("count", count)
    available = {
        name: s.numel() if candidates is None else int(candidates[name].count_nonzero())
        for name, s in scores.items()
    }
    if candidates is not None:
        scores = {
            name: s
            if available[name] == s.numel()
            else s.masked_fill(~candidates[name], -torch.inf)
            for name, s in scores.items()
        }
    if count > sum(available.values()):
        raise ValueError(
            complaint(
                "count",
                f"at most {sum(available.values())}, the candidates",
                count,
                "Pruned weights do not come back.",
            )
        )
    if budget != "global":
        counts = layer_counts(budget, count, shapes, available=available, floor=floor)
        return {name: keep_highest({name: s}, counts[name])[name] for name, s in scores.items()}
    least = floors(available, count, floor)
    if floor:
        first = {name: keep_highest({name: s}, least[name])[name] for name, s in scores.items()}
        scores = {name: s.masked_fill(first[name], torch.inf) for name, s in scores.items()}
    return keep_highest(scores, count)


def _check_whole(argument: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(
            complaint(argument, "a whole number of weights", repr(count), "Round it first.")
        )


def _checked(available: Mapping[str, int], sizes: Counts) -> Counts:
    """Return how many weights every layer has left, in the order of the layers."""
    if set(available) != set(sizes):
        raise ValueError(
            complaint(
                "available",
                f"of the layers {', '.join(sizes)}",
                ", ".join(available) or "none",
                "Say for every layer how many weights it has left.",
            )
        )
    for name, size in sizes.items():
        _check_whole(f"available[{name!r}]", available[name])
        if available[name] > size:
            raise ValueError(
                complaint(
                    f"available[{name!r}]", f"at most {size}", available[name], "It has no more."
                )
            )
    return {name: available[name] for name in sizes}


def _weights(budget: Budget, shapes: Shapes) -> dict[str, Fraction]:
    """Return r_l."""
    if budget == "uniform":
        return {name: Fraction(_numel(shape)) for name, shape in shapes.items()}
    if budget == "erk":
        return {name: Fraction(sum(shape)) for name, shape in shapes.items()}
    given = cast("Layerwise", budget)
    weights = {}
    for name, shape in shapes.items():
        value = given.get(name, 1.0)
        if isinstance(value, Tensor):
            weights[name] = Fraction(int(value.sum()))
        else:
            weights[name] = Fraction(value) * _numel(shape)
    return weights


def _shares(
    weights: Mapping[str, Fraction], least: Counts, most: Counts, count: int
) -> dict[str, Fraction]:
    """Return ``clip(λ r, a, b)`` for the λ with which they add up to ``count``."""

    def at(factor: Fraction) -> dict[str, Fraction]:
        return {
            name: min(max(factor * r, Fraction(least[name])), Fraction(most[name]))
            for name, r in weights.items()
        }

    positive = [name for name, r in weights.items() if r > 0]
    corners = {Fraction(n[name]) / weights[name] for name in positive for n in (least, most)}
    low = Fraction(0)
    for corner in sorted(corners):  # the total rises from corner to corner, linearly in between
        if sum(at(corner).values()) > count:
            break
        low = corner
    shares = at(low)
    missing = count - sum(shares.values())
    if missing == 0:
        return shares
    rising = [name for name in positive if least[name] <= low * weights[name] < most[name]]
    if not rising:
        raise ValueError(
            complaint(
                "budget",
                f"one that lets layers keep {count} weights",
                f"one that keeps at most {sum(shares.values())}",
                "Lower the density, or give more layers a positive one.",
            )
        )
    return at(low + missing / sum((weights[name] for name in rising), Fraction(0)))


def _numel(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())
