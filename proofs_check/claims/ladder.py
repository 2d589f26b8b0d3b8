"""ladder.*: where rungs of the ladder are attained, what breaks them, and how loose they are."""

from collections.abc import Callable
from itertools import pairwise, product
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory import functional, ntk_trace, path_bounds
from ntktheory.functional import Params
from ntktheory.models import mlp
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.bounds import bound_values
from ntktheory.paths.reference import Decomposition, decompose
from proofs_check import cases, strategies
from proofs_check.bounds_evidence import ROUNDING, Bounds
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.beyond import edge_without_mask
from proofs_check.claims.counterexamples import Trace, case_of, refuted_by
from proofs_check.compare import Worst, relative_gap
from proofs_check.search import Broken, search
from proofs_check.wrong_bounds import with_upper
from proofs_check.wrong_paths import with_sums

Norms = Callable[[nn.Module, Tensor], tuple[float, float]]
Energy = Callable[[nn.Module, Tensor], float]
Many = Callable[[nn.Sequential, Params, Tensor], dict[str, Tensor]]


# --- R_half, one hidden layer ---------------------------------------------------------------------


def _edge_as_half(model: nn.Module, d: Decomposition) -> dict[str, float]:
    return {"half_per_output": d.bounds()["edge_per_output"]}


def _outputs_together(model: nn.Module, d: Decomposition) -> dict[str, float]:
    return {"half_per_output": d.bounds()["half"]}


@claim(
    "ladder.one_hidden_layer",
    subjects={"bounds": path_bounds, "paths": decompose},
    mutants={
        "bounds what stands before an edge too": {"bounds": with_sums(_edge_as_half)},
        "takes all outputs together": {"bounds": with_sums(_outputs_together)},
        "has a second hidden layer": {
            "paths": lambda model, x, **options: decompose(
                mlp([x.shape[1], 2, 2, 2], dtype=torch.float64,
                    generator=torch.Generator().manual_seed(0)), x, exact=True
            )
        },
    },
)  # fmt: skip
def one_hidden_layer(level: Level, bounds: Bounds, paths: Callable[..., Decomposition]) -> Outcome:
    """R_half per output equals the trace, in fractions."""
    seen = {"positive_traces": 0}

    def check(case: strategies.Case) -> None:
        exact = paths(case.model, case.x, masks=case.masks, exact=True).bounds()
        if exact["half_per_output"] != exact["trace"]:
            raise Broken(
                f"{case}\nexactly, R_half = {exact['half_per_output']}, Tr = {exact['trace']}"
            )
        b = bounds(case.model, case.x, masks=case.masks, names=["half_per_output"])
        value = b.upper["half_per_output"]
        if not relative_gap(value, float(exact["trace"])) <= ROUNDING:
            raise Broken(f"{case}\nR_half = {value}, Tr = {float(exact['trace'])}")
        seen["positive_traces"] += exact["trace"] > 0

    nets = strategies.masked(strategies.mlps(min_depth=2, max_width=3, max_depth=2))
    found = search(nets, check, 25 if level == "quick" else 500)
    return Outcome(
        "refuted" if found.counterexample else "holds",
        "exact-numeric",
        "ReLU MLPs with one hidden layer, with and without biases and masks, drawn by value",
        {"examples": found.examples, **seen},
        found.counterexample,
    )


# --- R_op -----------------------------------------------------------------------------------------


def dense_norms(module: nn.Module, h: Tensor) -> tuple[float, float]:
    """Return ``‖W‖_F²`` and ``‖W‖₂²`` of a layer's operator on its map, without bias."""
    basis = torch.eye(h[0].numel(), dtype=h.dtype).unflatten(1, h.shape[1:])
    zero = module(torch.zeros_like(h[:1]))
    matrix = (module(basis) - zero).detach().flatten(1)
    return float(matrix.square().sum()), float(torch.linalg.matrix_norm(matrix, 2)) ** 2


def flattened_norms(module: nn.Module, h: Tensor) -> tuple[float, float]:
    """Return the norms of a kernel flattened to a matrix [channels, inputs · taps]."""
    matrix = module.weight.detach().flatten(1)  # type: ignore[operator]
    return float(matrix.square().sum()), float(torch.linalg.matrix_norm(matrix, 2)) ** 2


def unfolded_energy(module: nn.Module, h: Tensor) -> float:
    """Return ``Σ_x max_o ‖inputs of unit or channel o, unfolded‖²``, a bias as an input of 1."""
    if isinstance(module, nn.Linear):
        return float(h.square().sum()) + len(h) * (module.bias is not None)
    ones = torch.ones_like(module.weight)  # type: ignore[arg-type]
    options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
    convolve = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
    sums = convolve(h.square(), ones, None, **options).flatten(2)
    biases = len(h) * sums.shape[2] * (module.bias is not None)
    return float(sums.sum(2).amax(1).sum()) + biases


def map_energy(module: nn.Module, h: Tensor) -> float:
    """Return ``Σ_x ‖h‖²``, a bias as an input of 1."""
    return float(h.square().sum()) + len(h) * (module.bias is not None)


def operator_bound(
    case: strategies.Case, norms: Norms = dense_norms, energy: Energy = unfolded_energy
) -> float:
    """Return R_op of a chain by dense matrices.

    ``Σ_l energy_l κ_l`` with ``κ_L = C`` and ``κ_l = min_{m>l} ‖W_m‖_F² Π_{m'≠m} ‖W_m'‖₂²``, times the
    squared norms of the pools and leaky ReLUs behind l.
    """
    steps: list[tuple[float, float | None, float]] = []
    h = case.x
    with torch.no_grad():
        for module in case.model:
            if isinstance(module, strategies.LAYERS):
                steps.append((energy(module, h), *norms(module, h)))
            elif isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
                steps.append((0.0, None, dense_norms(module, h)[1]))
            elif isinstance(module, nn.LeakyReLU):
                steps.append((0.0, None, max(1.0, module.negative_slope**2)))
            h = module(h)
    total, spectral, kappa = 0.0, 1.0, None
    for own, frobenius, largest in reversed(steps):
        if frobenius is None:  # nothing to train, and never last
            kappa = largest * (kappa or 0.0)
        else:
            total += own * (h.shape[1] if kappa is None else kappa)
            kappa = frobenius if kappa is None else min(frobenius * spectral, largest * kappa)
        spectral *= largest
    return total


CHAINS = ("MLP", "MLP with biases", "leaky ReLU", "convolution", "average pooling")


def _spectral_only(module: nn.Module, h: Tensor) -> tuple[float, float]:
    _, spectral = dense_norms(module, h)
    return spectral, spectral


@claim(
    "ladder.operator",
    subjects={"bounds": path_bounds, "dense": operator_bound},
    mutants={
        "takes the spectral norm of every layer": {
            "dense": lambda case: operator_bound(case, _spectral_only)
        },
        "takes norms of flattened kernels": {
            "dense": lambda case: operator_bound(case, flattened_norms)
        },
        "does not unfold the inputs of convolutions": {
            "dense": lambda case: operator_bound(case, energy=map_energy)
        },
    },
)
def operator_norms(
    level: Level, bounds: Bounds, dense: Callable[[strategies.Case], float]
) -> Outcome:
    """R_op by certified norms is not below R_op by dense matrices, nor is that below the trace."""
    seen = {"largest_trace_over_bound": 0.0, "largest_certified_over_dense": 1.0}

    def check(case: strategies.Case) -> None:
        b, reference = bounds(case.model, case.x, names=["op"]), dense(case)
        value, slack = b.upper["op"], 1 + 1e-9
        if not b.trace <= reference * slack or not reference <= value * slack:
            raise Broken(f"{case}\nTr = {b.trace}, R_op = {reference}, certified {value}")
        only_linear = not any(isinstance(m, nn.Conv1d | nn.Conv2d) for m in case.model)
        if only_linear and value > reference * slack:
            raise Broken(f"{case}\nR_op = {reference}, certified {value} though SVDs are exact")
        if reference:
            seen["largest_trace_over_bound"] = max(
                seen["largest_trace_over_bound"], b.trace / reference
            )
            ratio = max(seen["largest_certified_over_dense"], value / reference)
            seen["largest_certified_over_dense"] = ratio

    examples, broken = {}, None
    for family in CHAINS:
        fixed = [case for case in strategies.family_cases(family) if case.masks is None]
        fixed += [ones_chain(2, 1), ones_chain(6, 2)] if family == "convolution" else []
        found = search(strategies.FAMILIES[family], check, 6 if level == "quick" else 300, fixed)
        examples[family] = found.examples
        broken = broken or found.counterexample
    scope = f"fixed networks, and networks drawn by value ({', '.join(CHAINS)})"
    evidence = {"examples": examples, **seen}
    return Outcome("refuted" if broken else "holds", "property", scope, evidence, broken)


def ones_chain(size: int, axes: int) -> strategies.Case:
    """Return 1×1 convolution, convolution over 3 entries per axis, Linear; all weights and inputs 1."""
    convolution = strategies.CONVOLUTIONS[axes]
    model = nn.Sequential(
        convolution(1, 1, 1, bias=False), convolution(1, 1, 3, padding=1, bias=False), nn.Flatten(),
        nn.Linear(size**axes, 1, bias=False),
    )  # fmt: skip
    weights = [torch.ones(p.shape).tolist() for p in model.parameters()]
    return case_of(model, weights, torch.ones(1, 1, *[size] * axes).tolist())


@claim(
    "ladder.flattened_kernel",
    subjects={"norms": flattened_norms, "trace": ntk_trace},
    mutants={
        "takes the norms of the operators on their maps": {"norms": dense_norms},
        "differentiates the head alone": {
            "trace": lambda model, x: ntk_trace(model, x, select=lambda name, p: p.ndim == 2)
        },
    },
)
def flattened_kernel(level: Level, norms: Norms, trace: Trace) -> Outcome:
    """Two entries, a kernel of three: the operator is larger than its kernel."""
    rows = []
    for size, axes in ((2, 1), (6, 2)):
        case = ones_chain(size, axes)
        tr, flat = float(trace(case.model, case.x)), operator_bound(case, norms)
        rows.append({"size": size, "axes": axes, "trace": tr, "flattened": flat,
                     "operator": operator_bound(case)})  # fmt: skip
    first = rows[0]
    text = (
        f"{ones_chain(2, 1)}\nTr = {first['trace']} > R_op with flattened kernels = "
        f"{first['flattened']}; with the operators {first['operator']}; on 6×6 inputs of 1 "
        f"{rows[1]['trace']} > {rows[1]['flattened']}"
    )
    fails = all(row["trace"] > row["flattened"] for row in rows)
    scope = "1×1 convolution, convolution of width 3, Linear; all ones"
    return refuted_by(text if fails else None, scope, {"networks": rows})


def one_kernel() -> strategies.Case:
    """Return a 3×3 convolution with kernel 0 and a Linear of ones behind it, on 6×6 ones."""
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(36, 1, bias=False)
    )
    return case_of(model, [[0.0] * 9, [1.0] * 36], torch.ones(1, 1, 6, 6).tolist())


@claim(
    "ladder.map_energy",
    subjects={"energy": map_energy, "trace": ntk_trace},
    mutants={
        "unfolds the inputs": {"energy": unfolded_energy},
        "forgets the kernel's overlap": {"trace": lambda model, x: 36.0 * 9},
    },
)
def inputs_of_a_convolution(level: Level, energy: Energy, trace: Trace) -> Outcome:
    """Tr = Σ_taps (number of places)² = 36² + 4·30² + 4·25² = 7396 > 36·36."""
    case = one_kernel()
    tr, value = float(trace(case.model, case.x)), operator_bound(case, energy=energy)
    right = operator_bound(case)
    text = (
        "3×3 convolution, padding 1, kernel 0, on a 6×6 input of 1; Linear, weights 1\n"
        f"Tr = {tr} > R_op with ‖h‖² = {value}; with ‖unfold(h)‖² {right}"
    )
    evidence = {"trace": tr, "map_energy": value, "unfolded": right}
    return refuted_by(text if tr > value else None, "one 3×3 convolution and a Linear", evidence)


# --- T_sq -----------------------------------------------------------------------------------------


def _t_sq(model: nn.Module, x: Tensor) -> float:
    return path_bounds(model, x, names=["t_sq"]).t_sq or 0.0


@claim(
    "ladder.t_sq",
    subjects={"surrogate": _t_sq, "trace": ntk_trace},
    mutants={
        "pairs each weight's sums, as R_edge": {
            "surrogate": lambda model, x: path_bounds(model, x, names=["edge"]).upper["edge"]
        },
        "keeps the paths apart in the trace": {"trace": _t_sq},
    },
)
def surrogate(level: Level, surrogate: Callable[..., float], trace: Trace) -> Outcome:
    """2-1-1, all ones: Tr = (1 + 1)² + 1 + 1 = 6 > 4: paths that add up are squared apart."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    case = case_of(model, [[1, 1], [1]], [[1.0, 1.0]])
    tr, value = float(trace(case.model, case.x)), surrogate(case.model, case.x)
    ratios = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        net = mlp([8, 16, 16, 4], generator=generator, dtype=torch.float64)
        with torch.no_grad():
            for p in net.parameters():
                p.abs_()
        x = torch.randn(4, 8, generator=generator, dtype=torch.float64).abs()
        ratios.append(surrogate(net, x) / float(trace(net, x)))
    evidence = {
        "trace": tr,
        "t_sq": value,
        "t_sq_over_trace_all_positive_8_16_16_4": median(ratios),
    }
    text = f"{case}\nTr = {tr} > T_sq = {value}"
    scope = "2-1-1 network of ones; 8-16-16-4 with positive weights and inputs"
    return refuted_by(text if tr > value else None, scope, evidence)


# --- means over all signs -------------------------------------------------------------------------

SIZES = (1.0, 2.0, 4.0, 7.0, 13.0, 24.0, 44.0, 84.0, 161.0, 309.0, 594.0, 1164.0)


def signed(model: nn.Sequential) -> tuple[nn.Sequential, Params]:
    """Return a network and all sign patterns of its weights, [2^P, …], of sizes 1, 2, 4, 7 and so on."""
    model = model.double().eval()
    count = sum(p.numel() for p in model.parameters())
    signs = torch.tensor(list(product((1.0, -1.0), repeat=count)), dtype=torch.float64)
    values = signs * torch.tensor(SIZES[:count], dtype=torch.float64)
    stacked, start = {}, 0
    for name, p in model.named_parameters():
        stacked[name] = values[:, start : start + p.numel()].unflatten(1, p.shape)
        start += p.numel()
    return model, stacked


def values_of_all(
    model: nn.Sequential, params: Params, x: Tensor, names: tuple[str, ...] = ("t_sq",)
) -> dict[str, Tensor]:
    """Return bounds and trace at every parameter set, the trace by its definition."""
    f = functional(model)

    def one(p: Params) -> dict[str, Tensor]:
        terms = ntk_reference.trace(f.model_fn, p, None, x)
        trace = torch.stack([t.sum() for t in terms.values()]).sum()
        return bound_values(f.model_fn, p, None, x, names) | {"trace": trace}

    return torch.vmap(one)(params)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def _small_chains() -> dict[str, tuple[nn.Sequential, Tensor]]:
    """Return chains of at most 12 weights, with a batch of whole numbers."""
    sequence = torch.tensor([[[3.0, 1.0, 2.0, 5.0]]])
    samples = torch.tensor([[3.0, 1.0], [1.0, -2.0]])
    first = (nn.Conv1d(1, 2, 2, bias=False), nn.ReLU())
    second = (nn.Conv1d(2, 1, 2, bias=False), nn.ReLU())
    return {
        "2-2-2": (nn.Sequential(_linear(2, 2), nn.ReLU(), _linear(2, 2)), samples),
        "2-2-2-1": (
            nn.Sequential(_linear(2, 2), nn.ReLU(), _linear(2, 2), nn.ReLU(), _linear(2, 1)),
            samples,
        ),
        "convolution, flatten": (
            nn.Sequential(*first, nn.Flatten(), _linear(6, 1)), sequence
        ),
        "two convolutions, flatten": (
            nn.Sequential(*first, *second, nn.Flatten(), _linear(2, 1)), sequence
        ),
        "convolution, average pooling, flatten": (
            nn.Sequential(*first, nn.AvgPool1d(2, 1), nn.Flatten(), _linear(4, 1)), sequence
        ),
    }  # fmt: skip


Values = Callable[..., dict[str, Tensor]]


def sign_means(name: str, values: Values, *names: str) -> dict[str, float]:
    """Return the exact means of bounds and trace over all sign patterns of a small chain."""
    model, x = _small_chains()[name]
    model, params = signed(model)
    found = values(model, params, x.double(), ("t_sq", *names))
    patterns = len(next(iter(params.values())))
    return {"patterns": patterns} | {key: float(v.mean()) for key, v in found.items()}


def _paths_of_signs(
    model: nn.Sequential, params: Params, x: Tensor, names: Any
) -> dict[str, Tensor]:
    """Square fixed edges once more, and leave gates open: the squared net of the input."""
    opened = nn.Sequential(*[nn.Identity() if isinstance(m, nn.ReLU) else m for m in model])
    return values_of_all(opened, params, x, names) | {
        "trace": values_of_all(model, params, x, names)["trace"]
    }


def _positive(model: nn.Sequential, params: Params, x: Tensor, names: Any) -> dict[str, Tensor]:
    """Take all weights positive."""
    return values_of_all(model, {name: p.abs() for name, p in params.items()}, x, names)


@claim(
    "ladder.t_sq_mean",
    subjects={"values": values_of_all},
    mutants={
        "leaves gates open in T_sq": {"values": _paths_of_signs},
        "takes all weights positive": {"values": _positive},
    },
)
def surrogate_mean(level: Level, values: Values) -> Outcome:
    """Over all sign patterns the means of T_sq and of the trace are equal, as whole numbers."""
    names = [name for name in _small_chains() if "pooling" not in name]
    rows = {name: sign_means(name, values) for name in names}
    different = [name for name, row in rows.items() if row["t_sq"] != row["trace"]]
    text = f"{different[0]}, weights ±1, ±2, ±4, ±7, …: {rows[different[0]]}" if different else None
    return refuted_by(text, "chains of up to 12 weights, every sign pattern", {"means": rows})


@claim(
    "ladder.t_sq_pooling",
    subjects={"values": values_of_all},
    mutants={
        "takes the trace for T_sq": {
            "values": lambda *args: (v := values_of_all(*args)) | {"t_sq": v["trace"]}
        },
        "takes T_sq for the trace": {
            "values": lambda *args: (v := values_of_all(*args)) | {"trace": v["t_sq"]}
        },
    },
)
def surrogate_mean_with_pooling(level: Level, values: Values) -> Outcome:
    """Paths that meet in an average share all weights behind it: their product has no mean 0."""
    name = "convolution, average pooling, flatten"
    row = sign_means(name, values)
    differs = relative_gap(row["t_sq"], row["trace"]) > 1e-9
    text = f"{name}, weights ±1, ±2, ±4, ±7, …: mean T_sq = {row['t_sq']}, mean Tr = {row['trace']}"
    scope = "a chain with average pooling, every sign pattern"
    return refuted_by(text if differs else None, scope, {"means": {name: row}})


# --- how loose the bounds are at initialisation ---------------------------------------------------

RATIOS = ("px", "px_per_output", "edge", "edge_per_output", "half", "half_per_output", "t_sq")


def mean_over_signs(weights: list[np.ndarray], x: np.ndarray) -> dict[str, float]:
    """Return the means over the signs of a ReLU MLP's weights, from their sizes alone.

    Whatever the layers before a hidden unit do, its gate is 0 or 1 with probability 1/2 (all its weights
    may change sign at once) and says nothing of the products of two of them. So the mean of
    ``Σ a_p² x_p²`` over paths halves at every hidden layer, and so do those of h² and of squared
    gradients.

    Args:
        weights: W_l, [n_l, n_{l−1}].
        x: The batch, [N, n_0].

    Returns:
        The means of the bounds, of T_sq and of the trace.
    """
    squares, energy, depth = [w**2 for w in weights], (x**2).sum(0), len(weights)
    data, h2, before = [energy], [energy], [np.ones_like(energy)]
    for w2 in squares[:-1]:
        data.append(np.ones_like(w2) @ data[-1] / 2)
        h2.append(w2 @ h2[-1] / 2)
        before.append(w2 @ before[-1])
    active, after = [np.eye(len(weights[-1]))], [np.eye(len(weights[-1]))]
    for w2 in squares[:0:-1]:
        active.insert(0, active[0] @ np.ones_like(w2) / 2)
        after.insert(0, after[0] @ w2)
    found = dict.fromkeys((*RATIOS, "trace"), 0.0)
    by_output = 0.0
    for i in range(depth):
        a, h, b, g = (
            np.einsum("co,i->coi", left, right)
            for left, right in (
                (active[i], data[i]), (active[i], h2[i] / before[i]), (after[i], before[i]),
                (after[i] / 2 ** (depth - 1 - i), h2[i]),
            )
        )  # fmt: skip
        found["edge"] += (a.sum(0) * b.sum(0)).sum()
        found["edge_per_output"] += (a * b).sum()
        found["half"] += (h.sum(0) * b.sum(0)).sum()
        found["half_per_output"] += (h * b).sum()
        found["trace"] += g.sum()
        by_output = by_output + b.sum((1, 2))
    z1 = active[0] @ np.ones_like(squares[0]) @ energy
    found |= {"t_sq": found["trace"], "px": z1.sum() * np.sum(by_output)}
    found["px_per_output"] = (z1 * by_output).sum()
    return {name: float(value) for name, value in found.items()}


def expected_looseness(widths: list[int]) -> dict[str, float]:
    """Return mean bound ÷ mean trace of a bias-free ReLU MLP with He weights, n_0, …, n_L units.

    With ``t_l = n_{l−1} ÷ Σ n_{l−1}`` (the share of layer l in the mean trace) and ``C = n_L``:
    R_PX: the number of paths ``Π n_l``; R_edge: ``Π n_l Σ_l t_l/(n_{l−1} n_l)``; R_half:
    ``Σ_l t_l Π_{k>l} n_k``; per output, each but the last layer's term by C less; T_sq: 1.
    """
    n, depth = widths, len(widths) - 1
    paths, total = float(np.prod(n)), sum(n[:-1])
    edge = [paths / n[k] / total for k in range(1, depth + 1)]
    half = [n[k - 1] / total * float(np.prod(n[k + 1 :])) for k in range(1, depth + 1)]
    return {
        "px": paths,
        "px_per_output": paths / n[-1],
        "edge": sum(edge),
        "edge_per_output": sum(edge[:-1]) / n[-1] + edge[-1],
        "half": sum(half),
        "half_per_output": sum(half[:-1]) / n[-1] + half[-1],
        "t_sq": 1.0,
    }


def measured_looseness(widths: list[int], seeds: int) -> dict[str, float]:
    """Return mean bound ÷ mean trace over He initialisations, on 4 Gaussian samples."""
    generator = torch.Generator().manual_seed(sum(widths))
    nets = [mlp(widths, generator=generator, dtype=torch.float64) for _ in range(seeds)]
    params = {n: torch.stack([dict(net.named_parameters())[n].detach() for net in nets])
              for n, _ in nets[0].named_parameters()}  # fmt: skip
    x = torch.randn(4, widths[0], generator=generator, dtype=torch.float64)
    values = values_of_all(nets[0], params, x, ("px", "edge", "half", "t_sq"))
    return {name: float(v.mean() / values["trace"].mean()) for name, v in values.items()}


def _without_halves(weights: list[np.ndarray], x: np.ndarray) -> dict[str, float]:
    """Leave the gates open on average too."""
    found, halvings = mean_over_signs(weights, x), 2 ** (len(weights) - 1)
    return {name: v * (halvings if name in ("px", "edge") else 1) for name, v in found.items()}


def _one_path_too_many(widths: list[int]) -> dict[str, float]:
    expected = expected_looseness(widths)
    return expected | {"px": expected["px"] + 1}


@claim(
    "ladder.looseness",
    subjects={"values": values_of_all, "means": mean_over_signs, "formula": expected_looseness},
    mutants={
        "leaves gates open in the means": {"means": _without_halves},
        "takes all weights positive": {"values": _positive},
        "counts one path too many": {"formula": _one_path_too_many},
        "takes R_edge for R_half": {
            "values": lambda *args: (v := values_of_all(*args)) | {"half": v["edge"]}
        },
    },
)
def looseness_at_initialisation(
    level: Level,
    values: Values,
    means: Callable[..., dict[str, float]],
    formula: Callable[[list[int]], dict[str, float]],
) -> Outcome:
    """Means over signs by formula and by every pattern; their ratios at He weights; measured ones."""
    worst = Worst()
    for name in ("2-2-2", "2-2-2-1"):
        model, x = _small_chains()[name]
        model, params = signed(model)
        weights = [params[key][0].abs().numpy() for key in params]
        exact = values(model, params, x.double(), RATIOS)
        for key, value in means(weights, x.double().numpy()).items():
            worst.see(f"mean of {key}, {name}", float(exact[key].mean()), value)
    rows: list[dict[str, Any]] = []
    for widths in ([8, 64, 4], [8, 16, 16, 4], [8, 16, 16, 16, 4], [8, 64, 64, 64, 64, 4]):
        he = [np.full((o, i), (2 / i) ** 0.5) for i, o in pairwise(widths)]
        mean, ratios = means(he, np.ones((1, widths[0]))), formula(widths)
        for key, ratio in ratios.items():
            worst.see(f"{key} ÷ Tr, {widths}", mean[key] / mean["trace"], ratio)
        rows.append({"widths": widths, "expected": ratios})
    if worst.holds:
        for row in rows:
            row["measured"] = measured_looseness(row["widths"], 32 if level == "quick" else 512)
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "every sign pattern of two networks; He weights",
        worst.numbers() | {"mean_bound_over_mean_trace": rows},
        worst.counterexample,
    )


# --- masks ----------------------------------------------------------------------------------------


@claim(
    "ladder.masks",
    subjects={"bounds": path_bounds, "without": with_upper(edge=edge_without_mask)},
    mutants={
        "leaves the mask out": {"bounds": with_upper(edge=edge_without_mask)},
        "puts the mask in after all": {"without": path_bounds},
    },
)
def masks_in_the_ones_net(level: Level, bounds: Bounds, without: Bounds) -> Outcome:
    """With m in the ones net R_edge is that of the kept paths; without, it is larger everywhere."""
    worst, rows = Worst(), []
    for family in strategies.FAMILIES:
        case = strategies.family_cases(family)[1]
        given = {"masks": case.masks, "names": ["edge"]}
        exact = float(decompose(case.model, case.x, masks=case.masks).bounds()["edge"])
        value = bounds(case.model, case.x, **given).upper["edge"]
        worst.see(f"edge, {family}", value, exact)
        loose = without(case.model, case.x, **given).upper["edge"]
        worst.require(f"{family}: without the mask {loose} > {value}", loose > value)
    for depth in (2, 3, 4, 5) if worst.holds else ():
        pairs = [_looseness_by_mask(depth, seed, bounds, without) for seed in range(3)]
        tight, loose = (median(column) for column in zip(*pairs, strict=True))
        row = {"depth": depth, "edge_over_trace": tight, "edge_over_trace_without_mask": loose}
        rows.append(row | {"times_looser": median(b / a for a, b in pairs)})
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "masked networks of every family; 8-16-…-16-4 MLPs, 30 % of the weights kept",
        worst.numbers() | {"width_16_density_0.3": rows},
        worst.counterexample,
    )


def _looseness_by_mask(
    depth: int, seed: int, bounds: Bounds, without: Bounds
) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(seed)
    net = mlp([8, *[16] * (depth - 1), 4], generator=generator, dtype=torch.float64)
    x = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    given = {"masks": cases.random_masks(net, 0.3, 100 + seed), "names": ["edge"]}
    b = bounds(net, x, **given)
    return b.upper["edge"] / b.trace, without(net, x, **given).upper["edge"] / b.trace
