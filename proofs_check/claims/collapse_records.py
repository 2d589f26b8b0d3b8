"""P3.collapse*: the density at which each scorer first empties a layer, from a record.

The record is ``records/P3.collapse.json``; ``experiments/collapse.py`` wrote it.
"""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from proofs_check.claim import Level, Outcome, Status, claim
from proofs_check.record_claims import LEVEL, load_record

Row = dict[str, Any]
Load = Callable[[str], dict[str, Any]]
ID = "P3.collapse"
FLOWS = ("px", "synflow", "synflow_l2", "t_sq")
CHAINS = ("mlp", "vgg-like")
SHORTCUTS = "resnet20"
MODES = ("in_rounds", "at_once")


# --- statistics of the record ------------------------------------------------------------------------


def reached(row: Row, mode: str) -> bool:
    """Return whether pruning came down to one weight per layer, none emptied and nothing cut."""
    return row[mode]["emptied_at"] is None and row[mode]["cut_at"] is None


def table(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Return, by network, scorer and mode, the seeds that reached the end and the median compression.

    Returns:
        Network -> scorer -> mode -> ``[seeds that reached it, seeds, log10 of the compression that
        first emptied a layer, the same of the one that cut the network]``, and in rounds the same of the
        one from which all scores are 0: what is emptied later was chosen by ties. None where fewer than
        half of the seeds have the event.
    """
    cells: dict[str, dict[str, Any]] = {}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["scorer"]), []).append(row)
    for (network, scorer), group in groups.items():
        cell = {
            mode: [sum(reached(r, mode) for r in group), len(group)]
            + [middle([r[mode][event] for r in group], group[0]["weights"]) for event in events]
            for mode, events in EVENTS.items()
        }
        cells.setdefault(network, {})[scorer] = cell
    return cells


EVENTS = {"in_rounds": ("emptied_at", "cut_at", "silent_at"), "at_once": ("emptied_at", "cut_at")}


def middle(counts: list[int | None], weights: int) -> float | None:
    """Return the median of ``log10(P/K)``, an event that did not happen being beyond all others."""
    values = sorted(math.inf if k is None else math.log10(weights / k) for k in counts)
    found = values[(len(values) - 1) // 2]
    return round(found, 3) if math.isfinite(found) else None


def lower_end(successes: int, trials: int, level: float = LEVEL) -> float:
    """Return the lower end of Clopper and Pearson's two-sided interval for a share."""
    from scipy.stats import beta

    return float(beta.ppf((1 - level) / 2, successes, trials - successes + 1)) if successes else 0.0


def judged(rows: list[Row], holds: Callable[[Row], bool], say: Callable[[Row], str]) -> Outcome:
    """Return the verdict on "it holds in every row", with the share over seeds and its interval."""
    seeds = {r["seed"] for r in rows}
    whole = sum(all(holds(r) for r in rows if r["seed"] == seed) for seed in seeds)
    broken = [r for r in rows if not holds(r)]
    status: Status = "supported" if seeds and not broken else "not-supported"
    if not rows:
        status = "inconclusive"
    evidence = {
        "rows": len(rows),
        "seeds_in_all_of_which_it_holds": whole,
        "seeds": len(seeds),
        "share_at_least": lower_end(whole, len(seeds)) if seeds else None,
        "interval_level": LEVEL,
    }
    text = "; ".join(map(say, broken[:4])) or None
    return Outcome(status, "records", "He weights, 16 digits, three seeds", evidence, text)


def describe(row: Row, mode: str = "in_rounds") -> str:
    """Say what happened in one row."""
    found = row[mode]
    where = f"{row['network']}, {row['scorer']}, seed {row['seed']}, {mode.replace('_', ' ')}"
    text = f"layer {found['layer']} emptied at {found['emptied_at']} of {row['weights']} weights"
    silent = found.get("silent_at")
    return f"{where}: {text}" + (f", all scores 0 at {silent}" if silent else "")


# --- planted errors ----------------------------------------------------------------------------------


def _changed(change: Callable[[Row], None]) -> Load:
    def load(id_: str) -> dict[str, Any]:
        record = copy.deepcopy(load_record(id_))
        for row in record["rows"]:
            change(row)
        return record

    return load


def _empties_synflow(row: Row) -> None:
    if row["scorer"] == "synflow":
        row["in_rounds"] |= {"emptied_at": 400, "layer": "layer3.weight", "silent_at": None}


def _forgets_events(row: Row) -> None:
    for mode in MODES:
        row[mode] |= {"emptied_at": None, "cut_at": None, "layer": None}


def _forgets_silence(row: Row) -> None:
    if row["in_rounds"]["silent_at"] is not None:
        row["in_rounds"] |= {"silent_at": None, "emptied_at": row["in_rounds"]["silent_at"]}


# --- claims ------------------------------------------------------------------------------------------


def with_table(found: Outcome, rows: list[Row]) -> Outcome:
    """Add the table to a verdict's evidence."""
    columns = (
        "seeds that reached one weight per layer, seeds, log10 of the median compression that "
    )
    columns += (
        "first emptied a layer, of that which cut the network, in rounds: of that from which all "
    )
    columns += "scores are 0"
    evidence = found.evidence | {"columns": columns, "table": table(rows)}
    return Outcome(found.status, found.kind, found.scope, evidence, found.counterexample)


@claim(
    "P3.collapse",
    subjects={"load": load_record},
    mutants={
        "a record where SynFlow empties a layer": {"load": _changed(_empties_synflow)},
        "a record that forgets when px fell silent": {"load": _changed(_forgets_silence)},
    },
)
def flows_empty_nothing(level: Level, load: Load) -> Outcome:
    """Flows and path_edge in many rounds, on networks without shortcuts, while some score is not 0."""
    record = load(ID)
    rows = [
        r for r in record["rows"] if r["network"] in CHAINS and r["scorer"] in (*FLOWS, "path_edge")
    ]

    def holds(row: Row) -> bool:
        emptied, silent = row["in_rounds"]["emptied_at"], row["in_rounds"]["silent_at"]
        return emptied is None or (silent is not None and silent > emptied)

    found = judged(rows, holds, describe)
    steep = {
        network: [
            min(r["in_rounds"]["steepest_round"] for r in rows if r["network"] == network),
            next(1 - 1 / r["layers"] for r in rows if r["network"] == network),
        ]
        for network in CHAINS
        if any(r["network"] == network for r in rows)
    }
    found.evidence["least_share_kept_by_a_round_and_what_the_proof_asks"] = steep
    return with_table(found, record["rows"])


@claim(
    "P3.collapse_data",
    subjects={"load": load_record},
    mutants={"a record without what happened": {"load": _changed(_forgets_events)}},
)
def px_reaches_the_end(level: Level, load: Load) -> Outcome:
    """By px in many rounds: MLP and CNN on digits, whose border pixels are 0 in every image."""
    rows = [r for r in load(ID)["rows"] if r["network"] in CHAINS and r["scorer"] == "px"]
    return judged(rows, lambda r: reached(r, "in_rounds"), describe)


@claim(
    "P3.collapse_at_once",
    subjects={"load": load_record},
    mutants={"a record without what happened": {"load": _changed(_forgets_events)}},
)
def all_collapse_at_once(level: Level, load: Load) -> Outcome:
    """One vector of scores, cut at every count: only PHEW comes down to one weight per layer."""
    rows = [r for r in load(ID)["rows"] if r["scorer"] != "phew"]
    return judged(rows, lambda r: not reached(r, "at_once"), lambda r: f"reached: {r['scorer']}")


@claim(
    "P3.collapse_shortcuts",
    subjects={"load": load_record},
    mutants={"a record without what happened": {"load": _changed(_forgets_events)}},
)
def flows_in_residual_networks(level: Level, load: Load) -> Outcome:
    """Flows on ResNet-20 in 30 rounds: does a layer inside a branch keep a weight?"""
    rows = [r for r in load(ID)["rows"] if r["network"] == SHORTCUTS and r["scorer"] in FLOWS]
    found = judged(rows, lambda r: r["in_rounds"]["emptied_at"] is None, describe)
    cut = {name: [r["in_rounds"]["cut_at"] for r in rows if r["scorer"] == name] for name in FLOWS}
    found.evidence["cut_at"] = cut
    return found
