"""Checks of the numbers that scorers take as options."""

import math
from typing import Any

from ntktheory.checks import complaint


def check_positive_number(argument: str, value: Any) -> None:
    """Check that ``value`` is a finite number above 0.

    Raises:
        ValueError: If it is not.
    """
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(
            complaint(argument, "a finite number above 0", repr(value), "Leave it out if in doubt.")
        )


def check_fraction(argument: str, value: Any) -> None:
    """Check that ``value`` is a number in [0, 1).

    Raises:
        ValueError: If it is not.
    """
    if not (_is_number(value) and 0 <= value < 1):
        raise ValueError(
            complaint(argument, "a number in [0, 1)", repr(value), "Leave it out if in doubt.")
        )


def check_steps(argument: str, value: Any) -> None:
    """Check that ``value`` is a whole number, 0 or more.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            complaint(argument, "a whole number, 0 or more", repr(value), "Count whole steps.")
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
