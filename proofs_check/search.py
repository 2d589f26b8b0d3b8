"""Hypothesis as a searcher for counterexamples, and the tightest case it saw."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_shrink: ContextVar[bool] = ContextVar("shrink", default=False)


class Broken(Exception):
    """A property does not hold; the text shows the input that breaks it."""


@dataclass(frozen=True)
class Search:
    """What a search found: how many examples it tried, and what broke, if anything did."""

    examples: int
    counterexample: str | None


def search(
    strategy: Any, check: Callable[[Any], None], examples: int, fixed: Iterable[Any] = ()
) -> Search:
    """Try ``check`` on fixed and then on drawn examples; the same ones in every run.

    Args:
        strategy: A Hypothesis strategy.
        check: Raises ``Broken`` when its argument breaks the property.
        examples: How many examples to draw.
        fixed: Cases to try first. What they break does not hang on what happens to be drawn.

    Returns:
        The number of examples tried, and the first counterexample; inside ``shrinking()`` the
        smallest one that Hypothesis could find.
    """
    import hypothesis
    from hypothesis import HealthCheck, Phase

    count = 0
    for case in fixed:
        count += 1
        try:
            check(case)
        except Broken as broken:
            return Search(count, str(broken))
    smallest: list[str] = []
    phases = (Phase.explicit, Phase.generate, Phase.target)

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(*phases, Phase.shrink) if _shrink.get() else phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(strategy)
    def run(case: Any) -> None:
        nonlocal count
        count += 1
        try:
            check(case)
        except Broken as broken:
            smallest[:] = [str(broken)]
            raise

    try:
        run()
    except Broken:
        return Search(count, smallest[0])
    return Search(count, None)


@contextmanager
def shrinking() -> Iterator[None]:
    """Let searches shrink what they find: slower, and readable."""
    token = _shrink.set(True)
    try:
        yield
    finally:
        _shrink.reset(token)
