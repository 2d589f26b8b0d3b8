"""Fraction memorised against sparsity, by method: reads proofs_check/records/F8.json."""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORD = Path(__file__).resolve().parents[1] / "proofs_check" / "records" / "F8.json"
TARGET = Path(__file__).resolve().parents[1] / "experiments" / "records" / "memorization.svg"
STYLES = {
    "imp": ("IMP", "#b3541e", "-", "o"),
    "magnitude_after": ("magnitude after training", "#e0a77d", "-", "s"),
    "imp uniform": ("IMP, within layers", "#b3541e", "--", "o"),
    "magnitude_after uniform": ("magnitude after, within layers", "#e0a77d", "--", "s"),
    "snip": ("SNIP", "#1f5a99", "-", "^"),
    "grasp": ("GraSP", "#7fa8d1", "-", "v"),
    "synflow": ("SynFlow", "#2f8f6b", "-", "D"),
    "ntk_sap": ("NTK-SAP", "#7a4fa3", "-", "P"),
    "px": ("PX", "#c2518f", "-", "X"),
    "path_edge": ("path edge", "#8a8a2a", "-", "*"),
    "random": ("random", "#777777", ":", "."),
}
Experiment = dict[str, Any]


def main() -> None:
    """Draw a panel per experiment in which something is memorised, print all tables, save."""
    mpl.rcParams["svg.hashsalt"] = "memorization"
    record = json.loads(RECORD.read_text())
    every = {name: e for name, e in record["experiments"].items() if e["cells"]}
    found = {name: e for name, e in every.items() if shows(e)}
    figure = Figure(figsize=(5.6 * len(found), 4.9), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, experiment) in zip(axes, found.items(), strict=True):
        draw(axis, experiment)
        axis.set_title(title(name, experiment), fontsize=9)
    handles: dict[str, Any] = {}
    for axis in axes:
        drawn, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8
    )
    figure.savefig(TARGET, metadata={"Date": None})
    for name, experiment in every.items():
        print(f"{name}\n{table(experiment)}\n")


def shows(experiment: Experiment) -> bool:
    """Return whether any method memorises a hundredth of the samples at any density."""
    return any(m > 0.01 for method in experiment["cells"] for m, _ in fractions(experiment, method))


def title(name: str, experiment: Experiment) -> str:
    """Return a panel's title: what it is and how many seeds."""
    counts = sorted({len(cells) for cells in experiment["cells"].values()})
    seeds = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{name} ({seeds} seeds)"


def fractions(experiment: Experiment, method: str) -> list[tuple[float, float]]:
    """Return mean and standard error over seeds of the fraction memorised, per density."""
    rows = [row["memorised"] for row in experiment["cells"][method].values()]
    columns = [[c / experiment["samples"] for c in column] for column in zip(*rows, strict=True)]
    return [
        (statistics.mean(c), statistics.stdev(c) / len(c) ** 0.5 if len(c) > 1 else 0.0)
        for c in columns
    ]


def draw(axis: Axes, experiment: Experiment) -> None:
    """Draw the methods' means with their standard errors."""
    sparsities = [1 - density for density in experiment["densities"]]
    for method, (label, colour, line, marker) in STYLES.items():
        if method not in experiment["cells"]:
            continue
        points = fractions(experiment, method)
        axis.errorbar(
            sparsities, [mean for mean, _ in points], yerr=[error for _, error in points],
            label=label, color=colour, linestyle=line, marker=marker, markersize=4.5,
            linewidth=1.2, capsize=2,
        )  # fmt: skip
    axis.set_xlabel("sparsity (fraction of weights dropped)")
    axis.set_ylabel("fraction memorised: loss ≤ (log 2)/10")
    axis.set_ylim(-0.03, 1.03)
    axis.grid(linewidth=0.3)


def table(experiment: Experiment) -> str:
    """Lay the means out, one line per method."""
    head = "".join(f"{density:>15g}" for density in experiment["densities"])
    lines = [f"{'density':26}{head}"]
    for method in STYLES:
        if method in experiment["cells"]:
            cells = "".join(
                f"{m:>8.3f} ± {e:.3f}"[:15].rjust(15) for m, e in fractions(experiment, method)
            )
            lines.append(f"{method:26}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
