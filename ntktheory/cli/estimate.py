"""``ntktheory estimate``: the trace from random products, NTK-SAP's bias, and when its mask settles."""

import json
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntktheory.cli import inputs
from ntktheory.cli.output import summary_text, table_text, versions, working

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ntktheory.estimators import Estimate

app = typer.Typer(help="Estimate at random, and say how far off that is.", rich_markup_mode=None)

# \b keeps the lines as they are.
TRACE_EXAMPLES = """\b
ntktheory estimate trace --model convnet --method xtrace --products 24 --exact
ntktheory estimate trace --model resnet20 --data cifar10-jpeg --method output-probe --products 3
"""
BIAS_EXAMPLES = """\b
ntktheory estimate bias --model mlp --arg hidden=3 --sigma 0.05 --tolerance 0.01
"""
STABILITY_EXAMPLES = """\b
ntktheory estimate stability --density 0.2 --realizations 64 --json
"""
LARGEST_POLYNOMIAL = 200  # parameters for which Hessians are computed


class Method(StrEnum):
    """The trace estimators."""

    hutchinson = "hutchinson"
    hutchpp = "hutchpp"
    xtrace = "xtrace"
    output_probe = "output-probe"


class Form(StrEnum):
    """The forms of NTK-SAP's objective."""

    jvp = "jvp"
    finite_difference = "finite_difference"


class Weights(StrEnum):
    """The weights of a realisation."""

    new = "new"
    fixed = "fixed"


class Inputs(StrEnum):
    """The inputs of a realisation."""

    noise = "noise"
    fixed_noise = "fixed_noise"
    data = "data"


ProbeSeed = Annotated[int, typer.Option(min=0, help="Seed of the random numbers drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


@app.command(epilog=TRACE_EXAMPLES)
def trace(
    model: inputs.ModelName = "mlp",
    arg: inputs.ModelOptions = None,
    data: inputs.DataName = "digits",
    data_dir: inputs.DataFolder = None,
    split: inputs.Split = None,
    samples: inputs.Samples = None,
    seed: inputs.Seed = 0,
    masks: inputs.MaskFile = None,
    method: Annotated[
        Method, typer.Option(help="How; output-probe is exact over samples, random over classes.")
    ] = Method.hutchinson,
    products: Annotated[
        int,
        typer.Option(
            help="Products with the kernel; for output-probe, backward passes over the data."
        ),
    ] = 24,
    probe_seed: ProbeSeed = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Compute the exact trace too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Estimate the trace of the NTK of a network on data from random products with it.

    The trace is the sum over samples and outputs of the squared gradients by all kept parameters.
    Value ± standard error as the estimator gives it (none for a single probe); float64.
    """
    network, x, summary, kept = _setting(model, arg, data, data_dir, split, samples, seed, masks)
    start = time.perf_counter()
    with working("products"):
        found = _estimators(network, x, kept, products, probe_seed)[method]()
    seconds = time.perf_counter() - start
    error = float(found.standard_error)
    summary |= {
        "method": method.value,
        "probe_seed": probe_seed,
        "value": float(found.value),
        "standard_error": None if error != error else error,
        "products": found.products,
        "exact": _exact(network, x, kept) if exact else None,
        "seconds": seconds,
    }
    _print(summary, as_json)


@app.command(epilog=BIAS_EXAMPLES)
def bias(
    model: inputs.ModelName = "mlp",
    arg: inputs.ModelOptions = None,
    data: inputs.DataName = "digits",
    data_dir: inputs.DataFolder = None,
    split: inputs.Split = None,
    samples: inputs.Samples = None,
    seed: inputs.Seed = 0,
    sigma: Annotated[
        float, typer.Option(help="Standard deviation of the perturbation, not its variance.")
    ] = 0.01,
    tolerance: Annotated[
        float | None, typer.Option(help="Find a sigma whose relative bias is at most this.")
    ] = None,
    probes: Annotated[int, typer.Option(min=2, help="Pairs of perturbations drawn.")] = 64,
    probe_seed: ProbeSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Give the bias of NTK-SAP's finite difference, relative to sigma² · trace.

    Measured with kinks, against the JVP form of the same perturbations; for networks of at most 200
    parameters the polynomial too (gates held, or to order sigma⁴). All parameters are perturbed, by
    Gaussian numbers; float64. The JVP form has no such bias.
    """
    from ntktheory.estimators.difference_bias import check_tolerance
    from ntktheory.estimators.ntk_sap import check_sigma

    check_sigma(sigma)
    if tolerance is not None:
        check_tolerance(tolerance)
    network, x, summary, _ = _setting(model, arg, data, data_dir, split, samples, seed, None)
    with working("bias"):
        found = _biases(network, x, sigma, tolerance, probes, probe_seed)
    _print(summary | {"sigma": sigma, "probes": probes, "probe_seed": probe_seed} | found, as_json)


@app.command(epilog=STABILITY_EXAMPLES)
def stability(
    model: inputs.ModelName = "mlp",
    arg: inputs.ModelOptions = None,
    data: inputs.DataName = "digits",
    data_dir: inputs.DataFolder = None,
    split: inputs.Split = None,
    samples: inputs.Samples = None,
    seed: inputs.Seed = 0,
    density: Annotated[float, typer.Option(help="Fraction of the prunable weights kept.")] = 0.1,
    realizations: Annotated[int, typer.Option(min=1, help="How many are averaged.")] = 32,
    level: Annotated[
        float, typer.Option(help="Overlap from which a mask counts as stable.")
    ] = 0.95,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the perturbation.")] = 0.01,
    form: Annotated[Form, typer.Option(help="Form of the objective.")] = Form.jvp,
    weights: Annotated[Weights, typer.Option(help="Weights of a realisation.")] = Weights.new,
    draw: Annotated[
        Inputs, typer.Option("--inputs", help="Inputs of a realisation; noise of the data's shape.")
    ] = Inputs.noise,
    probe_seed: ProbeSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Say after how many realisations NTK-SAP's mask stays the same.

    The overlap with the last mask tends to 1 by construction; that between the masks of odd and of even
    realisations is between independent halves. Both describe this run and promise nothing. float64.
    """
    from ntktheory.estimators.stability import kept_count
    from ntktheory.estimators.verdict import check_probability

    kept_count(1, density)
    check_probability("level", level)
    network, x, summary, _ = _setting(model, arg, data, data_dir, split, samples, seed, None)
    import torch

    from ntktheory.estimators import mask_stability, realization_scores, sample_draws

    draws = sample_draws(
        network,
        realizations=realizations,
        generator=torch.Generator().manual_seed(probe_seed),
        samples=len(x),
        x=x,
        weights=weights.value,
        inputs=draw.value,
    )
    with working("realisations"):
        scores = realization_scores(network, draws, sigma=sigma, form=form.value)
        found = mask_stability(scores, density, level=level)
    options = {"sigma": sigma, "form": form, "weights": weights, "inputs": draw, "level": level}
    summary |= {"density": density, **options, "probe_seed": probe_seed}
    halves = [None if h != h else h for h in found.between_halves]  # NaN at one realisation
    result = {"stable_from": found.stable_from}
    if as_json:
        table = {
            "realizations": found.realizations,
            "with_last": found.with_last,
            "between_halves": halves,
        }
        typer.echo(json.dumps(summary | result | table | {"versions": versions()}))
        return
    cells = [
        [str(r), f"{last:.3f}", "–" if half is None else f"{half:.3f}"]
        for r, last, half in zip(found.realizations, found.with_last, halves, strict=True)
    ]
    columns = ("realisations", "overlap with last", "between halves")
    parts = [summary_text(summary), table_text(columns, cells), summary_text(result)]
    typer.echo("\n\n".join(parts))


def _setting(
    model: str,
    arg: list[str] | None,
    data: str,
    data_dir: Any,
    split: str | None,
    samples: int | None,
    seed: int,
    masks: Any,
) -> "tuple[nn.Module, Tensor, dict[str, Any], dict[str, Tensor] | None]":
    """Return the network, the inputs, what they are in words, and the masks."""
    options = inputs.read_options(arg)
    inputs.check_model(model, options)
    import torch

    kept = inputs.read_masks(masks)
    x, source = inputs.read_inputs(
        data, samples, dtype=torch.float64, data_dir=data_dir, split=split
    )
    network = inputs.build_network(model, options, x, seed)
    summary = {"model": model, "data": source, "seed": seed}
    return network, x, summary | ({} if masks is None else {"masks": str(masks)}), kept


def _estimators(
    network: "nn.Module", x: "Tensor", masks: "dict[str, Tensor] | None", count: int, seed: int
) -> "dict[Method, Callable[[], Estimate]]":
    import torch

    from ntktheory.estimators import hutchinson_trace, hutchpp_trace, output_probe_trace, xtrace
    from ntktheory.ntk import NTKOperator

    generator = torch.Generator().manual_seed(seed)
    of_operator = {
        Method.hutchinson: hutchinson_trace,
        Method.hutchpp: hutchpp_trace,
        Method.xtrace: xtrace,
    }

    def by_products(method: Method) -> "Callable[[], Estimate]":
        return lambda: of_operator[method](
            NTKOperator(network, x, masks=masks), products=count, generator=generator
        )

    return {method: by_products(method) for method in of_operator} | {
        Method.output_probe: lambda: output_probe_trace(
            network, x, probes=count, masks=masks, generator=generator
        )
    }


def _exact(network: "nn.Module", x: "Tensor", masks: "dict[str, Tensor] | None") -> float:
    from ntktheory.ntk import ntk_trace

    return float(ntk_trace(network, x, masks=masks))


def _biases(
    network: "nn.Module",
    x: "Tensor",
    sigma: float,
    tolerance: float | None,
    count: int,
    seed: int,
) -> dict[str, float | None]:
    """Return the relative bias, measured and by the polynomial, and the σ asked for."""
    import torch

    from ntktheory.estimators import finite_difference_bias, sigma_for_bias
    from ntktheory.estimators.difference_bias import positive_trace, sampled_bias
    from ntktheory.functional import functional
    from ntktheory.probes import sample_gaussian

    params = functional(network).params
    small = sum(p.numel() for p in params.values()) <= LARGEST_POLYNOMIAL
    probes = sample_gaussian(params, count, generator=torch.Generator().manual_seed(seed))
    scale = sigma**2 * positive_trace(network, x)
    measured = sampled_bias(network, x, sigma, probes)
    start = None if small else 1.0
    return {
        "trace": scale / sigma**2,
        "relative_bias": measured.mean / scale,
        "standard_error": measured.standard_error / scale,
        "polynomial": finite_difference_bias(network, x).relative(sigma) if small else None,
        "tolerance": tolerance,
        "sigma_for_tolerance": None
        if tolerance is None
        else sigma_for_bias(network, x, tolerance, probes=probes, start=start),
    }


def _print(summary: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(summary | {"versions": versions()}) if as_json else summary_text(summary))
