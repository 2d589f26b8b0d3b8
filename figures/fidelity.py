"""What each scorer keeps of the exact NTK: reads the record of experiments/fidelity.py.

One column per network and data set, one row per measure; in every panel scorers by density, means over
seeds. Prints the table with intervals for one density.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proofs_check.record_claims import paired_interval, rows_of

RECORD = Path(__file__).resolve().parents[1] / "proofs_check" / "records" / "fidelity.json"
TARGET = Path(__file__).resolve().parents[1] / "experiments" / "records" / "fidelity.svg"
MEASURES = {
    "log_rms": ("distance of spectra (rms of log₁₀ μ/λ)", "viridis_r", (0.0, 5.0)),
    "trace": ("log₁₀ of trace ÷ dense trace", "viridis", (-4.0, 2.0)),
    "spearman": ("Spearman with ntk_trace, kept weights", "viridis", (-0.2, 1.0)),
    "overlap": ("mask overlap with ntk_trace's", "viridis", (0.0, 1.0)),
}
Row = dict[str, Any]


def main() -> None:
    """Draw the panels, print the table, and save both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--density", type=float, default=0.0687)
    options = parser.parse_args()
    mpl.rcParams |= {"svg.hashsalt": "fidelity", "svg.fonttype": "none"}
    rows = [r for r in rows_of(json.loads(RECORD.read_text())) if "refused" not in r]
    cells = list(dict.fromkeys(r["cell"] for r in rows))
    scorers = ranked(rows)
    figure = Figure(figsize=(1.5 + 2.9 * len(cells), 3.6 * len(MEASURES)), layout="constrained")
    axes = figure.subplots(len(MEASURES), len(cells), squeeze=False, sharey=True)
    for axis, cell in zip(axes[0], cells, strict=True):
        axis.set_title(cell.replace(":", ", "), fontsize=10)
    for line, measure in zip(axes, MEASURES, strict=True):
        for axis, cell in zip(line, cells, strict=True):
            image = draw(axis, [r for r in rows if r["cell"] == cell], scorers, measure)
        bar = figure.colorbar(image, ax=list(line), fraction=0.02, pad=0.01)
        bar.set_label(MEASURES[measure][0], fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("density", fontsize=9)
    figure.savefig(options.out, metadata={"Date": None} if options.out.suffix == ".svg" else None)
    print(table(rows, cells, scorers, options.density))


def value(row: Row, measure: str) -> float | None:
    """Return one number of a row."""
    if measure == "trace":
        return math.log10(max(row["trace_ratio"], 1e-12))
    if measure in ("spearman", "overlap"):
        return row.get(measure, {}).get("ntk_trace")
    return row[measure]


def values(rows: list[Row], scorer: str, density: float, measure: str) -> list[float]:
    """Return a number of one scorer at one density, over seeds."""
    mine = [r for r in rows if (r["scorer"], r["density"]) == (scorer, density)]
    found = [value(r, measure) for r in mine]
    return [v for v in found if v is not None]


def ranked(rows: list[Row]) -> list[str]:
    """Return the scorers, closest spectrum first (mean over everything)."""
    means = {
        scorer: statistics.mean(r["log_rms"] for r in rows if r["scorer"] == scorer)
        for scorer in {r["scorer"] for r in rows}
    }
    return sorted(means, key=means.__getitem__)


def draw(axis: Axes, rows: list[Row], scorers: list[str], measure: str) -> Any:
    """Draw a field of scorers by density with its numbers."""
    densities = sorted({r["density"] for r in rows}, reverse=True)
    field = [
        [
            statistics.mean(found) if (found := values(rows, s, d, measure)) else math.nan
            for d in densities
        ]
        for s in scorers
    ]
    low, high = MEASURES[measure][2]
    image = axis.imshow(field, cmap=MEASURES[measure][1], vmin=low, vmax=high, aspect="auto")
    for i, line in enumerate(field):
        for j, v in enumerate(line):
            red, green, blue, _ = image.cmap(image.norm(v))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            text = "–" if math.isnan(v) else f"{v:.2f}"
            axis.text(j, i, text, ha="center", va="center", fontsize=6, color="w" if dark else "k")
    axis.set_xticks(range(len(densities)), [f"{d:.2g}" for d in densities], fontsize=8)
    axis.set_yticks(range(len(scorers)), scorers, fontsize=8)
    return image


def table(rows: list[Row], cells: list[str], scorers: list[str], density: float) -> str:
    """Lay out mean ± half of the 95 % interval over seeds at one density."""
    head = f"density {density}: distance of spectra; Spearman with ntk_trace; overlap with its mask"
    lines = [head, f"{'scorer':20}" + "".join(f"{cell:>34}" for cell in cells)]
    for scorer in scorers:
        texts = []
        for cell in cells:
            own = [r for r in rows if r["cell"] == cell]
            parts = [
                half(values(own, scorer, density, m)) for m in ("log_rms", "spearman", "overlap")
            ]
            texts.append(f"{' '.join(parts):>34}")
        lines.append(f"{scorer:20}" + "".join(texts))
    return "\n".join(lines)


def half(found: list[float]) -> str:
    """Return mean ± half of the interval, as text."""
    if len(found) < 2:
        return "–"
    interval = paired_interval(found)
    return f"{interval.mean:.2f}±{interval.high - interval.mean:.2f}"


if __name__ == "__main__":
    main()
