"""How verdicts, kinds and numbers are put into words, icons and typography."""

from collections.abc import Iterable, Mapping
from typing import Any

from proofs_check.claim import STATUSES

ICONS = {
    "holds": "✓",
    "refuted": "✗",
    "supported": "▲",
    "not-supported": "▽",
    "opposite": "◆",
    "inconclusive": "?",
    "not-covered": "○",
}
MEANINGS = {
    "holds": "the evidence leaves no exception in its scope",
    "refuted": "a counterexample is shown",
    "supported": "the interval over seeds lies on the claimed side",
    "not-supported": "the interval includes no effect",
    "opposite": "the interval lies on the other side",
    "inconclusive": "the evidence does not suffice, or the check failed",
    "not-covered": "no check yet, for the reason given",
}
KIND_MEANINGS = {
    "proved": "exact identity in a polynomial ring",
    "proved-probabilistic": "identity tested modulo a large prime",
    "exact-numeric": "finite enumeration or exact rationals",
    "property": "property test over many generated networks",
    "statistical": "test with a guaranteed false-alarm probability",
    "records": "recomputed from committed records of experiments",
    "none": "no evidence",
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
THIN_SPACE = "\u2009"
MINUS = "\u2212"


def count_statuses(claims: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many claims have each status that occurs, in the vocabulary's order."""
    found = [entry["status"] for entry in claims]
    return {status: found.count(status) for status in STATUSES if status in found}


def format_number(value: float | int) -> str:
    """Return a number as it is printed in a book: four significant digits, powers of ten.

    Args:
        value: A finite number.

    Returns:
        For example ``1234``, ``12 345``, ``0.0312`` or ``1.5 × 10⁻⁹``, with thin spaces and a true
        minus.
    """
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):
        text = _grouped(int(value))
    elif 1e-3 <= abs(value) < 1e6:
        text = f"{value:.4g}" if abs(value) < 1e4 else _grouped(round(value))
    else:
        mantissa, exponent = f"{value:.3e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        power = str(int(exponent)).translate(SUPERSCRIPTS)
        text = f"{mantissa}{THIN_SPACE}×{THIN_SPACE}10{power}"
    return text.replace("-", MINUS)


def _grouped(value: int) -> str:
    """Return an integer with thousands set apart from five digits on."""
    return f"{value:,}".replace(",", THIN_SPACE) if abs(value) >= 10_000 else str(value)


def format_seconds(value: float) -> str:
    """Return a duration in s or min."""
    if value < 90:
        return f"{value:.1f}{THIN_SPACE}s" if value >= 0.05 else f"<{THIN_SPACE}0.1{THIN_SPACE}s"
    return f"{value / 60:.1f}{THIN_SPACE}min"


def label(key: str) -> str:
    """Return the name of an evidence number as words."""
    return key.replace("_", " ")
