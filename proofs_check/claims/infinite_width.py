"""N6 and N7: the kernel's mean at initialisation, and where the infinite-width kernel is that mean."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from ntktheory.data import digits
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.verdict import Verdict
from ntktheory.ntk.infinite_width import expected_trace_at_init, infinite_width_ntk
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst
from proofs_check.exact_means import (
    Law,
    drawn_kernels,
    enumerated,
    kernels,
    one_hidden_unit,
    opposite_mean,
    scalar_inputs,
    ties,
    trace_variance,
)

Mean = Callable[..., Tensor]
DELTA = 1e-9
DRAWS = 200_000
EXACT = 1e-12  # relative; the quadratures leave rounding only


def recursion(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
    """Return the infinite-width kernel summed over classes, by weight variances σ_l², [N, N]."""
    w = [n * s for n, s in zip(widths[:-1], variances, strict=True)]
    theta = infinite_width_ntk(
        x,
        depth=len(w),
        weight_variance=w,
        parametrization="standard",
        widths=widths[1:-1],
    )
    return widths[-1] * theta


def printed(
    x: Tensor,
    widths: Sequence[int],
    variances: Sequence[float],
    *,
    half: float = 0.5,
    last: float = 1.0,
    swapped: bool = False,
    classes: bool = True,
) -> Tensor:
    """Return ``C n [(σ_1²/2)‖x‖‖x'‖κ1 + (σ_2²/2)(x·x')κ0]`` as printed; options plant errors."""
    norms = x.norm(dim=1)
    scale = norms[:, None] * norms
    rho = (x @ x.T / scale).clamp(-1, 1)
    angle = rho.acos()
    k0 = (math.pi - angle) / math.pi
    k1 = (rho * (math.pi - angle) + (1 - rho.square()).sqrt()) / math.pi
    k0, k1 = (k1, k0) if swapped else (k0, k1)
    s1, s2 = variances
    unit = last * half * s1 * scale * k1 + half * s2 * (x @ x.T) * k0
    return (widths[2] if classes else 1) * widths[1] * unit


def _planted(**options: Any) -> Mean:
    return lambda x, widths, variances: printed(x, widths, variances, **options)


def _ntk_parametrisation(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
    w = [n * s for n, s in zip(widths[:-1], variances, strict=True)]
    return widths[-1] * infinite_width_ntk(x, depth=len(w), weight_variance=w)


def _fan_out(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
    return recursion(x, widths, variances) * widths[0] / widths[1]


# --- N6 ------------------------------------------------------------------------------------------

ANGLES = (0.0, 0.0, 30.0, 90.0, 150.0, 180.0)
NORMS = (1.0, 2.0, 1.0, 0.5, 2.0, 1.0)
ONE_HIDDEN: tuple[list[int], list[float]] = ([2, 8, 2], [0.7, 1.3])
# acos of the printed formula loses half of the digits where x and x' are (anti)parallel.
PRINTED = 1e-7


def plane() -> Tensor:
    """Return six inputs in the plane: parallel, oblique, orthogonal and opposite ones."""
    angle = torch.tensor(ANGLES, dtype=torch.float64).deg2rad()
    norm = torch.tensor(NORMS, dtype=torch.float64)
    return norm[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


@cache
def _units() -> tuple[Tensor, Tensor]:
    """Return exact mean and variance of one unit's kernel on the plane's inputs."""
    return one_hidden_unit(plane(), ONE_HIDDEN[1], ONE_HIDDEN[0][2])


@cache
def _drawn(
    widths: tuple[int, ...], variances: tuple[float, ...], inputs: str, count: int
) -> Tensor:
    x = {"plane": plane()[[0, 4]], "line": _line(widths[0]), "digit": _digit()}[inputs]
    return drawn_kernels(widths, variances, x, count, seed=6)


def _line(size: int) -> Tensor:
    return torch.arange(1.0, size + 1, dtype=torch.float64)[None] / size


@cache
def _digit() -> Tensor:
    return digits(1, dtype=torch.float64)[0].flatten(1)


def _sum_of_units() -> tuple[Tensor, Tensor]:
    """Return the kernel of one network of width 8, and the sum of its units' kernels."""
    generator = torch.Generator().manual_seed(5)
    (inputs, n, classes), x = ONE_HIDDEN[0], plane()
    w = torch.randn(1, n, inputs, generator=generator, dtype=torch.float64)
    v = torch.randn(1, classes, n, generator=generator, dtype=torch.float64)
    whole = kernels([inputs, n, classes], [w, v], x)[0]
    units = kernels([inputs, 1, classes], [w.transpose(0, 1), v.permute(2, 1, 0)], x)
    return whole, units.sum(0)


@claim(
    "N6",
    subjects={"recursion": recursion, "formula": printed},
    mutants={
        "swaps κ0 and κ1": {"formula": _planted(swapped=True)},
        "forgets the factor ½": {"formula": _planted(half=1.0)},
        "drops the last layer's term": {"formula": _planted(last=0.0)},
        "takes one class for the sum over classes": {"formula": _planted(classes=False)},
        "is the recursion of the NTK parametrisation": {"recursion": _ntk_parametrisation},
        "swaps fan-in and fan-out": {"recursion": _fan_out},
        "is 1 % too large": {"recursion": lambda *args: 1.01 * recursion(*args)},
    },
)
def infinite_width_mean(level: Level, recursion: Mean, formula: Mean) -> Outcome:
    """One hidden layer: quadrature, units, Monte Carlo. Deeper: diagonal exact, off it biased."""
    (widths, variances), x, worst = ONE_HIDDEN, plane(), Worst(tolerance=EXACT)
    unit_mean, unit_variance = _units()
    n = widths[1]
    worst.see("a network is the sum of its hidden units", *_sum_of_units())
    value = recursion(x, widths, variances)
    worst.see("one hidden layer: recursion against quadrature", value, n * unit_mean)
    rough = Worst(tolerance=PRINTED)
    by_formula = formula(x, widths, variances)
    rough.see("one hidden layer: formula against quadrature", by_formula, n * unit_mean)
    for name, case in ENUMERATED.items():
        diagonal = recursion(case.x, case.widths, case.variances)[0, 0]
        worst.see(f"diagonal, {name}", diagonal, float(case.exact_mean))
    pair = torch.tensor([0, 4])
    rows, columns = pair[[0, 0, 1]], pair[[0, 1, 1]]
    draws = _drawn(tuple(widths), tuple(variances), "plane", DRAWS)
    verdict = check_mean(
        draws[:, [0, 0, 1], [0, 1, 1]],
        value[rows, columns],
        n * unit_variance[rows, columns],
        delta=DELTA,
    )
    bias = _opposite_bias(recursion, 2, 1)
    worst.require(f"two hidden layers, x' = −x: bias {bias:.3e}", abs(bias) > 0.1)
    broken = worst.counterexample or rough.counterexample or _failed(verdict)
    evidence = worst.numbers() | {
        "formula_worst_relative_difference": rough.gap,
        "monte_carlo": [verdict.summary],
        "relative_bias_of_two_hidden_layers_at_180_degrees_width_2": bias,
        "beta": verdict.beta,
        "detectable_bias": verdict.detectable_bias,
    }
    scope = (
        "six inputs in the plane (0° to 180°), widths 1 and 8, two classes, exact over Gaussian "
        "weights; diagonal: every network of three enumerated families"
    )
    return Outcome("refuted" if broken else "holds", "statistical", scope, evidence, broken, DELTA)


def _failed(verdict: Verdict) -> str | None:
    return None if verdict.status == "pass" else verdict.summary


# --- N6.finite_width -----------------------------------------------------------------------------

TWO_HIDDEN = [1.0, 0.8, 1.3]


def _opposite_bias(recursion: Mean, n1: int, n2: int) -> float:
    """Return ``(exact mean − recursion)/recursion`` at x = 1, x' = −1."""
    widths = [1, n1, n2, 1]
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    limit = float(recursion(x, widths, TWO_HIDDEN)[0, 1])
    return _relative(opposite_mean(widths, TWO_HIDDEN, 1.0), limit)


def _relative(value: float, limit: float) -> float:
    return 0.0 if value == limit else (value - limit) / limit if limit else math.inf


def _always_half(widths: Sequence[int], variances: Sequence[float], squared_norm: float) -> float:
    """Let exactly half of the first layer be active, with norms √(n_1/2): no fluctuation."""
    n1, n2, classes = widths[1:]
    return classes * n2 * variances[1] / (2 * math.pi) * variances[0] * squared_norm * n1 / 2


def _exact_for_recursion(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
    value = opposite_mean(widths, variances, float(x[0].square().sum()))
    return torch.full((2, 2), value, dtype=torch.float64)


@claim(
    "N6.finite_width",
    subjects={"recursion": recursion, "exact": opposite_mean},
    mutants={
        "compares the exact mean with itself": {"recursion": _exact_for_recursion},
        "lets half of the units be active always": {"exact": _always_half},
        "forgets the outputs": {"exact": lambda w, s, r: opposite_mean([*w[:3], 1], s, r)},
        "is 1 % too large": {"exact": lambda *args: 1.01 * opposite_mean(*args)},
    },
)
def finite_width(level: Level, recursion: Mean, exact: Callable[..., float]) -> Outcome:
    """Two hidden layers, x' = −x: the exact mean at every width, and how far the recursion is off."""
    x, worst = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), Worst(tolerance=EXACT)
    for n1, n2, c in ((1, 1, 1), (2, 1, 1), (2, 1, 2), (2, 2, 1)):
        widths = [1, n1, n2, c]
        mean, _ = scalar_inputs(widths, TWO_HIDDEN, x, nodes=2)
        value = torch.tensor(exact(widths, TWO_HIDDEN, 1.0), dtype=torch.float64)
        worst.see(f"widths {widths}: exact mean against quadrature", 1 + value, 1 + mean[0, 1])
    biases = {}
    for n in (1, 2, 4, 8, 16, 64, 256):
        limit = float(recursion(x, [1, n, n, 1], TWO_HIDDEN)[0, 1])
        biases[n] = _relative(exact([1, n, n, 1], TWO_HIDDEN, 1.0), limit)
    off = [abs(bias) > EXACT for bias in biases.values()]
    status: Any = "refuted" if all(off) else "holds"
    evidence = worst.numbers() | {"relative_bias_by_width": biases}
    text = "; ".join(f"width {n}: {100 * bias:+.2f} %" for n, bias in biases.items())
    return Outcome(
        status if worst.holds else "inconclusive",
        "exact-numeric",
        "two hidden layers of equal width, Gaussian weights, x' = −x",
        evidence,
        f"E Θ(x, −x) against the recursion: {text}" if worst.holds else worst.counterexample,
    )


# --- N7 ------------------------------------------------------------------------------------------


class Enumerated:
    """A family of networks with independent discrete weights, at one input, and its exact mean."""

    def __init__(self, x: Sequence[float], *laws: Law) -> None:
        self.x = torch.tensor([x], dtype=torch.float64)
        self.laws = laws
        self.widths = [len(x), *(len(law) for law in laws)]
        self.variances = [sum(v * v for v in law[0][0]) / len(law[0][0]) for law in laws]

    @cached_property
    def exact_mean(self) -> Fraction:
        """Return the mean trace over all networks; sums of integers below 2⁵³ are exact."""
        traces = kernels(self.widths, enumerated(self.laws), self.x).flatten()
        return Fraction(int(traces.sum()), len(traces))

    @cached_property
    def ties(self) -> int:
        """Count pre-activations that are exactly 0."""
        return ties(enumerated(self.laws), self.x)


def _signs(rows: int, columns: int, size: int = 1) -> Law:
    return [[(-size, size)] * columns] * rows


# 4² + 33² = 9² + 32²: two laws of one variance that never tie on the signals 7 and 13.
UNEVEN = ((-33, -4, 4, 33), (-32, -9, 9, 32))
ENUMERATED = {
    "2-3-2, 4,096 networks": Enumerated((3, 10), _signs(3, 2), _signs(2, 3, 2)),
    "2-2-2-1, 16,384 networks": Enumerated(
        (3, 10), _signs(2, 2), [UNEVEN, UNEVEN], _signs(1, 2, 2)
    ),
    "2-2-1-2-1, 4,096 networks": Enumerated(
        (3, 10), _signs(2, 2), [UNEVEN], _signs(2, 1, 3), _signs(1, 2, 2)
    ),
}


def trace_formula(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
    """Return the library's mean trace, summed over the inputs."""
    return expected_trace_at_init(x, widths, variances=variances).sum()


def _formula(
    last: bool = True, half: float = 0.5, classes: bool = True, fan_in: bool = False
) -> Mean:
    """Return the printed formula with a planted error."""

    def mutant(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
        units = widths[:-2] if fan_in else widths[1:-1]
        hidden = math.prod(n * s * half for n, s in zip(units, variances[:-1], strict=True))
        inverse = sum(1 / s for s in (variances if last else variances[:-1]))
        factor = (widths[-1] if classes else 1) * variances[-1] * hidden * inverse
        return factor * x.square().sum()

    return mutant


def _ntk_trace(x: Tensor, widths: Sequence[int], variances: Sequence[float]) -> Tensor:
    return _ntk_parametrisation(x, widths, variances)[0, 0]


@claim(
    "N7",
    subjects={"mean": trace_formula},
    mutants={
        "drops the last layer's term": {"mean": _formula(last=False)},
        "forgets the factor ½": {"mean": _formula(half=1.0)},
        "takes the mean over classes for the sum": {"mean": _formula(classes=False)},
        "counts the inputs of a layer for its units": {"mean": _formula(fan_in=True)},
        "is that of the NTK parametrisation": {"mean": _ntk_trace},
        "is 0.1 % too large": {"mean": lambda *args: 1.001 * trace_formula(*args)},
    },
)
def mean_trace(level: Level, mean: Mean) -> Outcome:
    """Exact over enumerated integer weights, and Monte Carlo at widths 8 with the exact variance."""
    worst, exact = Worst(tolerance=EXACT), {}
    for name, case in ENUMERATED.items():
        worst.require(f"{name}: {case.ties} ties", case.ties == 0)
        exact[name] = str(case.exact_mean)
        worst.see(name, mean(case.x, case.widths, case.variances), float(case.exact_mean))
    small, variances = [1, 1, 2, 2], [0.7, 0.9, 1.3]
    one = torch.ones(1, 1, dtype=torch.float64)
    moments = scalar_inputs(small, variances, one, nodes=3)
    worst.see("1-1-2-2, Gaussian: mean", mean(one, small, variances), moments[0][0, 0])
    spread = trace_variance(small, variances, 1.0)
    worst.see("1-1-2-2, Gaussian: variance", spread, moments[1][0, 0])
    verdicts = [_monte_carlo(mean, *case) for case in MONTE_CARLO[level]]
    failures = [text for text in map(_failed, verdicts) if text]
    broken = worst.counterexample or (failures[0] if failures else None)
    evidence = worst.numbers() | {
        "exact_means": exact,
        "monte_carlo": [verdict.summary for verdict in verdicts],
        "beta": verdicts[0].beta,
        "relative_detectable_bias": [v.detectable_bias / v.expected[0] for v in verdicts],
    }
    scope = (
        "two to four weight layers, integer weights enumerated; Gaussian weights at "
        + ", ".join("-".join(map(str, widths)) for widths, _ in MONTE_CARLO[level])
    )
    delta = DELTA * len(verdicts)
    return Outcome("refuted" if broken else "holds", "statistical", scope, evidence, broken, delta)


MONTE_CARLO: dict[Level, list[tuple[list[int], str]]] = {
    "quick": [([4, 8, 8, 2], "line")],
    "full": [([4, 8, 8, 2], "line"), ([4, 16, 12, 3], "line"), ([64, 16, 16, 10], "digit")],
}


def _monte_carlo(mean: Mean, widths: list[int], inputs: str) -> Verdict:
    variances = [2 / n for n in widths[:-1]]
    x = _digit() if inputs == "digit" else _line(widths[0])
    draws = _drawn(tuple(widths), tuple(variances), inputs, DRAWS).flatten()
    variance = trace_variance(widths, variances, float(x.square().sum()))
    return check_mean(draws, mean(x, widths, variances), variance, delta=DELTA)


# --- N7.ties -------------------------------------------------------------------------------------

TIED = Enumerated((1, 1), _signs(3, 2), _signs(1, 3))
UNTIED = Enumerated((1, 2), _signs(3, 2), _signs(1, 3))


@claim(
    "N7.ties",
    subjects={"mean": trace_formula, "case": lambda: TIED},
    mutants={
        "compares the exact mean with itself": {
            "mean": lambda *args: torch.tensor(float(TIED.exact_mean), dtype=torch.float64)
        },
        "has no ties": {"case": lambda: UNTIED},
    },
)
def ties_break_the_mean(level: Level, mean: Mean, case: Callable[[], Enumerated]) -> Outcome:
    """Weights ±1 at x = (1, 1): half of the pre-activations are 0, so a gate opens with 1/4."""
    family = case()
    exact = family.exact_mean
    value = float(mean(family.x, family.widths, family.variances))
    broken = abs(value - float(exact)) > EXACT * value
    where = f"widths {family.widths}, weights ±1, x = {family.x[0].tolist()}"
    text = f"{where}: mean {exact}, formula {value:g}"
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        "512 networks of one family, all of them",
        {"exact_mean": str(exact), "formula": value, "ties": family.ties},
        text if broken else None,
    )
