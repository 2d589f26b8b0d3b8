"""Seconds of the exact kernel and its trace, by library: reads the record of ``make bench-ntk``."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
SAME = 1e-5
OURS, OTHERS, DIFFERENT = "#1f5a99", "#9aa5b1", "#e3c7a0"


def main() -> None:
    """Draw one panel per network and quantity."""
    mpl.rcParams["svg.hashsalt"] = "ntk_speed"
    record = json.loads((RESULTS / "ntk.json").read_text())
    works = record["works"]
    figure = Figure(figsize=(11, 2.6 * ((len(works) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(works) + 1) // 2, 2, squeeze=False).flatten()
    for axis, entry in zip(axes, works, strict=False):
        draw(axis, entry)
    for axis in axes[len(works) :]:
        axis.set_axis_off()
    figure.savefig(RESULTS / "ntk.svg", metadata={"Date": None})


def draw(axis: Axes, entry: dict[str, Any]) -> None:
    """Draw medians as bars with the extremes; a side with other numbers is pale."""
    sides = {name: s for name, s in entry["sides"].items() if "median_s" in s}
    names = sorted(sides, key=lambda name: -sides[name]["median_s"])
    medians = [sides[name]["median_s"] for name in names]
    reach = [
        [sides[n]["median_s"] - sides[n]["min_s"] for n in names],
        [sides[n]["max_s"] - sides[n]["median_s"] for n in names],
    ]
    axis.barh(names, medians, xerr=reach, color=[_colour(n, sides[n]) for n in names], height=0.7)
    axis.set_xscale("log")
    axis.set_xlabel("seconds (median, extremes), one thread, float32")
    axis.set_title(f"{entry['quantity']}: {entry['name']}", fontsize=9)
    axis.tick_params(labelsize=8)


def _colour(name: str, side: dict[str, Any]) -> str:
    if side["difference"] is None or side["difference"] > SAME:
        return DIFFERENT
    return OURS if name == "ntktheory" else OTHERS


if __name__ == "__main__":
    main()
