"""What scorers cost and keep, as tables; docs/scorers_measured.md shows them.

Reads the records of ``benchmarks/scorers.py``, ``experiments/published_layer_density.py``,
``experiments/collapse.py`` and ``experiments/fidelity.py``.
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ntktheory.pruning import SCORERS
from proofs_check.claims.collapse_records import table as collapsed
from proofs_check.record_claims import load_record, paired_interval, rows_of

ROOT = Path(__file__).resolve().parents[1]
COST = ROOT / "benchmarks" / "results" / "scorers.json"
LAYERS = ROOT / "experiments" / "records" / "published_layer_density.json"
NETWORKS = ("mlp", "vgg-like", "resnet20")
CELLS = (
    "mlp:digits",
    "convnet:digits",
    "mlp:cifar10-jpeg",
    "convnet:cifar10-jpeg",
    "resnet20:cifar10-jpeg",
)
DENSITY = 0.0687


def main() -> None:
    """Print every table."""
    for table in (cost, published_layers, collapse, fidelity):
        print(f"{table.__doc__}\n\n{table()}\n")


def cost() -> str:
    """Time of a score in forward and backward passes over the batch, and over that of its count."""
    record = json.loads(COST.read_text())["scorers"]
    rows = [
        (name, found["cost"], f"{found['passes']:.2f}", number(found["ratio"]))
        for name, found in record.items()
    ]
    return laid_out(("scorer", "count", "passes", "time ÷ count"), rows)


def published_layers() -> str:
    """Layers within three published deviations, of those that have one, and the largest distance."""
    layers = json.loads(LAYERS.read_text())["layers"]
    rows = []
    for scorer in dict.fromkeys(layer["scorer"] for layer in layers):
        z = [abs(r["z"]) for r in layers if r["scorer"] == scorer and r["z"] is not None]
        rows.append((scorer, f"{sum(v <= 3 for v in z)} of {len(z)}", f"{max(z):.1f}"))
    return laid_out(("scorer", "within three", "largest"), rows)


def collapse() -> str:
    """log₁₀ of the compression that first empties a layer: in rounds / at once; * by ties."""
    cells = collapsed(load_record("P3.collapse")["rows"])
    rows = [(s, *(emptied(cells[n][s]) for n in NETWORKS)) for s in SCORERS]
    return laid_out(("scorer", *NETWORKS), rows)


def emptied(cell: dict[str, Any]) -> str:
    """Return one entry of the table of collapse."""
    _, _, first, _, silent = cell["in_rounds"]
    tied = first is not None and silent is not None and silent <= first
    return f"{number(first)}{'*' if tied else ''} / {number(cell['at_once'][2])}"


def fidelity(density: float = DENSITY) -> str:
    """Distance of log spectra ± half its interval, Spearman and overlap with ntk_trace (seeds)."""
    rows = [r for r in rows_of(load_record("fidelity")) if r.get("density") == density]
    lines = []
    for scorer in SCORERS:
        own = [[r for r in rows if (r["cell"], r["scorer"]) == (c, scorer)] for c in CELLS]
        lines.append((scorer, *map(kept, own)))
    return laid_out(("scorer", *CELLS), lines)


def kept(rows: list[dict[str, Any]]) -> str:
    """Return one entry of the table of fidelity."""
    if len(rows) < 2:
        return "–"
    apart = paired_interval([r["log_rms"] for r in rows])
    ranks = [r["spearman"].get("ntk_trace") for r in rows if "spearman" in r]
    ranks = [rank for rank in ranks if rank is not None]
    shared = statistics.mean(r["overlap"]["ntk_trace"] for r in rows)
    spearman = number(statistics.mean(ranks) if ranks else None)
    return f"{apart.mean:.2f} ± {apart.mean - apart.low:.2f} {spearman} {shared:.2f} ({len(rows)})"


def number(value: float | None) -> str:
    """Return two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def laid_out(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return rows in columns, the first to the left."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    main()
