"""``ntktheory ntk``: the exact empirical NTK of a network on data."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntktheory.cli import inputs
from ntktheory.cli.output import PLOTS, check_target, summary_text, versions
from ntktheory.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

# \b keeps the lines as they are.
EXAMPLES = """\b
ntktheory ntk --model convnet --arg channels=8,16 --samples 32 --json
ntktheory ntk --model mynets:small --data inputs.npy --output trace --out ntk.npy
"""
LARGEST_SPECTRUM = 4096  # rows whose eigenvalues are computed without being asked for


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


def ntk(
    model: inputs.ModelName = "mlp",
    arg: inputs.ModelOptions = None,
    data: inputs.DataName = "digits",
    data_dir: inputs.DataFolder = None,
    split: inputs.Split = None,
    samples: inputs.Samples = None,
    output: Annotated[
        Output,
        typer.Option(
            help="full: [N, N, C, C]. trace: its sum over equal classes [N, N]. "
            "diagonal: its entries of equal classes [N, N, C]."
        ),
    ] = Output.full,
    engine: Annotated[Engine, typer.Option(help="How to compute it.")] = Engine.auto,
    dtype: Annotated[DType, typer.Option(help="Type of weights and inputs.")] = DType.float32,
    seed: inputs.Seed = 0,
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
    """Compute the exact empirical NTK of a network on data, and summarise it.

    Sums, never means: the trace is the sum over samples and classes of the squared gradients.

    Eigenvalues are those of the kernel as a matrix [N·C, N·C] (full), [N, N] (trace), or of one
    [N, N] block per class (diagonal). They are left out above 4,096 rows unless --spectrum asks.
    """
    check_target("--out", out, (".npy",))
    check_target("--spectrum", spectrum, PLOTS)
    options = inputs.read_options(arg)
    inputs.check_model(model, options)
    import torch

    from ntktheory.ntk import empirical_ntk

    kind = getattr(torch, dtype.value)
    x, source = inputs.read_inputs(data, samples, dtype=kind, data_dir=data_dir, split=split)
    network = inputs.build_network(model, options, x, seed)
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
        "versions": versions(),
    }
    if out is not None:
        with replacing(out) as draft:
            _save(draft, theta)
    if spectrum is not None and eigenvalues is not None:
        with replacing(spectrum) as draft:
            _plot(draft, eigenvalues, f"{model} on {source}, {output.value}")
    typer.echo(json.dumps(summary) if as_json else summary_text(summary))


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
