"""What the commands read: a network, inputs and masks, and the options that name them."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DEFAULT_SAMPLES = 64

ModelName = Annotated[
    str,
    typer.Option(
        metavar="NAME|MODULE:FUNCTION",
        help="A name (mlp, convnet, resnet20 …; ntktheory models lists them), or module:function for "
        "a function of no arguments that returns an nn.Module, then put into eval mode; modules of "
        "the current folder are found.",
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        metavar="KEY=VALUE",
        help="An option of a named model; repeat it for more. All: outputs=10. "
        "mlp: hidden=64,64 bias=false. "
        "convnet: channels=8,16 stride=1,2 head=flatten|average bias=false. "
        "resnet20, 32, 44, 56: width=16. "
        "resnet18, 50: width=64 stem=cifar|imagenet. "
        "vgg11, 13, 16, 19: width=64 form=cifar|imagenet batch_norm=false bias=true.",
    ),
]
DataName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE.npy",
        help="A name (digits, cifar10-jpeg, cifar10, fashion_mnist), or a .npy file of inputs "
        "[N, …]. Only digits needs no --data-dir.",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The folder of data sets; default: the one that the environment variable "
        "NTKTHEORY_DATA names.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(metavar="train|test", help="Part of a data set that has them; default train."),
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1, help=f"How many, the first ones; default {DEFAULT_SAMPLES}, or all if fewer."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the weights.")]
MaskFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.safetensors",
        help="Masks by parameter name, of the parameters' shapes: True or 1 = kept. Parameters "
        "without one are kept.",
    ),
]


def read_options(pairs: Sequence[str] | None, option: str = "--arg") -> dict[str, Any]:
    """Return the options ``KEY=VALUE`` of a model, or of whatever else ``option`` names.

    Raises:
        ValueError: If one has no = or no key.
    """
    from ntktheory.checks import complaint

    options = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(complaint(option, "KEY=VALUE", repr(pair), "Write it with a =."))
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    """Read ``3``, ``true``, ``8,16`` or ``[8, 16]``; anything else is a text."""
    try:
        return json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except json.JSONDecodeError:
        return text


def read_inputs(
    data: str,
    samples: int | None,
    *,
    dtype: "torch.dtype",
    data_dir: Path | None = None,
    split: str | None = None,
) -> "tuple[Tensor, str]":
    """Load inputs by name or from a file; see ``read_batch``.

    Returns:
        Inputs [N, …], and a text that says what they are.
    """
    x, _, source = read_batch(data, samples, dtype=dtype, data_dir=data_dir, split=split)
    return x, source


def read_batch(
    data: str,
    samples: int | None,
    *,
    dtype: "torch.dtype",
    data_dir: Path | None = None,
    split: str | None = None,
) -> "tuple[Tensor, Tensor | None, str]":
    """Load inputs by name with their labels, or inputs from a file.

    Args:
        data: A key of ``DATA``, or the path of a ``.npy`` file.
        samples: How many, the first ones; None means 64, or all if there are fewer.
        dtype: Type of the inputs.
        data_dir: The folder of data sets.
        split: Which part of a data set that has parts.

    Returns:
        Inputs [N, …], labels [N] or None, and a text that says what they are.

    Raises:
        ValueError: If there is no such data set, file, part or number of samples.
    """
    from ntktheory.checks import complaint
    from ntktheory.data import DATA, load_array, load_data

    if data not in DATA and Path(data).suffix != ".npy":
        expected = f"one of {', '.join(DATA)}, or a .npy file"
        raise ValueError(complaint("--data", expected, repr(data), "Choose one of them."))
    if data not in DATA:
        if split is not None:
            raise ValueError(complaint("--split", "left out for a file", split, "Cut the file."))
        x = load_array(data, samples, dtype=dtype, at_most=DEFAULT_SAMPLES)
        return x, None, f"{data}, {x.shape[0]} samples"
    x, y = load_data(
        data,
        samples or DEFAULT_SAMPLES,
        dtype=dtype,
        data_dir=data_dir,
        split=split,
        progress=sys.stderr.isatty(),
    )
    part = split or "".join(DATA[data].splits[:1])
    return x, y, f"{f'{data} {part}'.rstrip()}, {x.shape[0]} samples"


def check_model(model: str, options: dict[str, Any]) -> None:
    """Check the name of a network before anything is loaded.

    Raises:
        ValueError: If it is neither a key of ``MODELS`` nor ``module:function``, or has options that
            only named ones take.
    """
    from ntktheory.checks import complaint
    from ntktheory.models import MODELS

    if ":" not in model and model not in MODELS:
        expected = f"one of {', '.join(MODELS)}, or module:function"
        raise ValueError(complaint("--model", expected, repr(model), "Choose one of them."))
    if ":" in model and options:
        raise ValueError(
            complaint(
                "--arg",
                "left out for module:function",
                ", ".join(options),
                "Wrap the function in one that sets them.",
            )
        )


def build_network(model: str, options: dict[str, Any], x: "Tensor", seed: int) -> "nn.Module":
    """Build a network for given inputs, in eval mode and of their type.

    Args:
        model: A key of ``MODELS``, or ``module:function``.
        options: Options of a named model.
        x: The inputs.
        seed: Seed of the weights.

    Returns:
        The network.

    Raises:
        ValueError: If the function cannot be imported, fails, or returns no module; or if the named
            model does not take the options or the inputs.
    """
    import torch

    from ntktheory.checks import complaint
    from ntktheory.models import build_model

    if ":" not in model:
        generator = torch.Generator().manual_seed(seed)
        return build_model(model, x.shape[1:], generator=generator, dtype=x.dtype, **options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _called(model)
    if not isinstance(network, torch.nn.Module):
        raise ValueError(
            complaint(
                "--model",
                "a function that returns an nn.Module",
                f"{model} returning {type(network).__name__}",
                "Return the network itself.",
            )
        )
    return network.to(x.dtype).eval()


def _called(model: str) -> Any:
    """Import ``module:function`` and call it; whatever goes wrong inside is one complaint."""
    import importlib

    from ntktheory.checks import complaint

    module, _, function = model.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        build: Callable[[], Any] = getattr(importlib.import_module(module), function)
        return build()
    except Exception as error:
        raise ValueError(
            complaint(
                "--model",
                "an importable module:function of no arguments",
                f"{model} ({type(error).__name__}: {error})",
                "Check the name, and that it runs by itself.",
            )
        ) from error
    finally:
        sys.path.remove(here)


def read_masks(path: Path | None) -> "dict[str, Tensor] | None":
    """Load masks from a safetensors file; names and shapes are checked where they are used.

    Returns:
        Parameter name -> bool mask, or None without a file.

    Raises:
        ValueError: If the file cannot be read, holds no mask, or an entry is not 0 or 1.
    """
    from ntktheory.pruning import mask_files

    return None if path is None else mask_files.read_masks(path, "--masks")
