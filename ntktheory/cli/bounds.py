"""``ntktheory bounds``: the ladder of bounds on the trace of the NTK, as a table and a plot."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli import inputs
from ntktheory.cli.ladder_plot import Rung, draw_ladder
from ntktheory.cli.output import (
    PLOTS,
    check_target,
    summary_text,
    table_text,
    versions,
    working,
)
from ntktheory.files import replacing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ntktheory.paths import PathBounds


# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory bounds --model convnet --samples 32 --plot ladder.png
ntktheory bounds --model resnet20 --data cifar10-jpeg --data-dir ~/data --names px,edge --json
"""


@dataclass(frozen=True)
class Computed:
    """Bounds, the exact trace where it was asked for, and its seconds."""

    bounds: "PathBounds"
    trace: float | None
    trace_seconds: float | None


def bounds(
    model: inputs.ModelName = "mlp",
    arg: inputs.ModelOptions = None,
    data: inputs.DataName = "digits",
    data_dir: inputs.DataFolder = None,
    split: inputs.Split = None,
    samples: inputs.Samples = None,
    seed: inputs.Seed = 0,
    masks: inputs.MaskFile = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Which bounds, such as px,edge; default: all that are defined for the network and "
            "affordable. A wrong name lists the right ones.",
        ),
    ] = None,
    no_trace: Annotated[
        bool, typer.Option("--no-trace", help="Leave out the exact trace, and so all ratios to it.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|svg|pdf",
            help="Plot every bound divided by the trace (without it: as it is), on a log axis.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
) -> None:
    """Bound the trace of the NTK of a network on data through its paths, and compare with the trace.

    The trace is the sum over samples and outputs of the squared gradients by all kept parameters,
    never a mean. Upper bounds come first, from the loosest to the tightest; then the surrogate
    t_sq, which bounds nothing; then the lower bounds. All in float64: the network is that of
    ntktheory ntk --dtype float64 with the same seed.
    """
    check_target("--plot", plot, PLOTS)
    options = inputs.read_options(arg)
    inputs.check_model(model, options)
    import torch

    kept = inputs.read_masks(masks)
    kind = torch.float64
    x, source = inputs.read_inputs(data, samples, dtype=kind, data_dir=data_dir, split=split)
    network = inputs.build_network(model, options, x, seed)
    found = _computed(network, x, names, kept, exact=not no_trace)
    summary = {
        "model": model,
        "data": source,
        "seed": seed,
        "masks": None if masks is None else str(masks),
        "density": _density(network, kept),
    }
    rungs = _rungs(found.bounds)
    if plot is not None:
        with replacing(plot) as draft:
            draw_ladder(draft, rungs, found.trace, f"{model} on {source}")
    if as_json:
        typer.echo(json.dumps(_record(summary, found, plot)))
    else:
        typer.echo(_report(summary, found, rungs, plot))


def _computed(
    network: "nn.Module",
    x: "Tensor",
    names: str | None,
    masks: "dict[str, Tensor] | None",
    *,
    exact: bool,
) -> Computed:
    import torch

    from ntktheory.paths import path_bounds

    # Torch loads its compiler at the first use of a function transform, which is no bound's time.
    path_bounds(torch.nn.Linear(1, 1), torch.ones(1, 1))
    wanted = None if names is None else [name.strip() for name in names.split(",")]
    with working("bounds"):
        found = path_bounds(network, x, names=wanted, masks=masks)
    if not exact:
        return Computed(found, None, None)
    start = time.perf_counter()
    with working("exact trace"):
        trace = found.trace
    return Computed(found, trace, time.perf_counter() - start)


def _density(network: "nn.Module", masks: "dict[str, Tensor] | None") -> float | None:
    """Return the fraction of prunable weights that the masks keep; None without masks."""
    if masks is None:
        return None
    from ntktheory.functional import functional

    model = functional(network)
    sizes = {name: model.params[name].numel() for name in model.prunable}
    kept = {name: int(masks[name].sum()) if name in masks else n for name, n in sizes.items()}
    return sum(kept.values()) / sum(sizes.values()) if sizes else None


def _rungs(found: "PathBounds") -> list[Rung]:
    """Return upper bounds, surrogate and lower bounds, each from the largest to the smallest."""
    surrogate = {} if found.t_sq is None else {"t_sq": found.t_sq}
    kinds = {"upper": found.upper, "surrogate": surrogate, "lower": found.lower}
    return [
        Rung(name, kind, value)
        for kind, values in kinds.items()
        for name, value in sorted(values.items(), key=lambda item: -item[1])
    ]


def _record(summary: dict[str, Any], found: Computed, plot: Path | None) -> dict[str, Any]:
    """Return the result for JSON; the numbers are exactly those of ``path_bounds``."""
    seconds = dict(found.bounds.seconds)
    if found.trace_seconds is not None:
        seconds["trace"] = found.trace_seconds
    return {
        **summary,
        "trace": found.trace,
        "upper": dict(found.bounds.upper),
        "lower": dict(found.bounds.lower),
        "t_sq": found.bounds.t_sq,
        "kinks": found.bounds.kinks,
        "seconds": seconds,
        "plot": None if plot is None else str(plot),
        "versions": versions(),
    }


def _report(summary: dict[str, Any], found: Computed, rungs: list[Rung], plot: Path | None) -> str:
    """Return the table, and what stands above and below it."""
    seconds = found.bounds.seconds
    rows = [(rung.name, rung.kind, rung.value, seconds.get(rung.name)) for rung in rungs]
    if found.trace is not None:
        rows.append(("trace", "exact", found.trace, found.trace_seconds))
    columns = ["name", "kind", "value", "÷ trace", "seconds"]
    cells = [
        [name, kind, f"{value:.6g}", _ratio(value, found.trace), "–" if s is None else f"{s:.3f}"]
        for name, kind, value, s in rows
    ]
    if found.trace is None:
        for row in (columns, *cells):
            del row[3]
    below = {"kinks": found.bounds.kinks or None, "plot": plot}
    parts = [summary_text(summary), table_text(columns, cells)]
    return "\n\n".join([*parts, *([summary_text(below)] if any(below.values()) else [])])


def _ratio(value: float, trace: float | None) -> str:
    return f"{value / trace:.4g}" if trace else "–"
