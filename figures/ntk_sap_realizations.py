"""Variance and mask overlap by R: reads the record of experiments/ntk_sap_realizations.py."""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORDS = Path(__file__).resolve().parents[1] / "experiments" / "records"
RECORD = RECORDS / "ntk_sap_realizations.json"
COLOURS = {"new": "#1f5a99", "fixed": "#b3541e"}
FORMS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "jvp": ("JVP", 0.96, {"marker": "o", "linestyle": "-"}),
    "finite_difference": (
        "finite difference",
        1.04,
        {"marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    ),
}
"""Label, factor by which points are moved aside, style."""
GREY = "#555555"


def main() -> None:
    """Draw variances above overlaps, one column per network, and print the numbers."""
    mpl.rcParams["svg.hashsalt"] = "ntk_sap_realizations"
    record = json.loads(RECORD.read_text())
    networks = record["networks"]
    figure = Figure(figsize=(4.6 * len(networks), 7.4), layout="constrained")
    axes = figure.subplots(2, len(networks), squeeze=False, sharex=True, sharey="row")
    for column, network in enumerate(networks):
        draw_variance(axes[0][column], network)
        draw_overlap(axes[1][column], network, record["density"])
        for axis in axes[:, column]:
            dress(axis, network, record["published_R"])
        axes[0][column].set_title(title(network), fontsize=10)
        axes[1][column].set_xlabel("realisations R", fontsize=9)
    axes[0][0].set_ylabel(
        "variance of the mean score ÷\n(expected score)², median over weights", fontsize=9
    )
    axes[1][0].set_ylabel(
        f"share of kept weights in common\ntwo independent masks, density {record['density']}",
        fontsize=9,
    )
    entries = dict[str, Any]()
    for axis in axes.flatten():
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=2, fontsize=8,
        frameon=False, title_fontsize=8,
        title=f"mean and 95 % interval over {len(record['seeds'])} seeds; points of one R set apart",
    )  # fmt: skip
    figure.savefig(RECORD.with_suffix(".svg"), metadata={"Date": None})
    print(table(networks))


def title(network: dict[str, Any]) -> str:
    """Return a network's name and number of weights."""
    total = sum(math.prod(shape) for shape in network["shapes"].values())
    return f"{network['name']} ({total:,} weights)"


def draw_variance(axis: Axes, network: dict[str, Any]) -> None:
    """Draw the relative variance of each curve on its line of slope 1/R."""
    for i, curve in enumerate(network["curves"]):
        counts, first = [p["R"] for p in curve["points"]], curve["points"][0]
        aside = FORMS[curve["form"]][1]
        axis.plot(
            [aside * r for r in counts], [first["relative_variance"]["mean"] / r for r in counts],
            color="#c4c4c4", linewidth=6, alpha=0.6, zorder=1,
            label=None if i else "1/R, from R = 1",
        )  # fmt: skip
        draw_curve(axis, curve, "relative_variance")
    axis.set_yscale("log")
    axis.text(
        0.03, 0.04, by_layer(network), transform=axis.transAxes, fontsize=7.5,
        family="monospace", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def by_layer(network: dict[str, Any]) -> str:
    """Lay out the variances of one realisation by layer, with new weights."""
    jvp, difference = (
        next(c for c in network["curves"] if (c["weights"], c["form"]) == ("new", form))
        for form in FORMS
    )
    lines = ["R = 1, new weights    JVP  fin. diff."]
    for name, shape in network["shapes"].items():
        one, other = (c["variance_of_one"][name]["mean"] for c in (jvp, difference))
        size = f"{name.removesuffix('.weight')} ({math.prod(shape):,})"
        lines.append(f"{size:18} {one:6.3g} {other:11.3g}")
    return "\n".join(lines)


def draw_overlap(axis: Axes, network: dict[str, Any], density: float) -> None:
    """Draw the overlap of each curve, and those of random masks."""
    axis.axhline(density, color=GREY, linestyle="--", linewidth=1, label="two random masks")
    for curve in network["curves"]:
        draw_curve(axis, curve, "overlap")
        if curve["form"] == "jvp":
            axis.plot(
                [p["R"] for p in curve["points"]],
                [p["overlap_equal_layers"]["mean"] for p in curve["points"]],
                color=COLOURS[curve["weights"]], linestyle=":", linewidth=2, zorder=1,
                label=f"random masks, layer sizes of {curve['weights']} weights, JVP",
            )  # fmt: skip
    axis.set_ylim(0, 1)


def draw_curve(axis: Axes, curve: dict[str, Any], key: str) -> None:
    """Draw one curve with its intervals."""
    label, aside, style = FORMS[curve["form"]]
    values = [p[key] for p in curve["points"]]
    axis.errorbar(
        [aside * p["R"] for p in curve["points"]], [v["mean"] for v in values],
        yerr=[[v["mean"] - v["low"] for v in values], [v["high"] - v["mean"] for v in values]],
        color=COLOURS[curve["weights"]], markersize=4, linewidth=1, elinewidth=1,
        label=f"{curve['weights']} weights, {label}", **style,
    )  # fmt: skip


def dress(axis: Axes, network: dict[str, Any], published: int) -> None:
    """Set the axis of R, and mark the published setting."""
    axis.axvline(published, color=GREY, linestyle="-.", linewidth=0.8, zorder=0)
    axis.annotate(
        f"published R = {published}", (published, 1), xycoords=("data", "axes fraction"),
        xytext=(4, -12), textcoords="offset points", fontsize=8, color=GREY,
    )  # fmt: skip
    counts = [p["R"] for p in network["curves"][0]["points"] if p["R"] != published]
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(r) for r in counts])
    axis.minorticks_off()
    axis.tick_params(labelsize=8, labelbottom=True)
    axis.grid(alpha=0.25)


def table(networks: list[dict[str, Any]]) -> str:
    """Lay the means out, one line per network, kind of weights, form and R."""
    lines = [f"{'network':24} {'weights':7} {'form':18} {'R':>4} {'variance':>9} "
             f"{'overlap':>21} {'equal layers':>12}"]  # fmt: skip
    for network in networks:
        for curve in network["curves"]:
            for p in curve["points"]:
                ours = p["overlap"]
                lines.append(
                    f"{network['name']:24} {curve['weights']:7} {curve['form']:18} {p['R']:4} "
                    f"{p['relative_variance']['mean']:9.3g} "
                    f"{ours['mean']:7.3f} [{ours['low']:.3f}, {ours['high']:.3f}] "
                    f"{p['overlap_equal_layers']['mean']:12.3f}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
