"""``ntktheory score``: the scores of a network's prunable weights, layer by layer."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli import inputs, shared
from ntktheory.cli.output import (
    check_target,
    summary_text,
    table_text,
    versions,
    working,
)
from ntktheory.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory score px --model convnet --batch 32 --out scores.safetensors
ntktheory score snip --model resnet20 --data cifar10-jpeg --data-dir ~/data --option bn=train --json
"""


def score(
    scorer: shared.ScorerName,
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
            metavar="FILE.safetensors", help="Write the scores by parameter name, all or nothing."
        ),
    ] = None,
    as_json: shared.AsJSON = False,
) -> None:
    """Score the prunable weights of a network on a batch; a larger score is a weight to keep.

    Prunable are the weights of linear and convolution layers. The mass of a layer is its share of the
    sum of all |scores|. Scores are those of the network under --masks.
    """
    check_target("--out", out, (".safetensors",))
    kept = inputs.read_masks(masks)
    ready = shared.prepare(
        scorer, option, model, arg, data, batch,
        data_dir=data_dir, split=split, dtype=dtype, seed=seed,
    )  # fmt: skip
    from ntktheory.pruning import score as scored

    start = time.perf_counter()
    with working(scorer):
        found = scored(ready.network, scorer, masks=kept, **ready.given)
    summary = {
        "scorer": scorer,
        "options": ready.options,
        "model": model,
        "data": ready.source,
        "dtype": dtype.value,
        "seed": seed,
        "masks": None if masks is None else str(masks),
        "seconds": time.perf_counter() - start,
        "out": None if out is None else str(out),
    }
    if out is not None:
        with replacing(out) as draft:
            _save(draft, found, summary)
    layers = _layers(found)
    if as_json:
        typer.echo(json.dumps({**summary, "layers": layers, "versions": versions()}))
    else:
        typer.echo(_report(summary, layers))


def _layers(scores: "dict[str, Tensor]") -> dict[str, dict[str, Any]]:
    """Return what is said of every layer."""
    import torch

    sums = {name: float(s.abs().sum(dtype=torch.float64)) for name, s in scores.items()}
    total = sum(sums.values())
    return {
        name: {
            "weights": s.numel(),
            "minimum": float(s.min()),
            "median": float(s.median()),
            "maximum": float(s.max()),
            "zeros": int((s == 0).sum()),
            "mass": sums[name] / total if total else 0.0,
        }
        for name, s in scores.items()
    }


def _report(summary: dict[str, Any], layers: dict[str, dict[str, Any]]) -> str:
    columns = ("layer", "weights", "min", "median", "max", "zeros", "mass")
    rows = [
        (name, str(layer["weights"]), *(f"{layer[k]:.4g}" for k in ("minimum", "median", "maximum")),
         str(layer["zeros"]), f"{layer['mass']:.4f}")
        for name, layer in layers.items()
    ]  # fmt: skip
    shown = {**summary, "options": shared.options_text(summary["options"])}
    return "\n\n".join([summary_text(shown), table_text(columns, rows)])


def _save(path: Path, scores: "dict[str, Tensor]", summary: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: s.contiguous() for name, s in scores.items()}, path, {"notes": json.dumps(summary)}
    )
