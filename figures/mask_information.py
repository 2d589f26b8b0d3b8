"""No Free Prune's Fig. 4 redrawn, exact beside sampled: reads the record of F7."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from proofs_check.mask_curves import curves  # noqa: E402
from proofs_check.record_claims import paired_interval  # noqa: E402

RECORD = ROOT / "proofs_check" / "records" / "F7.json"
TARGET = ROOT / "experiments" / "records" / "mask_information.svg"
STYLES = {  # method: (colour, marker, label)
    "imp": ("#1f5a99", "o", "IMP"),
    "magnitude_after": ("#2b7a4b", "s", "magnitude after training"),
    "snip": ("#b3541e", "^", "SNIP"),
    "grasp": ("#a02c4a", "v", "GraSP, T = 200"),
    "grasp T=1": ("#d98aa0", "v", "GraSP, T = 1"),
    "path_edge": ("#7a5ea8", "D", "path edge"),
    "px": ("#555555", "x", "PX, NTK-SAP, SynFlow, random: 0"),
}
PAPER = ("imp", "magnitude_after", "snip", "grasp")
ESTIMATORS = {
    "plug_in": "plug-in",
    "miller_madow": "Miller–Madow",
    "jackknife": "jackknife",
    "chao_shen": "Chao–Shen",
    "nsb": "NSB",
}
COLOURS = ("#1f5a99", "#2b7a4b", "#b3541e", "#a02c4a", "#7a5ea8")

Record = dict[str, Any]


def main() -> None:
    """Draw the six panels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TARGET, help="an .svg or .png file")
    out = parser.parse_args().out
    mpl.rcParams["svg.hashsalt"] = "mask_information"
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    figure = Figure(figsize=(15, 9), layout="constrained")
    (paper, ours, second), (distinct, counts, errors) = figure.subplots(2, 3)
    sampled(paper, record)
    exact(ours, record, "mse")
    ours.set_title("The same, exact: all 54,264 data sets", fontsize=10)
    exact(second, record, "cross_entropy")
    second.set_title("Cross-entropy, width 3, two logits (P = 20), exact", fontsize=10)
    exact(distinct, record, "mse", steps=1000, replacement=False)
    distinct.set_title("Distinct inputs (1,792 data sets), 1,000 steps, exact", fontsize=10)
    effective(counts, record)
    estimators(errors, record)
    handles, labels = ours.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def exact(axis: Axes, record: Record, loss: str, **which: Any) -> None:
    """Draw means over inits and their 95 % intervals."""
    for method, (colour, marker, label) in STYLES.items():
        rows = list(curves(record, loss, method, **which).values())
        if len(rows) < 2:
            continue
        found = [paired_interval(bits) for bits in zip(*(r["bits"] for r in rows), strict=True)]
        k = range(len(found))
        axis.plot(
            k, [f.mean for f in found], color=colour, marker=marker, markersize=3.5, linewidth=1.2,
            label=label,
        )  # fmt: skip
        axis.fill_between(
            k, [f.low for f in found], [f.high for f in found], color=colour, alpha=0.2, linewidth=0
        )
    finish(axis, f"bits; mean and 95 % interval over {len(record['seeds'])} inits")


def sampled(axis: Axes, record: Record) -> None:
    """Draw what plug-in makes of 1,000 and 32,000 samples, beside the exact value, first init."""
    for method in PAPER:
        colour, marker, label = STYLES[method]
        bits = curves(record, "mse", method)[0]["bits"]
        axis.plot(range(len(bits)), bits, color=colour, linewidth=1.2, label=label)
        for samples, filled in ((1_000, False), (32_000, True)):
            rows = [
                r for r in record["plug_in"] if (r["method"], r["samples"]) == (method, samples)
            ]
            axis.plot(
                [r["pruned"] for r in rows],
                [bits[r["pruned"]] + r["plug_in"][0][0] for r in rows],
                color=colour, marker=marker, markersize=4, linestyle="none",
                markerfacecolor=colour if filled else "white",
            )  # fmt: skip
    finish(axis, "bits, one init")
    axis.set_title(
        "Fig. 4 as printed (mse, width 4, P = 21), sampled:\nopen 1,000 and filled 32,000 samples; "
        "lines exact",
        fontsize=10,
    )


def effective(axis: Axes, record: Record) -> None:
    """Draw ``p_eff = I + (P − k)`` in bits, Λ = 1."""
    for method, (colour, marker, label) in STYLES.items():
        rows = list(curves(record, "mse", method).values())
        if not rows:
            continue
        size = len(rows[0]["bits"])
        means = [sum(bits) / len(rows) for bits in zip(*(r["bits"] for r in rows), strict=True)]
        axis.plot(
            range(size), [bits + size - k for k, bits in enumerate(means)], color=colour,
            marker=marker, markersize=3.5, linewidth=1.2, label=label,
        )  # fmt: skip
    axis.axhline(21, color="black", linewidth=0.8, linestyle="--")
    finish(axis, "p_eff = I(m; D | init) + (P − k), bits")
    axis.set_title("Effective parameters, one bit per kept weight (dashed: P)", fontsize=10)


def estimators(axis: Axes, record: Record) -> None:
    """Draw every estimator's mean error over pruners, k and inits."""
    for colour, (name, label) in zip(COLOURS, ESTIMATORS.items(), strict=True):
        rows = record["estimators"]
        sizes = sorted({r["samples"] for r in rows})
        errors = [[r[name][0] for r in rows if r["samples"] == n] for n in sizes]
        axis.plot(sizes, [sum(e) / len(e) for e in errors], color=colour, marker="o",
                  markersize=4, linewidth=1.2,
                  label=f"{label}: {sum(errors[0]) / len(errors[0]):+.2f} at 1,000")  # fmt: skip
        worst = [max(e, key=abs) for e in errors]
        axis.plot(sizes, worst, color=colour, marker="_", markersize=9, linestyle="none")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set_xlabel("sampled data sets", fontsize=8)
    axis.set_ylabel("estimate − exact, bits", fontsize=8)
    axis.set_ylim(-1.35, 1.35)
    axis.set_title(
        "Mean error of entropy estimators (bars: the worst curve);\nNSB told of all C(P, k) masks, "
        "its bars above the frame",
        fontsize=10,
    )
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)


def finish(axis: Axes, label: str) -> None:
    """Label an axis over the number of pruned weights."""
    axis.set_xlabel("pruned weights k", fontsize=8)
    axis.set_ylabel(label, fontsize=8)
    axis.set_xticks(range(0, 21, 4))
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


if __name__ == "__main__":
    main()
