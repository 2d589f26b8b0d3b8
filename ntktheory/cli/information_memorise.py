"""``ntktheory information memorise``: how much networks memorise under masks, at any size."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli.inputs import DataFolder
from ntktheory.cli.output import mean_text, summary_text, table_text, versions, working
from ntktheory.cli.shared import check_left_out

if TYPE_CHECKING:
    from ntktheory.information.memorization import Pack, Training

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory information memorise --method snip --method magnitude_after --seeds 4
ntktheory information memorise --method imp --drop 0.1 --budget uniform --init he --optimizer sgd
ntktheory information memorise --data digits --images 200 --method random --seeds 2
ntktheory information memorise --data fashion_mnist --data-dir data --images 1000
"""
METHODS = ("magnitude_after", "snip", "random")
TRAINED = ("imp", "magnitude_after")
DENSITIES = (0.1, 0.05, 0.02, 0.01)
RANDOM_LABELS = "random-labels"
PATIENCE = 3
Seeds = Annotated[
    int, typer.Option(min=1, help="How many networks, each with its own data; seeds 0, 1, ….")
]
Init = Annotated[str, typer.Option(metavar="he|torch", help="How weights are drawn.")]
Optimizer = Annotated[str, typer.Option(metavar="adam|sgd", help="The optimiser.")]
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
    drop: Annotated[
        float | None, typer.Option(help="Of imp: what a round drops of the rest; default 0.2.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="global|uniform",
            help="Of imp and magnitude_after: compare all weights, or those of a layer; default global.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Of scorers; default: the published number.")
    ] = None,
    seeds: Seeds = 4,
    threshold: Annotated[
        float | None,
        typer.Option(help="Largest loss, in nats, of a memorised sample; default (log 2)/10."),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar=f"{RANDOM_LABELS}|NAME",
            help=f"{RANDOM_LABELS}: Gaussian points with labels ±1. Else a data set of ntktheory data "
            "list, with noise on its images.",
        ),
    ] = RANDOM_LABELS,
    samples: Annotated[
        int | None, typer.Option(min=1, help=f"Points of {RANDOM_LABELS}; default 30.")
    ] = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help=f"Their dimension in {RANDOM_LABELS}; default 30.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many images of a data set; default 500.")
    ] = None,
    noise_variance: Annotated[
        float | None, typer.Option(help="Variance of the noise on pixels; default 3.")
    ] = None,
    data_dir: DataFolder = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Hidden units per layer; default 100, images 200.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 2,
    init: Init = "torch",
    optimizer: Optimizer = "adam",
    momentum: Annotated[float | None, typer.Option(help="Of sgd, in [0, 1); default 0.9.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default 0.01, images 0.001.")
    ] = None,
    schedule: Annotated[
        str, typer.Option(metavar="constant|cosine", help="Of the learning rate.")
    ] = "constant",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples per step; default all, images 64.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most; default 1,000, images 100.")
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(
            metavar="steps|level|change",
            help="When a network is finished: after all epochs; at a loss of --tolerance; or when the "
            "loss moves by no more. Default: steps, images level.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Of level and change, in nats; default 0.01.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of level and change: also finished once the accuracy is the same at so many more "
            f"looks; 0 = never. Default {PATIENCE}.",
        ),
    ] = None,
    look_every: Annotated[
        int | None,
        typer.Option(min=1, help="Of level and change: epochs between looks; default 1."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train networks under the masks of methods, and count the samples that they memorise.

    Memorised: a loss of at most --threshold after training from the initialisation under the mask. One
    line per density, with the mean over seeds and its standard error. Options are the methods', the
    data's, the networks' and their training's, in this order.
    """
    from ntktheory.information.memorization import THRESHOLD_NATS, Training, masks_of, memorised

    pictures = data != RANDOM_LABELS
    methods = list(dict.fromkeys(method or METHODS))
    stop = ("level" if pictures else "steps") if stop is None else stop
    given = {
        "--drop": drop, "--budget": budget, "--rounds": rounds, "--samples": samples, "--dim": dim,
        "--images": images, "--noise-variance": noise_variance, "--data-dir": data_dir,
        "--momentum": momentum, "--tolerance": tolerance, "--patience": patience,
        "--look-every": look_every,
    }  # fmt: skip
    _check_apply(methods, data, optimizer, stop, given)
    training = Training(
        optimizer=optimizer,  # type: ignore[arg-type]  # checked where it is used
        lr=_given(lr, 1e-3 if pictures else 1e-2),
        momentum=_given(momentum, 0.9),
        schedule=schedule,  # type: ignore[arg-type]
        epochs=_given(epochs, 100 if pictures else 1000),
        batch=_given(batch, 64 if pictures else None),
        stop=stop,  # type: ignore[arg-type]
        tolerance=_given(tolerance, 0.01),
        patience=_given(patience, PATIENCE) or None,
        look_every=_given(look_every, 1),
    )
    network = {"width": _given(width, 200 if pictures else 100), "layers": layers, "init": init}
    if pictures:
        source = {"images": _given(images, 500), "noise_variance": _given(noise_variance, 3.0)}
        pack = _noisy_images(data, seeds, folder=data_dir, **source, **network)
    else:
        pack = _points(seeds, samples=_given(samples, 30), dim=_given(dim, 30), **network)
        source = {}
    pruning = {"drop": _given(drop, 0.2), "budget": _given(budget, "global"), "rounds": rounds}
    nats = _given(threshold, THRESHOLD_NATS)
    densities = list(density or DENSITIES)
    found: dict[str, list[list[float]]] = {}
    for name in methods:
        with working(name):
            masks = masks_of(pack, name, densities, training, **pruning)
            each = [memorised(pack, masks[kept], training, threshold_nats=nats)
                    for kept in densities]  # fmt: skip
        found[name] = [(one.counts / one.samples).tolist() for one in each]
    summary = _summary(data, pack, source, network, training, methods, pruning, nats)
    if as_json:
        typer.echo(json.dumps(summary | {"densities": densities, "memorised": found,
                                         "versions": versions()}))  # fmt: skip
        return
    rows = [
        [f"{kept:g}", *(mean_text(values[i]) for values in found.values())]
        for i, kept in enumerate(densities)
    ]
    typer.echo(f"{summary_text(summary)}\n\n{table_text(['density', *found], rows)}")


def _given(value: Any, default: Any) -> Any:
    """Return the value, or the default if it was left out: 0 is a value."""
    return default if value is None else value


def _check_apply(
    methods: list[str], data: str, optimizer: str, stop: str, given: dict[str, Any]
) -> None:
    """Refuse options that would change nothing.

    Raises:
        ValueError: If there is one.
    """
    from ntktheory.data import DATA

    def refuse(names: str, where: str, remedy: str) -> None:
        check_left_out({name: given[name] for name in names.split()}, where, remedy)

    if "imp" not in methods:
        refuse("--drop", "without imp", "Add --method imp.")
    if not set(methods) & set(TRAINED):
        refuse("--budget", "without imp and magnitude_after", "Add --method imp.")
    if set(methods) <= set(TRAINED):
        refuse("--rounds", "without a scorer", "Add one, such as --method snip.")
    if data == RANDOM_LABELS:
        names, remedy = "--images --noise-variance --data-dir", "Name one, such as --data digits."
        refuse(names, "without a data set", remedy)
    else:
        refuse("--samples --dim", "for a data set", "Say how many with --images.")
        if data in DATA and not DATA[data].splits:
            refuse("--data-dir", f"for {data}", "It needs no folder.")
    if optimizer != "sgd":
        refuse("--momentum", f"for {optimizer}", "Add --optimizer sgd.")
    if stop == "steps":
        names = "--tolerance --patience --look-every"
        refuse(names, "where all steps are taken", "Add --stop level, or change.")


def _points(seeds: int, *, samples: int, dim: int, width: int, layers: int, init: str) -> "Pack":
    from ntktheory.information.memorization import random_label_pack

    return random_label_pack(
        range(seeds), samples=samples, dim=dim, width=width, hidden_layers=layers,
        init=init,  # type: ignore[arg-type]
    )  # fmt: skip


def _noisy_images(
    data: str,
    seeds: int,
    *,
    folder: Path | None,
    images: int,
    noise_variance: float,
    width: int,
    layers: int,
    init: str,
) -> "Pack":
    from ntktheory.data import load_data
    from ntktheory.information.memorization import noisy_image_pack

    x, y = load_data(data, images, data_dir=folder)
    return noisy_image_pack(
        x, y, range(seeds), noise_variance=noise_variance, widths=[width] * layers,
        init=init,  # type: ignore[arg-type]
    )  # fmt: skip


def _summary(
    data: str,
    pack: "Pack",
    source: dict[str, Any],
    network: dict[str, Any],
    training: "Training",
    methods: list[str],
    pruning: dict[str, Any],
    threshold_nats: float,
) -> dict[str, Any]:
    """Return the settings that have an effect."""
    used = asdict(training)
    if training.optimizer != "sgd":
        del used["momentum"]
    if training.stop == "steps":
        used = {k: v for k, v in used.items() if k not in ("tolerance", "patience", "look_every")}
    needed = {"drop": "imp" in methods, "budget": bool(set(methods) & set(TRAINED)),
              "rounds": not set(methods) <= set(TRAINED)}  # fmt: skip
    return {
        "data": data, "samples": pack.inputs.shape[1], "dimensions": pack.inputs.shape[2],
        **{k: v for k, v in source.items() if k != "images"}, **network, "seeds": len(pack.seeds),
        "threshold_nats": threshold_nats, **used,
        **{k: v for k, v in pruning.items() if needed[k]},
    }  # fmt: skip
