"""Figures of the report: pure functions from a claim's evidence to an SVG drawing.

Text and axes are drawn in ``currentColor``, the ground is transparent, and every line colour has a
contrast of at least 3:1 on white and on near-black, so that one drawing serves both colour schemes.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Evidence = Mapping[str, Any]
Draw = Callable[[Evidence], str | None]

LEAST_PIXELS_PER_INCH = 62
INK = "#010203"  # stands for currentColor, which matplotlib does not know
BLUE, VERMILION, GREEN, PINK = "#2b83ba", "#d55e00", "#009e73", "#c0699b"
OCHRE, VIOLET, GREY, BROWN = "#a67c00", "#8468c4", "#7f7f7f", "#a0522d"

# name in the evidence -> label, colour, marker
BOUNDS: dict[str, tuple[str, str, str]] = {
    "px": ("R_PX", VERMILION, "o"),
    "px_per_output": ("R_PX per output", PINK, "s"),
    "edge": ("R_edge", BLUE, "^"),
    "edge_per_output": ("R_edge per output", GREEN, "v"),
    "abs": ("R_abs", VIOLET, "D"),
    "half": ("R_half", OCHRE, "P"),
    "op": ("R_op", BROWN, "X"),
    "t_sq": ("T_sq (no bound)", GREY, "*"),
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "figures",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "axes.unicode_minus": True,
}


def looseness_by_depth(evidence: Evidence) -> str | None:
    """Draw bound ÷ trace against depth, at the width that occurs at most depths.

    Args:
        evidence: ``looseness``: a list of {depth, width, trace, ratios: {bound: ratio}}.

    Returns:
        The drawing, or None if there are fewer than two depths at any one width.
    """
    return _looseness(evidence, along="depth", across="width", label="weight layers")


def looseness_by_width(evidence: Evidence) -> str | None:
    """Draw bound ÷ trace against width, at the depth that occurs at most widths.

    Args:
        evidence: As for `looseness_by_depth`.

    Returns:
        The drawing, or None if there are fewer than two widths at any one depth.
    """
    return _looseness(evidence, along="width", across="depth", label="width")


def bias_curves(evidence: Evidence) -> str | None:
    """Draw the relative bias of the finite difference against σ, one panel per network.

    Args:
        evidence: ``bias_curves``: a list of {network, sigma, exact, leading, monte_carlo, low,
            high}; every list along sigma, any of them but sigma may be missing or null.

    Returns:
        The drawing, or None without curves.
    """
    curves = [curve for curve in evidence.get("bias_curves") or [] if curve.get("sigma")]
    if not curves:
        return None
    columns = min(len(curves), 2)
    rows = math.ceil(len(curves) / columns)

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        axes = list(grid.flat)
        for axis, curve in zip(axes, curves, strict=False):
            _bias_panel(axis, curve)
        for axis in axes[len(curves) :]:
            axis.set_visible(False)
        for axis in axes[max(0, len(curves) - columns) : len(curves)]:
            axis.set_xlabel("σ")
        for row in grid:
            row[0].set_ylabel("E FD / (σ² Tr) − 1")
        handles = {h.get_label(): h for a in axes for h in _handles(a)}
        _legend(figure, list(handles.values()), columns=3)

    return render(draw, width=3.6 * columns if columns > 1 else 4.8, height=2.7 * rows + 0.4)


FIGURES: dict[str, list[tuple[str, str, Draw]]] = {
    "ladder": [
        (
            "How loose the bounds are, by depth",
            "Bound ÷ exact trace; 1 is tight. Every weight layer multiplies the looseness of R_PX; "
            "the bounds below it on the ladder lose less.",
            looseness_by_depth,
        ),
        (
            "How loose the bounds are, by width",
            "Bound ÷ exact trace at a fixed number of weight layers.",
            looseness_by_width,
        ),
    ],
    "S2": [
        (
            "Bias of the finite difference",
            "Relative bias against the standard deviation σ of the perturbation: exact mean, its "
            "leading term, and Monte Carlo means with intervals.",
            bias_curves,
        )
    ],
}


def figures_for(id_: str, evidence: Evidence) -> list[dict[str, str]]:
    """Return the figures of one claim that its evidence allows.

    Args:
        id_: The claim's id.
        evidence: Its evidence.

    Returns:
        Title, caption and SVG of each.
    """
    drawn = []
    for number, (title, caption, draw) in enumerate(FIGURES.get(id_, [])):
        svg = draw(evidence)
        if svg is not None:
            drawn.append(
                {"title": title, "caption": caption, "svg": _scoped(svg, f"{id_}-{number}", title)}
            )
    return drawn


def render(draw: Callable[["Figure"], None], *, width: float, height: float) -> str:
    """Draw a figure without any display and return it as an SVG element.

    Args:
        draw: Fills the empty figure.
        width: In inches.
        height: In inches.

    Returns:
        The ``<svg>`` element, scalable down to a legible width, without prolog or metadata.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    least = f'style="min-width: {LEAST_PIXELS_PER_INCH * width:.0f}px"'
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf"\1 {least}", svg, count=1)
    return svg.replace(INK, "currentColor").strip()


def _scoped(svg: str, scope: str, title: str) -> str:
    """Return a drawing with ids that are unique in the page and a name for a screen reader."""
    prefix = re.sub(r"\W", "-", scope)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _looseness(evidence: Evidence, *, along: str, across: str, label: str) -> str | None:
    series = _widest_slice(evidence.get("looseness") or [], along, across)
    if len(series) < 2:
        return None
    names = [n for n in BOUNDS if any(_positive(entry["ratios"].get(n)) for entry in series)]
    names.sort(key=lambda n: -_last(series, n))

    def draw(figure: "Figure") -> None:
        axis = figure.subplots()
        for name in names:
            points = [(e[along], e["ratios"].get(name)) for e in series]
            points = [(x, y) for x, y in points if _positive(y)]
            text, colour, marker = BOUNDS[name]
            style = "--" if name == "t_sq" else "-"
            axis.plot(*zip(*points, strict=True), style, color=colour, marker=marker, label=text)
        axis.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
        axis.set_yscale("log")
        axis.set_xlabel(label)
        axis.set_ylabel("bound ÷ trace")
        axis.set_title(f"{across} {series[0][across]}")
        _value_ticks(axis, [entry[along] for entry in series], log=along == "width")
        axis.grid(axis="y")
        _legend(figure, _handles(axis), columns=3)

    return render(draw, width=4.8, height=3.5)


def _widest_slice(entries: Sequence[Evidence], along: str, across: str) -> list[Evidence]:
    """Return the entries of one value of ``across``: most points, then the largest value."""
    slices: dict[Any, dict[Any, Evidence]] = {}
    for entry in entries:
        if entry.get("ratios") and along in entry and across in entry:
            slices.setdefault(entry[across], {})[entry[along]] = entry
    if not slices:
        return []
    value = max(slices, key=lambda v: (len(slices[v]), v))
    return [slices[value][x] for x in sorted(slices[value])]


def _bias_panel(axis: "Axes", curve: Evidence) -> None:
    sigma = curve["sigma"]
    lines = [curve.get(name) for name in ("exact", "leading", "monte_carlo", "low", "high")]
    negative = bool(lines[0]) and all(_number(v) and v < 0 for v in lines[0] or [])
    if negative:
        lines = [[-v if _number(v) else v for v in line or []] for line in lines]
    exact, leading, mean, low, high = lines
    if negative:
        low, high = high, low
    if exact:
        axis.plot(*_finite(sigma, exact), "-", color=BLUE, label="exact mean")
    if leading:
        axis.plot(*_finite(sigma, leading), "--", color=VERMILION, label="leading term")
    if mean:
        xs, ys = _finite(sigma, mean)
        bars = None
        if low and high:
            at = {x: (m - a, b - m) for x, m, a, b in zip(sigma, mean, low, high, strict=True)}
            bars = [[max(0.0, at[x][side]) for x in xs] for side in (0, 1)]
        axis.errorbar(
            xs, ys, bars, fmt="o", color=GREEN, markersize=4, capsize=2.5, label="Monte Carlo"
        )
    sign = " (−bias)" if negative else ""
    axis.set_title(str(curve.get("network", "")) + sign)
    axis.set_xscale("log")
    if all(_positive(v) for line in (exact, leading, mean) if line for v in line):
        axis.set_yscale("log", nonpositive="clip")
    else:
        axis.axhline(0.0, color=INK, linewidth=0.8, linestyle=":")
    axis.grid(axis="y")


def _finite(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the points whose value is a finite number; JSON holds the others as text or null."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if _number(y)]
    return [x for x, _ in points], [y for _, y in points]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _last(series: Sequence[Evidence], name: str) -> float:
    values = [e["ratios"].get(name) for e in series]
    return next((v for v in reversed(values) if _positive(v)), 0.0)


def _value_ticks(axis: "Axes", values: Sequence[float], *, log: bool) -> None:
    if log:
        axis.set_xscale("log", base=2)
    axis.set_xticks(values, [f"{v:g}" for v in values])


def _handles(axis: "Axes") -> list[Any]:
    return axis.get_legend_handles_labels()[0]


def _legend(figure: "Figure", handles: Sequence[Any], *, columns: int) -> None:
    figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=columns,
        handlelength=2.2,
        columnspacing=1.4,
    )
