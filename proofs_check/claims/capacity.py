"""Claims about what masked networks memorise (No Free Prune, Fig. 1): F8, from a record.

A difference is between two methods on the same network and data, in the fraction of samples memorised at
one density, or on average over the densities of the record. Intervals are over seeds.
"""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ntktheory.information.memorization import (
    Training,
    masks_of,
    memorised,
    random_label_pack,
)
from proofs_check.claim import Level, Outcome, claim
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
Pair = tuple[str, str]
Differences = dict[tuple[Pair, str], Interval]
Statistic = Callable[..., Differences]

LABELS = "random labels, torch adam"
IMAGES = "noisy images, digits, level"
AT_INIT = ("snip", "grasp", "synflow", "random")
OURS = ("ntk_sap", "px", "path_edge")
TOLERANCE = 0.05
"""Fraction of samples by which a run on another machine may differ, on average over what is run again of
a method. Rounding moves few counts: weights changed by 1e-7 relative moved one count of 32 by 0.07."""


@cache
def recorded() -> Record:
    """Return the record of F8."""
    return load_record("F8")


def fractions(record: Record, experiment: str, method: str) -> dict[str, list[float]]:
    """Return seed -> fraction of samples memorised at each density of an experiment."""
    found = record["experiments"][experiment]
    counts = found["cells"][method]
    return {s: [c / found["samples"] for c in row["memorised"]] for s, row in counts.items()}


def differences(
    record: Record, experiment: str, pairs: tuple[Pair, ...], *, averaged: bool = False
) -> Differences:
    """Return the intervals of "first − second", per pair and density, or averaged over densities.

    Args:
        record: The record of F8.
        experiment: A key of its experiments.
        pairs: Methods to compare, on the seeds that both have.
        averaged: Whether to average over the densities first.

    Returns:
        (pair, density as text, or "mean") -> interval.
    """
    densities = record["experiments"][experiment]["densities"]
    found: Differences = {}
    for pair in pairs:
        first, second = (fractions(record, experiment, method) for method in pair)
        rows = [
            [a - b for a, b in zip(first[seed], second[seed], strict=True)]
            for seed in sorted(first.keys() & second.keys(), key=int)
        ]
        if averaged:
            found[pair, "mean"] = paired_interval([sum(row) / len(row) for row in rows])
            continue
        for density, column in zip(densities, zip(*rows, strict=True), strict=True):
            found[pair, f"{density:g}"] = paired_interval(column)
    return found


# --- does the code still give the record? -------------------------------------------------------------


@cache
def _again(method: str, density: float, seeds: tuple[int, ...], steps: int) -> list[float]:
    pack = random_label_pack(seeds, init="torch")
    training = Training(optimizer="adam", lr=1e-2, epochs=steps)
    masks = masks_of(pack, method, [density], training)[density]
    found = memorised(pack, masks, training)
    return [int(count) / found.samples for count in found.counts]


def deviation(record: Record, level: Level) -> float:
    """Return by how much the record leaves what the code gives now: the worst method's mean.

    Random labels only; the record of images is not run again. Quick: magnitude after training at one
    density, one seed. Full: random masks and SNIP too, three densities, three seeds.
    """
    quick = level == "quick"
    methods = ("magnitude_after",) if quick else ("magnitude_after", "random", "snip")
    seeds = (0,) if quick else (0, 1, 2)
    found = record["experiments"][LABELS]
    worst = 0.0
    for method in methods:
        gaps = []
        for density in (0.02,) if quick else (0.04, 0.02, 0.01):
            values = _again(method, density, seeds, found["training"]["epochs"])
            at = found["densities"].index(density)
            rows = fractions(record, LABELS, method)
            gaps += [abs(v - rows[str(s)][at]) for s, v in zip(seeds, values, strict=True)]
        worst = max(worst, sum(gaps) / len(gaps))
    return worst


# --- planted errors -----------------------------------------------------------------------------------


def changed(change: Callable[[Record], None]) -> Load:
    """Return what loads the record with a change."""

    def load() -> Record:
        record = copy.deepcopy(recorded())
        change(record)
        return record

    return cache(load)


def filled(methods: tuple[str, ...], share: float) -> Load:
    """Return what loads a record in which some methods memorise this share of all, in every cell."""

    def change(record: Record) -> None:
        for experiment in record["experiments"].values():
            for method in experiment["cells"].keys() & set(methods):
                for row in experiment["cells"][method].values():
                    samples, cells = experiment["samples"], len(row["memorised"])
                    row["memorised"] = [round(share * samples)] * cells

    return changed(change)


def _few_seeds(record: Record) -> None:
    for experiment in record["experiments"].values():
        for method, cells in experiment["cells"].items():
            experiment["cells"][method] = {s: row for s, row in cells.items() if int(s) < 2}


def _learned_more(record: Record) -> None:
    """Let masks of trained weights memorise a fifth of the samples more, none more than all."""
    for experiment in record["experiments"].values():
        for row in experiment["cells"]["magnitude_after"].values():
            more = experiment["samples"] // 5
            row["memorised"] = [min(c + more, experiment["samples"]) for c in row["memorised"]]


def _without_sign(*arguments: Any, **options: Any) -> Differences:
    found = differences(*arguments, **options)
    return {
        key: Interval(abs(i.mean), i.low, i.high, i.p, i.n) if i.mean else i
        for key, i in found.items()
    }


def _turned(
    record: Record, experiment: str, pairs: tuple[Pair, ...], **options: Any
) -> Differences:
    return differences(record, experiment, tuple((b, a) for a, b in pairs), **options)


SPOILT: dict[str, Mapping[str, Any]] = {
    "two seeds": {"load": changed(_few_seeds)},
    "trained masks memorise a fifth of the samples more": {"load": changed(_learned_more)},
}


# --- the claims ---------------------------------------------------------------------------------------


def outcome(
    level: Level,
    load: Load,
    statistic: Statistic,
    experiment: str,
    pairs: tuple[Pair, ...],
    *,
    averaged: bool = False,
) -> Outcome:
    """Return the verdict on "the first of each pair memorises more", everywhere or on average.

    Signs are decided with Holm's correction over all pairs and densities of the claim.
    """
    record = load()
    off = deviation(record, level)
    found = statistic(record, experiment, pairs, averaged=averaged)
    signs = decisions(found)
    trusted = off <= TOLERANCE
    status = status_of(signs.values()) if trusted else "inconclusive"
    worst = min((key for key in found if signs[key] < 0), key=lambda k: found[k].mean, default=None)
    about = record["experiments"][experiment]
    return Outcome(
        status=status,
        kind="records",
        scope=f"{experiment}: densities {', '.join(f'{d:g}' for d in about['densities'])}; "
        f"{min(i.n for i in found.values())} seeds or more per pair.",
        evidence={
            "decided": {
                word: sum(s == sign for s in signs.values())
                for word, sign in (("more", 1), ("less", -1), ("open", 0))
            },
            "difference_of_fractions": {
                f"{a} − {b}, {at}": [round(x, 3) for x in (i.mean, i.low, i.high)]
                for ((a, b), at), i in found.items()
            },
            "interval_level": LEVEL,
            "deviation_from_code": off,
        },
        counterexample=_words(worst, found) if status in ("not-supported", "opposite") else None,
    )


def _words(worst: tuple[Pair, str] | None, found: Differences) -> str:
    if worst is None:
        return "none"
    ((first, second), at), i = worst, found[worst]
    return (
        f"At density {at}: {first} memorises {-i.mean:.3f} [{-i.high:.3f}, {-i.low:.3f}] of the samples "
        f"less than {second}, over {i.n} seeds."
    )


LEARNED = ("imp", "magnitude_after")


def pairs_of(first: tuple[str, ...], second: tuple[str, ...] = AT_INIT) -> tuple[Pair, ...]:
    """Return every pair of a learned method and another."""
    return tuple((a, b) for a in first for b in second)


NOT_SUPPORTED: dict[str, Mapping[str, Any]] = SPOILT | {
    "learned masks memorise everything": {"load": filled(LEARNED, 1.0)},
    "masks at initialisation memorise nothing": {"load": filled((*AT_INIT, *OURS), 0.0)},
    "differences without their sign": {"statistic": _without_sign},
}


@claim("F8", subjects={"load": recorded, "statistic": differences}, mutants=NOT_SUPPORTED)
def check_order(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F8: the learned masks above all four methods, at every density."""
    return outcome(level, load, statistic, LABELS, pairs_of(LEARNED))


SUPPORTED = SPOILT | {
    "SNIP memorises everything": {"load": filled(("snip",), 1.0)},
    "the second of each pair minus the first": {"statistic": _turned},
}


@claim("F8.imp", subjects={"load": recorded, "statistic": differences}, mutants=SUPPORTED)
def check_imp(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on iterative pruning above all four methods, on average over the densities."""
    return outcome(level, load, statistic, LABELS, pairs_of(("imp",)), averaged=True)


@claim(
    "F8.magnitude_after",
    subjects={"load": recorded, "statistic": differences},
    mutants=NOT_SUPPORTED,
)
def check_after(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on magnitude-after above all four methods, on average over the densities."""
    return outcome(level, load, statistic, LABELS, pairs_of(("magnitude_after",)), averaged=True)


@claim("F8.images", subjects={"load": recorded, "statistic": differences}, mutants=NOT_SUPPORTED)
def check_images(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on F8.images: the same order on images under noise, at every density."""
    return outcome(level, load, statistic, IMAGES, pairs_of(LEARNED))


@claim("F8.imp_images", subjects={"load": recorded, "statistic": differences}, mutants=SUPPORTED)
def check_imp_images(level: Level, load: Load, statistic: Statistic) -> Outcome:
    """Return the verdict on iterative pruning above all four methods, on images, on average."""
    return outcome(level, load, statistic, IMAGES, pairs_of(("imp",)), averaged=True)
