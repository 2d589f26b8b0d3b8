"""The law of robustness on small networks: reads the record of the experiment of that name."""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORD = Path(__file__).resolve().parents[1] / "experiments" / "records" / "law_of_robustness.json"
TITLES = {
    "random": "random masks: I(m; D) = 0",
    "magnitude": "magnitude after training: I(m; D) between 0 and n bits",
}
COLOURS = {"random": "#1f5a99", "magnitude": "#b3541e"}
FORMS = {"published": "#999999", "sharp": "#222222"}
NAMES = {
    "published": "theorem, 96 as printed (its n is not met)",
    "sharp": "theorem, sharpest proved constant (nor here)",
}


def main() -> None:
    """Draw one panel per mask, and the exponents in the third."""
    mpl.rcParams["svg.hashsalt"] = "law_of_robustness"
    record = json.loads(RECORD.read_text())
    figure = Figure(figsize=(13.0, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axis, mask in zip((left, middle), TITLES, strict=True):
        draw(axis, record, mask)
    middle.sharey(left)
    left.legend(fontsize=7.5, frameon=False, loc="center left")
    exponents(right, record)
    figure.savefig(RECORD.with_suffix(".svg"), metadata={"Date": None})


def draw(axis: Axes, record: dict[str, Any], mask: str) -> None:
    """Draw both ends of every fitted network's Lipschitz constant, and the theorem's lines."""
    runs = [r for r in record["runs"] if r["mask"] == mask and r["fitted"]]
    root = [math.sqrt(r["n"] * r["d"] / r["kept"]) for r in runs]
    ends = {"lipschitz_high": ("product of spectral norms", "none"), "lipschitz_low": (
        "largest slope found", COLOURS[mask])}  # fmt: skip
    for end, (label, face) in ends.items():
        axis.scatter(
            root, [r[end] for r in runs], s=16, facecolors=face, edgecolors=COLOURS[mask],
            linewidths=0.7, label=label,
        )  # fmt: skip
    wide = [min(root) * 0.9, max(root) * 1.1]
    for form, colour in FORMS.items():
        constant = max(b["forms"][form]["per_root"] for b in record["bound_at_largest"])
        axis.plot(wide, [constant * v for v in wide], color=colour, label=NAMES[form])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([0.5, 1, 2, 3], ["0.5", "1", "2", "3"])
    axis.minorticks_off()
    axis.set_xlabel("√(n d / kept weights)", fontsize=9)
    axis.set_ylabel("Lipschitz constant", fontsize=9)
    left_out = sum(r["mask"] == mask and not r["fitted"] for r in record["runs"])
    slope = record["fits"][f"{mask}, lipschitz_low"]["slope"]
    axis.set_title(
        f"{TITLES[mask]}\n{len(runs)} networks, {left_out} more did not fit; "
        f"slope {slope['value']:.2f} [{slope['low']:.2f}, {slope['high']:.2f}]",
        fontsize=9,
    )
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)


def exponents(axis: Axes, record: dict[str, Any]) -> None:
    """Draw the exponents of n, d and the number of kept weights, with their intervals."""
    rows = [(mask, end) for mask in TITLES for end in ("lipschitz_low", "lipschitz_high")]
    for offset, (mask, end) in enumerate(rows):
        fit = record["fits"][f"{mask}, {end}"]
        shown = [fit["exponents"][name] for name in ("n", "d", "p")]
        x = [i + (offset - 1.5) * 0.16 for i in range(3)]
        values = [e["value"] for e in shown]
        errors = [[e["value"] - e["low"] for e in shown], [e["high"] - e["value"] for e in shown]]
        axis.errorbar(
            x, values, yerr=errors, fmt="o", color=COLOURS[mask], markersize=4.5, linewidth=1.2,
            markerfacecolor="none" if end == "lipschitz_high" else COLOURS[mask],
            label=f"{mask}, {'spectral norms' if end == 'lipschitz_high' else 'slope found'}",
        )  # fmt: skip
    for i, predicted in enumerate((0.5, 0.5, -0.5)):
        axis.hlines(
            predicted, i - 0.4, i + 0.4, color="#222222", linestyle="--", linewidth=1,
            label="√(nd/p)" if i == 0 else "",
        )  # fmt: skip
    axis.axhline(0, color="#999999", linewidth=0.6)
    axis.set_xticks(range(3), ["n", "d", "kept weights"])
    axis.set_ylabel("exponent in the Lipschitz constant", fontsize=9)
    axis.set_title("fitted exponents, 95 % over cells", fontsize=9)
    axis.legend(fontsize=7.5, frameon=False, loc="lower left")
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, axis="y")


if __name__ == "__main__":
    main()
