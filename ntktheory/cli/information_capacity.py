"""``ntktheory information memorise`` and ``noise``: the capacity experiments at any size."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli.inputs import DataFolder
from ntktheory.cli.output import summary_text, table_text, versions, working

if TYPE_CHECKING:
    from ntktheory.information.memorization import Pack, Training

# \b keeps the lines as they are.
MEMORISE_EXAMPLES = """\b
ntktheory information memorise --method snip --method magnitude_after --seeds 4
ntktheory information memorise --data digits --images 200 --method random --seeds 2
ntktheory information memorise --data fashion_mnist --data-dir data --images 1000
"""
NOISE_EXAMPLES = """\b
ntktheory information noise --epochs 30 --seeds 2
ntktheory information noise --epochs 300 --prune-every 100 --json
"""
METHODS = ("magnitude_after", "snip", "random")
DENSITIES = (0.1, 0.05, 0.02, 0.01)
Seeds = Annotated[
    int, typer.Option(min=1, help="How many networks, each with its own data; seeds 0, 1, ….")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


def memorise(
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="imp, magnitude_after or a scorer of ntktheory scorers; repeat it for more. Default: "
            + ", ".join(METHODS)
            + ".",
        ),
    ] = None,
    density: Annotated[
        list[float] | None,
        typer.Option(help="Fraction of weights kept; repeat it for more. Default: 0.1 … 0.01."),
    ] = None,
    seeds: Seeds = 4,
    data: Annotated[
        str,
        typer.Option(
            metavar="random-labels|NAME",
            help="random-labels: 30 Gaussian points with labels ±1. Else a data set of ntktheory data "
            "list, with noise on its images.",
        ),
    ] = "random-labels",
    images: Annotated[int, typer.Option(min=1, help="How many images of a data set.")] = 500,
    data_dir: DataFolder = None,
    noise_variance: Annotated[float, typer.Option(help="Variance of the noise on pixels.")] = 3.0,
    width: Annotated[
        int | None, typer.Option(min=1, help="Hidden units per layer; default 100, images 200.")
    ] = None,
    init: Annotated[str, typer.Option(metavar="he|torch", help="How weights are drawn.")] = "torch",
    optimizer: Annotated[str, typer.Option(metavar="adam|sgd")] = "adam",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default 0.01, images 0.001.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most; default 1,000, images 100.")
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(
            metavar="steps|level|change",
            help="When a network is finished: after all epochs; at a loss of 0.01; or when the loss "
            "moves by no more. Default: steps, images level.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train networks under the masks of methods, and count the samples that they memorise.

    Memorised: a loss of at most (log 2)/10 after training from the initialisation under the mask. One
    line per density, with the mean over seeds and its standard error.
    """
    from ntktheory.information.memorization import Training, masks_of, memorised

    pictures = data != "random-labels"
    training = Training(
        optimizer=optimizer,  # type: ignore[arg-type]  # checked where it is used
        lr=lr or (1e-3 if pictures else 1e-2),
        epochs=epochs or (100 if pictures else 1000),
        batch=64 if pictures else None,
        stop=stop or ("level" if pictures else "steps"),  # type: ignore[arg-type]
    )
    wide = width or (200 if pictures else 100)
    pack = _pack(data, seeds, wide, init, images, noise_variance, data_dir)
    densities = list(density or DENSITIES)
    found: dict[str, list[list[float]]] = {}
    for name in dict.fromkeys(method or METHODS):
        with working(name):
            masks = masks_of(pack, name, densities, training)
            each = [memorised(pack, masks[kept], training) for kept in densities]
        found[name] = [(one.counts / one.samples).tolist() for one in each]
    summary = _summary(pack, data, wide, init, training)
    if as_json:
        typer.echo(json.dumps(summary | {"densities": densities, "memorised": found,
                                         "versions": versions()}))  # fmt: skip
        return
    rows = [
        [f"{kept:g}", *(_mean(values[i]) for values in found.values())]
        for i, kept in enumerate(densities)
    ]
    typer.echo(f"{summary_text(summary)}\n\n{table_text(['density', *found], rows)}")


def noise(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples.")] = 100,
    seeds: Seeds = 2,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 64,
    prune_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between prunings; default: none.")
    ] = None,
    drop: Annotated[float, typer.Option(help="Fraction of the rest that a pruning drops.")] = 0.2,
    go_on: Annotated[
        str, typer.Option(metavar="weights|init", help="From which weights after a pruning.")
    ] = "weights",
    gradient_noise: Annotated[float, typer.Option(help="Size of the noise on gradients.")] = 0.0,
    noise_unit: Annotated[
        str, typer.Option(metavar="absolute|relative", help="Its unit: 1, or the gradient's size.")
    ] = "absolute",
    noise_variance: Annotated[float, typer.Option(help="Variance of the labels' noise.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="n.")] = 1000,
    every: Annotated[int, typer.Option(min=1, help="Epochs between lines.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Train students on a teacher's noisy labels, and follow how they go along with the noise.

    ``(1/n) Σ (f(x_i) − E f) z_i``, with E f estimated on 1,000 fresh inputs; "error" is what that leaves
    open. Inputs have 50 dimensions, students five layers of width 100, teachers three of 50.
    """
    from ntktheory.information.noise_correlation import student_teacher, track_noise

    task = student_teacher(range(seeds), samples=samples, noise_variance=noise_variance)
    with working("training"):
        curve = track_noise(
            task, epochs=epochs, lr=lr, batch=batch, prune_every=prune_every, drop=drop,
            go_on=go_on,  # type: ignore[arg-type]  # checked there
            gradient_noise=gradient_noise, noise_unit=noise_unit, every=every,  # type: ignore[arg-type]
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({
            "epochs": curve.epochs, "densities": curve.densities, "prunings": curve.prunings,
            "values": curve.values.tolist(), "errors": curve.errors.tolist(),
            "losses": curve.losses.tolist(), "versions": versions(),
        }))  # fmt: skip
        return
    rows = [
        [str(epoch), f"{curve.densities[i]:.4f}", _mean(curve.values[i].tolist()),
         f"{float(curve.errors[i].max()):.4f}", f"{float(curve.losses[i].mean()):.4f}"]
        for i, epoch in enumerate(curve.epochs)
    ]  # fmt: skip
    typer.echo(table_text(["epoch", "density", "correlation", "error", "loss"], rows))


def _pack(
    data: str,
    seeds: int,
    width: int,
    init: str,
    images: int,
    variance: float,
    folder: Path | None,
) -> "Pack":
    from ntktheory.data import load_data
    from ntktheory.information.memorization import noisy_image_pack, random_label_pack

    if data == "random-labels":
        return random_label_pack(range(seeds), width=width, init=init)  # type: ignore[arg-type]
    x, y = load_data(data, images, data_dir=folder)
    return noisy_image_pack(
        x, y, range(seeds), noise_variance=variance, widths=[width] * 2, init=init,  # type: ignore[arg-type]
    )  # fmt: skip


def _summary(
    pack: "Pack", data: str, width: int, init: str, training: "Training"
) -> dict[str, Any]:
    return {
        "data": data, "samples": pack.inputs.shape[1], "dimensions": pack.inputs.shape[2],
        "width": width, "init": init, "seeds": len(pack.seeds), "optimizer": training.optimizer,
        "lr": training.lr, "epochs": training.epochs, "stop": training.stop,
    }  # fmt: skip


def _mean(values: list[float]) -> str:
    """Return mean and standard error over seeds as text."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.4f}"
    error = (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
    return f"{mean:.4f} ± {error:.4f}"
