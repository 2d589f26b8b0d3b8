"""Correlation with the labels' noise while students train: reads proofs_check/records/F9.json."""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RECORD = Path(__file__).resolve().parents[1] / "proofs_check" / "records" / "F9.json"
TARGET = Path(__file__).resolve().parents[1] / "experiments" / "records" / "noise_correlation.svg"
COLOURS = ("#16304f", "#1f5a99", "#7fa8d1", "#e0a77d", "#b3541e")
Part = dict[str, Any]


def main() -> None:
    """Draw one panel per part and save the figure."""
    mpl.rcParams["svg.hashsalt"] = "noise_correlation"
    parts = json.loads(RECORD.read_text())["parts"]
    columns = min(2, len(parts))
    lines = -(-len(parts) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[len(parts) :]:
        axis.remove()
    for axis, (name, part) in zip(axes, parts.items(), strict=False):
        draw(axis, part, parts)
        axis.set_title(f"{name} ({len(part['curves'])} seeds)", fontsize=10)
    figure.savefig(TARGET, metadata={"Date": None})
    for name, part in parts.items():
        print(f"{name}\n{table(part)}\n")


def band(part: Part, setting: int) -> tuple[list[float], list[float]]:
    """Return mean and standard error over seeds at each epoch."""
    columns = list(zip(*(each[setting] for each in part["curves"].values()), strict=True))
    means = [statistics.mean(column) for column in columns]
    return means, [statistics.stdev(column) / len(column) ** 0.5 for column in columns]


def draw(axis: Axes, part: Part, parts: dict[str, Part]) -> None:
    """Draw the mean of each setting with a band of one standard error."""
    epochs = part["epochs"]
    curves = [(label(part, value), *band(part, i)) for i, value in enumerate(part["settings"])]
    if "noise_unit" in part["training"]:
        rates = parts["rates"]
        at = rates["settings"].index(part["training"]["lr"])
        curves.insert(0, ("no noise", *band(rates, at)))
    for (text, means, errors), colour in zip(curves, COLOURS, strict=False):
        axis.plot(epochs, means, color=colour, linewidth=1.2, label=text)
        low = [m - e for m, e in zip(means, errors, strict=True)]
        high = [m + e for m, e in zip(means, errors, strict=True)]
        axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    for at in part["prunings"]:
        axis.axvline(epochs[at], color="#777777", linewidth=0.6, linestyle=":")
    if len(curves) > 1:
        axis.legend(fontsize=8)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_xlabel("epoch (dotted: 20 % of the rest pruned)" if part["prunings"] else "epoch")
    axis.set_ylabel("(1/n) Σ (f(xᵢ) − E f) zᵢ")
    axis.grid(linewidth=0.3)


def label(part: Part, value: float) -> str:
    """Return the text of a setting."""
    if "noise_unit" in part["training"]:
        unit = " × RMS of the gradient" if part["training"]["noise_unit"] == "relative" else ""
        return f"gradient noise {value:g}{unit}"
    return f"learning rate {value:g}" if value else ""


def table(part: Part) -> str:
    """Lay means and standard errors out, at ten epochs."""
    epochs = part["epochs"]
    chosen = sorted({round(i * (len(epochs) - 1) / 9) for i in range(10)})
    lines = ["epoch".ljust(12) + "".join(f"{epochs[i]:>16}" for i in chosen)]
    for setting, value in enumerate(part["settings"]):
        means, errors = band(part, setting)
        lines.append(
            f"{value:<12g}" + "".join(f"{means[i]:>8.3f} ± {errors[i]:.3f}" for i in chosen)
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
