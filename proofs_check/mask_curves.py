"""Curves of mask information from the record F7, and paired differences between pruners."""

from collections.abc import Mapping
from typing import Any

from proofs_check.record_claims import Interval, decisions, paired_interval

Record = dict[str, Any]
Row = dict[str, Any]
Pair = tuple[str, str]
Differences = dict[tuple[Pair, int], Interval]

LEARNED = ("imp", "magnitude_after")
AT_INIT = ("snip", "grasp", "grasp T=1")
AGNOSTIC = ("synflow", "random", "ntk_sap")
PAIRS: tuple[Pair, ...] = tuple((a, b) for a in LEARNED for b in AT_INIT)
STEPS, LR, INIT = 200, 0.1, "kaiming_normal"


def curves(
    record: Record, loss: str, method: str, *, steps: int = STEPS, replacement: bool = True
) -> dict[int, Row]:
    """Return one row per seed of a pruner, with the record's usual learning rate and init.

    Pruners at init have one curve for every number of steps. Without replacement, a run with it holds
    the curve too, without the ends that near-ties allow.
    """
    found: dict[int, Row] = {}
    for group in record["curves"]:
        trained = method in LEARNED
        same = [group[key] for key in ("loss", "method", "lr", "init")] == [loss, method, LR, INIT]
        if not same or (trained and group["steps"] != steps):
            continue
        if group["replacement"] == replacement:
            found |= _rows(group, "bits")
        elif group["replacement"] and "bits_without_replacement" in group:
            found |= _rows(group, "bits_without_replacement")
    return found


def _rows(group: Record, bits: str) -> dict[int, Row]:
    """Return bits, and the ends that near-ties allow, by seed."""
    keys = [f"{end}_bits" if bits == "bits" else "" for end in ("low", "high")]
    low, high = (group.get(key) or [None] * len(group["seed"]) for key in keys)
    return {
        seed: {"bits": row, "low_bits": low[i] or row, "high_bits": high[i] or row}
        for i, (seed, row) in enumerate(zip(group["seed"], group[bits], strict=True))
    }


def differences(
    record: Record, loss: str, pairs: tuple[Pair, ...], end: str = "bits", **which: Any
) -> Differences:
    """Return the intervals of ``I(first) − I(second)`` over the seeds of both, for k = 1…P−1.

    Args:
        record: The record.
        loss: A loss.
        pairs: Pairs of pruners.
        end: ``bits``; or ``low``, ``high``: the ends of the difference that near-ties allow.
        **which: See ``curves``.

    Returns:
        (Pair, k) -> interval.
    """
    found: Differences = {}
    for pair in pairs:
        first, second = (curves(record, loss, method, **which) for method in pair)
        seeds = sorted(first.keys() & second.keys())
        for k in range(1, len(first[seeds[0]]["bits"])):
            values = [_difference(first[s], second[s], k, end) for s in seeds]
            found[pair, k] = paired_interval(values)
    return found


def _difference(first: Row, second: Row, k: int, end: str) -> float:
    if end == "bits":
        return first["bits"][k] - second["bits"][k]
    other = {"low": "high", "high": "low"}[end]
    return first[f"{end}_bits"][k] - second[f"{other}_bits"][k]


def decided(
    record: Record, loss: str, pairs: tuple[Pair, ...] = PAIRS, **which: Any
) -> dict[tuple[Pair, int], int]:
    """Return the sign of every difference that is decided, Holm-corrected over all pairs and k.

    A sign counts only if it is decided with near-ties resolved against it.
    """
    low = decisions(differences(record, loss, pairs, "low", **which))
    high = decisions(differences(record, loss, pairs, "high", **which))
    return {key: 1 if low[key] > 0 else -1 if high[key] < 0 else 0 for key in low}


def by_sign(signs: Mapping[tuple[Pair, int], int]) -> dict[str, dict[str, list[int]]]:
    """Return for every pair the numbers of pruned weights where either order, or none, is decided."""
    names = {1: "first_larger", -1: "second_larger", 0: "undecided"}
    pairs = dict.fromkeys(pair for pair, _ in signs)
    return {
        f"{a} − {b}": {
            name: [k for (pair, k), sign in signs.items() if pair == (a, b) and sign == value]
            for value, name in names.items()
        }
        for a, b in pairs
    }
