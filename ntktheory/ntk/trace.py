"""The exact trace of the NTK from one pass of C backwards, without the kernel."""

from collections.abc import Iterator
from math import prod
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    check_batch,
    check_choice,
    check_count,
    check_masks,
    complaint,
)
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    Select,
    batch_size,
    functional,
    masked,
    selected,
    take,
)
from ntktheory.ntk.contractions import sizes
from ntktheory.ntk.jacobian import jacobian_rows
from ntktheory.ntk.layerwise import Plan, RulesDisagree, Sweep, block, checked_plan, plan, sweep
from ntktheory.ntk.rules import Factors

PER = ("total", "sample", "layer", "parameter")
CHUNK_BYTES = 1 << 28
Per = Literal["total", "sample", "layer", "parameter"]


@overload
def ntk_trace(
    model: nn.Module | FunctionalModel, x: Tensor, *, per: Literal["total", "sample"] = ...,
    select: Select = ..., masks: Masks | None = ..., chunk_size: int | None = ...,
) -> Tensor: ...  # fmt: skip
@overload
def ntk_trace(
    model: nn.Module | FunctionalModel, x: Tensor, *, per: Literal["layer", "parameter"],
    select: Select = ..., masks: Masks | None = ..., chunk_size: int | None = ...,
) -> Params: ...  # fmt: skip
def ntk_trace(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    per: Per = "total",
    select: Select = None,
    masks: Masks | None = None,
    chunk_size: int | None = None,
) -> Tensor | Params:
    """Compute the exact trace ``Tr Θ = ‖J‖_F² = Σ_{n,c} ‖∇_θ f_c(x_n)‖²``; sums, never means.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x: N samples, sample axis first.
        per: "total" the trace; "sample" its N terms; "layer" one term per parameter tensor;
            "parameter" the diagonal of JᵀJ, ``Σ_{n,c} (∂f_c(x_n)/∂θ_j)²``.
        select: None for all parameters, "prunable", names, or ``predicate(name, tensor)``.
        masks: Parameter name -> mask; the network is f(θ⊙m, x), differentiated with respect to θ.
        chunk_size: Samples at a time; None plans it from a budget of 256 MiB.

    Returns:
        A 0-dim tensor, a tensor [N], or name -> 0-dim tensor or tensor like the parameter; in the
        model's dtype. Parameters that the network does not use give 0.

    Raises:
        ValueError: If an option is unknown, a batch or mask does not fit, or the model is in train
            mode.
        NumericalError: If the trace is not finite.

    Cost:
        One forward and C backward passes to layer outputs, and a few forward passes of at most two
        samples; then ``‖a‖²·‖g‖²`` for a Linear on
        vectors and, for a convolution with S positions, the cheaper of
        ``⟨AᵀA, Σ_c GᵀG⟩`` and ``Σ_c ‖G Aᵀ‖²``.

    Source:
        NTK-SAP §4. Tested against ``ntk/reference.py``.

    Example:
        >>> ntk_trace(nn.Linear(3, 2, bias=False), torch.ones(5, 3))
        tensor(30.)
    """
    model = functional(model)
    check_choice("per", per, PER)
    check_count("chunk_size", chunk_size)
    check_masks(masks, model.params)
    names = selected(model, select)
    check_batch("x", x)
    outputs, layers = checked_plan(model, masked(model.params, masks), x)
    size = chunk_size or planned_chunk(
        layers, model.params, names, x, outputs.shape[1], patches=per == "parameter"
    )
    chunks = [take(x, i, i + size) for i in range(0, x.shape[0], size)]
    if per == "parameter":
        return _finite(
            _add([diagonal(model.model_fn, model.params, masks, c, names, layers) for c in chunks])
        )
    terms = [sample_traces(model.model_fn, model.params, masks, c, names, layers) for c in chunks]
    if per == "layer":
        return _finite(_add([{k: t.sum() for k, t in chunk.items()} for chunk in terms]))
    by_sample = torch.cat([torch.stack(list(chunk.values())).sum(0) for chunk in terms])
    result = _finite({"": by_sample})[""]
    return result if per == "sample" else result.sum()


def sample_traces(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Any,
    names: tuple[str, ...],
    layers: Plan | None = None,
) -> Params:
    """Return ``Σ_c ‖∂f_c(x_n)/∂θ‖²`` of each named parameter tensor, shape [N].

    Pure, and vmap-able over ``params`` and ``masks``; ``x`` may be a tree of tensors. The plan of the
    network's layers is made if not given.
    """
    run, single, others = _differentiate(model_fn, params, masks, x, names, layers)
    masks = masks or {}
    terms = {name: j.square().sum((1, 2)) for name, j in others.items()}
    for name, uses in _by_parameter(run, names, others):
        mask = masks.get(name)
        if name == uses[0].call.weight and name in single:
            term = weight_norms(uses[0], mask)
        else:
            term = _masked_rows(block(name, uses), mask).square().sum((0, 2))
        terms[name] = terms[name] + term if name in terms else term
    return _in_order(terms, names, params, (batch_size(x),))


def diagonal(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Any,
    names: tuple[str, ...],
    layers: Plan | None = None,
) -> Params:
    """Return the diagonal of JᵀJ, ``Σ_{n,c} (∂f_c(x_n)/∂θ_j)²``, shaped like each parameter.

    Pure, and vmap-able over ``params`` and ``masks``; ``x`` may be a tree of tensors. The plan of the
    network's layers is made if not given.
    """
    run, single, others = _differentiate(model_fn, params, masks, x, names, layers)
    masks = masks or {}
    squares = {name: j.square().sum((0, 1)) for name, j in others.items()}
    columns: Params = {}
    for name, uses in _by_parameter(run, names, others):
        f = uses[0]
        if name == f.call.weight and name in single and f.call.is_vector:
            term = (f.g.square().sum(0).T @ f.a.square()).flatten()
        elif name == f.call.weight and name in single and f.call.kind in ("matrix", "convolution"):
            if name not in columns:  # once for all outputs
                columns[name] = f.input_columns()
            term = squared_rows(f, columns[name])
        else:
            term = block(name, uses).square().sum((0, 1))
        if name in masks:
            term = term * masks[name].to(term.dtype).square().flatten()
        squares[name] = squares[name] + term if name in squares else term
    return {
        name: s.reshape(params[name].shape)
        for name, s in _in_order(squares, names, params, None).items()
    }


def weight_norms(f: Factors, mask: Tensor | None) -> Tensor:
    """Return ``Σ_c ‖G_nc A_nᵀ ⊙ m‖²`` of one layer's weight, shape [N], by the cheapest rule."""
    if f.call.is_vector:
        a = f.a.square()
        if mask is None:
            return a.sum(1) * f.g.square().sum((0, 2))
        return ((a @ mask.to(a.dtype).square().T) * f.g.square().sum(0)).sum(1)
    if mask is None and f.call.kind in ("matrix", "convolution"):
        o, d, s = sizes(f.call)
        if s * (d + len(f.g) * o) < len(f.g) * o * d:
            a, g = f.input_columns(), f.cotangent_columns()
            stacked = g.transpose(1, 2).flatten(2, 3)
            return ((a.transpose(2, 3) @ a) * (stacked.transpose(2, 3) @ stacked)).sum((1, 2, 3))
    j = block(f.call.weight or "", [f])
    return _masked_rows(j, mask).square().sum((0, 2))


def squared_rows(f: Factors, a: Tensor) -> Tensor:
    """Return ``Σ_nc (G_nc A_nᵀ)²`` of a weight, entry by entry; ``a`` holds A, [N, groups, D, S]."""
    g = f.cotangent_columns()
    n, c, groups, o, s = g.shape
    rows = g.transpose(1, 2).reshape(n, groups, c * o, s) @ a.transpose(2, 3)
    return rows.square().sum(0).unflatten(1, (c, o)).sum(1).flatten()


def _masked_rows(j: Tensor, mask: Tensor | None) -> Tensor:
    return j if mask is None else j * mask.to(j.dtype).flatten()


def _by_parameter(
    run: Sweep | None, names: tuple[str, ...], others: Params
) -> Iterator[tuple[str, list[Factors]]]:
    """Yield every covered parameter with the factors of its uses, for one group of outputs at a time."""
    for made in run.factors() if run is not None else ():
        for name in names:
            uses = [f for f in made if name in f.call.names() and name not in others]
            if uses:
                yield name, uses


def _differentiate(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Any,
    names: tuple[str, ...],
    layers: Plan | None = None,
) -> tuple[Sweep | None, set[str], Params]:
    """Return the sweep of covered parameters, those used once, and masked rows [N, C, p] of the rest."""
    effective = masked(params, masks)
    layers = layers or plan(model_fn, effective, x)
    covered = layers.covered() & set(names)
    rest = [name for name in names if name in layers.used() and name not in covered]
    try:
        run = sweep(model_fn, effective, x, layers, covered) if covered else None
    except RulesDisagree:
        run, rest = None, list(names)
    rows = jacobian_rows(model_fn, params, masks, x, rest) if rest else {}
    return run, layers.single_use(), rows


def _in_order(
    terms: Params, names: tuple[str, ...], params: Params, shape: tuple[int, ...] | None
) -> Params:
    """Order the terms like ``names``; unused parameters give 0."""
    return {
        name: terms[name] if name in terms else params[name].new_zeros(shape or params[name].shape)
        for name in names
    }


def _add(chunks: list[Params]) -> Params:
    return {name: torch.stack([chunk[name] for chunk in chunks]).sum(0) for name in chunks[0]}


def _finite(values: Params) -> Params:
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise NumericalError(
                complaint(
                    f"trace {name}".strip(),
                    "finite",
                    "NaN or Inf",
                    "The inputs were finite: rescale the parameters or use float64.",
                )
            )
    return values


def planned_chunk(
    layers: Plan,
    params: Params,
    names: tuple[str, ...],
    x: Tensor,
    c: int,
    *,
    patches: bool = False,
) -> int:
    """Plan the samples per chunk: activations, one output's largest rows, all rows without a rule.

    Args:
        layers: The plan of the network.
        params: Its parameters.
        names: Those to differentiate.
        x: The batch.
        c: Number of outputs.
        patches: Whether the patches of all convolutions are held, as ``diagonal`` does.

    Returns:
        The number of samples.
    """
    vectors = {
        name
        for call in layers.calls
        if call.is_vector
        for name in set(call.names()) & layers.single_use()
    }
    rows = [params[name].numel() for name in names if name not in vectors]
    activations = 4 * sum(prod(call.output) for call in layers.calls)
    others = sum(params[name].numel() for name in names if name in layers.used() - layers.covered())
    unfolded = [
        prod(call.weight_shape[1:]) * prod(call.output[1:])
        for call in layers.calls
        if patches and call.kind == "convolution"
    ]
    held = 2 * max(rows, default=0) + activations + sum(unfolded) + 3 * c * others
    bytes_per_sample = held * x.element_size()
    return max(1, min(x.shape[0], CHUNK_BYTES // max(1, bytes_per_sample)))
