"""Trace estimators: products with the operator against relative error, on three matrices.

``python benchmarks/trace_estimators.py`` writes ``benchmarks/results/trace_estimators.json``; then
``python figures/trace_estimators.py`` draws it. float64, one thread. All matrices have order 500:
the kernel of a small convolutional network at initialisation on 50 digits, and two with known
eigenvalues in a random basis. Errors are |estimate − trace| / trace over seeds. ``rms_error`` and
``rms_standard_error`` compare the error with what the estimator said of it; where the variance has a
formula, ``exact_rms_error`` is its root.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory import empirical_ntk, ntk_trace  # noqa: E402
from ntktheory.data import digits  # noqa: E402
from ntktheory.estimators import (  # noqa: E402
    Estimate,
    hutchinson_trace,
    hutchpp_trace,
    output_probe_trace,
    xtrace,
)
from ntktheory.estimators.hutchinson import quadratic_form_variance  # noqa: E402
from ntktheory.models import convnet  # noqa: E402
from ntktheory.ntk.matrix import to_matrix  # noqa: E402
from ntktheory.probes import Law  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "trace_estimators.json"
ORDER, OUTPUTS = 500, 10
PRODUCTS = (6, 12, 24, 48, 96, 192, 384)
PROBES = (1, 2, 3, 6, 9)
OPTIONS: dict[str, Any] = {"dtype": torch.float64}

Estimator = Callable[[int, torch.Generator], Estimate]


def main() -> None:
    """Measure every estimator on every matrix, and record."""
    seeds = _options().seeds
    torch.set_num_threads(1)
    record: Record = {
        "command": " ".join(["python benchmarks/trace_estimators.py", *sys.argv[1:]]),
        "seeds": seeds,
        "order": ORDER,
        "commit": commit(),
        "hardware": hardware(),
        "versions": {"torch": torch.__version__},
        "operators": [
            kernel(seeds),
            synthetic("eigenvalues 0.8^i (fast decay)", 0.8 ** torch.arange(ORDER), seeds),
            synthetic("eigenvalues from 1 to 3 (flat)", torch.linspace(1, 3, ORDER), seeds),
        ],
    }
    save(RESULT, record, digits=6)
    print(table(record))


def kernel(seeds: int) -> Record:
    """Measure on the kernel of a small network; output probes too, which know the network."""
    images, _ = digits(ORDER // OUTPUTS, **OPTIONS)
    start = torch.Generator().manual_seed(0)
    net = convnet([1, 8, 16], OUTPUTS, image_size=8, stride=[1, 2], generator=start, **OPTIONS)
    theta, trace = to_matrix(empirical_ntk(net, images)), float(ntk_trace(net, images))
    entry = measured("NTK at initialisation, digits, 3-layer CNN", theta, trace, seeds)
    n = range(ORDER // OUTPUTS)
    blocks = theta.reshape(len(n), OUTPUTS, len(n), OUTPUTS)[n, :, n]
    variance = sum(float(quadratic_form_variance(b, "rademacher")) for b in blocks)

    def probed(count: int, generator: torch.Generator) -> Estimate:
        return output_probe_trace(net, images, probes=count, generator=generator)

    entry["curves"].append(curve("output probes", probed, PROBES, trace, seeds, variance))
    return entry | {"outputs": OUTPUTS}


def synthetic(name: str, eigenvalues: Tensor, seeds: int) -> Record:
    """Measure on a matrix with given eigenvalues in a random orthonormal basis."""
    start = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(ORDER, ORDER, generator=start, **OPTIONS))
    values = eigenvalues.to(Q)
    return measured(name, (Q * values) @ Q.T, float(values.sum()), seeds)


def measured(name: str, matrix: Tensor, trace: float, seeds: int) -> Record:
    """Measure the estimators that need products only."""

    def hutchinson(law: Law) -> Estimator:
        return lambda k, g: hutchinson_trace(matrix, products=k, law=law, generator=g)

    estimators: dict[str, tuple[Estimator, float | None]] = {
        "Hutchinson, Gaussian": (
            hutchinson("gaussian"), float(quadratic_form_variance(matrix, "gaussian"))
        ),
        "Hutchinson, Rademacher": (
            hutchinson("rademacher"), float(quadratic_form_variance(matrix, "rademacher"))
        ),
        "Hutch++": (lambda k, g: hutchpp_trace(matrix, products=k, generator=g), None),
        "XTrace": (lambda k, g: xtrace(matrix, products=k, generator=g), None),
    }  # fmt: skip
    curves = [
        curve(label, estimator, PRODUCTS, trace, seeds, variance)
        for label, (estimator, variance) in estimators.items()
    ]
    eigenvalues = torch.linalg.eigvalsh(matrix).flip(0)
    effective_rank = float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())
    return {
        "name": name,
        "trace": trace,
        "largest_eigenvalue_share": float(eigenvalues[0]) / trace,
        "participation_ratio": effective_rank,
        "curves": curves,
    }


def curve(
    label: str,
    estimator: Estimator,
    products: tuple[int, ...],
    trace: float,
    seeds: int,
    variance: float | None,
) -> Record:
    """Return quantiles of the relative error over seeds, for every number of products."""
    rows = []
    for k in products:
        estimates = [estimator(k, torch.Generator().manual_seed(seed)) for seed in range(seeds)]
        if any(e.products != k for e in estimates):
            raise RuntimeError(f"{label} took other than {k} products")
        errors = torch.stack([e.value for e in estimates]) / trace - 1
        said = torch.stack([e.standard_error for e in estimates]) / trace
        low, median, high = errors.abs().quantile(torch.tensor([0.1, 0.5, 0.9], **OPTIONS)).tolist()
        row = {
            "products": k,
            "low": low,
            "median": median,
            "high": high,
            "mean": float(errors.mean()),
            "rms_error": float(errors.square().mean().sqrt()),
            "rms_standard_error": None
            if said.isnan().any()
            else float(said.square().mean().sqrt()),
        }
        if variance is not None:
            row["exact_rms_error"] = (variance / k) ** 0.5 / trace
        rows.append(row)
    return {"estimator": label, "points": rows}


def table(record: Record) -> str:
    """Lay out the record: median error, its root mean square, and what the estimator said of it."""
    lines = []
    for entry in record["operators"]:
        lines.append(f"\n{entry['name']}: (Σλ)²/Σλ² = {entry['participation_ratio']:.1f}")
        lines.append(
            f"{'estimator':24} {'products':>8} {'median':>9} {'rms':>9} {'said':>9} {'exact':>9}"
        )
        for c in entry["curves"]:
            for p in c["points"]:
                said, exact = p["rms_standard_error"], p.get("exact_rms_error")
                lines.append(
                    f"{c['estimator']:24} {p['products']:8d} {p['median']:9.2e} {p['rms_error']:9.2e} "
                    f"{_number(said)} {_number(exact)}"
                )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{'–':>9}" if value is None else f"{value:9.2e}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=300, help="estimates per point")
    return parser.parse_args()


if __name__ == "__main__":
    main()
