"""The plot of ``ntktheory bounds``: every bound over the exact trace, on a log axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that colour-blind eyes tell apart, and arrows that point to where the trace may lie.
STYLES = {"upper": ("#0072B2", "<"), "surrogate": ("#7F7F7F", "D"), "lower": ("#D55E00", ">")}
LABELS = {"upper": "upper bound", "surrogate": "surrogate, no bound", "lower": "lower bound"}


@dataclass(frozen=True)
class Rung:
    """One bound: its name, its kind (upper, surrogate, lower) and its value."""

    name: str
    kind: str
    value: float


def draw_ladder(path: Path, rungs: Sequence[Rung], trace: float | None, title: str) -> None:
    """Draw the bounds in their order, from top to bottom; the exact trace is the line at 1.

    Args:
        path: The file; its suffix says the format.
        rungs: The bounds.
        trace: The exact trace; None or 0 means that the values themselves are drawn.
        title: What they are the bounds of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.5 + 0.3 * len(rungs)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if any(rung.value > 0 for rung in rungs):
        axes.set_xscale("log")
    for row, rung in enumerate(rungs):
        _draw(axes, row, rung, trace)
    if trace:
        axes.axvline(1, color="black", linewidth=1, zorder=1, label="exact trace")
    axes.set_yticks(range(len(rungs)), [rung.name for rung in rungs])
    axes.set_ylim(len(rungs) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel=_axis(trace), title=title)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        figure.legend(
            once.values(), once.keys(), loc="outside lower center", ncols=len(once), frameon=False
        )
    figure.savefig(path)


def _draw(axes: "Axes", row: int, rung: Rung, trace: float | None) -> None:
    """Draw one bound, its distance to the trace, and its number."""
    ratio = rung.value / (trace or 1.0)
    colour, marker = STYLES[rung.kind]
    if 0 < ratio < inf:
        axes.plot(ratio, row, marker, color=colour, label=LABELS[rung.kind], linestyle="none")
        if trace:
            axes.plot([1, ratio], [row, row], color=colour, linewidth=1)
    text = f"{ratio:.3g}" if ratio > 0 else "0 (off the axis)"
    axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center")


def _axis(trace: float | None) -> str:
    if trace is None:
        return "bound on the trace"
    return "bound ÷ exact trace" if trace else "bound (the exact trace is 0)"
