"""Where each scorer first empties a layer: reads the record of experiments/collapse.py.

One panel per network. Along the axis: log10 of the compression P/K at which the first layer lost its
last weight, one mark per seed; the line is one weight per layer, and filled marks never emptied one.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proofs_check.claims.collapse_records import table

RECORD = Path(__file__).resolve().parents[1] / "proofs_check" / "records" / "P3.collapse.json"
TARGET = Path(__file__).resolve().parents[1] / "experiments" / "records" / "collapse.svg"
MODES = {
    "in_rounds": ("in rounds", "o", "#1f5a99", -0.16),
    "at_once": ("at once", "D", "#b3541e", 0.16),
}
TITLES = {"mlp": "MLP, 6 layers", "vgg-like": "VGG-like CNN, 7 layers", "resnet20": "ResNet-20"}
Row = dict[str, Any]


def main() -> None:
    """Draw the panels, print the table, and save both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    mpl.rcParams["svg.hashsalt"] = "collapse"
    rows = json.loads(RECORD.read_text())["rows"]
    networks = [n for n in TITLES if any(r["network"] == n for r in rows)]
    scorers = ranked(rows)
    figure = Figure(figsize=(3.6 * len(networks) + 1.2, 5.6), layout="constrained")
    axes = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axis, network in zip(axes, networks, strict=True):
        draw(axis, [r for r in rows if r["network"] == network], scorers)
        axis.set_title(TITLES[network], fontsize=10)
    axes[0].set_yticks(range(len(scorers)), scorers, fontsize=8)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(options.out, metadata={"Date": None} if options.out.suffix == ".svg" else None)
    print(text(table(rows), networks, scorers))


def ranked(rows: list[Row]) -> list[str]:
    """Return the scorers, those that get furthest in rounds first."""

    def mean(scorer: str) -> tuple[float, float]:
        mine = [r for r in rows if r["scorer"] == scorer and r["network"] != "resnet20"]
        return tuple(-sum(reach(r, m) for r in mine) / max(1, len(mine)) for m in MODES)  # type: ignore[return-value]

    return sorted({r["scorer"] for r in rows}, key=mean)


def reach(row: Row, mode: str) -> float:
    """Return log10 of the compression that first emptied a layer; the critical one if none did."""
    count = row[mode]["emptied_at"]
    return math.log10(row["weights"] / (row["layers"] if count is None else count))


def draw(axis: Axes, rows: list[Row], scorers: list[str]) -> None:
    """Draw one mark per scorer, mode and seed; filled where no layer was emptied."""
    critical = math.log10(rows[0]["weights"] / rows[0]["layers"])
    axis.axvline(critical, color="black", linewidth=0.8, label="one weight per layer")
    for mode, (label, marker, colour, shift) in MODES.items():
        for kept in (True, False):
            mine = [r for r in rows if (r[mode]["emptied_at"] is None) == kept]
            axis.plot(
                [reach(r, mode) for r in mine],
                [scorers.index(r["scorer"]) + shift for r in mine],
                marker, markersize=5, color=colour, markerfacecolor=colour if kept else "white",
                label=None if kept else label, zorder=3,
            )  # fmt: skip
    axis.set_xlim(0, critical * 1.04)
    axis.set_xlabel("log₁₀ of compression P/K", fontsize=9)
    axis.grid(axis="both", linewidth=0.3)


def text(cells: dict[str, Any], networks: list[str], scorers: list[str]) -> str:
    """Lay the table out: seeds that reached the end, and log10 of the compression of both events."""
    head = "".join(f"{n + ', ' + label[0]:>30}" for n in networks for label in MODES.values())
    lines = [f"{'scorer':20}{head}"]
    for scorer in scorers:
        line = f"{scorer:20}"
        for network in networks:
            for mode in MODES:
                cell = cells[network].get(scorer, {}).get(mode)
                line += f"{'–' if cell is None else shown(cell):>30}"
        lines.append(line)
    return "\n".join(lines)


def shown(cell: list[Any]) -> str:
    """Show one cell: seeds that reached the end, compression that emptied, compression that cut."""
    reached, seeds, *events = cell
    values = ", ".join("never" if v is None else f"{v:.2f}" for v in events)
    return f"{reached}/{seeds}: {values}"


if __name__ == "__main__":
    main()
