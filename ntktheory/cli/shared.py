"""What commands share: a scorer with its options and batch, density, widths, and what is left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli import inputs

if TYPE_CHECKING:
    from torch import nn

DRAWS = 1_000_003
"""Added to the seed for what scorers draw: the same numbers as the weights' would depend on them."""


class DType(StrEnum):
    """The floating-point type of weights and inputs."""

    float32 = "float32"
    float64 = "float64"


ScorerName = Annotated[
    str, typer.Argument(metavar="SCORER", help="A name such as px; ntktheory scorers lists them.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch",
        "--samples",
        min=1,
        help=f"Size of the batch, the first samples; default {inputs.DEFAULT_SAMPLES}, or all if fewer.",
    ),
]
ScorerOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An option of the scorer, such as bn=train; repeat it for more. A wrong name lists the "
        "right ones.",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the weights, and of what the scorer draws.")
]
Type = Annotated[DType, typer.Option("--dtype", help="Type of weights and inputs.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


@dataclass(frozen=True)
class Scored:
    """A network, and what its scorer is given.

    Attributes:
        network: The network.
        given: Keyword arguments of ``score`` and ``prune``.
        options: The scorer's own options, those left at their defaults too.
        source: A text that says what the data are, and whether only their shape is used.
    """

    network: "nn.Module"
    given: dict[str, Any]
    options: dict[str, Any]
    source: str


def prepare(
    scorer: str,
    option: list[str] | None,
    model: str,
    arg: list[str] | None,
    data: str,
    samples: int | None,
    *,
    data_dir: Path | None,
    split: str | None,
    dtype: DType,
    seed: int,
) -> Scored:
    """Build the network, load the batch and read the scorer's options.

    Returns:
        What is to be scored.

    Raises:
        ValueError: If the scorer, the model, the data or an option is wrong, or the scorer needs labels
            and the data have none.
    """
    from ntktheory.checks import complaint
    from ntktheory.pruning.scorers.registry import check_options, find_scorer

    entry = find_scorer(scorer)
    chosen = inputs.read_options(option, "--option")
    check_options("--option", entry, chosen)
    options = inputs.read_options(arg)
    inputs.check_model(model, options)
    import torch

    kind = getattr(torch, dtype.value)
    x, y, source = inputs.read_batch(data, samples, dtype=kind, data_dir=data_dir, split=split)
    if y is None and "y" in entry.needs:
        raise ValueError(
            complaint(
                "--data", f"one with labels for {scorer}", data, "Name a data set, such as digits."
            )
        )
    network = inputs.build_network(model, options, x, seed)
    given = {
        "batch": x if y is None else (x, y),
        "input_shape": list(x.shape[1:]),
        "generator": torch.Generator().manual_seed(seed + DRAWS),
        **chosen,
    }
    recorded = entry.options | chosen
    seen = entry.takes & {"x", "y"} and recorded.get("inputs", "data") == "data"
    return Scored(network, given, recorded, source if seen else f"only the shape of {source}")


def read_density(density: float | None, sparsity: float | None, compression: float | None) -> float:
    """Return the kept fraction d from the one that is given: d, 1 − d, or 1/d.

    Raises:
        ValueError: If none or several are given, or one is out of range.
    """
    from ntktheory.checks import complaint

    given = {
        "--density": density,
        "--sparsity": sparsity,
        "--compression": compression,
    }
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise ValueError(
            complaint(
                "--density",
                "given once, as --density, --sparsity or --compression",
                " and ".join(named) or "none of them",
                "--density 0.1, --sparsity 0.9 and --compression 10 are the same.",
            )
        )
    ((name, value),) = named.items()
    if name == "--sparsity" and not 0 <= value < 1:
        raise ValueError(
            complaint(name, "a fraction in [0, 1)", value, "Divide percentages by 100.")
        )
    if name == "--compression" and not value >= 1:
        raise ValueError(complaint(name, "at least 1", value, "It is all weights ÷ kept weights."))
    if name == "--density":
        return value
    return 1 - value if name == "--sparsity" else 1 / value


def options_text(options: dict[str, Any]) -> str | None:
    """Return options as ``key=value``, or None if there are none; None is no value."""
    given = {key: value for key, value in options.items() if value is not None}
    return " ".join(f"{key}={value}" for key, value in given.items()) or None


def read_widths(option: str, text: str) -> list[int]:
    """Return hidden widths, such as ``100,100``, layer by layer.

    Raises:
        ValueError: If one is no positive integer.
    """
    from ntktheory.checks import complaint

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            complaint(option, "positive integers with commas", repr(text), "Write 100,100.")
        )
    return [int(part) for part in parts]


def check_left_out(options: Mapping[str, Any], where: str, remedy: str) -> None:
    """Refuse options that would have no effect.

    Args:
        options: Option -> its value, None if it was not given.
        where: What makes them void, such as "without imp".
        remedy: What to do.

    Raises:
        ValueError: If one was given.
    """
    from ntktheory.checks import complaint

    for name, value in options.items():
        if value is not None:
            raise ValueError(complaint(name, f"left out {where}", value, remedy))
