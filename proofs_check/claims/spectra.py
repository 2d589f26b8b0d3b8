"""E1 to E5: spectra, traces, widths and training of pruned networks, from the fidelity record.

Every statement is about the mean over seeds (weights and images). Differences are paired by seed; each
claim's family of intervals is Holm-corrected. Correlations are taken between scorers at one density, so
that density itself, which moves everything, explains none of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from proofs_check.claim import Level, Outcome, claim
from proofs_check.record_claims import (
    Interval,
    load_record,
    ordering_status,
    paired_interval,
    rows_of,
)

RESNET = "resnet20:cifar10-jpeg"
COMPARED = ("random", "magnitude", "snip", "grasp", "synflow", "ntk_sap", "px")
FACTOR_KEPT = math.log10(2)
LOW_DENSITY = 0.11

Row = dict[str, Any]
Record = dict[str, Any]
Table = dict[int, dict[tuple[str, float], Row]]  # seed -> (scorer, density) -> row
Load = Callable[[], Record]


def fidelity() -> Record:
    """Return the record of experiments/fidelity.py, its table as rows."""
    record = load_record("fidelity")
    return record | {"rows": rows_of(record)}


def table(record: Record, cell: str) -> Table:
    """Return the judged rows of one cell by seed."""
    found: Table = {}
    for row in record["rows"]:
        if row["cell"] == cell and "refused" not in row:
            found.setdefault(row["seed"], {})[row["scorer"], row["density"]] = row
    return found


def cells(record: Record, measure: str) -> list[str]:
    """Return the cells in which a quantity was measured."""
    return sorted({r["cell"] for r in record["rows"] if measure in r})


def densities(rows: Table) -> list[float]:
    """Return the densities judged, falling."""
    return sorted({d for seed in rows.values() for _, d in seed}, reverse=True)


def spearman(a: list[float], b: list[float]) -> float:
    """Return the rank correlation of two lists, ties by mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def within_density(
    rows: Mapping[tuple[str, float], Row], first: str, second: str, correlate: Callable[..., float]
) -> float:
    """Return the mean over densities of the correlation of two quantities between scorers.

    A quantity that a row lacks has diverged, and counts as the largest. Scorers of published code are
    left out: where nothing departs from the formula their masks are another scorer's, counted twice.
    """
    values = []
    for density in sorted({d for _, d in rows}):
        own = [r for (s, d), r in rows.items() if d == density and not s.endswith("_repo")]
        pairs = [(r.get(first, math.inf), r.get(second, math.inf)) for r in own]
        values.append(correlate([a for a, _ in pairs], [b for _, b in pairs]))
    return math.fsum(values) / len(values)


def shown(intervals: Mapping[Any, Interval]) -> dict[str, Any]:
    """Return intervals for the evidence."""
    return {
        str(key): {"mean": round(i.mean, 4), "low": round(i.low, 4), "high": round(i.high, 4)}
        for key, i in intervals.items()
    }


def judged(intervals: Mapping[Any, Interval], scope: str, **evidence: Any) -> Outcome:
    """Return the verdict on "every one of these means is positive"."""
    status = ordering_status(intervals)
    evidence = {"interval_level": 0.95, "seeds": min(i.n for i in intervals.values()), **evidence}
    return Outcome(status, "records", scope, evidence | {"intervals": shown(intervals)})


def margins(rows: Table, of: Callable[[Mapping[tuple[str, float], Row]], float]) -> Interval:
    """Return the interval of one difference per seed."""
    return paired_interval([of(seed) for seed in rows.values()])


# Planted errors in the record.


def _swapped(record: Record, first: str, second: str) -> Record:
    """Give each of two scorers the rows of the other."""
    names = {first: second, second: first}
    rows = [r | {"scorer": names.get(r["scorer"], r["scorer"])} for r in record["rows"]]
    return record | {"rows": rows}


def _negated(record: Record, *measures: str) -> Record:
    """Turn the sign of some quantities."""
    rows = [r | {m: -r[m] for m in measures if isinstance(r.get(m), float)} for r in record["rows"]]
    return record | {"rows": rows}


def _constant(record: Record, *measures: str) -> Record:
    """Forget what was measured: every row says the same."""
    rows = [r | {m: 1.0 for m in measures if m in r} for r in record["rows"]]
    return record | {"rows": rows}


def _lost(record: Record, scorer: str, measure: str) -> Record:
    """Set one scorer's values to 0."""
    rows = [r | {measure: 0.0} if r["scorer"] == scorer else r for r in record["rows"]]
    return record | {"rows": rows}


# E1: the closest spectrum.


def closest(record: Record, metric: str) -> dict[str, Interval]:
    """Return how much farther each other scorer's spectrum is from the dense one than PX's."""
    rows = table(record, RESNET)
    density = min(densities(rows), key=lambda d: abs(d - 0.0688))
    return {
        other: margins(rows, lambda r, o=other: r[o, density][metric] - r["px", density][metric])  # type: ignore[misc]
        for other in COMPARED
        if other != "px"
    }


@claim(
    "E1",
    subjects={"load": fidelity, "compare": closest},
    mutants={
        "the distances are negated": {"load": lambda: _negated(fidelity(), "log_rms")},
        "PX's distances are lost": {"load": lambda: _lost(fidelity(), "px", "log_rms")},
        "PX and random pruning are mixed up": {
            "load": lambda: _swapped(fidelity(), "px", "random")
        },
    },
)
def closest_spectrum(
    level: Level, load: Load, compare: Callable[[Record, str], dict[str, Interval]]
) -> Outcome:
    """PX's spectrum is the closest to the dense one: distance of the others minus its own."""
    record = load()
    return judged(
        compare(record, "log_rms"),
        "ResNet-20 on CIFAR-10 (JPEG) at initialisation, density 0.0687, 8 images; "
        "root mean square of log10 of the eigenvalues' ratios",
        other_metrics={m: shown(compare(record, m)) for m in ("l2", "l2_normalised")},
    )


# E2: large eigenvalues stay, small ones drift.


def drift(record: Record, scorer: str, of: Callable[[Row], float]) -> dict[str, Interval]:
    """Return the mean over seeds of a function of a scorer's rows on ResNet-20, by density."""
    rows = table(record, RESNET)
    return {
        f"density {d}": margins(rows, lambda r, d=d: of(r[scorer, d]))  # type: ignore[misc]
        for d in densities(rows)
    }


SPECTRA = (
    "ResNet-20 on CIFAR-10 (JPEG) at initialisation, six densities from 0.64 to 0.018, 8 images; "
    "mean |log10| of the eigenvalues' ratios"
)


@claim(
    "E2",
    subjects={"load": fidelity, "margin": lambda row: FACTOR_KEPT - row["log_top"]},
    mutants={
        "nothing moved": {"load": lambda: _lost(fidelity(), "ntk_sap", "log_top")},
        "the drift is subtracted from itself": {"margin": lambda row: 0.0},
    },
)
def large_eigenvalues_stay(level: Level, load: Load, margin: Callable[[Row], float]) -> Outcome:
    """Under NTK-SAP the largest tenth of the eigenvalues stays within a factor of two."""
    record = load()
    found = drift(record, "ntk_sap", margin)
    moved = shown(drift(record, "ntk_sap", lambda row: row["log_top"]))
    return judged(found, SPECTRA, largest_tenth_moved_by=moved)


@claim(
    "E2.small_drift",
    subjects={"load": fidelity, "margin": lambda row: row["log_rest"] - row["log_top"]},
    mutants={
        "top and bottom of the spectrum are mixed up": {
            "load": lambda: _negated(fidelity(), "log_rest", "log_top")
        },
        "nothing moves": {"load": lambda: _constant(fidelity(), "log_rest", "log_top")},
    },
)
def small_eigenvalues_drift(level: Level, load: Load, margin: Callable[[Row], float]) -> Outcome:
    """Under NTK-SAP the lower half of the eigenvalues drifts more than the largest tenth."""
    return judged(drift(load(), "ntk_sap", margin), SPECTRA)


# E3 and E4: what goes with a preserved spectrum.


def correlations(
    record: Record, measure: str, sign: float, where: Iterable[str], correlate: Callable[..., float]
) -> dict[str, Interval]:
    """Return the correlation of a quantity (times a sign) with the spectrum's distance, by cell."""
    found = {}
    for cell in where:
        rows = table(record, cell)
        found[f"{measure}, {cell}"] = margins(
            rows, lambda r: sign * within_density(r, measure, "log_rms", correlate)
        )
    return found


def _with_trace(record: Record, where: Iterable[str], correlate: Callable[..., float]) -> Outcome:
    """Return the verdict on trace and R_edge going with a closer spectrum."""
    where = list(where)
    trace = correlations(record, "trace_ratio", -1.0, where, correlate)
    edge = correlations(record, "edge_ratio", -1.0, where, correlate)
    return judged(
        trace | edge,
        f"{', '.join(where)}: Spearman's correlation between scorers, averaged over six densities",
        trace_alone=ordering_status(trace),
        bound_alone=ordering_status(edge),
    )


TRACE_MUTANTS: dict[str, dict[str, Callable[..., Any]]] = {
    "trace and bound are negated": {
        "load": lambda: _negated(fidelity(), "trace_ratio", "edge_ratio")
    },
    "nothing goes with anything": {"correlate": lambda a, b: 0.0},
}


@claim("E3", subjects={"load": fidelity, "correlate": spearman}, mutants=TRACE_MUTANTS)
def trace_and_spectrum(level: Level, load: Load, correlate: Callable[..., float]) -> Outcome:
    """On small networks a higher trace, or R_edge, goes with a closer spectrum."""
    record = load()
    small = [cell for cell in cells(record, "trace_ratio") if cell != RESNET]
    return _with_trace(record, small, correlate)


@claim("E3.resnet20", subjects={"load": fidelity, "correlate": spearman}, mutants=TRACE_MUTANTS)
def trace_and_spectrum_of_resnet(
    level: Level, load: Load, correlate: Callable[..., float]
) -> Outcome:
    """The same on ResNet-20."""
    return _with_trace(load(), [RESNET], correlate)


@claim(
    "E4",
    subjects={"load": fidelity, "correlate": spearman},
    mutants={
        "correlations without their sign": {"correlate": lambda a, b: abs(spearman(a, b))},
        "every network trains alike": {"correlate": lambda a, b: 0.0},
    },
)
def spectrum_and_training(level: Level, load: Load, correlate: Callable[..., float]) -> Outcome:
    """A closer spectrum goes with closer outputs along training, and along the linearised flow."""
    record = load()
    return _with_training(record, cells(record, "trained_distance"), correlate)


@claim(
    "E4.digits",
    subjects={"load": fidelity, "correlate": spearman},
    mutants={
        "distances along training are negated": {
            "load": lambda: _negated(fidelity(), "trained_distance", "linearised_distance")
        },
        "every network trains alike": {"correlate": lambda a, b: 0.0},
    },
)
def spectrum_and_training_on_digits(
    level: Level, load: Load, correlate: Callable[..., float]
) -> Outcome:
    """The same on digits alone."""
    record = load()
    where = [cell for cell in cells(record, "trained_distance") if cell.endswith(":digits")]
    return _with_training(record, where, correlate)


def _with_training(record: Record, where: list[str], correlate: Callable[..., float]) -> Outcome:
    """Return the verdict on outputs along training going with a closer spectrum."""
    trained = correlations(record, "trained_distance", 1.0, where, correlate)
    flow = correlations(record, "linearised_distance", 1.0, where, correlate)
    return judged(
        trained | flow,
        f"{', '.join(where)}: 100 steps of full-batch gradient descent on squared loss; Spearman's "
        "correlation between scorers, averaged over six densities",
        trained_alone=ordering_status(trained),
        linearised_alone=ordering_status(flow),
    )


# E5: layer widths.


def narrowest(row: Row) -> float:
    """Return the smallest share of live units in a layer, over the mean share of all layers."""
    shares = row["widths"]
    mean = math.fsum(shares) / len(shares)
    return min(shares) / mean if mean > 0 else 0.0


def wider_than(
    record: Record, other: str | None, width: Callable[[Row], float]
) -> dict[str, Interval]:
    """Return PX's narrowest layer minus another scorer's (or alone), by cell and low density."""

    def gap(rows: Mapping[tuple[str, float], Row], density: float) -> float:
        mine = width(rows["px", density])
        return mine if other is None else mine - width(rows[other, density])

    found = {}
    for cell in cells(record, "widths"):
        rows = table(record, cell)
        for d in (d for d in densities(rows) if d < LOW_DENSITY):
            found[f"{cell}, density {d}"] = margins(rows, lambda r, d=d: gap(r, d))  # type: ignore[misc]
    return found


@claim(
    "E5",
    subjects={"load": fidelity, "width": narrowest},
    mutants={
        "SynFlow-L2 has no narrow layer": {
            "width": lambda row: 1.0 if row["scorer"] == "synflow_l2" else narrowest(row)
        },
        "PX's narrowest layer is twice as wide as the mean": {
            "width": lambda row: 2.0 if row["scorer"] == "px" else narrowest(row)
        },
    },
)
def stable_widths(level: Level, load: Load, width: Callable[[Row], float]) -> Outcome:
    """PX's narrowest layer, relative to the mean, is wider than SynFlow-L2's."""
    record = load()
    alone = {key: i.mean for key, i in wider_than(record, None, width).items()}
    return judged(
        wider_than(record, "synflow_l2", width),
        "share of units with an input-output path in the narrowest layer, relative to the mean "
        "over layers",
        px_itself=alone,
    )
