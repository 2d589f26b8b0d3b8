"""Trace estimators: without bias, and with the variance that their formulas name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntktheory import functional
from ntktheory.estimators.estimate import Estimate, standard_error
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.hutchinson import (
    hutchinson_trace,
    quadratic_form_variance,
    quadratic_forms,
)
from ntktheory.estimators.hutchpp import captured_and_rest, hutchpp_trace
from ntktheory.estimators.linear_operator import MatMat
from ntktheory.estimators.output_probes import output_probe_trace, squared_pullbacks
from ntktheory.estimators.reference_traces import projector
from ntktheory.estimators.xtrace import leave_one_out, xtrace
from ntktheory.models import mlp
from ntktheory.ntk import reference
from ntktheory.probes import Law, all_signs, cubature5
from proofs_check import cases
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst

Forms = Callable[[MatMat, Tensor], Tensor]
Parts = Callable[[MatMat, Tensor, Tensor], tuple[Tensor, Tensor]]
Estimator = Callable[..., Estimate]
DELTA = 1e-9
OPTIONS: dict[str, Any] = {"dtype": torch.float64}
RUNS = {"quick": 1000, "full": 15_000}


# --- what all of them share ----------------------------------------------------------------------


def matrices(n: int) -> dict[str, Tensor]:
    """Return a flat, a decaying, an indefinite and an unsymmetric matrix of order n."""
    generator = torch.Generator().manual_seed(n)
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, **OPTIONS))
    values = {
        "flat": torch.linspace(1, 3, n, **OPTIONS),
        "decaying": 0.3 ** torch.arange(n, **OPTIONS),
        "indefinite": torch.linspace(-1, 2, n, **OPTIONS),
    }
    found = {name: (basis * v) @ basis.T for name, v in values.items()}
    return found | {"not symmetric": torch.randn(n, n, generator=generator, **OPTIONS)}


def times(matrix: Tensor) -> MatMat:
    """Return ``V -> A V``."""
    return lambda V: matrix @ V


def _signs(n: int, k: int) -> Tensor:
    return all_signs({"z": torch.empty(n, k, **OPTIONS)}).probes["z"]


def _moments(values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and variance over the first axis, equal weights if none are given."""
    if weights is None:
        return values.mean(0), values.var(0, correction=0)
    mean = torch.tensordot(weights, values, 1)
    return mean, torch.tensordot(weights, (values - mean).square(), 1)


def _sampled(
    worst: Worst, what: str, samples: Tensor, mean: Tensor, variance: Tensor | float
) -> dict[str, Any]:
    """Test a sampled mean (T1) and note the verdict; one row for the report."""
    verdict = check_mean(samples, mean, variance, delta=DELTA, beta=DELTA)
    worst.require(f"{what}: {verdict.summary}", verdict.status == "pass")
    return {
        "what": what,
        "verdict": verdict.status,
        "n": verdict.n,
        "mean": verdict.observed[0],
        "expected": verdict.expected[0],
        "false_alarm": verdict.delta,
        "detectable_bias": verdict.detectable_bias,
    }


def _runs(estimator: Estimator, level: Level, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Return values and squared standard errors of independent estimates, [runs] each."""
    generator = torch.Generator().manual_seed(17)
    found = [estimator(*args, generator=generator, **options) for _ in range(RUNS[level])]
    return (
        torch.stack([e.value for e in found]),
        torch.stack([e.standard_error for e in found]).square(),
    )


def _largest_error(every: Tensor, k: int) -> Tensor:
    """Return the most that ``Σ(x − x̄)²/(k(k − 1))`` can be; times the mean it bounds the variance."""
    return (every.amax(0) - every.amin(0)).square() / (4 * (k - 1))


def _outcome(worst: Worst, rows: list[dict[str, Any]], scope: str) -> Outcome:
    return Outcome(
        "holds" if worst.holds else "refuted",
        "statistical" if rows else "exact-numeric",
        scope,
        worst.numbers() | {"sampled": rows},
        worst.counterexample,
        false_alarm=len(rows) * DELTA,
    )


def _too_large(estimator: Estimator) -> Estimator:
    def mutant(*args: Any, **options: Any) -> Estimate:
        e = estimator(*args, **options)
        return Estimate(1.05 * e.value, 1.05 * e.standard_error, e.products)

    return mutant


# --- Hutchinson ----------------------------------------------------------------------------------


def _not_symmetrised(matrix: Tensor, law: Law) -> Tensor:
    if law == "rademacher":
        matrix = matrix - matrix.diagonal().diag()
    return 2 * matrix.square().sum()


def _one_probe(operator: Any, *, products: int, generator: torch.Generator, **options: Any) -> Any:
    e = hutchinson_trace(operator, products=1, generator=generator, **options)
    return Estimate(e.value, torch.zeros_like(e.value), products)


@claim(
    "trace.hutchinson",
    subjects={
        "forms": quadratic_forms,
        "variance": quadratic_form_variance,
        "estimator": hutchinson_trace,
    },
    mutants={
        "is 5 % too large": {"forms": lambda A, Z: 1.05 * quadratic_forms(A, Z)},
        "uses the product twice": {"forms": lambda A, Z: A(Z).square().sum(0)},
        "names the Gaussian variance for signs": {
            "variance": lambda A, law: quadratic_form_variance(A, "gaussian")
        },
        "does not symmetrise in the variance": {"variance": _not_symmetrised},
        "draws estimates 5 % too large": {"estimator": _too_large(hutchinson_trace)},
        "reuses one probe for every product": {"estimator": _one_probe},
        "draws Gaussian numbers for signs": {
            "estimator": lambda A, *, law, **rest: hutchinson_trace(A, law="gaussian", **rest)
        },
    },
)
def hutchinson_unbiased(
    level: Level, forms: Forms, variance: Callable[..., Tensor], estimator: Estimator
) -> Outcome:
    """Mean and variance over all signs and by Gaussian cubature (T0); the sampler by e-values (T1)."""
    worst = Worst()
    rows: list[dict[str, Any]] = []
    for name, A in matrices(4).items():
        design = cubature5({"z": A[:, :1]})
        for law, points, weights in (
            ("rademacher", _signs(4, 1), None),
            ("gaussian", design.probes["z"], design.weights),
        ):
            mean, spread = _moments(forms(times(A), points[:, :, 0].T), weights)
            worst.see(f"{name}, {law}: mean", mean, A.trace())
            worst.see(f"{name}, {law}: variance", spread, variance(A, law))
        both = torch.func.vmap(lambda Z, A=A: standard_error(forms(times(A), Z)))(_signs(4, 2))
        worst.see(
            f"{name}: squared standard error", both.square().mean(), variance(A, "rademacher") / 2
        )
    if worst.broken:
        return _outcome(worst, rows, "four matrices of order 4")
    A, k = matrices(4)["flat"], 8
    exact = quadratic_form_variance(A, "rademacher") / k
    values, errors = _runs(estimator, level, A, products=k, law="rademacher")
    rows.append(_sampled(worst, "sampled mean", values, A.trace(), exact))
    every = quadratic_forms(times(A), _signs(4, 1)[:, :, 0].T)
    largest = _largest_error(every, k)
    rows.append(_sampled(worst, "sampled squared error", errors, exact, exact * largest))
    return _outcome(
        worst,
        rows,
        "four matrices of order 4, all signs and Gaussian cubature; draws on one of them",
    )


# --- Hutch++ -------------------------------------------------------------------------------------


def _not_projected(products: MatMat, S: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
    captured, _ = captured_and_rest(products, S, Z)
    return captured, quadratic_forms(products, Z)


def _not_orthonormal(products: MatMat, S: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
    Y = products(S)
    rest = Z - Y @ (Y.mT @ Z)
    return (Y * products(Y)).sum(), quadratic_forms(products, rest)


@claim(
    "trace.hutchpp",
    subjects={"parts": captured_and_rest, "estimator": hutchpp_trace},
    mutants={
        "is 5 % too large": {
            "parts": lambda A, S, Z: tuple(1.05 * part for part in captured_and_rest(A, S, Z))
        },
        "does not project the rest": {"parts": _not_projected},
        "does not orthonormalise the range": {"parts": _not_orthonormal},
        "takes the probes of the rest for the range too": {
            "parts": lambda A, S, Z: captured_and_rest(A, Z[:, :1], Z)
        },
        "forgets the range": {
            "parts": lambda A, S, Z: (0 * Z.sum(), captured_and_rest(A, S, Z)[1])
        },
        "draws estimates 5 % too large": {"estimator": _too_large(hutchpp_trace)},
    },
)
def hutchpp_unbiased(level: Level, parts: Parts, estimator: Estimator) -> Outcome:
    """Mean, variance and squared error over all signs (T0); Gaussian draws by e-values (T1)."""
    worst, n, g = Worst(), 3, 2
    rows: list[dict[str, Any]] = []
    for name, A in matrices(n).items():

        def estimate(Z: Tensor, A: Tensor = A) -> tuple[Tensor, Tensor]:
            captured, rest = parts(times(A), Z[:, :1], Z[:, 1:])
            return captured + rest.mean(), standard_error(rest)

        values, errors = torch.func.vmap(estimate)(_signs(n, 1 + g))
        complements = [torch.eye(n, **OPTIONS) - projector(A @ S) for S in _signs(n, 1)]
        given = [quadratic_form_variance(C @ A @ C, "rademacher") / g for C in complements]
        mean, spread = _moments(values)
        worst.see(f"{name}: mean", mean, A.trace())
        worst.see(f"{name}: variance", spread, torch.stack(given).mean())
        worst.see(
            f"{name}: squared standard error", errors.square().mean(), torch.stack(given).mean()
        )
    column = torch.arange(1.0, 4.0, **OPTIONS)
    captured, rest = parts(
        times(torch.outer(column, column)), torch.ones(3, 1, **OPTIONS), _signs(3, 1)[:, :, 0].T
    )
    worst.see("rank 1: exact", captured + rest.mean(), 14.0)
    if worst.broken:
        return _outcome(worst, rows, "four matrices of order 3")
    # Five directions are caught; by interlacing what is left is one eigenvalue of at most 3.
    A = matrices(6)["flat"]
    values, _ = _runs(estimator, level, A, products=17, law="gaussian")
    rows.append(_sampled(worst, "sampled mean, Gaussian", values, A.trace(), 2 * 3.0**2 / 7))
    return _outcome(worst, rows, "four matrices of order 3, all signs; draws on one of order 6")


# --- XTrace --------------------------------------------------------------------------------------


def _range_of_all(products: MatMat, omega: Tensor, *, rescale: bool) -> Tensor:
    """Leave nothing out: every probe is projected off a range that it helped to find."""
    Q, _ = torch.linalg.qr(products(omega))
    rest = omega - Q @ (Q.mT @ omega)
    return (Q * products(Q)).sum() + quadratic_forms(products, rest)


def _always_rescaled(products: MatMat, omega: Tensor, *, rescale: bool) -> Tensor:
    return leave_one_out(products, omega, rescale=True)


@claim(
    "trace.xtrace",
    subjects={"samples": leave_one_out, "estimator": xtrace},
    mutants={
        "is 5 % too large": {"samples": lambda A, Z, **o: 1.05 * leave_one_out(A, Z, **o)},
        "leaves nothing out": {"samples": _range_of_all},
        "rescales signs as if they were Gaussian": {"samples": _always_rescaled},
        "takes the first probe only": {
            "samples": lambda A, Z, **o: leave_one_out(A, Z[:, :1], **o)
        },
        "draws estimates 5 % too large": {"estimator": _too_large(xtrace)},
    },
)
def xtrace_unbiased(level: Level, samples: Callable[..., Tensor], estimator: Estimator) -> Outcome:
    """Every leave-one-out estimate over all signs (T0); rescaled Gaussian draws by e-values (T1)."""
    worst = Worst()
    rows: list[dict[str, Any]] = []
    for n, m in ((3, 2), (4, 2)):
        for name, A in matrices(n).items():
            run = torch.func.vmap(lambda Z, A=A: samples(times(A), Z, rescale=False))
            values = run(_signs(n, m))
            if values.shape[1] == m:
                mean = values.mean(0)
                worst.see(f"{name}, n = {n}, m = {m}", mean, A.trace().expand(m).contiguous())
            worst.require(f"{name}: {m} estimates, got {values.shape[1]}", values.shape[1] == m)
            spread = float(values.mean(1).var(correction=0))
            bound = float(quadratic_form_variance(A, "gaussian"))
            worst.require(f"{name}: variance {spread} ≤ {bound}", spread <= bound * (1 + 1e-12))
    columns = torch.tensor([[1.0, 2, 0, 1], [0, 1, 1, 3]], **OPTIONS)
    low_rank = columns.T @ columns
    probes = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, 1], [1, 1, -1, 1]], **OPTIONS).T
    found = samples(times(low_rank), probes, rescale=False)
    worst.see("rank 2, m = 3: exact", found.mean(), low_rank.trace())
    if worst.broken:
        return _outcome(worst, rows, "four matrices of orders 3 and 4")
    # Given P_1 of rank 4, r on the sphere of a plane: variance 2d/(d+2) (‖B‖² − Tr²/d), d = 2, where
    # both eigenvalues lie in [1, 3]: at most 2.
    A = matrices(6)["flat"]
    values, _ = _runs(estimator, level, A, products=10, law="sphere")
    rows.append(_sampled(worst, "sampled mean, rescaled Gaussian", values, A.trace(), 2.0))
    return _outcome(
        worst, rows, "four matrices of orders 3 and 4, all signs; draws on one of order 6"
    )


# --- output probes -------------------------------------------------------------------------------


def _first_layer_forgotten(*args: Any) -> Tensor:
    model_fn, params, masks, x, u, names = args
    return squared_pullbacks(model_fn, params, masks, x, u, names[1:])


def _samples_mixed(
    model_fn: Any, params: Any, masks: Any, x: Tensor, u: Tensor, names: Any
) -> Tensor:
    """Pull all samples back together: ‖Σ_n J_nᵀu_n‖², split evenly."""
    J = reference.jacobian(model_fn, params, masks, x)
    total = sum(torch.einsum("ncp,nc->p", j.flatten(2), u).square().sum() for j in J.values())
    return torch.as_tensor(total).expand(len(x)) / len(x)


def _same_for_all_samples(net: Any, x: Tensor, **options: Any) -> Estimate:
    """Give every sample the probes of the first; here all samples are equal."""
    e = output_probe_trace(net, x[:1], **options)
    return Estimate(e.value.expand(len(x)), e.standard_error.expand(len(x)), e.products)


@claim(
    "trace.output_probe",
    subjects={"pullbacks": squared_pullbacks, "estimator": output_probe_trace},
    mutants={
        "is 5 % too large": {"pullbacks": lambda *args: 1.05 * squared_pullbacks(*args)},
        "leaves the first layer out": {"pullbacks": _first_layer_forgotten},
        "mixes the samples": {"pullbacks": _samples_mixed},
        "does not square": {"pullbacks": lambda *args: squared_pullbacks(*args).sqrt()},
        "draws estimates 5 % too large": {"estimator": _too_large(output_probe_trace)},
        "reuses the probes of the first sample": {"estimator": _same_for_all_samples},
        "draws Gaussian numbers for signs": {
            "estimator": lambda *args, law, **rest: output_probe_trace(
                *args, law="gaussian", **rest
            )
        },
    },
)
def output_probes_unbiased(
    level: Level, pullbacks: Callable[..., Tensor], estimator: Estimator
) -> Outcome:
    """Per sample: mean and variance over all signs and by cubature (T0); the sampler by e-values."""
    worst = Worst()
    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(3)
    model = mlp([2, 3, 3], bias=True, generator=generator, **OPTIONS)
    f, x = functional(model), torch.randn(2, 2, generator=generator, **OPTIONS)
    like = {"u": torch.empty(2, 3, **OPTIONS)}
    blocks = _blocks(f, None, x)
    for masks in (None, cases.random_masks(model, 0.7)):
        where, design = "masked" if masks else "dense", cubature5(like)
        theta = _blocks(f, masks, x)
        designs: list[tuple[Law, Tensor, Tensor | None]] = [
            ("rademacher", all_signs(like).probes["u"], None),
            ("gaussian", design.probes["u"], design.weights),
        ]
        for law, points, weights in designs:
            values = torch.func.vmap(
                lambda u, masks=masks: pullbacks(f.model_fn, f.params, masks, x, u, tuple(f.params))
            )(points)
            mean, spread = _moments(values, weights)
            exact = torch.stack([quadratic_form_variance(block, law) for block in theta])
            worst.see(f"{where}, {law}: mean", mean, theta.diagonal(dim1=1, dim2=2).sum(1))
            worst.see(f"{where}, {law}: variance", spread, exact)
            total = _moments(values.sum(1), weights)[1]
            worst.see(f"{where}, {law}: variance of the sum", total, exact.sum())
    # One sample repeated: every copy has probes of its own, so a single call gives n estimates.
    n = int(
        (blocks.square().sum((1, 2)) - blocks.diagonal(dim1=1, dim2=2).square().sum(1)).argmax()
    )
    block, k = blocks[n], 32
    exact = quadratic_form_variance(block, "rademacher") / k
    source = torch.Generator().manual_seed(17)
    copies = x[n : n + 1].expand(RUNS[level], -1)
    found = estimator(model, copies, probes=k, law="rademacher", per="sample", generator=source)
    rows.append(_sampled(worst, "sampled mean", found.value, block.trace(), exact))
    every = all_signs({"u": like["u"][0]}).probes["u"]
    largest = _largest_error(torch.einsum("kc,cd,kd->k", every, block, every), k)
    errors = found.standard_error.square()
    rows.append(_sampled(worst, "sampled squared error", errors, exact, exact * largest))
    return _outcome(
        worst,
        rows,
        "a 2-3-3 net with biases on two samples, dense and masked; draws on the dense one",
    )


def _blocks(f: Any, masks: Any, x: Tensor) -> Tensor:
    """Return the blocks ``J_n J_nᵀ``, [N, C, C], from the explicit Jacobian."""
    J = reference.jacobian(f.model_fn, f.params, masks, x)
    flat = torch.cat([j.flatten(2) for j in J.values()], dim=2)
    return flat @ flat.mT
