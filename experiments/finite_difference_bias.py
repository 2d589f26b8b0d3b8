"""The bias of NTK-SAP's finite difference against σ, on five small networks.

``python experiments/finite_difference_bias.py [--probes 1000000]`` writes
``experiments/records/finite_difference_bias.json``; ``python figures/finite_difference_bias.py`` draws
it. All biases are relative, ``E‖f(θ+σΔ)−f(θ)‖²/(σ² Tr Θ) − 1`` with Gaussian Δ, in float64. Per σ:

* ``polynomial``: ``estimators/moments.py``, gates held fixed; to order σ⁴ where ``complete`` is false.
* ``exact``: networks with one hidden layer: the true mean, gates that flip included.
* ``low``, ``high``: an interval from independent probes that holds with probability 1 − delta for all
  networks and σ together: ``check_mean`` inverted. The bound on the variance that it needs is proven
  from half of the probes (``second_moment_bound``), and used on the other half.
* ``sampled``: mean and standard error with the JVP form of the same probes as control variate:
  precise, but without a guarantee.

The JVP form has the same fields but no σ: the probes of one network serve all σ, and its relative
error does not depend on σ.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record, commit, hardware, save  # noqa: E402
from ntktheory import empirical_ntk, functional, ntk_sap_objective  # noqa: E402
from ntktheory.data import digits  # noqa: E402
from ntktheory.estimators.difference_bias import finite_difference_bias, sampled_bias  # noqa: E402
from ntktheory.estimators.evidence import check_mean  # noqa: E402
from ntktheory.estimators.moments import design_mean  # noqa: E402
from ntktheory.estimators.ntk_sap import Form  # noqa: E402
from ntktheory.models import convnet, mlp  # noqa: E402
from ntktheory.probes import hadamard_design, sample_gaussian  # noqa: E402

RECORD = Path(__file__).parent / "records" / "finite_difference_bias.json"
SIGMAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CURVE = tuple(float(s) for s in np.geomspace(SIGMAS[0], SIGMAS[-1], 91))
DELTA, SEED = 0.01, 0
CHUNK, PAIRS = 20_000, 100_000
NODES = 200
ORDERS = (2.5, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Orders of the moments by which the objective's tail is bounded."""


class Case(NamedTuple):
    """A network and its batch."""

    name: str
    net: nn.Sequential
    x: Tensor


def main() -> None:
    """Measure every network, and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--probes", type=int, default=1_000_000, help="per interval")
    probes = parser.parse_args().probes
    torch.set_num_threads(1)
    start = time.process_time()
    found = cases()
    record: Record = {
        "command": " ".join(["python experiments/finite_difference_bias.py", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {m.__name__: m.__version__ for m in (torch, np, scipy)},
        "seed": SEED,
        "probes": probes,
        "pairs": PAIRS,
        "delta": DELTA,
        "intervals": len(found) * (len(SIGMAS) + 1),
        "curve_sigma": CURVE,
        "networks": [],
    }
    for case in found:
        begin = time.perf_counter()
        record["networks"].append(measure(case, probes, DELTA / record["intervals"]))
        print(f"{case.name}: {time.perf_counter() - begin:.0f} s", flush=True)
    record["cpu_seconds"] = time.process_time() - start
    save(RECORD, record, digits=9)


def cases() -> list[Case]:
    """Return the five networks, with He weights: each the first that passes every sample on."""
    kind: Record = {"dtype": torch.float64}
    images, _ = digits(4, **kind)

    def noise(width: int) -> Tensor:
        return torch.randn(4, width, generator=seeded(1), **kind)

    def first(x: Tensor, build: Callable[..., nn.Sequential], *widths: Any, **more: Any) -> Record:
        nets = (build(*widths, generator=seeded(i), **kind, **more) for i in itertools.count())
        return {"net": next(net for net in nets if bool(net(x).any(1).all())), "x": x}

    pooled: Record = {"image_size": 8, "stride": 2, "head": "average"}
    return [
        Case("2-2-1, ReLU", **first(noise(2), mlp, [2, 2, 1])),
        Case("3-3-1, ReLU", **first(noise(3), mlp, [3, 3, 1])),
        Case("3-4-1, tanh", **first(noise(3), mlp, [3, 4, 1], activation=nn.Tanh)),
        Case("convolution 1-3, ReLU, mean, 10 outputs; digits",
             **first(images, convnet, [1, 3], 10, **pooled)),
        Case("4-3-3-3-3-1, ReLU", **first(noise(4), mlp, [4, 3, 3, 3, 3, 1])),
    ]  # fmt: skip


def measure(case: Case, probes: int, delta: float) -> Record:
    """Return all that is known of one network's bias."""
    net, x = case.net, case.x
    bias = finite_difference_bias(net, x)
    trace = bias.trace
    shallow = isinstance(net[0], nn.Flatten) and len(net) == 4
    entry: Record = {
        "name": case.name,
        "parameters": sum(p.numel() for p in net.parameters()),
        "samples": len(x),
        "trace": trace,
        "coefficients": bias.coefficients,
        "complete": bias.complete,
        "sigma_for_1_percent": bias.largest_sigma(0.01),
        "polynomial_curve": [bias.relative(s) for s in CURVE],
        "exact_curve": [relative(exact_mean(net, x, s), s, trace) for s in CURVE]
        if shallow
        else None,
        "jvp": jvp(net, x, trace, probes, delta),
        "points": [],
    }
    for i, sigma in enumerate(SIGMAS):
        unit = sigma**2 * trace
        values = objectives(net, x, sigma, probes, 2 + i, "finite_difference") / unit
        moments = {p: moment_bound(net, x, sigma, p) / unit for p in ORDERS}
        second = second_moment_bound(values[: probes // 2], moments, delta / 2)
        low, high = interval(values[probes // 2 :], second, delta / 2)
        mean, error = paired(net, x, sigma, PAIRS, 2 + i)
        point = {
            "sigma": sigma,
            "polynomial": bias.relative(sigma),
            "mean": float(values.mean()) - 1,
            "low": low - 1,
            "high": high - 1,
            "sd": float(values.std()),
            "sd_bound": math.sqrt(second),
            "sampled": mean / unit,
            "standard_error": error / unit,
        }
        if shallow:
            point["exact"] = relative(exact_mean(net, x, sigma), sigma, trace)
            point["covered"] = point["low"] <= point["exact"] <= point["high"]
        entry["points"].append(point)
    return entry


def jvp(net: nn.Module, x: Tensor, trace: float, probes: int, delta: float) -> Record:
    """Return the JVP form's relative error: by a design, and sampled, with its exact variance."""
    params = dict(functional(net).params)

    def statistic(points: dict[str, Tensor]) -> Tensor:
        return ntk_sap_objective(net, x, sigma=1.0, probes=points)

    exact = float(design_mean(statistic, hadamard_design(params)))
    variance = 2 * float(empirical_ntk(net, x).square().sum())
    values = objectives(net, x, 1.0, probes, 1, "jvp")
    low, high = interval(values / trace, variance / trace**2, delta)
    return {
        "design": exact / trace - 1,
        "mean": float(values.mean()) / trace - 1,
        "low": low - 1,
        "high": high - 1,
        "sd_bound": math.sqrt(variance) / trace,
    }


def exact_mean(net: nn.Sequential, x: Tensor, sigma: float) -> float:
    """Return ``E‖f(θ+σΔ)−f(θ)‖²`` for a bias-free network with one hidden layer, exactly.

    For one sample, hidden unit u sees ``h + s g``, g standard normal, ``s = σ‖x‖``, independently of
    its output weight and of other units; so the change of an output is a sum of independent
    ``D_u = (v+σδ) φ(h+sg) − v φ(h)``. With m₁ = E φ(h+sg) and m₂ = E φ(h+sg)²,

        E D_u = v (m₁ − φ(h)),    E D_u² = (v² + σ²) m₂ − 2 v² φ(h) m₁ + v² φ(h)².
    """
    first, act, last = net[1].weight.detach(), net[2], net[3].weight.detach()
    h = x @ first.T
    s = sigma * x.norm(dim=1, keepdim=True)
    m1, m2 = activation_moments(act, h, s)
    now, v = act(h).unsqueeze(1), last.unsqueeze(0)  # [N, 1, units], [1, C, units]
    m1, m2 = m1.unsqueeze(1), m2.unsqueeze(1)
    mean = v * (m1 - now)
    second = (v**2 + sigma**2) * m2 - 2 * v**2 * now * m1 + v**2 * now**2
    return float((mean.sum(-1) ** 2 + (second - mean**2).sum(-1)).sum())


def activation_moments(act: nn.Module, h: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of φ(h + s g) and of its square: closed for ReLU, else by Gauss–Hermite."""
    if isinstance(act, nn.ReLU):
        z = h / s
        below, density = torch.special.ndtr(z), torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        return h * below + s * density, (h**2 + s**2) * below + h * s * density
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(NODES))
    values = act(h.unsqueeze(-1) + s.unsqueeze(-1) * nodes)
    weights = weights / weights.sum()
    return values @ weights, values**2 @ weights


def moment_bound(net: nn.Sequential, x: Tensor, sigma: float, p: float) -> float:
    """Return B with ``(E X^p)^{1/p} ≤ B``, X = ``‖f(θ+σΔ)−f(θ)‖²``, whether gates flip or not.

    Fix a sample; ‖·‖ is Euclidean, ``|v| = (E‖v‖^q)^{1/q}`` with q = 2p. A layer z = W h becomes
    z' = (W+σε) h', hence z' − z = W(h'−h) + σε h'. Given h', ``‖ε h'‖²`` is ``Σ_i λ_i χ²(m)`` with m
    rows of ε and Σ_i λ_i the sum of squares U(h')² over all patches of h' (of a linear layer: ‖h'‖²), so
    that ``|ε h'| ≤ χ |U(h')|``, χ the q-norm of a χ(m) variable. As U is a norm of a linear map that
    repeats a coordinate at most r times,

        |z'−z| ≤ ‖W‖₂ |h'−h| + σ χ (U(h) + √r |h'−h|).

    ReLU and tanh are 1-Lipschitz; flattening keeps norms, and means over separate windows of S
    positions are a map of norm 1/√S. Minkowski over samples: ``B = Σ_n |f'−f|²``.

    Raises:
        TypeError: If the network holds a layer of another kind.
    """
    now, moved = x, torch.zeros(len(x), dtype=x.dtype)
    for layer in net:
        after = layer(now).detach()
        if isinstance(layer, nn.Linear | nn.Conv2d):
            noise = sigma * chi_norm(layer.weight.shape[0], 2 * p)
            patches, repeats = patch_norms(layer, now)
            moved = operator_norm(layer, now) * moved + noise * (patches + repeats**0.5 * moved)
        elif isinstance(layer, nn.AvgPool2d) and layer.kernel_size == layer.stride:
            moved = moved / math.sqrt(now[0].numel() / after[0].numel())
        elif not isinstance(layer, nn.Flatten | nn.ReLU | nn.Tanh):
            raise TypeError(f"no bound is known for {layer}")
        now = after
    return float(moved.square().sum())


def chi_norm(freedom: int, q: float) -> float:
    """Return ``(E χ^q)^{1/q}`` of a χ variable: ``√2 (Γ((m+q)/2)/Γ(m/2))^{1/q}``."""
    return math.sqrt(2) * math.exp((math.lgamma((freedom + q) / 2) - math.lgamma(freedom / 2)) / q)


def patch_norms(layer: nn.Linear | nn.Conv2d, h: Tensor) -> tuple[Tensor, float]:
    """Return U(h), [N], and in how many patches a coordinate of h is, at most."""
    if isinstance(layer, nn.Linear):
        return h.norm(dim=1), 1.0
    geometry: Record = {"padding": layer.padding, "stride": layer.stride}
    patches = nn.functional.unfold(h, layer.kernel_size, **geometry)
    ones = torch.ones_like(patches[:1])
    counts = nn.functional.fold(ones, h.shape[2:], layer.kernel_size, **geometry)
    return patches.flatten(1).norm(dim=1), float(counts.max())


def second_moment_bound(values: Tensor, moments: dict[float, float], delta: float) -> float:
    """Return a bound on E X² that is wrong with probability at most delta.

    With Y = min(X², c²) in [0, c²], Var Y ≤ c² E Y: the means μ that ``check_mean`` does not reject
    with variance c² μ end somewhere, as its statistic ψ(r(μ − Y)), r ~ 1/(c √μ), increases with μ; that
    end bounds E Y. The rest is ``E(X² − c²)₊ ≤ B_p^p c^{2−p}`` for every p > 2, and c is chosen by the
    B_p alone.
    """

    def rest(c: float) -> float:
        return min(math.exp(p * math.log(b) - (p - 2) * math.log(c)) for p, b in moments.items())

    weight = 2 * math.log(2 / delta) / len(values)
    grid = np.geomspace(0.1, 1e4, 301) * moments[4]
    c = float(min(grid, key=lambda c: weight * c**2 + rest(c)))
    clipped = values.square().clamp(max=c**2)
    low, high = float(clipped.mean()), c**2

    def rejected(mean: float) -> bool:
        return check_mean(clipped, mean, c**2 * mean, delta=delta, beta=delta / 2).status == "fail"

    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rejected(middle) else (middle, high)
    return high + rest(c)


def operator_norm(layer: nn.Linear | nn.Conv2d, h: Tensor) -> float:
    """Return the largest singular value of the layer as a map of its whole input."""
    count = h[0].numel()
    units = torch.eye(count, dtype=h.dtype).view(count, *h.shape[1:])
    return float(torch.linalg.matrix_norm(layer(units).detach().flatten(1), 2))


def objectives(
    net: nn.Module, x: Tensor, sigma: float, probes: int, stream: int, form: Form
) -> Tensor:
    """Return independent values of NTK-SAP's objective, [probes]."""
    generator, params = seeded(SEED, stream), dict(functional(net).params)
    parts = []
    for done in range(0, probes, CHUNK):
        delta = sample_gaussian(params, min(CHUNK, probes - done), generator=generator)
        parts.append(ntk_sap_objective(net, x, sigma=sigma, probes=delta, form=form))
    return torch.cat(parts)


def paired(
    net: nn.Module, x: Tensor, sigma: float, probes: int, stream: int
) -> tuple[float, float]:
    """Return mean and standard error of the bias, with both signs and the JVP form as control."""
    generator, params = seeded(SEED + 1, stream), dict(functional(net).params)
    parts = [
        sampled_bias(net, x, sigma, sample_gaussian(params, CHUNK, generator=generator))
        for _ in range(probes // CHUNK)
    ]
    error = math.sqrt(sum(p.standard_error**2 for p in parts)) / len(parts)
    return sum(p.mean for p in parts) / len(parts), error


def interval(values: Tensor, variance: float, delta: float) -> tuple[float, float]:
    """Return the means that ``check_mean`` does not reject at delta: an interval, as ψ increases.

    β = δ/2 tunes its rate to √(2 log(2/δ)/(n v)), which makes the interval shortest.
    """

    def rejected(mean: float) -> bool:
        verdict = check_mean(values, mean, variance, delta=delta, beta=delta / 2)
        return verdict.status == "fail"

    centre = float(values.mean())
    width = math.sqrt(2 * variance * math.log(2 / delta) / len(values))
    ends = []
    for sign in (-1, 1):
        inside, outside = 0.0, 2.0
        while not rejected(centre + sign * outside * width):
            inside, outside = outside, 2 * outside
        for _ in range(10):
            middle = (inside + outside) / 2
            if rejected(centre + sign * middle * width):
                outside = middle
            else:
                inside = middle
        ends.append(centre + sign * outside * width)
    return ends[0], ends[1]


def relative(mean: float, sigma: float, trace: float) -> float:
    """Return ``mean/(σ² Tr Θ) − 1``."""
    return mean / (sigma**2 * trace) - 1


def seeded(seed: int, stream: int = 0) -> torch.Generator:
    """Return a generator; streams of one seed differ."""
    return torch.Generator().manual_seed(1000 * seed + stream)


if __name__ == "__main__":
    main()
