"""P2.mixed_gates: smooth activations, with secant gates before an edge and derivative gates after it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory import NumericalError, PathBounds, functional
from ntktheory.paths import mixed_gate_bounds, secant_gate_sum
from proofs_check import strategies
from proofs_check.bounds_evidence import Bounds
from proofs_check.cases import family_network
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.truth_table import jacobian, outcome
from proofs_check.compare import relative_gap
from proofs_check.search import Broken, search

ACTIVATIONS = (nn.GELU, nn.SiLU, nn.Tanh, nn.Softplus, nn.ELU, nn.Sigmoid)
TOLERANCE = 1e-10
Gate = Literal["secant", "slope"]
Choice = Callable[[bool], Gate]
Key = tuple[str, int]


@dataclass(frozen=True)
class SmoothPath:
    """One path of a smooth MLP.

    Attributes:
        output: Where it ends.
        start: x_p: an input coordinate, or 1 for a bias and for the constant φ(0), [N].
        constant: The product of its fixed edges, φ(0) or 1.
        parameters: The parameters on it, from the start.
        gates: (How many parameters stand before the gate, its secant [N], its derivative [N]).
    """

    output: int
    start: np.ndarray
    constant: float
    parameters: tuple[Key, ...]
    gates: tuple[tuple[int, np.ndarray, np.ndarray], ...]


def smooth_paths(model: nn.Sequential, x: Tensor) -> Iterator[SmoothPath]:
    """Yield every path of an MLP of Linear layers with one smooth function between them."""
    open_, h, ones = [], x, np.ones(len(x))
    for i in range(x.shape[1]):
        open_.append(SmoothPath(i, x[:, i].numpy(), 1.0, (), ()))
    for place, module in enumerate(model):
        if isinstance(module, nn.Linear):
            open_ = list(_through(open_, place, module, ones))
        else:
            secant, slope, offset = gates_of(module, h)
            open_ = [_gated(p, secant[:, p.output], slope[:, p.output]) for p in open_]
            if offset:
                open_ += [SmoothPath(o, ones, offset, (), ()) for o in range(h.shape[1])]
        h = module(h).detach()
    yield from open_


def _gated(path: SmoothPath, secant: np.ndarray, slope: np.ndarray) -> SmoothPath:
    return replace(path, gates=(*path.gates, (len(path.parameters), secant, slope)))


def _through(
    paths: list[SmoothPath], place: int, layer: nn.Linear, ones: np.ndarray
) -> Iterator[SmoothPath]:
    for o in range(layer.out_features):
        for p in paths:
            key = (f"{place}.weight", o * layer.in_features + p.output)
            yield replace(p, output=o, parameters=(*p.parameters, key))
        if layer.bias is not None:
            yield SmoothPath(o, ones, 1.0, ((f"{place}.bias", o),), ())


def gates_of(activation: nn.Module, z: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Return ``(φ(z) − φ(0))/z`` (φ'(0) at 0), ``φ'(z)`` and φ(0)."""
    offset = float(activation(torch.zeros((), dtype=z.dtype)))
    value, slope = torch.func.jvp(activation, (z.detach(),), (torch.ones_like(z),))  # type: ignore[misc]
    secant = torch.where(z == 0, slope, (value - offset) / torch.where(z == 0, 1.0, z))
    return secant.detach().numpy(), slope.numpy(), offset


def mixed_sums(case: strategies.Case, choice: Choice) -> dict[str, Any]:
    """Sum over all paths with gates before an edge and after it as chosen.

    Args:
        case: A smooth MLP.
        choice: Says for a gate before the edge (True), and after it (False), which gate it is.

    Returns:
        "outputs" (secant gates) and "jacobian"; "output_terms" and "jacobian_terms", the largest sums of
        the sizes of their terms; and the sums "edge" and "edge_per_output".
    """
    f = functional(case.model)
    keys = [(name, i) for name, p in f.params.items() for i in range(p.numel())]
    theta = {(n, i): v for n, p in f.params.items() for i, v in enumerate(p.flatten().tolist())}
    column = {key: i for i, key in enumerate(keys)}
    n, c = f.model_fn(f.params, case.x).shape
    outputs, j = np.zeros((2, n, c)), np.zeros((2, n, c, len(keys)))  # sums, and sums of sizes
    a, b = np.zeros((len(keys), c)), np.zeros((len(keys), c))
    for p in smooth_paths(case.model, case.x):
        values = np.array([theta[key] for key in p.parameters])
        secants = np.prod([s for _, s, _ in p.gates], axis=0) if p.gates else np.ones(n)
        _add(outputs[:, :, p.output], p.constant * p.start * values.prod() * secants)
        for i, key in enumerate(p.parameters):
            gate = p.start.copy()
            for before, secant, slope in p.gates:
                gate = gate * (secant if choice(before <= i) == "secant" else slope)
            others = np.delete(values, i).prod()
            _add(j[:, :, p.output, column[key]], p.constant * gate * others)
            a[column[key], p.output] += abs(p.constant) * (gate**2).sum()
            b[column[key], p.output] += abs(p.constant) * others**2
    return {
        "outputs": outputs[0],
        "output_terms": outputs[1].max(),
        "jacobian": j[0].reshape(n * c, -1),
        "jacobian_terms": j[1].max(),
        "edge": float((a.sum(1) * b.sum(1)).sum()),
        "edge_per_output": float((a * b).sum()),
    }


def _add(sums: np.ndarray, terms: np.ndarray) -> None:
    sums += np.stack([terms, abs(terms)])


def mixed(before: bool) -> Gate:
    """Choose the secant before the edge, and the derivative after it."""
    return "secant" if before else "slope"


@strategies.st.composite
def smooth_mlps(draw: Any) -> strategies.Case:
    """Draw an MLP with one of ``ACTIVATIONS`` and at least one hidden layer."""
    case = draw(strategies.mlps(max_width=2, max_depth=3))
    activation = draw(strategies.st.sampled_from(ACTIVATIONS))
    swapped = [activation() if isinstance(m, nn.ReLU) else m for m in case.model]
    return strategies.Case(nn.Sequential(*swapped), case.x)


def _gap(value: np.ndarray, reference: np.ndarray, terms: float) -> float:
    """Return the largest difference, relative to the size of the terms that cancel in it."""
    return float(abs(value - reference).max() / (terms or 1.0))


def with_activation(activation: Callable[[], nn.Module]) -> strategies.Case:
    """Return the fixed MLP with biases, smooth."""
    net = family_network("MLP with biases")
    kept = [m for m in net.model if not isinstance(m, nn.Flatten)]
    swapped = [activation() if isinstance(m, nn.ReLU) else m for m in kept]
    return strategies.Case(nn.Sequential(*swapped), net.x, note=net.name)


def _secant_bounds(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
    b = mixed_gate_bounds(model, x, **options)
    return replace(b, upper=dict(b.upper) | {"edge": secant_gate_sum(model, x)})


@claim(
    "P2.mixed_gates",
    subjects={"bounds": mixed_gate_bounds, "choice": mixed},
    mutants={
        "has secant gates everywhere": {"choice": lambda before: "secant"},
        "has derivative gates everywhere": {"choice": lambda before: "slope"},
        "exchanges the two": {"choice": lambda before: mixed(not before)},
        "has secant gates in R_edge": {"bounds": _secant_bounds},
    },
)
def mixed_gates(level: Level, bounds: Bounds, choice: Choice) -> Outcome:
    """Mixed gates give J exactly, and the sums by passes are those over all paths, and bounds."""
    seen = {"refused": 0, "worst_relative_difference": 0.0, "largest_trace_over_bound": 0.0}

    def check(case: strategies.Case) -> None:
        sums, j = mixed_sums(case, choice), jacobian(case)
        try:
            b = bounds(case.model, case.x, names=["edge", "edge_per_output"])
        except NumericalError:  # φ(z) is far below φ(0), and its secant gate has no digits of it
            seen["refused"] += 1
            return
        outputs = case.model(case.x).detach().numpy()
        gaps = {
            "Σ v s x against f": _gap(sums["outputs"], outputs, sums["output_terms"]),
            "the sum over paths against J": _gap(sums["jacobian"], j, sums["jacobian_terms"]),
            "Tr": relative_gap(b.trace, float((j**2).sum())),
            **{name: relative_gap(b.upper[name], sums[name]) for name in b.upper},
        }
        for what, gap in gaps.items():
            if not gap <= TOLERANCE:
                raise Broken(f"{case}\n{what}: relative difference {gap:.3e}")
            seen["worst_relative_difference"] = max(seen["worst_relative_difference"], gap)
        if b.trace > b.upper["edge_per_output"] * (1 + TOLERANCE):
            raise Broken(f"{case}\nTr = {b.trace} > {b.upper}")
        if b.upper["edge"]:
            ratio = max(seen["largest_trace_over_bound"], b.trace / b.upper["edge"])
            seen["largest_trace_over_bound"] = ratio

    fixed = [with_activation(a) for a in ACTIVATIONS]
    found = search(smooth_mlps(), check, 15 if level == "quick" else 300, fixed)
    names = ", ".join(a.__name__ for a in ACTIVATIONS)
    return outcome(
        found, f"smooth MLPs, fixed and drawn by value: {names}", **seen, tolerance=TOLERANCE
    )
