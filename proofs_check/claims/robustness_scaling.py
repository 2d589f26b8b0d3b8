"""F1.scaling: whether trained sparse networks follow √(nd/p_eff), judged from a record."""

from collections.abc import Callable
from typing import Any

import numpy as np

from proofs_check.claim import Level, Outcome, Status, claim
from proofs_check.record_claims import LEVEL, load_record

Runs = list[list[Any]]
RESAMPLES = 1000
ALMOST_ALL_FIT = 1024  # kept weights from which 70 of 72 networks fitted


def recorded(mask: str) -> Runs:
    """Return the recorded runs of one mask: n, d, kept, seed, fitted, low, high."""
    return load_record("F1.scaling")["runs"][mask]


FOUND, BOUND = 5, 6  # columns: the largest slope found, and a bound on all slopes


def scaling_slope(runs: Runs, column: int = FOUND) -> tuple[float, float, float]:
    """Return the slope of ``log Lip`` against ``½ log(nd/kept)``, with a 95 % interval over cells.

    The fitted runs; Lip is the largest slope found, or the bound on all. Cells (n, d, kept) are
    resampled with their seeds.
    """
    table = np.array([[*r[:3], r[column]] for r in runs if r[4]], dtype=float)
    cells = np.unique(table[:, :3], axis=0, return_inverse=True)[1].ravel()
    x = 0.5 * np.log(table[:, 0] * table[:, 1] / table[:, 2])
    y = np.log(table[:, 3])
    rows_of = [np.flatnonzero(cells == cell) for cell in range(cells.max() + 1)]
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(rows_of), len(rows_of))
        rows = np.concatenate([rows_of[i] for i in drawn])
        slopes.append(_slope(x[rows], y[rows]))
    low, high = np.quantile(slopes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _slope(x, y), float(low), float(high)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def status_of(low: float, high: float) -> Status:
    """Return the verdict on "the slope is 1" from its interval."""
    if low <= 0 <= high:
        return "inconclusive"
    if high < 0:
        return "opposite"
    return "supported" if low <= 1 <= high else "not-supported"


def _record_of_steeper_networks(mask: str) -> Runs:
    return [[*r[:5], r[5] ** 1.5, r[6] ** 2.2] for r in recorded(mask)]


def _record_with_sizes_reversed(mask: str) -> Runs:
    sizes = sorted({r[2] for r in recorded(mask)})
    other = dict(zip(sizes, reversed(sizes), strict=True))
    return [[*r[:2], other[r[2]], *r[3:]] for r in recorded(mask)]


def _record_of_noise(mask: str) -> Runs:
    rng = np.random.default_rng(3)
    return [[*r[:5], *np.exp(rng.standard_normal(2)).tolist()] for r in recorded(mask)]


@claim(
    "F1.scaling",
    subjects={"runs": recorded, "slope": scaling_slope},
    mutants={
        "a record of steeper networks": {"runs": _record_of_steeper_networks},
        "kept weights in reverse in the record": {"runs": _record_with_sizes_reversed},
        "a record of noise": {"runs": _record_of_noise},
        "slope of the reciprocal": {
            "slope": lambda runs, column=FOUND: scaling_slope(
                [[*r[:5], 1 / r[5], 1 / r[6]] for r in runs], column
            )
        },
    },
)
def check_scaling(
    level: Level,
    runs: Callable[[str], Runs],
    slope: Callable[..., tuple[float, float, float]],
) -> Outcome:
    """Return the verdict on F1.scaling from the random masks, whose p_eff is known.

    Networks that did not fit are those with many data per weight, so three choices must agree: those
    that fitted, those of the sizes of which almost all did, and all; each by the largest slope found
    and by the bound on all slopes, between which the Lipschitz constant lies.
    """
    kept = runs("random")
    choices = {
        "fitted": kept,
        "sizes that fit": [r for r in kept if r[2] >= ALMOST_ALL_FIT],
        "all": [[*r[:4], True, *r[5:]] for r in kept],
    }
    slopes = {name: slope(chosen) for name, chosen in choices.items()}
    slopes |= {f"{name}, bound": slope(chosen, BOUND) for name, chosen in choices.items()}
    statuses = {status_of(low, high) for _, low, high in slopes.values()}
    status: Status = statuses.pop() if len(statuses) == 1 else "inconclusive"
    value, low, high = slopes["fitted"]
    found = slopes | {"magnitude masks, fitted": slope(runs("magnitude"))}
    return Outcome(
        status=status,
        kind="records",
        scope="Two-layer ReLU networks of width 256, random masks, Gaussian covariates, random signs "
        f"fitted to a loss of 0.1; {sum(bool(r[4]) for r in kept)} of {len(kept)} fitted.",
        evidence={
            "slope": {m: {"value": v, "low": a, "high": b} for m, (v, a, b) in found.items()},
            "interval_level": LEVEL,
            "left_out": sum(not r[4] for r in kept),
        },
        counterexample=f"slope {value:.2f} [{low:.2f}, {high:.2f}] against ½ log(nd/p): it grows, "
        "more slowly than the square root."
        if status == "not-supported"
        else None,
    )
