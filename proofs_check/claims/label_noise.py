"""Claims about the correlation of trained students with their labels' noise: F9, from a record.

``q = (1/n) Σ (f(x_i) − E_μ f) z_i`` (No Free Prune, Figs. 2 and 3). Intervals are over seeds; a seed
draws teacher, data and student, and settings are compared on the same ones.
"""

import copy
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

from ntktheory.information.noise_correlation import student_teacher, track_noise
from proofs_check.claim import Level, Outcome, Status, claim
from proofs_check.record_claims import (
    LEVEL,
    Interval,
    decisions,
    load_record,
    paired_interval,
    status_of,
)

Record = dict[str, Any]
Load = Callable[[], Record]
Differences = dict[str, Interval]
Statistic = Callable[..., Differences]

NOISE, RELATIVE = "noise absolute", "noise relative"
VANISHED = 0.1
"""Fraction of the value without noise that counts as vanished."""
TOLERANCE = 0.02
"""How far q may be from the record when a seed is trained again for a few epochs."""


@cache
def recorded() -> Record:
    """Return the record of F9."""
    return load_record("F9")


def curves(record: Record, part: str, setting: int = 0) -> dict[str, list[float]]:
    """Return seed -> q at the epochs of a part, for one of its settings."""
    return {seed: each[setting] for seed, each in record["parts"][part]["curves"].items()}


def rises(record: Record, part: str = "pruning") -> Differences:
    """Return the rise of q in every phase between prunings, from its first to its last epoch."""
    about = record["parts"][part]
    starts = [0, *about["prunings"]]
    ends = [*(at - 1 for at in about["prunings"]), len(about["epochs"]) - 1]
    found = curves(record, part).values()
    return {
        f"epochs {about['epochs'][a]} to {about['epochs'][b]}": paired_interval(
            [q[b] - q[a] for q in found]
        )
        for a, b in zip(starts, ends, strict=True)
    }


def drops(record: Record, part: str = "pruning") -> Differences:
    """Return by how much q falls at every pruning, from just before it to just after."""
    about = record["parts"][part]
    found = curves(record, part).values()
    return {
        f"pruning at epoch {about['epochs'][at]}": paired_interval(
            [q[at - 1] - q[at] for q in found]
        )
        for at in about["prunings"]
    }


def averages(record: Record, part: str) -> dict[float, dict[str, float]]:
    """Return setting -> seed -> mean of q over the measured epochs after the first step."""
    settings = record["parts"][part]["settings"]
    return {
        setting: {s: sum(q[1:]) / len(q[1:]) for s, q in curves(record, part, i).items()}
        for i, setting in enumerate(settings)
    }


def _steps(means: dict[float, dict[str, float]], sign: int) -> Differences:
    """Return the change of the mean of q from every setting to the next, times a sign."""
    settings = list(means)
    found = {}
    for low, high in itertools.pairwise(settings):
        seeds = sorted(means[low].keys() & means[high].keys(), key=int)
        found[f"{low:g} to {high:g}"] = paired_interval(
            [sign * (means[high][s] - means[low][s]) for s in seeds]
        )
    return found


def faster(record: Record) -> Differences:
    """Return by how much the mean of q over the run grows from each learning rate to the next."""
    return _steps(averages(record, "rates"), 1)


def with_base(record: Record, part: str) -> dict[float, dict[str, float]]:
    """Return size of gradient noise -> seed -> mean of q; size 0 is the same rate without noise."""
    base = averages(record, "rates")[record["parts"][part]["training"]["lr"]]
    return {0.0: base} | averages(record, part)


def falls(record: Record, part: str) -> Differences:
    """Return by how much the mean of q falls from each size of gradient noise to the next."""
    return _steps(with_base(record, part), -1)


def missing(record: Record, part: str) -> Differences:
    """Return ``VANISHED · q(no noise) − q(largest noise)`` at the last epoch; positive = vanished."""
    about = record["parts"]
    at = about["rates"]["settings"].index(about[part]["training"]["lr"])
    base = curves(record, "rates", at)
    noisy = curves(record, part, len(about[part]["settings"]) - 1)
    seeds = sorted(base.keys() & noisy.keys(), key=int)
    left = [VANISHED * base[s][-1] - noisy[s][-1] for s in seeds]
    return {
        f"a tenth of q without noise − q under {about[part]['settings'][-1]:g}": paired_interval(
            left
        )
    }


# --- does the code still give the record? -------------------------------------------------------------


@cache
def _again(seed: int, epochs: int, lr: float, gradient_noise: float) -> tuple[float, ...]:
    task = student_teacher([seed])
    curve = track_noise(
        task, epochs=epochs, lr=lr, batch=64, every=5, gradient_noise=gradient_noise
    )
    return tuple(float(v) for v in curve.values[:, 0])


def deviation(record: Record, level: Level) -> float:
    """Return how far the first epochs of some seeds are from the record: one quick, three full.

    Of pruning, of the second learning rate, and of the smallest noise on gradients.
    """
    worst = 0.0
    rate, size = record["parts"]["rates"]["settings"][1], record["parts"][NOISE]["settings"][0]
    cases = (("pruning", 0, 1e-3, 0.0), ("rates", 1, rate, 0.0), (NOISE, 0, 1e-3, size))
    for seed in range(1 if level == "quick" else 3):
        for part, setting, lr, noise in cases:
            values = _again(seed, 5 if level == "quick" else 20, lr, noise)
            kept = curves(record, part, setting)[str(seed)]
            worst = max(worst, *(abs(a - b) for a, b in zip(values, kept, strict=False)))
    return worst


# --- planted errors -----------------------------------------------------------------------------------


def changed(change: Callable[[Record], None]) -> Load:
    """Return what loads the record with a change."""

    def load() -> Record:
        record = copy.deepcopy(recorded())
        change(record)
        return record

    return cache(load)


def _few_seeds(record: Record) -> None:
    for part in record["parts"].values():
        part["curves"] = {s: each for s, each in part["curves"].items() if int(s) < 2}


def _wrong_start(record: Record) -> None:
    """Move one seed's curves by 0.05, as labels of another draw would."""
    for part in record["parts"].values():
        part["curves"]["0"] = [[q + 0.05 for q in curve] for curve in part["curves"]["0"]]


def _frozen(record: Record) -> None:
    """Let q stay where it starts."""
    for part in record["parts"].values():
        part["curves"] = {
            s: [[curve[0]] * len(curve) for curve in each] for s, each in part["curves"].items()
        }


def _largest_noise(factor: float) -> Callable[[Record], None]:
    """Multiply q under the largest noise."""

    def change(record: Record) -> None:
        for each in record["parts"][NOISE]["curves"].values():
            each[-1] = [factor * q for q in each[-1]]

    return change


SPOILT = {
    "two seeds": {"load": changed(_few_seeds)},
    "the first seed's values shifted by 0.05": {"load": changed(_wrong_start)},
}


def _negated(statistic: Statistic) -> Statistic:
    def wrong(*arguments: Any) -> Differences:
        return {
            key: Interval(-i.mean, -i.high, -i.low, i.p, i.n)
            for key, i in statistic(*arguments).items()
        }

    return wrong


def _wrong(statistic: Statistic) -> dict[str, Any]:
    """Return the planted errors of a claim on one statistic."""
    return SPOILT | {
        "a record that stands still": {"load": changed(_frozen)},
        "the opposite sign": {"statistic": _negated(statistic)},
    }


# --- the claims ---------------------------------------------------------------------------------------


def outcome(level: Level, record: Record, found: Differences, part: str) -> Outcome:
    """Return the verdict on "all of these are positive"."""
    off = deviation(record, level)
    signs = decisions(found)
    status: Status = status_of(signs.values()) if off <= TOLERANCE else "inconclusive"
    against = [key for key, sign in signs.items() if sign < 0]
    about = record["parts"][part]
    return Outcome(
        status=status,
        kind="records",
        scope=f"{len(about['curves'])} seeds; five-layer students of width 100, n = 1000, d = 50, "
        f"Adam, batch {about['training']['batch']}.",
        evidence={
            "differences": {
                key: [round(x, 4) for x in (i.mean, i.low, i.high)] for key, i in found.items()
            },
            "decided": dict(signs),
            "interval_level": LEVEL,
            "largest_error_of_the_mean_output": about["error"],
            "deviation_from_code": off,
        },
        counterexample=f"{against[0]}: {found[against[0]].mean:.4f}" if against else None,
    )


@claim(
    "F9.training",
    subjects={"load": recorded, "statistic": rises},
    mutants=SPOILT
    | {
        "a record that stands still": {"load": changed(_frozen)},
        "ends taken for starts": {"statistic": _negated(rises)},
        "drops taken for rises of the wrong sign": {"statistic": _negated(drops)},
    },
)
def check_training(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F9.training: q rises from the start of every phase to its end."""
    record = load()
    return outcome(level, record, statistic(record), "pruning")


@claim(
    "F9.rate",
    subjects={"load": recorded, "statistic": faster},
    mutants=_wrong(faster),
)
def check_rate(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F9.rate: the mean of q over the run grows with the learning rate."""
    record = load()
    return outcome(level, record, statistic(record), "rates")


@claim(
    "F9.noise",
    subjects={"load": recorded, "statistic": falls},
    mutants=_wrong(falls),
)
def check_noise(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F9.noise: q falls with the size of the noise on gradients."""
    record = load()
    return outcome(level, record, statistic(record, NOISE), NOISE)


@claim(
    "F9.noise_relative",
    subjects={"load": recorded, "statistic": falls},
    mutants=_wrong(falls),
)
def check_relative_noise(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F9.noise_relative: the same, the noise in units of the gradient's size."""
    record = load()
    return outcome(level, record, statistic(record, RELATIVE), RELATIVE)


@claim(
    "F9.noise_vanishes",
    subjects={"load": recorded, "statistic": missing},
    mutants={
        "20 times as much under the largest noise": {"load": changed(_largest_noise(20.0))},
        "a hundredth under the largest noise": {"load": changed(_largest_noise(0.01))},
    },
)
def check_vanishing(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F9.noise_vanishes: under the largest noise q ends below a tenth."""
    record = load()
    return outcome(level, record, statistic(record, NOISE), NOISE)


@claim(
    "F9.pruning",
    subjects={"load": recorded, "statistic": drops},
    mutants=SPOILT
    | {
        "a record that stands still": {"load": changed(_frozen)},
        "after taken for before": {"statistic": _negated(drops)},
    },
)
def check_pruning(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F9.pruning: q drops at every pruning."""
    record = load()
    return outcome(level, record, statistic(record), "pruning")
