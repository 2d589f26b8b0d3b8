"""P2.*: networks on which identity, chain rule and bound hold, one claim for each kind.

Identity: ``f_c = Σ_{p→c} v_p c_p a_p x_p``. Chain rule: ``J = J_v f · J_θ v``. Bound:
``Tr ≤ R_edge ≤ R_PX``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ntktheory import PathBounds, UnsupportedModule, functional, path_bounds
from ntktheory.functional import masked
from ntktheory.ntk import reference as ntk_reference
from ntktheory.paths.reference import Decomposition, decompose
from proofs_check import strategies, wrong_paths
from proofs_check.bounds_evidence import ROUNDING, Bounds, in_order, values_of
from proofs_check.claim import Check, Level, Outcome, claim
from proofs_check.claims.counterexamples import theta_squared
from proofs_check.compare import relative_gap
from proofs_check.search import Broken, Search, search
from proofs_check.wrong_paths import with_paths, with_sums

Paths = Callable[..., Decomposition]
PAIRS = [("trace", "edge"), ("edge", "px")]


def jacobian(case: strategies.Case) -> np.ndarray:
    """Return ``∂f_c(x_n)/∂θ_j`` by automatic differentiation, [N·C, kept parameters]."""
    f = functional(case.model)
    j = ntk_reference.jacobian(f.model_fn, f.params, case.masks, case.x)
    columns = []
    for name, p in f.params.items():
        kept = (case.masks or {}).get(name, torch.ones_like(p)).flatten().bool()
        columns.append(j[name].flatten(2).flatten(0, 1)[:, kept])
    return torch.cat(columns, 1).numpy()


def check_decomposition(case: strategies.Case, d: Decomposition) -> np.ndarray:
    """Check identity and chain rule, without any tolerance if the case was drawn.

    Args:
        case: The network and its batch.
        d: Its paths.

    Returns:
        The Jacobian.

    Raises:
        Broken: If one of them fails.
    """
    tolerance = ROUNDING if case.note else 0.0
    f = functional(case.model)
    outputs = f.model_fn(masked(f.params, case.masks), case.x).flatten().numpy()
    if not relative_gap(d.J_v_f @ d.v, outputs) <= tolerance:
        raise Broken(f"{case}\nΣ v a x = {(d.J_v_f @ d.v).tolist()}, f(x) = {outputs.tolist()}")
    exact = jacobian(case)
    if not relative_gap(d.jacobian(), exact) <= tolerance:
        raise Broken(f"{case}\nJ_v f · J_θ v = {d.jacobian().tolist()}\nJ = {exact.tolist()}")
    return exact


def check_bounds(case: strategies.Case, b: PathBounds, sums: dict[str, Any], trace: float) -> None:
    """Check trace and bounds against the sums over paths, and their order.

    Args:
        case: The network and its batch.
        b: Its computed bounds.
        sums: Its sums over paths.
        trace: Its trace by automatic differentiation.

    Raises:
        Broken: If a value is wrong, or a bound is below the trace.
    """
    values = values_of(b)
    for name in values.keys() & sums.keys():
        if not relative_gap(values[name], sums[name]) <= ROUNDING:
            raise Broken(f"{case}\n{name} = {values[name]}, by its paths {sums[name]}")
    if not relative_gap(values["trace"], trace) <= ROUNDING:
        raise Broken(f"{case}\nTr = {values['trace']}, by differentiation {trace}")
    in_order(case, values, PAIRS)


def outcome(found: Search, scope: str, **evidence: Any) -> Outcome:
    """Return "holds", or "refuted" by what a search found."""
    status = "refuted" if found.counterexample else "holds"
    numbers = {"examples": found.examples, **evidence}
    return Outcome(status, "property", scope, numbers, found.counterexample)  # type: ignore[arg-type]


# --- the covered kinds ----------------------------------------------------------------------------


def holds_on(family: str) -> Check:
    """Return the check of one family of networks that the decomposition covers."""

    def check(level: Level, paths: Paths, bounds: Bounds) -> Outcome:
        seen = {"paths": 0, "most_paths": 0, "masked": 0}

        def each(case: strategies.Case) -> None:
            d = paths(case.model, case.x, masks=case.masks)
            if not d.parameters:  # the masks dropped everything
                return
            seen["paths"] += len(d.paths)
            seen["most_paths"] = max(seen["most_paths"], len(d.paths))
            seen["masked"] += case.masks is not None
            j = check_decomposition(case, d)
            b = bounds(case.model, case.x, masks=case.masks, names=("px", "edge"))
            check_bounds(case, b, d.bounds(), float((j**2).sum()))

        nets = strategies.masked(strategies.FAMILIES[family])
        examples = 12 if level == "quick" else 300
        found = search(nets, each, examples, strategies.family_cases(family))
        scope = f"{family}: fixed networks, and networks drawn by value; dense and masked"
        return outcome(found, scope, **seen, tolerance_on_drawn_networks=0.0)

    return check


Mutants = dict[str, dict[str, Callable[..., Any]]]
GATES_OPEN: Mutants = {
    "leaves every gate open": {"paths": with_paths(wrong_paths.open_gates)},
    "leaves the gates of A open": {"bounds": with_sums(wrong_paths.open_gates_in_data)},
}
EDGES: Mutants = {
    "squares fixed edges in both nets": {"bounds": with_sums(wrong_paths.edges_squared_in_both)},
    "has fixed edges in one net only": {"bounds": with_sums(wrong_paths.edges_in_one_net)},
}
COVERED: dict[str, tuple[str, Mutants]] = {
    "P2.mlp": ("MLP", GATES_OPEN),
    "P2.bias": ("MLP with biases", {
        "forgets the paths that start at a bias": {
            "paths": with_paths(wrong_paths.without_bias_paths)
        },
        "does not square biases": {"bounds": with_sums(wrong_paths.unsquared_biases)},
        "does not differentiate with respect to biases": {
            "bounds": with_sums(wrong_paths.without_biases)
        },
    }),
    "P2.convolution": ("convolution", {
        "squares a shared weight's gradient position by position": {
            "bounds": with_sums(wrong_paths.position_by_position)
        },
        "takes kernels for their mirror images": {"paths": wrong_paths.mirrored_kernels},
        **GATES_OPEN,
    }),
    "P2.average_pool": ("average pooling", EDGES),
    "P2.max_pool": ("max pooling", {
        "takes the largest entry in both path networks": {"bounds": wrong_paths.maxima_in_both},
        **GATES_OPEN,
    }),
    "P2.residual": ("residual", {
        "forgets shortcuts": {"paths": with_paths(wrong_paths.longest_paths_only)},
        "has no shortcuts in the squared net": {
            "bounds": with_sums(wrong_paths.longest_paths_in_weights)
        },
    }),
    "P2.batch_norm": ("batch norm", {
        "forgets the paths of the running mean": {
            "paths": with_paths(wrong_paths.without_running_mean)
        },
        "does not differentiate with respect to γ and β": {
            "bounds": with_sums(wrong_paths.layers_only)
        },
        **EDGES,
    }),
    "P2.leaky_relu": ("leaky ReLU", {
        "does not square the slope": {"bounds": with_sums(wrong_paths.slope_once)},
        "forgets the negative side": {"paths": with_paths(wrong_paths.no_negative_side)},
    }),
}  # fmt: skip
for _id, (_family, _mutants) in COVERED.items():
    claim(_id, subjects={"paths": decompose, "bounds": path_bounds}, mutants=_mutants)(
        holds_on(_family)
    )


# --- a weight twice on a path ---------------------------------------------------------------------


def _never_refuses(model: Any, x: Any, *, names: Any, **options: Any) -> PathBounds:
    """Give R_PX by two passes a value where it has to be refused."""
    b = path_bounds(model, x, names=["edge"], **options)
    return replace(b, upper=wrong_paths.by_two_passes(model, x)) if "px" in names else b


@claim(
    "P2.tied",
    subjects={"paths": decompose, "bounds": path_bounds},
    mutants={
        "differentiates v as if each weight were on a path once": {
            "paths": with_paths(wrong_paths.each_parameter_once)
        },
        "counts a path once, however often it meets the weight": {
            "bounds": with_sums(wrong_paths.paths_without_multiplicity)
        },
        "gives R_PX by two passes all the same": {"bounds": _never_refuses},
    },
)
def tied_inside_a_path(level: Level, paths: Paths, bounds: Bounds) -> Outcome:
    """R_edge and the literal product of the path Jacobians bound the trace; px is refused."""
    seen = {"paths": 0, "tied_paths": 0}

    def each(case: strategies.Case) -> None:
        d = paths(case.model, case.x)
        seen["paths"] += len(d.paths)
        seen["tied_paths"] += int((d.multiplicity.max(1, initial=0) > 1).sum())
        j = check_decomposition(case, d)
        b, sums = bounds(case.model, case.x, names=["edge"]), d.bounds()
        check_bounds(case, b, sums, float((j**2).sum()))
        literal = (d.J_v_f**2).sum() * (d.J_theta_v**2).sum()
        if sums["trace"] > literal:
            raise Broken(f"{case}\nTr = {sums['trace']} > ‖J_v f‖² ‖J_θ v‖² = {literal}")
        refused(case, bounds)

    found = search(
        strategies.tied(), each, 20 if level == "quick" else 300, [theta_squared(3.0, 2.0)]
    )
    return outcome(found, "networks with a layer used twice, drawn by value", **seen)


def refused(case: strategies.Case, bounds: Bounds) -> None:
    """Check that R_PX by passes is refused.

    Raises:
        Broken: If it is given a value.
    """
    try:
        b = bounds(case.model, case.x, names=["px"])
    except UnsupportedModule:
        return
    raise Broken(f"{case}\npx = {b.upper['px']} is given, though a weight is on a path twice")
