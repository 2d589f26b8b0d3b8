"""``ntktheory information noise``: how students go along with their labels' noise, at any size."""

import json
from typing import Annotated

import typer

from ntktheory.cli.information_memorise import AsJson, Init, Optimizer, Seeds
from ntktheory.cli.output import mean_text, summary_text, table_text, versions, working
from ntktheory.cli.shared import check_left_out, read_widths

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory information noise --epochs 30 --seeds 2
ntktheory information noise --epochs 300 --prune-every 100 --json
ntktheory information noise --student 50,50 --teacher 20 --dim 10 --optimizer sgd --epochs 30
"""


def noise(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples.")] = 100,
    seeds: Seeds = 2,
    samples: Annotated[int, typer.Option(min=1, help="n.")] = 1000,
    dim: Annotated[int, typer.Option(min=1, help="Dimension of the inputs.")] = 50,
    noise_variance: Annotated[float, typer.Option(help="Variance of the labels' noise.")] = 1.0,
    fresh: Annotated[
        int, typer.Option(min=2, help="Fresh inputs on which E f is estimated.")
    ] = 1000,
    student: Annotated[
        str, typer.Option(metavar="WIDTH,…", help="Hidden units of the students, layer by layer.")
    ] = "100,100,100,100",
    teacher: Annotated[
        str, typer.Option(metavar="WIDTH,…", help="Hidden units of the teachers.")
    ] = "50,50",
    init: Init = "torch",
    optimizer: Optimizer = "adam",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 64,
    gradient_noise: Annotated[float, typer.Option(help="Size of the noise on gradients.")] = 0.0,
    noise_unit: Annotated[
        str | None,
        typer.Option(
            metavar="absolute|relative",
            help="Its unit: 1, or the gradient's size; default absolute.",
        ),
    ] = None,
    prune_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between prunings; default: none.")
    ] = None,
    drop: Annotated[
        float | None,
        typer.Option(help="Fraction of the rest that a pruning drops; default 0.2."),
    ] = None,
    go_on: Annotated[
        str | None,
        typer.Option(
            metavar="weights|init", help="From which weights after a pruning; default weights."
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Epochs between lines.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Train students on a teacher's noisy labels, and follow how they go along with the noise.

    ``(1/n) Σ (f(x_i) − E f) z_i``, with E f estimated on --fresh inputs; "error" is what that leaves
    open. sgd has momentum 0.9. Options are the data's, the networks', their training's and pruning's,
    in this order.
    """
    if prune_every is None:
        pruning = {"--drop": drop, "--go-on": go_on}
        check_left_out(pruning, "where nothing is pruned", "Add --prune-every.")
    if gradient_noise == 0:
        unit = {"--noise-unit": noise_unit}
        check_left_out(unit, "without noise on gradients", "Add --gradient-noise.")
    given = {
        "samples": samples, "dim": dim, "student": read_widths("--student", student),
        "teacher": read_widths("--teacher", teacher), "noise_variance": noise_variance,
        "fresh": fresh, "init": init,
    }  # fmt: skip
    training = {
        "epochs": epochs, "optimizer": optimizer, "lr": lr, "batch": batch,
        "gradient_noise": gradient_noise,
        "noise_unit": "absolute" if noise_unit is None else noise_unit,
        "prune_every": prune_every, "drop": 0.2 if drop is None else drop,
        "go_on": "weights" if go_on is None else go_on, "every": every,
    }  # fmt: skip
    from ntktheory.information.noise_correlation import student_teacher, track_noise

    task = student_teacher(range(seeds), **given)  # type: ignore[arg-type]  # checked there
    with working("training"):
        curve = track_noise(task, **training)  # type: ignore[arg-type]
    unused = ["drop", "go_on"] * (prune_every is None) + ["noise_unit"] * (gradient_noise == 0)
    summary = {k: v for k, v in (given | {"seeds": seeds} | training).items() if k not in unused}
    if as_json:
        typer.echo(json.dumps({
            "settings": summary,
            "epochs": curve.epochs, "densities": curve.densities, "prunings": curve.prunings,
            "values": curve.values.tolist(), "errors": curve.errors.tolist(),
            "losses": curve.losses.tolist(), "versions": versions(),
        }))  # fmt: skip
        return
    rows = [
        [str(epoch), f"{curve.densities[i]:.4f}", mean_text(curve.values[i].tolist()),
         f"{float(curve.errors[i].max()):.4f}", f"{float(curve.losses[i].mean()):.4f}"]
        for i, epoch in enumerate(curve.epochs)
    ]  # fmt: skip
    table = table_text(["epoch", "density", "correlation", "error", "loss"], rows)
    typer.echo(f"{summary_text(summary)}\n\n{table}")
