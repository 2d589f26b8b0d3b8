"""Claims judged from committed records: loading, intervals over seeds, Holm's correction, the verdict.

A record ``proofs_check/records/<ID>.json`` holds what an experiment measured, never its verdict: the
run recomputes statistic, interval and status from the values.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ntktheory.checks import complaint
from proofs_check.claim import Status

RECORDS = Path(__file__).with_name("records")
REQUIRED = ("command", "seeds", "versions")
LEVEL = 0.95

Key = TypeVar("Key")


@dataclass(frozen=True)
class Interval:
    """The mean of paired differences with its interval.

    Attributes:
        mean: Their mean.
        low: Lower end.
        high: Upper end.
        p: Two-sided p-value of the mean being 0.
        n: How many differences.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


def load_record(id_: str, folder: str | Path | None = None) -> dict[str, Any]:
    """Read the record of a claim.

    Args:
        id_: The claim's id; it names the file.
        folder: Where to look; None = the project's own records.

    Returns:
        The record.

    Raises:
        ValueError: If the id is no file name, or there is no such file, or it is no JSON object, holds
            a number that is not finite, or does not say its command, seeds and versions.
    """
    if not re.fullmatch(r"\w+(\.\w+)*", id_):
        raise ValueError(complaint("id_", "a claim's id", repr(id_), "Take it from the ledger."))
    path = (RECORDS if folder is None else Path(folder)) / f"{id_}.json"
    if not path.exists():
        raise ValueError(
            complaint(
                "id_", "that of a claim with a record", repr(id_), "Run its experiment first."
            )
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(
            complaint(f"record {path.name}", "strict JSON", str(error), "Run its experiment again.")
        ) from error
    missing = [key for key in REQUIRED if key not in record] if isinstance(record, dict) else ["{}"]
    if missing:
        raise ValueError(
            complaint(
                f"record {path.name}",
                f"an object with {', '.join(REQUIRED)}",
                f"none of {', '.join(missing)}",
                "Run its experiment again.",
            )
        )
    return record


def rows_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a record that keeps them as a table, ``columns`` and ``rows``.

    Args:
        record: The record.

    Returns:
        One object per row; what a row does not have (null in the file) is left out.

    Example:
        >>> rows_of({"columns": ["seed", "loss"], "rows": [[0, 0.5], [1, None]]})
        [{'seed': 0, 'loss': 0.5}, {'seed': 1}]
    """
    return [
        {key: value for key, value in zip(record["columns"], row, strict=True) if value is not None}
        for row in record["rows"]
    ]


def paired_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean of paired differences and Student's interval for its expectation.

    ``mean ± t s/√n`` with s the standard deviation over n − 1. The p-value is at least 2^(1−n), the
    smallest that flipping the signs of n differences can give: differences that are all alike would
    otherwise give 0.

    Args:
        values: One difference per seed; the seeds are independent.
        level: Coverage of the interval, under normal differences.

    Returns:
        The interval, in the values' unit.

    Raises:
        ValueError: If there are fewer than two values, one is not finite, or the level is not inside
            (0, 1).

    Example:
        >>> found = paired_interval([1.0, 2.0, 3.0])
        >>> found.mean, round(found.low, 3), round(found.high, 3), round(found.p, 3)
        (2.0, -0.484, 4.484, 0.25)
    """
    from scipy.stats import t

    values = [float(v) for v in values]
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        raise ValueError(
            complaint("values", "two or more finite numbers", values[:5], "One per seed.")
        )
    if not 0 < level < 1:
        raise ValueError(complaint("level", "inside (0, 1)", level, "0.95 is usual."))
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    reach = float(t.ppf((1 + level) / 2, n - 1)) * error
    ratio = abs(mean) / error if error > 0 else (math.inf if mean else 0.0)
    p = max(2 * float(t.sf(ratio, n - 1)), 2.0 ** (1 - n))
    return Interval(mean, mean - reach, mean + reach, p if mean else 1.0, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: ``max_{j ≤ i} min(1, (m − j) p_(j))`` for j = 0…m−1, sorted.

    Rejecting those at most α keeps the probability of any false rejection in the family at most α,
    whatever the dependence.

    Args:
        p_values: The family's p-values.

    Returns:
        The adjusted ones, in the same order.

    Raises:
        ValueError: If one is outside [0, 1].

    Source:
        Holm 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(complaint("p_values", "in [0, 1]", p, "Check where it comes from."))
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def decisions(intervals: Mapping[Key, Interval], level: float = LEVEL) -> dict[Key, int]:
    """Return the sign of every difference of a family that is decided after Holm's correction.

    Args:
        intervals: The family.
        level: One minus the probability of any wrong decision.

    Returns:
        1 or −1 where the adjusted p-value is at most 1 − level, else 0.
    """
    adjusted = holm([found.p for found in intervals.values()])
    return {
        key: int(math.copysign(1, found.mean)) if p <= 1 - level else 0
        for (key, found), p in zip(intervals.items(), adjusted, strict=True)
    }


def status_of(decided: Iterable[int]) -> Status:
    """Return the verdict on "all of these are positive" from what is decided.

    Args:
        decided: 1, −1 or 0 for each, see ``decisions``.

    Returns:
        ``supported`` if all are decided positive, ``opposite`` if all are decided negative,
        ``not-supported`` if at least one is decided negative, else ``inconclusive``.

    Raises:
        ValueError: If there are none.
    """
    decided = list(decided)
    if not decided:
        raise ValueError(complaint("intervals", "a family of at least one", "none", "Name them."))
    if min(decided) > 0:
        return "supported"
    if max(decided) < 0:
        return "opposite"
    return "not-supported" if min(decided) < 0 else "inconclusive"


def ordering_status(intervals: Mapping[Any, Interval], level: float = LEVEL) -> Status:
    """Return the verdict on "every one of these differences is positive", Holm-corrected.

    Args:
        intervals: The family's differences, claimed to be positive.
        level: One minus the probability of any wrong decision.

    Returns:
        See ``status_of``.

    Raises:
        ValueError: If the family is empty.
    """
    return status_of(decisions(intervals, level).values())


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a finite number")
