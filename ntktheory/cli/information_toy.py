"""``ntktheory information toy``: the exact information of masks about six toy points, as a table."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli.output import summary_text, table_text, versions, working

if TYPE_CHECKING:
    from ntktheory.information import ToyInformation

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory information toy --method magnitude_after --method snip
ntktheory information toy --method imp --steps 1000 --no-replacement
ntktheory information toy --loss cross_entropy --width 3 --json
"""
DEFAULT_METHODS = ("magnitude_after", "snip", "grasp")


def toy(
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="imp (rewound, one weight per round: P − 1 trainings), magnitude_after, or a scorer "
            "of ntktheory scorers, scored once at the start; repeat it for more. Default: "
            + ", ".join(DEFAULT_METHODS)
            + ".",
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            metavar="mse|cross_entropy|logistic",
            help="cross_entropy has two logits, logistic is cross-entropy with one.",
        ),
    ] = "mse",
    width: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 4,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of gradient descent; of each round of imp.")
    ] = 200,
    lr: Annotated[float, typer.Option(help="The learning rate.")] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initial weights, and of scorers that draw.")
    ] = 0,
    init: Annotated[
        str, typer.Option(metavar="kaiming_normal|uniform", help="Law of the initial weights.")
    ] = "kaiming_normal",
    replacement: Annotated[
        bool, typer.Option(help="Whether an input can occur twice: 54,264 data sets, or 1,792.")
    ] = True,
    diverged: Annotated[
        bool,
        typer.Option(
            "--diverged",
            help="Go on where training diverges on some data sets: their masks are left open.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
) -> None:
    """Compute how many bits a pruner's mask carries about six points, by enumerating all data sets.

    Inputs are uniform on {±1}³ and labels on ±1; a ReLU network with one hidden layer learns them by
    full-batch gradient descent, and all its P parameters can be pruned, biases included. One line per
    number of pruned weights. Masks whose cut hangs on rounding are counted, and the bits that they
    leave open are given.
    """
    from ntktheory.information import exact_mask_information

    found = {}
    for name in dict.fromkeys(method or DEFAULT_METHODS):
        with working(name):
            found[name] = exact_mask_information(
                name, loss=loss, width=width, steps=steps, lr=lr, seed=seed, init=init,
                replacement=replacement, return_details=True, diverged=diverged,
            )  # fmt: skip
    first = next(iter(found.values()))
    summary = {
        "loss": loss, "width": width, "parameters": first.parameters, "steps": steps, "lr": lr,
        "seed": seed, "init": init, "replacement": replacement,
        "data_sets": first.codes.shape[1],
    }  # fmt: skip
    typer.echo(json.dumps(_record(summary, found)) if as_json else _report(summary, found))


def _record(summary: dict[str, Any], found: "dict[str, ToyInformation]") -> dict[str, Any]:
    methods = {
        name: {
            "bits": each.bits,
            "low_bits": [k.low_bits for k in each.by_pruned],
            "high_bits": [k.high_bits for k in each.by_pruned],
            "near_tie_weight": [k.near_tie_weight for k in each.by_pruned],
            "masks": [k.masks for k in each.by_pruned],
            "effective_parameters": each.effective_parameters(),
        }
        for name, each in found.items()
    }
    return {**summary, "methods": methods, "versions": versions()}


def _report(summary: dict[str, Any], found: "dict[str, ToyInformation]") -> str:
    pruned = range(summary["parameters"])
    columns = [[f"{bits:.4f}" for bits in each.bits] for each in found.values()]
    rows = [[str(k), *(column[k] for column in columns)] for k in pruned]
    weight = max(k.near_tie_weight for each in found.values() for k in each.by_pruned)
    width = max(k.high_bits - k.low_bits for each in found.values() for k in each.by_pruned)
    notes = {"near-ties' largest weight": weight, "bits they leave open": width}
    shown = summary | {"replacement": "yes" if summary["replacement"] else "no"}
    table = table_text(["pruned", *(f"{name}, bits" for name in found)], rows)
    return f"{summary_text(shown)}\n\n{table}\n\n{summary_text(notes)}"
