"""The command ``ntktheory``."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.checks import complaint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
DEFAULT_SAMPLES = 64
LARGEST_SPECTRUM = 4096  # rows whose eigenvalues are computed without being asked for
PLOTS = (".png", ".svg", ".pdf")

app = typer.Typer(
    help="Theory of pruning at initialisation, computed.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    add_completion=False,
)


class Output(StrEnum):
    """What to keep of each pair of samples."""

    full = "full"
    trace = "trace"
    diagonal = "diagonal"


class Engine(StrEnum):
    """How to compute the kernel."""

    auto = "auto"
    layerwise = "layerwise"
    jacobian = "jacobian"
    ntk_vp = "ntk_vp"


class DType(StrEnum):
    """The floating-point type of weights and inputs."""

    float32 = "float32"
    float64 = "float64"


@app.callback()
def group() -> None:
    """Theory of pruning at initialisation, computed."""


@app.command()
def ntk(
    model: Annotated[
        str,
        typer.Option(
            help="A name (mlp, convnet, resnet20 …), or module:function for a function of no "
            "arguments that returns an nn.Module, then put into eval mode; modules of the "
            "current folder are found."
        ),
    ] = "mlp",
    arg: Annotated[
        list[str] | None,
        typer.Option(
            "--arg",
            metavar="KEY=VALUE",
            help="An option of a named model; repeat it for more. "
            "mlp: hidden=64,64 outputs=10 bias=false. "
            "convnet: channels=8,16 outputs=10 stride=1,2 head=flatten|average bias=false. "
            "resnet20, 32, 44, 56: outputs=10 width=16.",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(help="A name (digits), or a .npy file of inputs [N, …].")
    ] = "digits",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"How many, the first ones; default {DEFAULT_SAMPLES}, or all if fewer."
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            help="full: [N, N, C, C]. trace: its sum over equal classes [N, N]. "
            "diagonal: its entries of equal classes [N, N, C]."
        ),
    ] = Output.full,
    engine: Annotated[Engine, typer.Option(help="How to compute it.")] = Engine.auto,
    dtype: Annotated[DType, typer.Option(help="Type of weights and inputs.")] = DType.float32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Write the kernel, all or nothing.")
    ] = None,
    spectrum: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|svg|pdf", help="Plot the eigenvalues, largest first."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
) -> None:
    r"""Compute the exact empirical NTK of a network on data, and summarise it.

    Sums, never means: the trace is the sum over samples and classes of the squared gradients.

    Eigenvalues are those of the kernel as a matrix [N·C, N·C] (full), [N, N] (trace), or of one
    [N, N] block per class (diagonal). They are left out above 4,096 rows unless --spectrum asks.

    \b
    ntktheory ntk --model convnet --arg channels=8,16 --samples 32 --json
    ntktheory ntk --model mynets:small --data inputs.npy --output trace --out ntk.npy
    """
    _check_target("--out", out, (".npy",))
    _check_target("--spectrum", spectrum, PLOTS)
    options = _options(arg or [])
    # Imported here because they load torch's function transforms, which --help does not need.
    import torch

    from ntktheory.ntk import empirical_ntk

    kind = getattr(torch, dtype.value)
    x, source = _inputs(data, samples, kind)
    network = _network(model, options, x, seed)
    start = time.perf_counter()
    theta = empirical_ntk(network, x, output=output.value, engine=engine.value)
    seconds = time.perf_counter() - start
    blocks = _blocks(theta, output)
    wanted = spectrum is not None or blocks.shape[0] * blocks.shape[1] <= LARGEST_SPECTRUM
    eigenvalues = _eigenvalues(blocks) if wanted else None
    summary = {
        "model": model,
        "data": source,
        "output": output.value,
        "shape": list(theta.shape),
        "dtype": dtype.value,
        "engine": engine.value,
        "seed": seed,
        "trace": float(blocks.diagonal(dim1=1, dim2=2).double().sum()),
        **_spectral_summary(eigenvalues),
        "seconds": seconds,
        "out": None if out is None else str(out),
        "spectrum": None if spectrum is None else str(spectrum),
        "versions": _versions(),
    }
    if out is not None:
        with _replacing(out) as draft:
            _save(draft, theta)
    if spectrum is not None and eigenvalues is not None:
        with _replacing(spectrum) as draft:
            _plot(draft, eigenvalues, f"{model} on {source}, {output.value}")
    typer.echo(json.dumps(summary) if as_json else _table(summary))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None = those of the process.

    Returns:
        The exit status: 0 done, 2 wrong input (one line on stderr says what), 130 interrupted.
    """
    try:
        status = int(app(args=argv, prog_name="ntktheory", standalone_mode=False) or 0)
        return status if status != EXIT_INTERRUPTED else _interrupted()
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except (ValueError, TypeError, OSError) as error:
        return _fail(str(error), EXIT_USAGE)
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return _fail("out of memory: use fewer --samples, or --output trace", EXIT_USAGE)
        if hasattr(error, "format_message"):  # typer's complaints about the arguments
            message = f"{error.format_message()} (See ntktheory ntk -h.)"
            return _fail(message, EXIT_USAGE)
        raise


def _interrupted() -> int:
    return _fail("interrupted; nothing was left half written", EXIT_INTERRUPTED)


def _fail(message: str, status: int) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return status


# --- input ---------------------------------------------------------------------------------------


def _check_target(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuse a file that could not be written before anything is computed."""
    if path is None:
        return
    if path.suffix not in suffixes:
        expected = f"a file ending in {' or '.join(suffixes)}"
        raise ValueError(complaint(option, expected, str(path), "Rename it."))
    if path.is_dir() or not path.absolute().parent.is_dir():
        actual = "a folder" if path.is_dir() else "one in a folder that does not exist"
        raise ValueError(
            complaint(option, "a file in an existing folder", f"{path}, {actual}", "Create it.")
        )


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(complaint("--arg", "KEY=VALUE", repr(pair), "Write it with a =."))
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    """Read ``3``, ``true``, ``8,16`` or ``[8, 16]``; anything else is a text."""
    try:
        return json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except json.JSONDecodeError:
        return text


def _inputs(data: str, samples: int | None, dtype: "torch.dtype") -> "tuple[Tensor, str]":
    from ntktheory.data import DATA, load_array, load_data

    if data not in DATA and Path(data).suffix != ".npy":
        expected = f"one of {', '.join(DATA)}, or a .npy file"
        raise ValueError(complaint("--data", expected, repr(data), "Choose one of them."))
    if data in DATA:
        x = load_data(data, samples or DEFAULT_SAMPLES, dtype=dtype)[0]
    else:
        x = load_array(data, samples, dtype=dtype, at_most=DEFAULT_SAMPLES)
    return x, f"{data}, {x.shape[0]} samples"


def _network(model: str, options: dict[str, Any], x: "Tensor", seed: int) -> "nn.Module":
    import torch

    from ntktheory.models import MODELS, build_model

    if ":" not in model:
        if model not in MODELS:
            expected = f"one of {', '.join(MODELS)}, or module:function"
            raise ValueError(complaint("--model", expected, repr(model), "Choose one of them."))
        generator = torch.Generator().manual_seed(seed)
        return build_model(model, x.shape[1:], generator=generator, dtype=x.dtype, **options)
    if options:
        raise ValueError(
            complaint(
                "--arg",
                "left out for module:function",
                ", ".join(options),
                "Wrap the function in one that sets them.",
            )
        )
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


# --- output --------------------------------------------------------------------------------------


def _blocks(theta: "Tensor", output: Output) -> "Tensor":
    """Return the kernel as symmetric matrices [blocks, rows, rows]."""
    if output is Output.trace:
        return theta.unsqueeze(0)
    if output is Output.diagonal:
        return theta.permute(2, 0, 1)
    n, _, c, _ = theta.shape
    return theta.permute(0, 2, 1, 3).reshape(1, n * c, n * c)


def _eigenvalues(blocks: "Tensor") -> "Tensor":
    """Return the eigenvalues of all blocks, descending, float64."""
    import torch

    return torch.linalg.eigvalsh(blocks.double().cpu()).flatten().sort(descending=True).values


def _spectral_summary(eigenvalues: "Tensor | None") -> dict[str, float | None]:
    """Return the ends of the spectrum and ``exp(−Σ p log p)``, p the shares of the trace."""
    names = ("largest_eigenvalue", "smallest_eigenvalue", "effective_rank")
    if eigenvalues is None:
        return dict.fromkeys(names)
    positive = eigenvalues.clamp(min=0)
    shares = positive / positive.sum()
    entropy = -(shares * shares.where(shares > 0, 1).log()).sum()
    rank = float(entropy.exp()) if positive.any() else 0.0
    return dict(zip(names, (float(eigenvalues[0]), float(eigenvalues[-1]), rank), strict=True))


@contextmanager
def _replacing(path: Path) -> Any:
    """Give a temporary path in the same folder; it takes the file's place if all goes well."""
    folder = path.absolute().parent
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=folder)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _save(path: Path, theta: "Tensor") -> None:
    import numpy as np

    np.save(path, theta.cpu().numpy(), allow_pickle=False)


def _plot(path: Path, eigenvalues: "Tensor", title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    positive = eigenvalues[eigenvalues > 0]
    axes.plot(range(1, len(positive) + 1), positive.tolist(), ".-", markersize=3, linewidth=1)
    if len(positive):
        axes.set_yscale("log")
    axes.set(xlabel="index, largest first", ylabel="eigenvalue", title=title)
    hidden = len(eigenvalues) - len(positive)
    if hidden:
        note = f"{hidden} not positive (rounding)"
        axes.text(0.98, 0.95, note, ha="right", transform=axes.transAxes)
    figure.savefig(path)


def _versions() -> dict[str, str]:
    import platform
    from importlib import metadata

    names = ("ntktheory", "torch", "numpy")
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in names}}


def _table(summary: dict[str, Any]) -> str:
    """Return the summary as aligned lines, without what was not asked for."""
    shown = {k: v for k, v in summary.items() if v is not None and k != "versions"}
    width = max(map(len, shown))
    return "\n".join(f"{k.replace('_', ' '):<{width}}  {_text(v)}" for k, v in shown.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
