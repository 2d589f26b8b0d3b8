"""P2.*: rules with which the bound fails, each with a small counterexample; what is refused."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory import PathBounds, UnsupportedModule, ntk_trace, path_bounds
from ntktheory.paths import mixed_gate_bounds, secant_gate_sum
from ntktheory.paths.reference import decompose
from proofs_check import strategies
from proofs_check.bounds_evidence import Bounds
from proofs_check.claim import Level, Outcome, claim
from proofs_check.search import search
from proofs_check.wrong_paths import Sums, by_two_passes

Trace = Callable[[Any, Tensor], Any]
Rule = Callable[[Any, Tensor], Sums]
Sum = Callable[[Any, Tensor], float]


def case_of(model: nn.Sequential, weights: list[Any], x: Any) -> strategies.Case:
    """Return a network with these parameters, in order, and a batch; float64, eval mode."""
    model = model.double().eval()
    with torch.no_grad():
        for p, values in zip(model.parameters(), weights, strict=True):
            p.copy_(torch.tensor(values, dtype=torch.float64).reshape(p.shape))
    return strategies.Case(model, torch.tensor(x, dtype=torch.float64))


def refuted_by(text: str | None, scope: str, evidence: dict[str, Any]) -> Outcome:
    """Return "refuted" with a counterexample, or "holds" without one."""
    return Outcome("refuted" if text else "holds", "exact-numeric", scope, evidence, text)


def broken_among(nets: Any, level: Level, trace: Trace, bound: Sum) -> dict[str, Any]:
    """Count the drawn networks with ``Tr > bound``, and return the largest trace ÷ bound."""
    seen: dict[str, Any] = {"examples": 0, "broken": 0, "largest_trace_over_bound": 0.0}

    def check(case: strategies.Case) -> None:
        tr, value = float(trace(case.model, case.x)), bound(case.model, case.x)
        seen["examples"] += 1
        seen["broken"] += tr > value * (1 + 1e-12)
        if value > 0:
            seen["largest_trace_over_bound"] = max(seen["largest_trace_over_bound"], tr / value)

    search(nets, check, 8 if level == "quick" else 300)
    return {"drawn": seen}


# --- max pooling in both path networks ------------------------------------------------------------


def two_chains() -> strategies.Case:
    """Return f = max(1·10·x, −4·3·x) at x = 1."""
    model = nn.Sequential(
        nn.Linear(1, 2, bias=False), nn.Unflatten(1, (2, 1)),
        nn.Conv1d(2, 2, 1, groups=2, bias=False), nn.Flatten(), nn.Unflatten(1, (1, 2)),
        nn.MaxPool1d(2), nn.Flatten(),
    )  # fmt: skip
    return case_of(model, [[1, -4], [10, 3]], [[1.0]])


def _gated(model: nn.Sequential, x: Tensor) -> Sums:
    return dict(path_bounds(model, x, names=["px", "edge"]).upper)


@claim(
    "P2.max_pool_ungated",
    subjects={"rule": by_two_passes, "trace": ntk_trace},
    mutants={
        "gathers by the data's argmax, and sums the window": {"rule": _gated},
        "takes the trace of the other chain": {"trace": lambda model, x: ntk_trace(model, -x)},
    },
)
def maxima_in_both(level: Level, rule: Rule, trace: Trace) -> Outcome:
    """Two chains: Tr = 101 > 25; gated, R_PX = 126 and R_edge = 101."""
    case = two_chains()
    tr, both = float(trace(case.model, case.x)), rule(case.model, case.x)
    gated = _gated(case.model, case.x)
    nets = strategies.convolutions(strategies.MAX_POOLS)
    evidence = {"trace": tr, "max_in_both": both, "gated": gated}
    evidence |= broken_among(nets, level, trace, lambda m, x: rule(m, x)["px"])
    text = f"{case}\nTr = {tr} > R_PX = {both['px']}; gated, R_PX = {gated['px']}"
    scope = "f = max(1·10·x, −4·3·x) at x = 1, and CNNs drawn by value"
    return refuted_by(text if tr > both["px"] else None, scope, evidence)


# --- a weight twice on a path ---------------------------------------------------------------------


def theta_squared(theta: float, x: float) -> strategies.Case:
    """Return f = θ²x."""
    layer = nn.Linear(1, 1, bias=False)
    return case_of(nn.Sequential(layer, layer), [theta], [[x]])


def _literal(model: nn.Sequential, x: Tensor) -> Sums:
    """Return ‖J_v f‖² ‖J_θ v‖² by enumeration."""
    d = decompose(model, x)
    return {"px": float((d.J_v_f**2).sum() * (d.J_theta_v**2).sum())}


@claim(
    "P2.tied_autograd",
    subjects={"rule": by_two_passes, "trace": ntk_trace},
    mutants={
        "multiplies the literal path Jacobians": {"rule": _literal},
        "pairs each weight's sums, as R_edge": {
            "rule": lambda model, x: {"px": by_two_passes(model, x)["edge"]}
        },
        "differentiates θ²x once": {"trace": lambda model, x: ntk_trace(model, x) / 4},
    },
)
def tied_by_autograd(level: Level, rule: Rule, trace: Trace) -> Outcome:
    """F = θ²x: Tr = 4θ²x², and R_PX by two passes is 2θ²x²."""
    case = theta_squared(1.0, 1.0)
    tr, value = float(trace(case.model, case.x)), rule(case.model, case.x)["px"]
    edge = path_bounds(case.model, case.x, names=["edge"]).upper["edge"]
    evidence = {"trace": tr, "px_by_two_passes": value, "edge": edge}
    evidence |= {"literal": _literal(case.model, case.x)["px"]}
    evidence |= broken_among(strategies.tied(), level, trace, lambda m, x: rule(m, x)["px"])
    text = f"{case}\nf = θ²x: Tr = {tr} > R_PX by two passes = {value}; R_edge = {edge}"
    scope = "f = θ²x at θ = x = 1, and networks with a layer used twice, drawn by value"
    return refuted_by(text if tr > value else None, scope, evidence)


# --- batch norm in train mode ---------------------------------------------------------------------


def normed_by_its_batch(t: float) -> strategies.Case:
    """Return three samples (−1, t), (0, 0), (1, 0), of which one hidden unit passes the last alone.

    The unit reads the first coordinate; behind it train-mode batch norm, γ = 1, β = −1. Through the
    batch's statistics the last sample's output depends on t times the second coordinate's weight.
    """
    model = nn.Sequential(
        nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1, track_running_stats=False), nn.ReLU(),
        nn.Linear(1, 1, bias=False),
    )  # fmt: skip
    return case_of(model, [[1, 0], [1], [-1], [1]], [[-1, t], [0, 0], [1, 0]])


def batch_trace(model: nn.Sequential, x: Tensor) -> float:
    """Return ‖J‖² of the whole batch's outputs, samples mixing or not."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    j = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(params)
    return sum(float(block.square().sum()) for block in j.values())


def frozen(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Return the network with the batch's statistics as running statistics, in eval mode."""
    result = nn.Sequential()
    for module in model:
        h = result.eval()(x).detach()
        copied = module
        if isinstance(module, nn.BatchNorm1d):
            copied = nn.BatchNorm1d(module.num_features, module.eps).double()
            copied.load_state_dict(module.state_dict(), strict=False)
            copied.running_mean, copied.running_var = h.mean(0), h.var(0, unbiased=False)
        result.append(copied)
    return result.eval()


def _edge_of_frozen(model: nn.Sequential, x: Tensor) -> float:
    return path_bounds(frozen(model, x), x, names=["edge"]).upper["edge"]


def _px_of_frozen(model: nn.Sequential, x: Tensor) -> float:
    return path_bounds(frozen(model, x), x, names=["px"]).upper["px"]


@claim(
    "P2.train_batch_norm",
    subjects={"edge": _edge_of_frozen, "px": _px_of_frozen, "trace": batch_trace},
    mutants={
        "differentiates with the statistics fixed": {
            "trace": lambda model, x: float(ntk_trace(frozen(model, x), x))
        },
        "forgets the coordinate that no gate passes": {
            "trace": lambda model, x: batch_trace(model, x * torch.tensor([1.0, 0.0]))
        },
    },
)
def train_mode(level: Level, edge: Sum, px: Sum, trace: Sum) -> Outcome:
    """The sample that passes depends, through the statistics, on one that does not: no bound."""
    rows = []
    for t in (1.0, 20.0, 100.0, 1000.0):
        case = normed_by_its_batch(t)
        values = [rule(case.model, case.x) for rule in (trace, edge, px)]
        rows.append(dict(zip(("trace", "edge", "px"), values, strict=True)) | {"t": t})
    for row in rows:
        row["trace_over_edge"] = row["trace"] / row["edge"]
    worst = rows[1]
    broken = worst["trace"] > worst["edge"] and worst["trace"] > worst["px"]
    text = (
        f"{normed_by_its_batch(20.0)}\nTr = {worst['trace']} > R_PX = {worst['px']} > "
        f"R_edge = {worst['edge']}; with 1000 in place of 20, Tr ÷ R_edge = "
        f"{rows[3]['trace_over_edge']:.3g}: there is no largest"
    )
    scope = "2-1-1 network with train-mode batch norm, three samples"
    return refuted_by(text if broken else None, scope, {"by_t": rows})


# --- secant gates ---------------------------------------------------------------------------------


def chain_of_one(activation: nn.Module, w: float, v: float, x: float) -> strategies.Case:
    """Return f = v φ(w x)."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), activation, nn.Linear(1, 1, bias=False))
    return case_of(model, [w, v], [[x]])


def _with_secant_gates(model: nn.Sequential, x: Tensor) -> float:
    """Return the trace with the gates φ(z)/z held fixed."""
    w, v = (float(p.detach()) for p in model.parameters())
    model = nn.Sequential(model[1])
    return float((model(w * x) / w) ** 2 * (w**2 + v**2))


@claim(
    "P2.secant_gelu",
    subjects={"rule": secant_gate_sum, "trace": ntk_trace},
    mutants={
        "takes the derivative as the gate after the edge": {
            "rule": lambda model, x: mixed_gate_bounds(model, x, names=["edge"]).upper["edge"]
        },
        "differentiates with the gates fixed": {"trace": _with_secant_gates},
    },
)
def secant_gates(level: Level, rule: Sum, trace: Trace) -> Outcome:
    """F = v φ(w x): where |z φ'(z)| > |φ(z)| the sum is below the trace, at w = v = x = 1 already."""
    case = chain_of_one(nn.GELU(), 1.0, 1.0, 1.0)
    tr, value = float(trace(case.model, case.x)), rule(case.model, case.x)
    mixed = mixed_gate_bounds(case.model, case.x, names=["edge"]).upper["edge"]
    evidence: dict[str, Any] = {"trace": tr, "secant": value, "mixed": mixed}
    largest = {}
    for activation in (nn.GELU(), nn.SiLU(), nn.Tanh()):
        ratios = []
        for z in (-8.0, -4.0, -2.0, -1.0, 1.0, 2.0):
            chain = chain_of_one(activation, 1.0, 8.0, z)
            ratios.append(float(trace(chain.model, chain.x)) / rule(chain.model, chain.x))
        largest[type(activation).__name__] = max(ratios)
    evidence["largest_trace_over_sum_at_v_8"] = largest
    text = f"{case}\nTr = {tr} > Σ_j A_j B_j = {value} with secant gates; with mixed gates {mixed}"
    scope = "f = v φ(w x) at w = v = x = 1, and a row of other points"
    return refuted_by(text if tr > value * (1 + 1e-9) else None, scope, evidence)


# --- what is refused ------------------------------------------------------------------------------


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function


# Built anew for every run: (name, module, what the error has to say).
UNCOVERED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "train-mode batch norm": (lambda: nn.BatchNorm1d(4), "train-mode BatchNorm1d at '1'"),
    "batch norm without running statistics": (
        lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(),
        "BatchNorm1d at '1' without running statistics",
    ),
    "train-mode dropout": (nn.Dropout, "train-mode Dropout at '1'"),
    "GELU": (nn.GELU, "'1' (GELU) must be"),
    "SiLU": (nn.SiLU, "'1' (SiLU) must be"),
    "tanh": (nn.Tanh, "'1' (Tanh) must be"),
    "softmax": (lambda: nn.Softmax(1), "'1' (Softmax) must be"),
    "PReLU": (nn.PReLU, "'1' (PReLU) must be"),
    "hardtanh": (nn.Hardtanh, "'1' (Hardtanh) must be"),
    "layer norm": (lambda: nn.LayerNorm(4), "'1' (LayerNorm) must be"),
    "group norm": (lambda: nn.GroupNorm(2, 4), "'1' (GroupNorm) must be"),
    "clamp": (lambda: Function(lambda z: z.clamp(-0.5, 0.5)), "got clamp at"),
    "maximum": (lambda: Function(lambda z: torch.maximum(z, -z)), "got maximum at"),
    "where": (lambda: Function(lambda z: torch.where(z > 0, z, 2 * z)), "got gt at"),
    "product": (lambda: Function(lambda z: z * z), "got mul at"),
    "absolute value": (lambda: Function(torch.abs), "got abs at"),
    "attention": (
        lambda: Function(lambda z: nn.functional.scaled_dot_product_attention(z, z, z)),
        "got scaled_dot_product_attention at",
    ),
}


def _never_refuses(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
    try:
        return path_bounds(model, x, **options)
    except UnsupportedModule:
        return path_bounds(nn.Linear(2, 1).double(), x)


def _anonymous(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
    try:
        return path_bounds(model, x, **options)
    except UnsupportedModule:
        raise UnsupportedModule("model must be simpler") from None


@claim(
    "P2.refused",
    subjects={"bounds": path_bounds},
    mutants={
        "gives networks a bound that it does not cover": {"bounds": _never_refuses},
        "does not say what it refuses": {"bounds": _anonymous},
    },
)
def refuses_what_is_not_covered(level: Level, bounds: Bounds) -> Outcome:
    """Every function outside of the decomposition is refused, by name and place."""
    broken, refused = None, []
    for name, (build, expected) in UNCOVERED.items():
        module = build()
        model = nn.Sequential(nn.Linear(2, 4).eval(), module, nn.Linear(4, 1).eval()).double()
        model.training = False
        if not name.startswith("train"):
            model.eval()
        try:
            b = bounds(model, torch.ones(2, 2, dtype=torch.float64))
        except (UnsupportedModule, ValueError) as error:
            refused.append(name)
            if expected not in str(error):
                broken = broken or f"{name} is refused without its name and place: {error}"
        else:
            broken = broken or f"{name} is not covered, and got bounds: {dict(b.upper)}"
    return Outcome(
        "refuted" if broken else "holds",
        "exact-numeric",
        f"{len(UNCOVERED)} functions between two Linear layers",
        {"refused": refused},
        broken,
    )
