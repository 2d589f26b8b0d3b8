"""The finite difference's bias against σ: reads the record of the experiment of that name."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORD = (
    Path(__file__).resolve().parents[1] / "experiments" / "records" / "finite_difference_bias.json"
)
PUBLISHED = 0.01
LINEAR = 1e-6
"""Below this size the vertical axis is linear."""
EXACT, FIXED, SAMPLED, GUARANTEED, JVP = "#222222", "#b3541e", "#1f5a99", "#b9d0e6", "#2b7a4b"


def main() -> None:
    """Draw one panel per network, and the legend in the sixth."""
    mpl.rcParams["svg.hashsalt"] = "finite_difference_bias"
    record = json.loads(RECORD.read_text())
    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    for axis, network in zip(axes, record["networks"], strict=False):
        draw(axis, network, record["curve_sigma"])
    for axis in axes[::3]:
        axis.set_ylabel("E‖f(θ+σΔ) − f(θ)‖² / (σ² Tr Θ) − 1", fontsize=9)
    legend(axes[5], axes[0], record)
    figure.savefig(RECORD.with_suffix(".svg"), metadata={"Date": None})


def draw(axis: Axes, network: dict[str, Any], sigmas: list[float]) -> None:
    """Draw the curves, the guaranteed intervals, and the sampled means with 3 standard errors."""
    points = network["points"]
    at = [p["sigma"] for p in points]
    axis.axhline(0, color="#999999", linewidth=0.6)
    axis.axvline(PUBLISHED, color="#999999", linewidth=0.8, linestyle=":")
    axis.vlines(
        at, [p["low"] for p in points], [p["high"] for p in points], color=GUARANTEED, linewidth=5,
        label="finite difference, guaranteed interval",
    )  # fmt: skip
    axis.plot(
        sigmas, network["polynomial_curve"], color=FIXED, linestyle="--", linewidth=1.3,
        label="formula: gates held fixed, or order σ⁴",
    )  # fmt: skip
    if network["exact_curve"]:
        axis.plot(sigmas, network["exact_curve"], color=EXACT, linewidth=1.3, label="exact mean")
    axis.errorbar(
        at, [p["sampled"] for p in points], yerr=[3 * p["standard_error"] for p in points], fmt="o",
        color=SAMPLED, markersize=3.5, linewidth=1.2,
        label="finite difference − JVP, same probes, ±3 s.e.",
    )  # fmt: skip
    jvp = network["jvp"]
    side = 2 * max(at)
    axis.vlines(
        side, jvp["low"], jvp["high"], color=JVP, linewidth=4, alpha=0.5,
        label="JVP form, guaranteed interval (any σ)",
    )  # fmt: skip
    axis.plot(side, jvp["design"], "D", color=JVP, markersize=4.5, label="JVP form, exact design")
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
    axis.set_ylim(-1, max(1.2, 2 * max(p["sampled"] for p in points)))
    ticks = [-1e-1, -1e-3, -1e-5, 0, 1e-5, 1e-3, 1e-1, *([10] if axis.get_ylim()[1] > 10 else [])]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_title(
        f"{network['name']}\n{network['parameters']} parameters, {network['samples']} samples",
        fontsize=9,
    )
    axis.set_xlabel("σ (dotted: the published 0.01)", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def legend(axis: Axes, source: Axes, record: dict[str, Any]) -> None:
    """Put the legend of one panel into an empty one."""
    axis.set_axis_off()
    handles, labels = source.get_legend_handles_labels()
    axis.legend(
        handles, labels, loc="upper left", frameon=False, fontsize=9,
        title=f"{record['probes']:,} probes per interval; all {record['intervals']} intervals hold\n"
        f"together with probability {1 - record['delta']:.0%}",
        title_fontsize=9, alignment="left",
    )  # fmt: skip


if __name__ == "__main__":
    main()
