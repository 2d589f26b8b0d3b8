"""``ntktheory information toy``: the exact information of masks about six toy points, as a table."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli.inputs import read_options
from ntktheory.cli.output import summary_text, table_text, versions, working
from ntktheory.cli.shared import ScorerOptions, options_text

if TYPE_CHECKING:
    from ntktheory.information import ToyInformation

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory information toy --method magnitude_after --method snip
ntktheory information toy --method grasp --option temperature=1 --seeds 20
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
    option: ScorerOptions = None,
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
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="How many inits: seed, seed + 1, …; their mean and 95 % interval."
        ),
    ] = 1,
    init: Annotated[
        str, typer.Option(metavar="kaiming_normal|uniform", help="Law of the initial weights.")
    ] = "kaiming_normal",
    replacement: Annotated[
        bool, typer.Option(help="Whether an input can occur twice: 54,264 data sets, or 1,792.")
    ] = True,
    bits_per_weight: Annotated[
        float, typer.Option(min=0, help="Of p_eff: what every kept weight counts, in bits.")
    ] = 1.0,
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
    number k of pruned weights. "bits": I(m; D | init); "p_eff": those and --bits-per-weight for each of
    P − k weights; "unknown init": I(m; D) where the init is one of --seeds and not known. Masks whose
    cut hangs on rounding are counted, and the bits that they leave open are given.
    """
    methods = list(dict.fromkeys(method or DEFAULT_METHODS))
    options = _options_of(methods, read_options(option, "--option"))
    from ntktheory.information import exact_mask_information

    found: dict[str, list[ToyInformation]] = {}
    for name in methods:
        with working(name):
            found[name] = [
                exact_mask_information(
                    name, loss=loss, width=width, steps=steps, lr=lr, seed=each, init=init,
                    replacement=replacement, return_details=True, options=options[name],
                    diverged=diverged,
                )
                for each in range(seed, seed + seeds)
            ]  # fmt: skip
    first = found[methods[0]][0]
    summary = {
        "loss": loss, "width": width, "parameters": first.parameters, "steps": steps, "lr": lr,
        "seed": seed, "seeds": seeds, "init": init, "replacement": replacement,
        "bits_per_weight": bits_per_weight, "data_sets": first.codes.shape[1],
    }  # fmt: skip
    each_method = {name: _method(each, options[name], summary) for name, each in found.items()}
    if as_json:
        typer.echo(json.dumps({**summary, "methods": each_method, "versions": versions()}))
    else:
        typer.echo(_report(summary, each_method))


def _options_of(methods: list[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return method -> those of the options that it has.

    Raises:
        ValueError: If an option is of no method.
    """
    from ntktheory.checks import complaint
    from ntktheory.information.toy_masks import options_of

    known = {name: options_of(name) for name in methods}
    every = sorted({key for keys in known.values() for key in keys})
    for key in options:
        if key not in every:
            expected = f"among {', '.join(every)}" if every else "left out"
            expected += f" for {', '.join(methods)}"
            raise ValueError(complaint("--option", expected, repr(key), "Remove it."))
    return {
        name: {key: options[key] for key in keys if key in options} for name, keys in known.items()
    }


def _method(
    found: "list[ToyInformation]", options: dict[str, Any], summary: dict[str, Any]
) -> dict[str, Any]:
    """Return what is said of a method: each init, their mean, and the mixture of all."""
    inits = [
        {
            "seed": summary["seed"] + i,
            "bits": each.bits,
            "low_bits": [k.low_bits for k in each.by_pruned],
            "high_bits": [k.high_bits for k in each.by_pruned],
            "near_tie_weight": [k.near_tie_weight for k in each.by_pruned],
            "masks": [k.masks for k in each.by_pruned],
            "effective_parameters": each.effective_parameters(summary["bits_per_weight"]),
        }
        for i, each in enumerate(found)
    ]  # fmt: skip
    means, halves = zip(*map(_mean, zip(*(i["bits"] for i in inits), strict=True)), strict=True)
    effective = zip(*(i["effective_parameters"] for i in inits), strict=True)
    return {
        "options": options,
        "mean_bits": list(means),
        "half_width_95": list(halves) if len(inits) > 1 else None,
        "mean_effective_parameters": [_mean(values)[0] for values in effective],
        "bits_unknown_init": _over_inits(found),
        "inits": inits,
    }


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the width of Student's 95 % interval around it, 0 for one value."""
    import numpy as np
    from scipy.stats import t

    if len(values) == 1:
        return values[0], 0.0
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)), float(t.ppf(0.975, len(values) - 1)) * error


def _over_inits(found: "list[ToyInformation]") -> list[float]:
    """Return I(m; D) in bits for each k, the inits equally likely and not known."""
    import numpy as np

    from ntktheory.information import information_over_inits

    if len(found) == 1:
        return found[0].bits
    codes = np.stack([each.codes.numpy() for each in found], axis=1)  # [P, I, N]
    return [information_over_inits(each, found[0].law) for each in codes]


def _report(summary: dict[str, Any], methods: dict[str, Any]) -> str:
    header, columns = ["pruned"], []
    several = summary["seeds"] > 1
    for name, each in methods.items():
        bits = [f"{mean:.4f}" for mean in each["mean_bits"]]
        if several:
            halves = each["half_width_95"]
            bits = [f"{b} ± {half:.4f}" for b, half in zip(bits, halves, strict=True)]
        header += [f"{name}: bits", "p_eff"]
        columns.append(bits)
        columns.append([f"{p:.4f}" for p in each["mean_effective_parameters"]])
        if several:
            header.append("unknown init")
            columns.append([f"{b:.4f}" for b in each["bits_unknown_init"]])
    rows = [[str(k), *row] for k, row in enumerate(zip(*columns, strict=True))]
    inits = [init for each in methods.values() for init in each["inits"]]
    wide = [
        high - low for i in inits for low, high in zip(i["low_bits"], i["high_bits"], strict=True)
    ]
    weight = max(w for i in inits for w in i["near_tie_weight"])
    notes = {"near-ties' largest weight": weight, "bits they leave open": max(wide)}
    shown = summary | {"replacement": "yes" if summary["replacement"] else "no"}
    shown |= {f"options of {name}": options_text(each["options"]) for name, each in methods.items()}
    return "\n\n".join([summary_text(shown), table_text(header, rows), summary_text(notes)])
