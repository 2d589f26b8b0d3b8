"""Products against error of the trace estimators: reads the record of the benchmark of that name."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
FLOOR = 1e-16
"""Where an error of 0 is drawn."""
STYLES = {
    "Hutchinson, Gaussian": ("#9aa5b1", "v"),
    "Hutchinson, Rademacher": ("#1f5a99", "o"),
    "Hutch++": ("#d08a1d", "s"),
    "XTrace": ("#a02c4a", "D"),
    "output probes": ("#2b7a4b", "^"),
}


def main() -> None:
    """Draw one panel per matrix, with one legend for all."""
    mpl.rcParams["svg.hashsalt"] = "trace_estimators"
    record = json.loads((RESULTS / "trace_estimators.json").read_text())
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    axes = figure.subplots(1, len(record["operators"]))
    for axis, entry in zip(axes, record["operators"], strict=True):
        draw(axis, entry, record["order"])
    axes[0].set_ylabel(
        f"|estimate − trace| / trace\nmedian and 10–90 % of {record['seeds']} seeds", fontsize=9
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )
    figure.savefig(RESULTS / "trace_estimators.svg", metadata={"Date": None})


def draw(axis: Axes, entry: dict[str, Any], order: int) -> None:
    """Draw the medians as lines and the quantiles as bands."""
    for curve in entry["curves"]:
        colour, marker = STYLES[curve["estimator"]]
        products = [p["products"] for p in curve["points"]]
        low, median, high = (
            [max(p[key], FLOOR) for p in curve["points"]] for key in ("low", "median", "high")
        )
        axis.fill_between(products, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.plot(
            products, median, color=colour, marker=marker, markersize=4, label=curve["estimator"]
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks, unit = [p["products"] for p in entry["curves"][0]["points"]], "products with the matrix"
    if "outputs" in entry:
        ticks, unit = [1, 2, 3, *ticks], "products with Θ (output probes: backward passes)"
        axis.axvline(entry["outputs"], color="#2b7a4b", linestyle=":", linewidth=1)
        axis.annotate(
            f"{entry['outputs']} backward passes:\nexact trace", (entry["outputs"], 1),
            xycoords=("data", "axes fraction"), xytext=(4, -22), textcoords="offset points",
            fontsize=7, color="#2b7a4b",
        )  # fmt: skip
    axis.set_xticks(ticks, [str(k) for k in ticks])
    axis.minorticks_off()
    axis.set_xlabel(unit, fontsize=9)
    axis.set_title(
        f"{entry['name']}\norder {order}, (Σλ)²/Σλ² = {entry['participation_ratio']:.0f}",
        fontsize=9,
    )
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


if __name__ == "__main__":
    main()
