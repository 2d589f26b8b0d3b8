"""Claims proved in a polynomial ring: P2 and the ladder as sums of squares, N5, S2's kink."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp
import torch
from sympy.polys.rings import PolyElement

from ntktheory import ntk_trace
from proofs_check.certificates import kinks
from proofs_check.certificates.bounds import (
    BOUNDS,
    bound_polynomial,
    data_net,
    edge_gradients,
    network_value,
    weight_net,
)
from proofs_check.certificates.linear import differentiated_trace, linear_trace
from proofs_check.certificates.network import SymbolicNet, hidden_states, sum_of, symbolic_mlp
from proofs_check.certificates.squares import lagrange_squares, path_squares, rest_squares
from proofs_check.certificates.trace import layer_traces, trace_polynomial
from proofs_check.certificates.verify import IdentityResult, ring_identity, verify_certificate
from proofs_check.claim import Level, Outcome, claim

Widths = tuple[int, ...]
Polynomial = Callable[[SymbolicNet], PolyElement]
Bound = Callable[[SymbolicNet, str], PolyElement]
Squares = Callable[[SymbolicNet, str], list[PolyElement]]

NETS: tuple[Widths, ...] = (
    (2, 2, 1), (3, 3, 1), (2, 2, 2, 1), (2, 2, 2), (3, 3, 2), (4, 4, 1), (4, 4, 2),
)  # fmt: skip
NETS_FULL: tuple[Widths, ...] = (*NETS, (2, 3, 3), (2, 2, 2, 2), (3, 3, 3, 1), (2, 2, 2, 2, 1))
LINEAR_NETS: tuple[Widths, ...] = ((2, 1), (2, 2, 1), (3, 2, 2), (2, 3, 2, 2), (2, 2, 2, 2, 2))
ENGINE_NETS: tuple[Widths, ...] = ((20, 30, 25, 10), (7, 40, 3), (5, 6, 6, 6, 6, 4))
INNER_BOUNDS = ("edge_per_output", "px_per_output", "edge")
STEPS_DOWN = (
    ("edge_per_output", "edge"), ("edge_per_output", "px_per_output"), ("edge", "px"),
    ("px_per_output", "px"),
)  # fmt: skip
SIGMAS = (0.1, 0.03, 0.01)
RATIO_TOLERANCE = 1e-3
FIXED_POINTS = ((1.0, 0.5), (1.0, 0.25), (1.0, 0.1), (0.3, 0.05))


# --- P2 and the ladder ----------------------------------------------------------------------------


def _certify(
    widths: Widths, name: str, trace: Polynomial, bound: Bound, squares: Squares
) -> IdentityResult:
    net = symbolic_mlp(widths)
    return verify_certificate(bound(net, name), trace(net), squares(net, name))


def identity_outcome(results: dict[str, IdentityResult], scope: str, **evidence: Any) -> Outcome:
    """Return the outcome of identities in a ring: the claim holds if all of them do."""
    broken = {case: result.residual for case, result in results.items() if not result.holds}
    found = next(iter(broken.items()), None)
    return Outcome(
        status="refuted" if broken else "holds",
        kind="proved",
        scope=scope,
        evidence={
            "identities": len(results),
            "identities_broken": len(broken),
            "terms": {case: result.terms for case, result in results.items()},
            "squares": {case: result.squares for case, result in results.items()},
            **evidence,
        },
        counterexample=f"{found[0]}: the two sides differ by {found[1]}" if found else None,
    )


def label(widths: Widths) -> str:
    """Return the widths as text, such as 2-2-1."""
    return "-".join(map(str, widths))


def _halve_gate_powers(net: SymbolicNet, polynomial: PolyElement) -> PolyElement:
    gates = [net.ring.index(a) for layer in net.gates[:-1] for a in layer]
    halved = {
        tuple(e // 2 if i in gates else e for i, e in enumerate(exponents)): coefficient
        for exponents, coefficient in polynomial.terms()
    }
    return net.ring.from_dict(halved)


def _bound_with_single_gates(net: SymbolicNet, name: str) -> PolyElement:
    return _halve_gate_powers(net, bound_polynomial(net, name))


def bound_with_gated_weights(net: SymbolicNet, name: str) -> PolyElement:
    """Return R_PX or R_edge whose B is taken from the gated squared net."""
    seed = tuple(net.ring.one for _ in range(net.widths[-1]))
    names, start, squared, _ = weight_net(net)
    b = edge_gradients(names, start, squared, data_net(net)[3], seed)
    if name.startswith("px"):
        return sum_of(network_value(*data_net(net)[1:])) * sum_of(b.values())
    a = edge_gradients(*data_net(net), seed)
    return sum_of(a[j] * b[j] for j in a)


def _bound_from_inputs(net: SymbolicNet, name: str) -> PolyElement:
    """Return the bound whose data net is fed x in place of x²."""
    first = [net.ring.index(x) for x in net.inputs]
    return net.ring.from_dict({
        tuple(e // 2 if i in first else e for i, e in enumerate(exponents)): coefficient
        for exponents, coefficient in bound_polynomial(net, name).terms()
    })  # fmt: skip


def squares_of_first_output(net: SymbolicNet, name: str) -> list[PolyElement]:
    """Return the certificate without Lagrange's squares of the other outputs."""
    return lagrange_squares(net, 0) + rest_squares(net, name)


CERTIFICATE_MUTANTS: dict[str, dict[str, Callable[..., Any]]] = {
    "gates a in place of a² in the data net": {"bound": _bound_with_single_gates},
    "weight net gated": {"bound": bound_with_gated_weights},
    "data net fed x in place of x²": {"bound": _bound_from_inputs},
    "trace without the first layer": {"trace": lambda net: sum_of(layer_traces(net)[1:])},
    "trace without the last layer": {"trace": lambda net: sum_of(layer_traces(net)[:-1])},
    "pairs of the first output only": {"squares": squares_of_first_output},
}


@claim(
    "P2.certificate",
    subjects={"trace": trace_polynomial, "bound": bound_polynomial, "squares": path_squares},
    mutants=CERTIFICATE_MUTANTS,
)
def certify_px(level: Level, trace: Polynomial, bound: Bound, squares: Squares) -> Outcome:
    """Return the verdict on P2: ``R_PX − Tr`` is a sum of explicit squares."""
    nets = NETS if level == "quick" else NETS_FULL
    results = {label(n): _certify(n, "px", trace, bound, squares) for n in nets}
    return identity_outcome(
        results,
        "Identity in Z[x, a, w] for the bias-free MLPs "
        + ", ".join(results)
        + " with a free symbol for every gate, hence every activation pattern; one sample, and "
        "both sides add up over samples.",
    )


@claim(
    "ladder.certificate",
    subjects={"trace": trace_polynomial, "bound": bound_polynomial, "squares": path_squares},
    mutants={
        **CERTIFICATE_MUTANTS,
        "every path admitted to R_edge": {
            "squares": lambda net, name: path_squares(net, name.replace("edge", "px"))
        },
    },
)
def certify_ladder(level: Level, trace: Polynomial, bound: Bound, squares: Squares) -> Outcome:
    """Return the verdict on ``Tr ≤ R_edge^c ≤ R_edge ≤ R_PX`` and ``R_edge^c ≤ R_PX^c ≤ R_PX``.

    Each bound minus the trace is its list of squares, and each step up only adds squares.
    """
    nets = NETS if level == "quick" else NETS_FULL
    results: dict[str, IdentityResult] = {}
    for n in nets:
        net = symbolic_mlp(n)
        lower, upper = trace(net), {name: bound(net, name) for name in BOUNDS}
        bases = {name: squares(net, name) for name in BOUNDS}
        for name in INNER_BOUNDS:
            found = verify_certificate(upper[name], lower, bases[name])
            results[f"{name} {label(n)}"] = found
        listed = {name: Counter(bases[name]) for name in BOUNDS}
        for low, high in STEPS_DOWN:
            step = _step_up(upper[low], upper[high], listed[low], listed[high])
            results[f"{low} <= {high} {label(n)}"] = step
    return identity_outcome(
        results,
        "Identities in Z[x, a, w] for the bias-free MLPs "
        + ", ".join(map(label, nets))
        + " with a free symbol for every gate; every inequality of the ladder but those with "
        "R_abs, which is no polynomial.",
    )


def _step_up(low: PolyElement, high: PolyElement, below: Counter, above: Counter) -> IdentityResult:
    """Return whether ``high − low == Σ added²``, the squares that the higher bound has on top."""
    added, missing = list((above - below).elements()), below - above
    result = verify_certificate(high, low, added)
    return result if not missing else IdentityResult(False, result.terms, len(added), str(missing))


# --- N5 -------------------------------------------------------------------------------------------


def integer_linear_trace(weights: Sequence[torch.Tensor], x: torch.Tensor) -> int:
    """Return N5's closed form, summed over the batch, in 64-bit integers."""
    total = 0
    for layer in range(len(weights)):
        prefix, suffix = x, torch.eye(weights[-1].shape[0], dtype=torch.int64)
        for weight in weights[:layer]:
            prefix = prefix @ weight.T  # W_{l−1}…W_1 x
        for weight in list(weights)[:layer:-1]:
            suffix = suffix @ weight  # W_L…W_{l+1}
        total += int((prefix**2).sum()) * int((suffix**2).sum())
    return total


def _engine_gap(widths: Widths, engine: Callable[..., Any], seed: int) -> tuple[float, int]:
    """Return the engine's relative error on an integer linear network, and the exact trace."""
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(widths[1:], widths, strict=False)
    weights = [torch.randint(-2, 3, shape, generator=generator) for shape in shapes]
    x = torch.randint(-2, 3, (4, widths[0]), generator=generator)
    layers = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights]
    model = torch.nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        for linear, weight in zip(layers, weights, strict=True):
            linear.weight.copy_(weight)
    exact = integer_linear_trace(weights, x)
    return abs(float(engine(model, x.double())) - exact) / exact, exact


def _linear_trace_but_last(net: SymbolicNet) -> PolyElement:
    return linear_trace(net) - net.widths[-1] * sum_of(h**2 for h in hidden_states(net)[-2])


@claim(
    "N5",
    subjects={"closed_form": linear_trace, "engine": ntk_trace},
    mutants={
        "closed form without the last layer": {"closed_form": _linear_trace_but_last},
        "closed form with the identity's norm 1 in place of C": {
            "closed_form": lambda net: (
                linear_trace(net)
                - (net.widths[-1] - 1) * sum_of(h**2 for h in hidden_states(net)[-2])
            )
        },
        "engine takes the mean over outputs": {
            "engine": lambda model, x: ntk_trace(model, x) / model[-1].out_features
        },
        "engine forgets the first layer": {
            "engine": lambda model, x: (
                ntk_trace(model, x) - ntk_trace(model, x, per="layer")["0.weight"]
            )
        },
    },
)
def check_linear_networks(level: Level, closed_form: Polynomial, engine: Callable) -> Outcome:
    """Return the verdict on N5, the closed form of a linear network's trace."""
    nets = {label(w): symbolic_mlp(w, gated=False) for w in LINEAR_NETS}
    results = {
        case: ring_identity(differentiated_trace(net), closed_form(net))
        for case, net in nets.items()
    }
    draws = 1 if level == "quick" else 20
    gaps = {
        f"{label(w)} seed {s}": _engine_gap(w, engine, s) for w in ENGINE_NETS for s in range(draws)
    }
    worst = max(gaps, key=lambda case: gaps[case][0])
    error, exact = gaps[worst]
    symbolic = all(result.holds for result in results.values())
    found = None if error == 0 else f"{worst}: exact trace {exact}, relative error {error:.1e}"
    residual = next((f"{n}: {r.residual}" for n, r in results.items() if not r.holds), None)
    return Outcome(
        status="holds" if symbolic and error == 0 else "refuted",
        kind="exact-numeric",
        scope="Proved as an identity in Z[x, w] on "
        + ", ".join(nets)
        + "; ntk_trace equals the closed form exactly on linear networks "
        + ", ".join(map(label, ENGINE_NETS))
        + " with integer weights, where float64 does not round.",
        evidence={
            "identities": len(results),
            "terms": {case: result.terms for case, result in results.items()},
            "engine_nets": len(gaps),
            "engine_largest_trace": max(value for _, value in gaps.values()),
            "engine_max_relative_error": error,
        },
        counterexample=residual or found,
    )


# --- S2's kink ------------------------------------------------------------------------------------


def _law_of_waking_only() -> sp.Expr:
    u, t = sp.Symbol("u", real=True), sp.Symbol("t", positive=True)
    return sp.cancel(kinks.waking_gain(u, t) / (2 * t**3)) * kinks.absolute_moment(3)


def _bias_with_small_trace(sigma: float) -> float:
    """Return the bias with the trace, whose mean is 1/2, one per cent too small."""
    return kinks.averaged_bias(sigma) + 0.01 * sigma**2 / 2


@claim(
    "S2.gate_flips",
    subjects={
        "law": kinks.gate_flip_law,
        "measured": kinks.averaged_bias,
        "ceiling": kinks.fixed_point_ceiling,
    },
    mutants={
        "only waking units counted": {"law": _law_of_waking_only},
        "sign turned": {"law": lambda: -kinks.gate_flip_law()},
        "E|ξ|³ taken as σ³": {"law": lambda: sp.Rational(-1, 6)},
        "trace one per cent off": {"measured": _bias_with_small_trace},
        "bias five per cent off": {"measured": lambda sigma: 1.05 * kinks.averaged_bias(sigma)},
        "tail without the factor r": {
            "ceiling": lambda theta, sigma: (
                kinks.fixed_point_ceiling(theta, sigma)
                - sigma * theta * kinks.normal_density(theta / sigma)
            )
        },
    },
)
def check_gate_flips(
    level: Level,
    law: Callable[[], sp.Expr],
    measured: Callable[[float], float],
    ceiling: Callable[[float, float], float],
) -> Outcome:
    """Return the verdict on S2's kink: ``−(1/6) E|ξ|³ p(0) x² σ³ < 0``, averaged over weights."""
    constant = law()
    stated = -sp.Rational(1, 6) * 2 * sp.sqrt(2 / sp.pi)  # E|ξ|³ = 2√(2/π)
    correction = float(kinks.gate_flip_correction())
    leading = float(constant) * kinks.normal_density(0.0)
    ratios = {sigma: measured(sigma) / (leading * sigma**3) for sigma in SIGMAS}
    off = max(abs(r - 1 - correction * s**2) for s, r in ratios.items())
    excess = max(abs(kinks.fixed_point_bias(*at)) / ceiling(*at) for at in FIXED_POINTS)
    symbolic = sp.expand(constant - stated) == 0
    agrees = symbolic and off <= RATIO_TOLERANCE and 0 < excess <= 1
    return Outcome(
        status="holds" if agrees else "refuted",
        kind="proved",
        scope="One ReLU f = relu(θx), Gaussian steps, density of θ constant near 0: symbolic "
        "integration. Cross-checked by quadrature for θ ~ N(0, 1), x = 1, and at fixed points.",
        evidence={
            "constant": str(constant),
            "constant_value": float(constant),
            "ratio_to_law": {str(sigma): ratio for sigma, ratio in ratios.items()},
            "correction_per_sigma2": correction,
            "max_deviation_from_correction": off,
            "fixed_point_bias_over_ceiling": excess,
        },
        counterexample=None
        if agrees
        else f"law {constant} against {stated}; ratios {ratios}; bias/ceiling {excess:.3g}",
    )
