"""How often the checks of ``estimators/evidence.py`` cry wolf, and how soon they see a real bias.

``python experiments/false_alarms.py [--runs 20000]`` writes ``experiments/records/false_alarms.json``;
``python figures/false_alarms.py`` draws it. Everything calls the public checks, one call per simulated
run; z- and t-tests see the same samples. Intervals of rates are Clopper–Pearson, 95 %.

* ``one_mean``: the null hypothesis "the mean is this, the variance at most that" is true.
* ``same_law``: both samples have one law. ``unequal_laws``: their means agree, their laws do not.
* ``caught``: samples until a sampler that is too large by a factor is rejected.
* ``power``: biases missed at the sample size, or at the bias, that the plan names.
* ``z_exact``: false alarms of the z-test on means of n χ²(1), from the χ²(n) distribution.
* ``overhead``: seconds of the e-process beside those of sampling NTK-SAP's objective.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from scipy.stats import beta, binom, chi2, norm, t
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory import empirical_ntk, ntk_sap_objective, ntk_trace  # noqa: E402
from ntktheory.data import digits  # noqa: E402
from ntktheory.estimators.evidence import (  # noqa: E402
    check_mean,
    check_mean_sequential,
    check_same_distribution,
    min_detectable_bias,
    min_samples,
)
from ntktheory.models import convnet, mlp  # noqa: E402
from ntktheory.probes import sample_gaussian, sample_rademacher  # noqa: E402

RECORD = Path(__file__).parent / "records" / "false_alarms.json"
DELTA, SMALL, SEED = 0.01, 1e-9, 0
FEW, MANY = 100, 1000
CHUNK = 1000
FIRST_LOOK = 30
FACTORS = (1.5, 1.2, 1.1)
CAUGHT_RUNS, POWER_RUNS, ROUNDS = 201, 4000, 11
BATCH, GIVE_UP = 4096, 2_000_000

Array = np.ndarray[Any, np.dtype[np.float64]]


class Law(NamedTuple):
    """A law with its exact mean and variance; ``draw(generator, count)`` returns [count]."""

    name: str
    draw: Callable[[np.random.Generator, int], Array]
    mean: float
    variance: float


def main() -> None:
    """Simulate, record and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=20_000, help="simulated runs per rate")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    start = time.perf_counter()
    record: Record = {
        "command": " ".join(["python experiments/false_alarms.py", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np, scipy)},
        "seed": SEED,
        "delta": DELTA,
        "interval_level": 0.95,
        "first_look": FIRST_LOOK,
    }
    laws = [*simple_laws(), objective_law(sample_gaussian, "Gaussian")]
    parts: dict[str, Callable[[], Any]] = {
        "one_mean": lambda: [row for law in laws for row in one_mean(law, runs)],
        "same_law": lambda: [row for law in laws for row in two_samples(law, law, runs)],
        "unequal_laws": lambda: [r for a, b in unequal() for r in two_samples(a, b, runs)],
        "caught": lambda: [
            caught(law, factor, delta)
            for law in laws[1:-2]
            for factor in FACTORS
            for delta in (DELTA, SMALL)
        ],
        "power": lambda: [row for law in (laws[0], laws[1], laws[4]) for row in power(law)],
        "z_exact": lambda: [z_exact(n, delta) for n in (FEW, MANY) for delta in (1e-2, 1e-4, 1e-9)],
        "overhead": lambda: [overhead(batch) for batch in (100, 1000)],
    }
    seconds: dict[str, float] = {}
    for name, measure in parts.items():
        begin = time.perf_counter()
        record[name] = measure()
        seconds[name] = time.perf_counter() - begin
        print(f"{name}: {seconds[name]:.0f} s", flush=True)
    record["seconds"] = seconds | {"total": time.perf_counter() - start}
    save(RECORD, record, digits=6)


def simple_laws() -> list[Law]:
    """Return a light law, products of χ²(1), heavy tails, and a rare large value; means 1 (0)."""
    return [
        Law("normal", lambda g, n: 1 + g.standard_normal(n), 1.0, 1.0),
        Law("χ²(1)", lambda g, n: g.standard_normal(n) ** 2, 1.0, 2.0),
        Law("product of 2 χ²(1)", lambda g, n: chi2_product(g, n, 2), 1.0, 8.0),
        Law("product of 3 χ²(1)", lambda g, n: chi2_product(g, n, 3), 1.0, 26.0),
        Law("1 + Student(3)", lambda g, n: 1 + g.standard_t(3, n), 1.0, 3.0),
        Law("Pareto(2.5)", lambda g, n: 0.6 * (1 + g.pareto(2.5, n)), 1.0, 0.8),
        Law("999 in 1 of 1,000, else −1", rare, 0.0, 999.0),
    ]


def chi2_product(generator: np.random.Generator, count: int, factors: int) -> Array:
    """Return products of independent χ²(1): mean 1, variance 3^factors − 1."""
    return generator.standard_normal((factors, count)).prod(0) ** 2


def rare(generator: np.random.Generator, count: int) -> Array:
    """Return 999 with probability 1/1000, else −1: mean 0, variance 999."""
    return np.where(generator.random(count) < 1e-3, 999.0, -1.0)


def objective_law(sample: Callable[..., dict[str, Tensor]], name: str) -> Law:
    """Return NTK-SAP's objective (JVP form, σ = 1) of a 3-3-1 network on 4 inputs, over its trace.

    Its mean is 1. Before the division its variance is 2‖Θ‖_F² for Gaussian probes; for signs it is
    less by 2 Σ_i (JᵀJ)_ii².
    """
    start = seeded(4)
    net = mlp([3, 3, 1], generator=start, dtype=torch.float64)
    x = torch.randn(4, 3, generator=start, dtype=torch.float64)
    params = dict(net.named_parameters())
    trace = float(ntk_trace(net, x))
    variance = 2 * float(empirical_ntk(net, x).square().sum())
    if sample is sample_rademacher:
        diagonal = ntk_trace(net, x, per="parameter").values()
        variance -= 2 * sum(float(part.square().sum()) for part in diagonal)

    def draw(generator: np.random.Generator, count: int) -> Array:
        own = seeded(int(generator.integers(2**62)))
        parts = [
            ntk_sap_objective(net, x, sigma=1.0, probes=sample(params, size, generator=own))
            for size in sizes(count, 100_000)
        ]
        return torch.cat(parts).detach().numpy() / trace

    return Law(f"NTK-SAP objective, {name} probes", draw, 1.0, variance / trace**2)


def unequal() -> list[tuple[Law, Law]]:
    """Return pairs of laws that differ and have one mean."""
    laws = simple_laws()
    constant = Law("1", lambda g, n: np.ones(n), 1.0, 0.0)
    zero = Law("0", lambda g, n: np.zeros(n), 0.0, 0.0)
    uniform = Law("uniform on (0, 2)", lambda g, n: 2 * g.random(n), 1.0, 1 / 3)
    probes = (objective_law(sample_gaussian, "Gaussian"), objective_law(sample_rademacher, "sign"))
    return [
        (laws[0], uniform),
        (laws[1], constant),
        (laws[3], constant),
        (laws[3], laws[1]),
        (laws[5], uniform),
        (laws[6], zero),
        probes,
    ]


def one_mean(law: Law, runs: int) -> Iterator[Record]:
    """Yield the rate of false alarms of every test of a mean."""
    generator = np.random.default_rng([SEED, 1, *law.name.encode()])
    options: dict[str, Any] = {"expected": law.mean, "variance": law.variance, "delta": DELTA}
    alarms: dict[tuple[str, int], int] = {}
    for rows in sizes(runs, CHUNK):
        x = law.draw(generator, rows * MANY).reshape(rows, MANY)
        found = {
            ("T1, fixed n", FEW): [failed(check_mean(row[:FEW], **options)) for row in x],
            ("T1, fixed n", MANY): [failed(check_mean(row, **options)) for row in x],
            ("T1, tuned to δ", MANY): [failed(check_mean(row, **options, beta=DELTA)) for row in x],
            ("T1, sequential", MANY): [failed(look_always(row, options)) for row in x],
            ("z-test", FEW): z_alarms(x[:, :FEW], law)[:, -1],
            ("z-test", MANY): z_alarms(x, law)[:, -1],
            ("t-test", FEW): t_alarms(x[:, :FEW], law)[:, -1],
            ("t-test", MANY): t_alarms(x, law)[:, -1],
            ("z-test at every n", MANY): z_alarms(x, law)[:, FIRST_LOOK - 1 :].any(1),
            ("t-test at every n", MANY): t_alarms(x, law)[:, FIRST_LOOK - 1 :].any(1),
        }
        for key, values in found.items():
            alarms[key] = alarms.get(key, 0) + int(np.sum(values))
    for (test, n), count in alarms.items():
        yield {"law": law.name, "test": test, "n": n, "delta": DELTA} | rate(count, runs)


def look_always(row: Array, options: Record) -> Any:
    """Return the sequential verdict on one run, looked at after every sample."""
    return check_mean_sequential(lambda count: row[:count], max_samples=MANY, batch=MANY, **options)


def z_alarms(x: Array, law: Law) -> Any:
    """Return whether the two-sided z-test with the true variance rejects, [runs, n], at every n."""
    n = np.arange(1, x.shape[1] + 1)
    z = (x - law.mean).cumsum(1) / np.sqrt(n * law.variance)
    return np.abs(z) > norm.isf(DELTA / 2)


def t_alarms(x: Array, law: Law) -> Any:
    """Return whether the two-sided t-test rejects, [runs, n], at every n; never at n = 1."""
    n = np.arange(1, x.shape[1] + 1)
    errors = x - law.mean
    mean = errors.cumsum(1) / n
    spread = np.maximum((errors**2).cumsum(1) - n * mean**2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.abs(mean) * np.sqrt(n * (n - 1) / spread)
        return (value > t.isf(DELTA / 2, n - 1)) & (n > 1)


def two_samples(a: Law, b: Law, runs: int) -> Iterator[Record]:
    """Yield the rates at which T2 on pairs, and T1 on their differences, reject."""
    generator = np.random.default_rng([SEED, 2, *(a.name + b.name).encode()])
    options: dict[str, Any] = {"expected": a.mean - b.mean, "variance": a.variance + b.variance}
    alarms: dict[tuple[str, int, float], int] = {}
    for rows in sizes(runs, CHUNK):
        x, y = (law.draw(generator, rows * MANY).reshape(rows, MANY) for law in (a, b))
        for n, delta in ((FEW, DELTA), (MANY, DELTA), (FEW, SMALL), (MANY, SMALL)):
            pairs = list(zip(x[:, :n], y[:, :n], strict=True))
            found = {
                "T2": sum(failed(check_same_distribution(p, q, delta=delta)) for p, q in pairs)
            }
            if delta == DELTA:
                found["T1 on the differences"] = sum(
                    failed(check_mean(p - q, **options, delta=delta)) for p, q in pairs
                )
            for test, count in found.items():
                alarms[test, n, delta] = alarms.get((test, n, delta), 0) + count
    for (test, n, delta), count in alarms.items():
        head = {"law": a.name, "other": b.name, "test": test, "n": n, "delta": delta}
        yield head | rate(count, runs)


def caught(law: Law, factor: float, delta: float) -> Record:
    """Return how many samples of ``factor`` times the law the sequential check takes to reject."""
    generator = np.random.default_rng([SEED, 3, *f"{law.name}{factor}{delta}".encode()])
    found = []
    for _ in range(CAUGHT_RUNS):
        verdict = check_mean_sequential(
            lambda count: factor * law.draw(generator, count),
            law.mean, law.variance, delta=delta, max_samples=GIVE_UP, batch=BATCH,
        )  # fmt: skip
        found.append(verdict.n if failed(verdict) else math.inf)
    found.sort()
    low = int(binom.ppf(0.025, CAUGHT_RUNS, 0.5)) - 1
    bias = (factor - 1) * law.mean
    return {
        "law": law.name,
        "factor": factor,
        "delta": delta,
        "bias_sd": bias / math.sqrt(law.variance),
        "runs": CAUGHT_RUNS,
        "rejected": sum(math.isfinite(n) for n in found),
        "median": found[CAUGHT_RUNS // 2],
        "median_low": found[low],
        "median_high": found[CAUGHT_RUNS - 1 - low],
        "tenth": found[CAUGHT_RUNS // 10],
        "nine_tenths": found[CAUGHT_RUNS - 1 - CAUGHT_RUNS // 10],
    }


def power(law: Law) -> Iterator[Record]:
    """Yield the rate at which ``check_mean`` misses a shift of the law, about the planned sizes."""
    miss = 0.1
    sd = math.sqrt(law.variance)
    options: dict[str, Any] = {"delta": DELTA, "beta": miss}
    plan = min_samples(0.3 * sd, law.variance, **options)
    at_n = [(0.3 * sd, math.ceil(plan * part)) for part in (0.125, 0.25, 0.5, 1.0)]
    bias = min_detectable_bias(200, law.variance, **options)
    at_bias = [(bias * part, 200) for part in (0.25, 0.5, 0.75, 1.0)]
    generator = np.random.default_rng([SEED, 4, *law.name.encode()])
    for what, points in (("min_samples", at_n), ("min_detectable_bias", at_bias)):
        for shown, n in points:
            for sign in (1, -1):
                x = law.draw(generator, POWER_RUNS * n).reshape(POWER_RUNS, n) + sign * shown
                asked = 0.3 * sd if what == "min_samples" else bias
                missed = sum(
                    not failed(check_mean(row, law.mean, law.variance, bias=asked, **options))
                    for row in x
                )
                yield {
                    "law": law.name, "plan": what, "sign": sign, "n": n, "bias_sd": shown / sd,
                    "planned": plan if what == "min_samples" else bias / sd, "beta": miss,
                } | rate(missed, POWER_RUNS)  # fmt: skip


def z_exact(n: int, delta: float) -> Record:
    """Return the z-test's probability of a false alarm on n χ²(1), whose sum is χ²(n)."""
    reach = norm.isf(delta / 2) * math.sqrt(2 * n)
    probability = float(chi2.sf(n + reach, n) + (chi2.cdf(n - reach, n) if reach < n else 0))
    return {"n": n, "delta": delta, "rate": probability, "times_nominal": probability / delta}


def overhead(batch: int) -> Record:
    """Return seconds of 1,000 objectives of a small network, and of the e-process over them.

    ``batch`` samples are drawn at a time; the e-process's seconds are all that are not spent in
    drawing.
    """
    images, _ = digits(32)
    net = convnet([1, 8, 16], 10, image_size=8, stride=[1, 2], generator=seeded(0))
    params = dict(net.named_parameters())
    sigma, probes = 0.01, 1000
    expected = sigma**2 * float(ntk_trace(net, images))
    variance = 2 * sigma**4 * float(empirical_ntk(net, images).double().square().sum())
    spent: list[float] = []
    rounds: list[tuple[float, float]] = []
    generator = seeded(1)

    def draw(count: int) -> Tensor:
        begin = time.perf_counter()
        delta = sample_gaussian(params, count, generator=generator)
        values = ntk_sap_objective(net, images, sigma=sigma, probes=delta)
        spent.append(time.perf_counter() - begin)
        return values

    verdict = None
    for _ in range(ROUNDS + 1):  # the first warms up
        spent.clear()
        begin = time.perf_counter()
        verdict = check_mean_sequential(
            draw,
            expected,
            variance,
            delta=1e-9,
            max_samples=probes,
            batch=batch,
            atol=1e-4 * expected,
        )
        rounds.append((sum(spent), time.perf_counter() - begin - sum(spent)))
    shares = [extra / drawing for drawing, extra in rounds[1:]]
    return {
        "network": "convnet 1-8-16-10, 8×8 digits, float32, JVP form",
        "images": 32,
        "probes": probes,
        "batch": batch,
        "rounds": ROUNDS,
        "sampling_s": statistics.median(drawing for drawing, _ in rounds[1:]),
        "e_process_s": statistics.median(extra for _, extra in rounds[1:]),
        "share": statistics.median(shares),
        "largest_share": max(shares),
        "verdict": None if verdict is None else verdict.summary,
    }


def rate(count: int, runs: int) -> Record:
    """Return a rate with its Clopper–Pearson interval, 95 %."""
    low = beta.ppf(0.025, count, runs - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, runs - count) if count < runs else 1.0
    return {
        "count": count,
        "runs": runs,
        "rate": count / runs,
        "low": float(low),
        "high": float(high),
    }


def failed(verdict: Any) -> bool:
    """Return whether a verdict is "fail"."""
    return bool(verdict.status == "fail")


def sizes(total: int, largest: int) -> list[int]:
    """Cut a number into parts of at most ``largest``."""
    return [min(largest, total - done) for done in range(0, total, largest)]


def seeded(seed: int) -> torch.Generator:
    """Return a generator with this seed."""
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
