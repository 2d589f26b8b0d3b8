"""Bound ÷ trace at initialisation, pruned, trained: reads the record of experiments/tightness.py."""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORD = Path(__file__).resolve().parents[1] / "experiments" / "records" / "tightness.json"
STATES = ("init", "pruned", "trained", "pruned, trained")
LABELS = {
    "px": "R_PX", "px_per_output": "R_PX per output", "edge": "R_edge",
    "edge_per_output": "R_edge per output", "half": "R_half", "op": "R_op", "abs": "R_abs",
    "half_per_output": "R_half per output", "last_layer": "last layer", "euler": "Euler",
    "t_sq": "T_sq (no bound)",
}  # fmt: skip
COLOURS = ("#1f5a99", "#7fa8d1", "#b3541e", "#e0a77d")
MARKERS = ("o", "s", "^", "D")


def main() -> None:
    """Draw one panel per network and data set, print the table, and save both."""
    mpl.rcParams["svg.hashsalt"] = "tightness"
    rows = json.loads(RECORD.read_text())["rows"]
    panels = list(dict.fromkeys((r["network"], r["data"]) for r in rows))
    names = [n for n in LABELS if any(n in ratios(r) for r in rows)]
    columns = max(1, len(dict.fromkeys(n for n, _ in panels)))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 0.5 + 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex="col", sharey=True).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        draw(axis, [r for r in rows if (r["network"], r["data"]) == panel], names)
        axis.set_title(f"{panel[0]}, {panel[1]}", fontsize=10)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(RECORD.with_suffix(".svg"), metadata={"Date": None})
    print(table(rows, panels, names))


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Return every bound of a row divided by its trace."""
    values = row["upper"] | row["lower"]
    values |= {} if row["t_sq"] is None else {"t_sq": row["t_sq"]}
    return {name: value / row["trace"] for name, value in values.items()}


def medians(rows: list[dict[str, Any]], name: str) -> tuple[float, float, float] | None:
    """Return median, least and largest ratio over seeds, or None where it is undefined."""
    found = [ratios(r)[name] for r in rows if name in ratios(r)]
    return (statistics.median(found), min(found), max(found)) if found else None


def draw(axis: Axes, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Draw medians over seeds with their range; a panel's states side by side."""
    for i, state in enumerate(STATES):
        mine = [r for r in rows if r["state"] == state]
        points = [(j, medians(mine, name)) for j, name in enumerate(names)]
        shown = [(j + 0.18 * (i - 1.5), m) for j, m in points if m is not None]
        axis.errorbar(
            [m[0] for _, m in shown], [y for y, _ in shown],
            xerr=[[m[0] - m[1] for _, m in shown], [m[2] - m[0] for _, m in shown]],
            fmt=MARKERS[i], color=COLOURS[i], markersize=4, linewidth=1, label=state,
        )  # fmt: skip
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
    axis.set_xlabel("bound ÷ trace", fontsize=9)
    axis.grid(axis="x", linewidth=0.3)


def table(rows: list[dict[str, Any]], panels: list[tuple[str, str]], names: list[str]) -> str:
    """Lay the medians out, one line per network, data set and state."""
    lines = [f"{'network':10} {'data':13} {'state':16}" + "".join(f"{n:>16}" for n in names)]
    for network, data in panels:
        for state in STATES:
            mine = [
                r for r in rows if (r["network"], r["data"], r["state"]) == (network, data, state)
            ]
            cells = [medians(mine, name) for name in names]
            texts = "".join(f"{'–' if m is None else f'{m[0]:.3g}':>16}" for m in cells)
            lines.append(f"{network:10} {data:13} {state:16}" + texts)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
