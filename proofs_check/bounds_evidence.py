"""Evidence on bounds: values against enumeration, and searches for broken inequalities."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ntktheory import PathBounds
from ntktheory.checks import NumericalError
from ntktheory.paths.reference import Decomposition, decompose
from proofs_check import strategies
from proofs_check.compare import Worst
from proofs_check.search import Broken, search

Bounds = Callable[..., PathBounds]
Pairs = Iterable[tuple[str, str]]
ROUNDING = 1e-12


@dataclass
class Hunt:
    """What a search for broken inequalities found.

    Attributes:
        examples: How many networks were tried.
        counterexample: The first that breaks one, or None.
        tightest: Name of an upper bound -> the largest trace ÷ bound seen.
        refused: How many overflowed, and were refused.
        kinks: How many had a gate decided by an exact 0 or a tie.
    """

    examples: int = 0
    counterexample: str | None = None
    tightest: dict[str, float] = field(default_factory=dict)
    refused: int = 0
    kinks: int = 0

    def see(self, values: Mapping[str, float], names: Iterable[str]) -> None:
        """Note trace ÷ bound, and let Hypothesis look for larger ones."""
        from hypothesis import target

        for name in names:
            if 0 < values.get(name, 0.0) < math.inf:
                ratio = float(values["trace"] / values[name])
                self.tightest[name] = max(self.tightest.get(name, 0.0), ratio)
                if math.isfinite(ratio):
                    target(ratio, label=name)


def values_of(bounds: PathBounds) -> dict[str, float]:
    """Return upper bounds, trace and lower bounds by name."""
    return dict(bounds.upper) | {"trace": bounds.trace} | dict(bounds.lower)


def hunt(
    bounds: Bounds, pairs: list[tuple[str, str]], nets: Any, examples: int, **options: Any
) -> Hunt:
    """Search for a network that breaks ``low ≤ high`` for some pair of computed bounds.

    Args:
        bounds: The function under test.
        pairs: Names (low, high); a pair with a bound that is undefined for a network is left out there.
        nets: A strategy; now and then a tensor is scaled by 2^±500.
        examples: How many networks to draw.
        options: For ``bounds``.

    Returns:
        What it found.
    """
    from hypothesis import event

    seen = Hunt()
    uppers = {high for low, high in pairs if high != "trace"}

    def check(case: strategies.Case) -> None:
        try:
            found = bounds(case.model, case.x, masks=case.masks, **options)
        except NumericalError:
            event("overflow refused")
            seen.refused += 1
            return
        seen.kinks += found.kinks > 0
        values = values_of(found)
        seen.see(values, uppers)
        in_order(case, values, pairs)

    found = search(strategies.scaled(nets), check, examples)
    seen.examples, seen.counterexample = found.examples, found.counterexample
    return seen


def hunt_sums(
    pairs: list[tuple[str, str]], nets: Any, examples: int, sums: Callable[..., Any] = decompose
) -> Hunt:
    """Search for a network whose sums over paths break ``low ≤ high`` for some pair.

    Args:
        pairs: Names (low, high) of what ``all_sums`` returns.
        nets: A strategy; now and then a tensor is scaled by 2^±500.
        examples: How many networks to draw.
        sums: The enumeration.

    Returns:
        What it found. A pair that is broken, or not finite, in float64 is judged in fractions.
    """
    seen = Hunt()
    uppers = {high for low, high in pairs if high != "trace"}

    def check(case: strategies.Case) -> None:
        with np.errstate(all="ignore"):
            paths = sums(case.model, case.x, masks=case.masks)
            if not paths.parameters:  # the masks dropped everything
                return
            values = all_sums(paths)
        seen.see(values, uppers)
        if not all(values[low] <= values[high] < math.inf for low, high in pairs):
            exact = all_sums(sums(case.model, case.x, masks=case.masks, exact=True))
            for low, high in pairs:
                if exact[low] > exact[high]:
                    raise Broken(f"{case}\nexactly, {low} = {exact[low]} > {high} = {exact[high]}")

    found = search(strategies.scaled(nets), check, examples)
    seen.examples, seen.counterexample = found.examples, found.counterexample
    return seen


def all_sums(d: Decomposition) -> dict[str, Any]:
    """Return trace, upper and lower bounds as sums over paths; "last_layer" is the head's block."""
    head = [name for name, _ in d.parameters if name.endswith("weight")][-1:]
    block = d.jacobian()[:, [name in head for name, _ in d.parameters]]
    return d.bounds() | {"euler": d.euler(), "last_layer": (block**2).sum()}


def in_order(case: strategies.Case, values: Mapping[str, float], pairs: Pairs) -> None:
    """Check ``low ≤ high`` for every pair that is there; a raw violation is judged exactly.

    Raises:
        Broken: If some pair is out of order.
    """
    for low, high in pairs:
        if low in values and high in values and not values[low] <= values[high]:
            judge_exactly(case, values, low, high)


def judge_exactly(case: strategies.Case, values: Mapping[str, float], low: str, high: str) -> None:
    """Judge a raw violation in rational arithmetic: rounding is excused, a wrong value is not.

    Where a value is no sum over paths (a norm, or a lower bound) the excuse is 1e-12 relative.

    Raises:
        Broken: If the exact values break the inequality, or the floats are not their rounding.
    """
    exact = decompose(case.model, case.x, masks=case.masks, exact=True).bounds()
    for name in (low, high):
        gap = abs(values[name] - float(exact[name])) if name in exact else 0.0
        if name in exact and not gap <= ROUNDING * float(exact[name]):
            raise Broken(
                f"{case}\n{low} = {values[low]} > {high} = {values[high]}; "
                f"exactly, {name} = {float(exact[name])}"
            )
    if low not in exact or high not in exact:
        if not values[low] <= values[high] * (1 + ROUNDING):
            raise Broken(f"{case}\n{low} = {values[low]} > {high} = {values[high]}")
    elif exact[low] > exact[high]:
        raise Broken(f"{case}\nexactly, {low} = {exact[low]} > {high} = {exact[high]}")


def compare_with_enumeration(
    bounds: Bounds,
    names: tuple[str, ...],
    worst: Worst,
    examples: int,
    nets: Any = None,
    fixed: Iterable[strategies.Case] | None = None,
    pairs: Pairs = (),
) -> str | None:
    """Compare trace and bounds with the sums over all paths, on fixed and drawn networks.

    Args:
        bounds: The function under test; it is asked for ``names``, and for all if ``pairs`` are given.
        names: The bounds to compare.
        worst: Collects the gaps.
        examples: How many networks to draw.
        nets: A strategy; None draws MLPs and CNNs.
        fixed: Networks to try first; None tries the fixed networks that can be enumerated.
        pairs: Names (low, high) of bounds that must be in order, too.

    Returns:
        The counterexample, or None.
    """
    options = {} if pairs else {"names": names}

    def check(case: strategies.Case) -> None:
        sums = decompose(case.model, case.x, masks=case.masks).bounds()
        values = values_of(bounds(case.model, case.x, masks=case.masks, **options))
        for name in ("trace", *names):
            worst.see(f"{name}, {case.title}", values[name], sums[name])
        if not worst.holds:
            raise Broken(f"{worst.counterexample}\n{case}")
        in_order(case, values, pairs)

    nets = strategies.networks(max_width=3, max_depth=3) if nets is None else nets
    fixed = strategies.fixed_cases() if fixed is None else fixed
    return search(nets, check, examples, fixed).counterexample
