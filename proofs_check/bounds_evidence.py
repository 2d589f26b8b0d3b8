"""Evidence on bounds: values against enumeration, and a search for broken inequalities."""

from collections.abc import Callable, Mapping
from typing import Any

from ntktheory import PathBounds
from ntktheory.checks import NumericalError
from ntktheory.paths.reference import decompose
from proofs_check import strategies
from proofs_check.compare import Worst
from proofs_check.search import Broken, search

Bounds = Callable[..., PathBounds]


def hunt(
    bounds: Bounds, pairs: list[tuple[str, str]], nets: Any, examples: int
) -> tuple[str | None, float]:
    """Search for a network that breaks ``low ≤ high`` for some pair of bounds.

    Returns:
        The counterexample, or None, and the largest low ÷ high seen for the first pair.
    """
    from hypothesis import event, target

    tightest = 0.0

    def check(case: strategies.Case) -> None:
        nonlocal tightest
        try:
            b = bounds(case.model, case.x, masks=case.masks)
        except NumericalError:
            event("overflow refused")
            return
        values = dict(b.upper) | {"trace": b.trace} | dict(b.lower)
        low, high = (values[name] for name in pairs[0])
        if high > 0:
            tightest = max(tightest, low / high)
            target(low / high)
        for lower, upper in pairs:
            if lower in values and values[lower] > values[upper]:
                judge_exactly(case, values, lower, upper)

    found = search(strategies.scaled(nets), check, examples)
    return found.counterexample, tightest


def judge_exactly(case: strategies.Case, values: Mapping[str, float], low: str, high: str) -> None:
    """Judge a raw violation in rational arithmetic: rounding is excused, a wrong value is not.

    Raises:
        Broken: If the exact values break the inequality, or the floats are not their rounding.
    """
    exact = decompose(case.model, case.x, masks=case.masks, exact=True).bounds()
    for name in (low, high):
        if abs(values[name] - float(exact[name])) > 1e-12 * abs(float(exact[name])):
            raise Broken(
                f"{case}\n{low} = {values[low]} > {high} = {values[high]}; "
                f"exactly, {name} = {float(exact[name])}"
            )
    if exact[low] > exact[high]:
        raise Broken(f"{case}\nexactly, {low} = {exact[low]} > {high} = {exact[high]}")


def compare_with_enumeration(
    bounds: Bounds, names: tuple[str, ...], worst: Worst, examples: int
) -> str | None:
    """Compare trace and bounds with the sums over all paths, on fixed and drawn networks.

    Args:
        bounds: The function under test.
        names: The bounds to compare.
        worst: Collects the gaps.
        examples: How many networks to draw.

    Returns:
        The counterexample, or None.
    """

    def check(case: strategies.Case) -> None:
        sums = decompose(case.model, case.x, masks=case.masks).bounds()
        b = bounds(case.model, case.x, masks=case.masks)
        values = dict(b.upper) | {"trace": b.trace}
        for name in ("trace", *names):
            worst.see(f"{name}, {case.title}", values[name], sums[name])
        if not worst.holds:
            raise Broken(f"{worst.counterexample}\n{case}")

    nets = strategies.networks(max_width=3, max_depth=3)
    return search(nets, check, examples, strategies.fixed_cases()).counterexample
