"""False alarms, samples to a verdict, and power: reads the record of the experiment of that name."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORD = Path(__file__).resolve().parents[1] / "experiments" / "records" / "false_alarms.json"
LEAST = 5e-5
"""Where a rate of 0 is drawn."""
TESTS = {  # (test, n): (colour, marker, label)
    ("T1, fixed n", 100): ("#1f5a99", "o", "T1, n = 100"),
    ("T1, fixed n", 1000): ("#1f5a99", "s", "T1, n = 1,000"),
    ("T1, sequential", 1000): ("#2b7a4b", "D", "T1 after every sample up to 1,000"),
    ("z-test", 100): ("#d08a1d", "o", "z-test, n = 100"),
    ("t-test", 100): ("#a02c4a", "o", "t-test, n = 100"),
    ("t-test", 1000): ("#a02c4a", "s", "t-test, n = 1,000"),
    ("z-test at every n", 1000): ("#d08a1d", "D", "z-test after every sample from 30 to 1,000"),
    ("t-test at every n", 1000): ("#a02c4a", "D", "t-test after every sample from 30 to 1,000"),
}
PAIRS = {
    ("T2", 100, 0.01): ("#1f5a99", "o", "T2, n = 100"),
    ("T2", 1000, 0.01): ("#1f5a99", "s", "T2, n = 1,000"),
    ("T2", 100, 1e-9): ("#a02c4a", "o", "T2 at δ = 1e-9, n = 100"),
    ("T1 on the differences", 100, 0.01): ("#2b7a4b", "o", "T1 on differences, n = 100"),
    ("T1 on the differences", 1000, 0.01): ("#2b7a4b", "s", "T1 on differences, n = 1,000"),
}
COLOURS = ("#1f5a99", "#7fa8d1", "#b3541e", "#2b7a4b", "#a02c4a")

Row = dict[str, Any]


def main() -> None:
    """Draw the four panels."""
    mpl.rcParams["svg.hashsalt"] = "false_alarms"
    record = json.loads(RECORD.read_text())
    figure = Figure(figsize=(13.5, 11), layout="constrained")
    (means, pairs), (caught, power) = figure.subplots(2, 2, height_ratios=[1.5, 1])
    one = [(r, r["law"].replace("e, ", "e,\n"), (r["test"], r["n"])) for r in record["one_mean"]]
    rates(means, one, TESTS, record)
    means.set_title("The mean is as claimed: false alarms", fontsize=10)
    both = [*record["same_law"], *record["unequal_laws"]]
    rows = [
        (r, name(r), (r["test"], r["n"], r["delta"]))
        for r in both
        if r["delta"] == record["delta"] or r["other"] != r["law"]
    ]
    rates(pairs, rows, PAIRS, record)
    pairs.axhline(len({r["law"] for r in record["same_law"]}) - 0.5, color="black", linewidth=0.8)
    pairs.set_title("Two samples of one law (above the line), of equal means (below)", fontsize=10)
    samples(caught, record["caught"])
    misses(power, record["power"])
    figure.savefig(RECORD.with_suffix(".svg"), metadata={"Date": None})


def name(row: Row) -> str:
    """Return the name of a pair of laws."""
    if row["law"] == row["other"]:
        return f"{row['law']}, twice"
    if row["law"].startswith("NTK-SAP"):
        return "NTK-SAP objective,\nGaussian and sign probes"
    return f"{row['law']}\nand {row['other']}"


def rates(
    axis: Axes,
    rows: list[tuple[Row, str, Any]],
    styles: dict[Any, tuple[str, str, str]],
    record: Row,
) -> None:
    """Draw rates with their intervals, one line per law; a rate of 0 shows its upper end only."""
    names = list(dict.fromkeys(name for _, name, _ in rows))
    step = 0.8 / len(styles)
    for i, (key, (colour, marker, label)) in enumerate(styles.items()):
        mine = [(r, names.index(name) + step * (i + 0.5) - 0.4) for r, name, k in rows if k == key]
        shown = [max(r["rate"], LEAST) for r, _ in mine]
        below = [s - max(r["low"], LEAST) for s, (r, _) in zip(shown, mine, strict=True)]
        above = [r["high"] - s for s, (r, _) in zip(shown, mine, strict=True)]
        axis.errorbar(
            shown, [y for _, y in mine], xerr=[below, above], fmt=marker, color=colour,
            markersize=3.5, linewidth=1, label=label,
        )  # fmt: skip
    axis.axvline(record["delta"], color="black", linewidth=0.9, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlim(LEAST / 1.5, 1.3)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_yticks(range(len(names)), names, fontsize=7.5)
    axis.set_xlabel(
        f"rejections in {rows[0][0]['runs']:,} runs, 95 % intervals (dashed: δ = {record['delta']:g}; "
        "left edge: none)",
        fontsize=8,
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.25)
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.09), ncols=2, frameon=False, fontsize=8)


def samples(axis: Axes, rows: list[Row]) -> None:
    """Draw medians, and the middle 80 % of runs, against the bias in standard deviations."""
    for i, law in enumerate(dict.fromkeys(r["law"] for r in rows)):
        for delta, marker, filled in ((0.01, "o", True), (1e-9, "s", False)):
            mine = [r for r in rows if (r["law"], r["delta"]) == (law, delta)]
            medians = [r["median"] for r in mine]
            reach = [
                [r["median"] - r["tenth"] for r in mine],
                [r["nine_tenths"] - r["median"] for r in mine],
            ]
            axis.errorbar(
                [r["bias_sd"] for r in mine], medians, yerr=reach, fmt=marker, color=COLOURS[i],
                markersize=4, linewidth=1, markerfacecolor=COLOURS[i] if filled else "white",
                label=law if filled else None,
            )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5)
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("bias of samplers that are 50, 20 and 10 % too large, in sd", fontsize=8)
    axis.set_ylabel("samples until the sequential check fails", fontsize=8)
    axis.set_title("Median and middle 80 % of runs; filled: δ = 0.01, open: 1e-9", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)


def misses(axis: Axes, rows: list[Row]) -> None:
    """Draw the rate of missed biases about the two plans."""
    markers = {"min_samples": "o", "min_detectable_bias": "s"}
    laws = list(dict.fromkeys(r["law"] for r in rows))
    for plan, marker in markers.items():
        for colour, law in zip(COLOURS[::2], laws, strict=True):
            mine = [r for r in rows if (r["law"], r["plan"]) == (law, plan)]
            x = [r["n"] if plan == "min_samples" else r["bias_sd"] for r in mine]
            parts = [
                a / r["planned"] * (1 + 0.02 * r["sign"]) for a, r in zip(x, mine, strict=True)
            ]
            y = [r["rate"] for r in mine]
            reach = [[r["rate"] - r["low"] for r in mine], [r["high"] - r["rate"] for r in mine]]
            axis.errorbar(
                parts, y, yerr=reach, fmt=marker, color=colour, markersize=4, linewidth=1,
                label=f"{law}, {'n' if plan == 'min_samples' else 'bias'}",
            )  # fmt: skip
    axis.axhline(rows[0]["beta"], color="black", linewidth=0.9, linestyle="--")
    axis.axvline(1, color="black", linewidth=0.5)
    axis.set_xscale("log")
    axis.set_xticks((0.125, 0.25, 0.5, 1), ("⅛", "¼", "½", "1"))
    axis.minorticks_off()
    axis.set_yscale("log")
    axis.set_xlabel("n ÷ min_samples(0.3 sd), or bias ÷ min_detectable_bias(200)", fontsize=8)
    axis.set_ylabel("biases missed, 95 % intervals", fontsize=8)
    axis.set_title(
        f"check_mean, shifts of both signs (dashed: β = {rows[0]['beta']:g})", fontsize=10
    )
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
