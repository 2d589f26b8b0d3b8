"""N1–N3: the kernel is a Gram matrix, a sum over layers, and has a trace that needs no kernel."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ntktheory import empirical_ntk, functional, ntk_trace
from ntktheory.functional import FunctionalModel, masked
from ntktheory.ntk import reference
from ntktheory.ntk.layerwise import block, factors, plan
from ntktheory.ntk.rules import Factors, Window, unfold
from proofs_check import cases, strategies
from proofs_check.claim import Level, Outcome, claim
from proofs_check.compare import Worst
from proofs_check.search import Broken, search

Kernel = Callable[..., Tensor]
Trace = Callable[..., Any]
SCOPE = "fixed networks and the digits in float64, and networks drawn by value"


def as_matrix(theta: Tensor) -> Tensor:
    """Return ``Theta[n, m, c, c']`` as a matrix with row index n·C + c."""
    n, m, c, _ = theta.shape
    return theta.permute(0, 2, 1, 3).reshape(n * c, m * c)


@cache
def _rows(net: cases.Network, sparse: bool) -> dict[str, Tensor]:
    """Return the reference's Jacobian, [NC, parameter] by name; mutants share it."""
    f = functional(net.model)
    j = reference.jacobian(f.model_fn, f.params, masks_of(net, sparse), net.x)
    return {name: rows.flatten(2).flatten(0, 1) for name, rows in j.items()}


def masks_of(net: cases.Network, sparse: bool) -> dict[str, Tensor] | None:
    """Return seeded masks of a fixed network, or None."""
    return cases.random_masks(net.model) if sparse else None


# --- mutants -------------------------------------------------------------------------------------


def without_first(kernel: Kernel) -> Kernel:
    """Drop the term of the first selected parameter."""

    def mutant(model: Any, x1: Tensor, x2: Tensor | None = None, **options: Any) -> Tensor:
        first = next(iter(functional(model).params))
        return kernel(model, x1, x2, **options) - kernel(
            model, x1, x2, **(options | {"select": [first]})
        )

    return mutant


def _class_mean(model: Any, x1: Tensor, x2: Tensor | None = None, **options: Any) -> Tensor:
    theta = empirical_ntk(model, x1, x2, **options)
    return theta / theta.shape[-1]


def _one_sided(model: Any, x1: Tensor, x2: Tensor | None = None, **options: Any) -> Tensor:
    theta = empirical_ntk(model, x1, x2, **options)
    return theta.triu() if theta.ndim == 2 else theta * torch.ones_like(theta).triu()


def _biases_forgotten(model: Any, x1: Tensor, x2: Tensor | None = None, **options: Any) -> Tensor:
    theta = empirical_ntk(model, x1, x2, **options)
    chosen = options.get("select") or list(functional(model).params)
    biases = [name for name in chosen if name.endswith("bias")]
    if not biases:
        return theta
    return theta - empirical_ntk(model, x1, x2, **(options | {"select": biases}))


def _hadamard(model: Any, x1: Tensor, x2: Tensor | None = None, **options: Any) -> Tensor:
    """Pair each position of a convolution only with itself, ``Σ_s ⟨A_ns, A_ms⟩⟨G_ns, G_ms⟩``."""
    theta = empirical_ntk(model, x1, x2, **options)
    f, masks = functional(model), options.get("masks")
    if masks or x2 is not None:
        return theta
    for made, name in _convolutions(f, x1, options.get("select")):
        a, g = made.input_columns()[:, 0], made.cotangent_columns()[:, :, 0]
        wrong = torch.einsum("nds,mds,ncos,meos->nmce", a, a, g, g)
        theta = theta + wrong - empirical_ntk(f, x1, select=[name])
    return theta


def _convolutions(
    f: FunctionalModel, x: Tensor, select: Any, grouped: bool = False
) -> list[tuple[Factors, str]]:
    """Return the factors of convolution weights that are used once."""
    layers = plan(f.model_fn, f.params, x)
    names = layers.single_use() & set(select or f.params)
    made = factors(f.model_fn, f.params, x, layers, frozenset(names)) if names else []
    return [
        (m, m.call.weight)
        for m in made
        if m.call.kind == "convolution"
        and m.call.window is not None
        and m.call.weight is not None
        and m.call.weight in names
        and (m.call.window.groups > 1) == grouped
    ]


def _ghost_under_masks(model: Any, x: Tensor, **options: Any) -> Any:
    """Use ``‖a‖²‖g‖²`` and ``⟨AᵀA, GᵀG⟩`` for masked weights too: the mask only reaches f."""
    masks = options.pop("masks", None)
    if not masks:
        return ntk_trace(model, x, **options)
    f = functional(model)
    effective = FunctionalModel(f.model_fn, masked(f.params, masks), f.buffers, f.tied, f.prunable)
    return ntk_trace(effective, x, **options)


def _groups_ignored(model: Any, x: Tensor, **options: Any) -> Any:
    """Multiply every input channel with every output channel of a grouped convolution."""
    trace = ntk_trace(model, x, **options)
    f, masks = functional(model), options.get("masks")
    if options.get("per", "total") != "total" or masks:
        return trace
    for made, name in _convolutions(f, x, None, grouped=True):
        window: Window = made.call.window  # type: ignore[assignment]
        a = unfold(made.a, window)
        g = made.cotangent_columns().flatten(2, 3)
        wrong = (g @ a.transpose(1, 2).unsqueeze(1)).square().sum()
        trace = trace + wrong - block(name, [made]).square().sum()
    return trace


def _squares_before_sum(model: Any, x: Tensor, **options: Any) -> Any:
    """Square the block of each use of a layer, then add."""
    trace = ntk_trace(model, x, **options)
    if options.get("per", "total") != "total" or options.get("masks"):
        return trace
    f = functional(model)
    layers = plan(f.model_fn, f.params, x)
    names = layers.covered() - layers.single_use()
    made = factors(f.model_fn, f.params, x, layers, frozenset(names)) if names else []
    for name in names:
        uses = [m for m in made if name in m.call.names()]
        wrong = sum(block(name, [m]).square().sum() for m in uses)
        trace = trace + wrong - block(name, uses).square().sum()
    return trace


def _layer_dropped(model: Any, x: Tensor, **options: Any) -> Any:
    names = [name for name in functional(model).params if name.endswith("weight")]
    trace, per = ntk_trace(model, x, **options), options.get("per", "total")
    if per in ("layer", "parameter"):
        return trace | {names[0]: torch.zeros_like(trace[names[0]])}
    return trace - ntk_trace(model, x, **(options | {"select": names[:1]}))


# --- claims --------------------------------------------------------------------------------------


@claim(
    "N1",
    subjects={"kernel": empirical_ntk},
    mutants={
        "drops the term of a layer": {"kernel": without_first(empirical_ntk)},
        "forgets the biases": {"kernel": _biases_forgotten},
        "divides by the number of classes": {"kernel": _class_mean},
        "keeps one triangle only": {"kernel": _one_sided},
    },
)
def gram_matrix(level: Level, kernel: Kernel) -> Outcome:
    """Θ = J Jᵀ: equal to the reference, symmetric, no negative eigenvalue, trace = ‖J‖_F²."""
    worst, rows = Worst(), []
    for net in (*cases.networks(), *cases.real_networks()):
        if worst.broken:
            break
        theta = as_matrix(kernel(net.model, net.x))
        j = _rows(net, False)
        frobenius = float(sum(t.square().sum() for t in j.values()))
        exact = sum((t @ t.T for t in j.values()), torch.zeros(()))
        worst.see(f"{net.name}: Θ", theta, exact)
        worst.see(f"{net.name}: Θ − Θᵀ", theta, theta.T)
        eigenvalues = torch.linalg.eigvalsh(theta)
        low, high = float(eigenvalues[0]), float(eigenvalues[-1])
        worst.require(f"{net.name}: smallest eigenvalue {low:.3e}", low >= -1e-12 * high)
        worst.see(f"{net.name}: trace and ‖J‖_F²", float(theta.trace()), frobenius)
        nuclear = float(torch.linalg.matrix_norm(theta, "nuc"))
        worst.see(f"{net.name}: nuclear norm and ‖J‖_F²", nuclear, frobenius)
        if net in cases.real_networks():
            numbers = {
                "Tr Θ": float(theta.trace()),
                "‖J‖_F²": frobenius,
                "nuclear norm": nuclear,
                "λ_min": low,
                "λ_max": high,
            }
            rows += real_rows(net, numbers)

    def check(case: strategies.Case) -> None:
        f = functional(case.model)
        theta = as_matrix(kernel(case.model, case.x, masks=case.masks))
        exact = as_matrix(reference.ntk(f.model_fn, f.params, case.masks, case.x))
        if Worst().see("", theta, exact) > 1e-12 or not torch.equal(theta, theta.T):
            raise Broken(f"{case}\nΘ = {theta.tolist()}\nJJᵀ = {exact.tolist()}")

    return _with_search(worst, rows, check, level)


def _with_search(
    worst: Worst, rows: list[dict[str, Any]], check: Callable[[strategies.Case], None], level: Level
) -> Outcome:
    """Search drawn networks too, if the fixed ones hold."""
    examples, broken = 0, worst.counterexample
    if broken is None:
        found = search(strategies.networks(), check, 25 if level == "quick" else 400)
        examples, broken = found.examples, found.counterexample
    evidence = worst.numbers() | {"examples": examples, "real_data": rows}
    return Outcome("refuted" if broken else "holds", "property", SCOPE, evidence, broken)


@claim(
    "N2",
    subjects={"kernel": empirical_ntk},
    mutants={
        "drops the term of a layer": {"kernel": without_first(empirical_ntk)},
        "forgets the biases": {"kernel": _biases_forgotten},
        "pairs each position only with itself": {"kernel": _hadamard},
    },
)
def sum_over_layers(level: Level, kernel: Kernel) -> Outcome:
    """Θ = Σ_l Θ_l, every term equal to its reference and positive semi-definite, masked too."""
    worst, rows = Worst(), []
    for net in (*cases.networks(), *cases.real_networks()):
        for sparse in (False, True):
            if worst.broken:
                break
            masks, where = masks_of(net, sparse), f"{net.name}, {'masked' if sparse else 'dense'}"
            total: Tensor | float = 0.0
            share = {}
            for name, j in _rows(net, sparse).items():
                term = as_matrix(kernel(net.model, net.x, select=[name], masks=masks))
                worst.see(f"{where}: Θ of {name}", term, j @ j.T)
                low, high = torch.linalg.eigvalsh(term)[[0, -1]].tolist()
                worst.require(f"{where}: eigenvalue {low:.3e} of {name}", low >= -1e-12 * abs(high))
                total, share[name] = total + term, float(term.trace())
            theta = as_matrix(kernel(net.model, net.x, masks=masks))
            worst.see(f"{where}: Σ_l Θ_l", total, theta)
            if net in cases.real_networks() and not sparse:
                whole = float(theta.trace())
                rows += real_rows(
                    net, {f"share of {n} in Tr Θ": v / whole for n, v in share.items()}
                )
    evidence = worst.numbers() | {"real_data": rows}
    return Outcome(
        "holds" if worst.holds else "refuted", "property", SCOPE, evidence, worst.counterexample
    )


@claim(
    "N3",
    subjects={"trace": ntk_trace},
    mutants={
        "drops the term of a layer": {"trace": _layer_dropped},
        "uses the ghost rule for masked weights": {"trace": _ghost_under_masks},
        "ignores the groups of a convolution": {"trace": _groups_ignored},
        "squares before it sums over uses": {"trace": _squares_before_sum},
    },
)
def trace_without_kernel(level: Level, trace: Trace) -> Outcome:
    """Total, per sample, per layer and per parameter equal the reference, masked too."""
    worst, rows = Worst(), []
    for net in (*cases.networks(), *cases.real_networks()):
        f = functional(net.model)
        for sparse in (False, True):
            if worst.broken:
                break
            masks, where = masks_of(net, sparse), f"{net.name}, {'masked' if sparse else 'dense'}"
            squares = {name: j.square() for name, j in _rows(net, sparse).items()}
            exact = {name: s.sum(0).reshape(f.params[name].shape) for name, s in squares.items()}
            by_sample = sum(
                s.sum(1).unflatten(0, (len(net.x), -1)).sum(1) for s in squares.values()
            )
            total = float(sum(t.sum() for t in exact.values()))
            gap = worst.see(f"{where}: total", trace(net.model, net.x, masks=masks), total)
            worst.see(
                f"{where}: per sample",
                trace(net.model, net.x, per="sample", masks=masks),
                torch.as_tensor(by_sample),
            )
            layers = {name: t.sum() for name, t in exact.items()}
            worst.see_each(where, trace(net.model, net.x, per="layer", masks=masks), layers)
            worst.see_each(where, trace(net.model, net.x, per="parameter", masks=masks), exact)
            if net in cases.real_networks():
                label = "Tr Θ, 60 % of the weights" if sparse else "Tr Θ"
                rows += real_rows(net, {label: total, f"{label}: gap to ‖J‖_F²": gap})

    def check(case: strategies.Case) -> None:
        f = functional(case.model)
        exact = reference.trace(f.model_fn, f.params, case.masks, case.x)
        total = float(sum(t.sum() for t in exact.values()))
        value = float(trace(case.model, case.x, masks=case.masks))
        if Worst().see("", value, total) > 1e-12:
            raise Broken(f"{case}\ntrace {value}, ‖J‖_F² {total}")

    return _with_search(worst, rows, check, level)


def real_rows(net: cases.Network, numbers: dict[str, float]) -> list[dict[str, Any]]:
    """Return one row per number for the report's table of real images."""
    return [
        {"network": net.name, "images": net.x.shape[0], "quantity": key, "value": value}
        for key, value in numbers.items()
    ]
