"""``ntktheory prune``: masks in a file, the density of every layer, and what is left of the network."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli import inputs, shared
from ntktheory.cli.output import check_target, summary_text, table_text, versions

if TYPE_CHECKING:
    from ntktheory.pruning import MaskHealth, PruneResult

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory prune px --density 0.1 --model convnet --out masks.safetensors
ntktheory prune synflow --compression 100 --rounds 100 --model resnet20 --resume run.safetensors
"""


def prune(
    scorer: shared.ScorerName,
    density: Annotated[
        float | None, typer.Option(help="Kept weights ÷ prunable weights, in (0, 1].")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Instead of the density d: 1 − d, in [0, 1).")
    ] = None,
    compression: Annotated[
        float | None, typer.Option(help="Instead of the density d: 1/d, at least 1.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How many; default: the scorer's published number.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="exponential|linear|inverse|one_shot",
            help="How the density falls; default: the scorer's.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="global|uniform|erk|FILE.safetensors",
            help="How layers share the kept weights, or masks whose layer densities to take, scaled to "
            "the density; default: the scorer's.",
        ),
    ] = None,
    floor: Annotated[
        int, typer.Option(min=0, help="Weights that every layer keeps at least, if it has them.")
    ] = 0,
    model: inputs.ModelName = "mlp",
    arg: inputs.ModelOptions = None,
    data: inputs.DataName = "digits",
    data_dir: inputs.DataFolder = None,
    split: inputs.Split = None,
    batch: shared.BatchSize = None,
    option: shared.ScorerOptions = None,
    dtype: shared.Type = shared.DType.float32,
    seed: shared.Seed = 0,
    masks: inputs.MaskFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Write the masks by parameter name, all or nothing; --masks of other commands reads "
            "them.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Keep the last complete round there; if the file exists, go on from it.",
        ),
    ] = None,
    as_json: shared.AsJSON = False,
) -> None:
    """Prune a network at initialisation with one of the scorers.

    Exactly max(1, round(density · P)) of the P prunable weights are kept; ties go by index. The table
    has for every layer what is kept, what of it is on a path from an input to an output (live), and
    the units that no live weight enters. What --masks drop never comes back.
    """
    kept = shared.read_density(density, sparsity, compression)
    check_target("--out", out, (".safetensors",))
    check_target("--resume", resume, (".safetensors",))
    _check_apart(out, resume)
    first = inputs.read_masks(masks)
    ready = shared.prepare(
        scorer, option, model, arg, data, batch,
        data_dir=data_dir, split=split, dtype=dtype, seed=seed,
    )  # fmt: skip
    from ntktheory.pruning import prune as pruned
    from ntktheory.pruning import save_masks

    result = pruned(
        ready.network,
        scorer,
        kept,
        rounds=rounds,
        schedule=schedule,  # type: ignore[arg-type]
        budget=_budget(budget),
        floor=floor,
        masks=first,
        progress=sys.stderr.isatty(),
        resume=resume,
        **ready.given,
    )
    health, refusal = _health(ready, result)
    summary = {
        "scorer": scorer,
        "options": ready.options,
        "model": model,
        "data": ready.source,
        "dtype": dtype.value,
        "seed": seed,
        "rounds": len(result.history),
        "schedule": result.settings["schedule"],
        "budget": budget or result.settings["budget"],
        "floor": floor,
        "first_masks": None if masks is None else str(masks),
        "density": result.density,
        "seconds": sum(entry.seconds for entry in result.history),
        "out": None if out is None else str(out),
    }
    if out is not None:
        said = {k: v for k, v in summary.items() if k not in ("scorer", "density", "out")}
        save_masks(out, result.masks, scorer=scorer, density=result.density, **said)
    if as_json:
        typer.echo(json.dumps(_record(summary, result, health, refusal)))
    else:
        typer.echo(_report(summary, result, health, refusal))


def _check_apart(out: Path | None, resume: Path | None) -> None:
    """Check that the masks do not take the place of the run, or the other way round."""
    from ntktheory.checks import complaint

    if out is not None and resume is not None and out.absolute() == resume.absolute():
        raise ValueError(complaint("--resume", "another file than --out", str(out), "Rename one."))


def _budget(text: str | None) -> Any:
    """Return a budget by name, or masks from a file."""
    if text is None or Path(text).suffix != ".safetensors":
        return text
    from ntktheory.pruning import load_masks

    return load_masks(text)


def _health(ready: shared.Scored, result: "PruneResult") -> "tuple[MaskHealth | None, str | None]":
    """Return the health of the masks, or why there is none for this network."""
    from ntktheory.checks import UnsupportedModule
    from ntktheory.pruning import mask_health

    try:
        shape = ready.given["input_shape"]
        return mask_health(ready.network, result.masks, input_shape=shape), None
    except UnsupportedModule as error:
        return None, str(error)


def _record(
    summary: dict[str, Any],
    result: "PruneResult",
    health: "MaskHealth | None",
    refusal: str | None,
) -> dict[str, Any]:
    """Return the result for JSON, which knows no infinity: no path is null."""
    layers = {
        name: {"weights": mask.numel(), "kept": int(mask.sum()), "density": result.per_layer[name]}
        for name, mask in result.masks.items()
    }
    found: dict[str, Any] = {"refused": refusal}
    if health is not None:
        for name, layer in health.layers.items():
            layers[name] |= asdict(layer)
        found = {
            "log10_paths": health.log10_paths if any(health.widths.values()) else None,
            "effective_density": health.effective_density,
            "collapsed": list(health.collapsed),
        }
    return {
        **summary,
        "layers": layers,
        "health": found,
        "history": [asdict(entry) for entry in result.history],
        "versions": versions(),
    }


def _report(
    summary: dict[str, Any],
    result: "PruneResult",
    health: "MaskHealth | None",
    refusal: str | None,
) -> str:
    columns = ["layer", "weights", "kept", "density"]
    rows = [
        [name, str(mask.numel()), str(int(mask.sum())), f"{result.per_layer[name]:.4g}"]
        for name, mask in result.masks.items()
    ]
    below: dict[str, Any] = {"health": refusal}
    if health is not None:
        columns += ["live", "outputs", "dead outputs"]
        for row, layer in zip(rows, health.layers.values(), strict=True):
            row += [str(layer.live), str(layer.outputs), str(layer.dead_outputs)]
        below = {
            "paths": f"10^{health.log10_paths:.2f}" if any(health.widths.values()) else "none",
            "effective_density": health.effective_density,
            "collapsed": ", ".join(health.collapsed) or "no layer",
        }
    shown = {**summary, "options": shared.options_text(summary["options"])}
    parts = [summary_text(shown), table_text(columns, rows), summary_text(below)]
    return "\n\n".join(parts)
