"""The exact derivative of the NTK's trace by the masks, through the layerwise engine."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from ntktheory.calls import soundly
from ntktheory.functional import Masks, ModelFn, Params, batch_size, masked, take
from ntktheory.ntk.layerwise import Plan, RulesDisagree, plan, sweep
from ntktheory.ntk.trace import CHUNK_BYTES, diagonal

# Copies of activations and rows that wait for the way back: 4.5 on ResNet-20, and a margin.
HELD = 6


def trace_gradient(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Any,
    names: tuple[str, ...],
    chosen: tuple[str, ...],
    layers: Plan | None = None,
) -> Params:
    """Return ``∂Tr(m)/∂m_j``, ``Tr(m) = Σ_{n,c,i} m_i² g_nci²``, ``g = ∂f_c(x_n)/∂(θ⊙m)`` at θ⊙m.

    By the product rule it is ``2 m_j Σ_nc g_ncj² + 2 θ_j Σ_nc [H_nc (m²⊙g_nc)]_j`` with the Hessians
    H_nc of the outputs; off the kinks the second derivative of a ReLU is 0 and that of f is not. All
    of it comes from one differentiation of the diagonal of JᵀJ.

    Pure, and vmap-able over ``params`` and ``masks``; ``x`` may be a tree of tensors.

    Args:
        model_fn: The network.
        params: θ, unmasked.
        masks: Parameter name -> mask; parameters without one have m = 1.
        x: The batch, all at once.
        names: The parameters by whose masks to differentiate.
        chosen: The parameters i that the trace adds up.
        layers: The plan of the network's layers; made if not given.

    Returns:
        Name -> derivative, shaped like the parameter. Cost: 2C + 1 forward and backward passes.
    """
    masks = masks or {}
    every = {name: mask.to(params[name].dtype) for name, mask in masks.items()}
    varied = {name: every.get(name, torch.ones_like(params[name])) for name in names}
    layers = _sound_plan(model_fn, masked(params, every), x, chosen, layers)

    used = [name for name in chosen if name in layers.used()]
    ruled = tuple(name for name in used if name in layers.covered())
    others = tuple(name for name in used if name not in ruled)

    def trace(varied: Params) -> Tensor:
        m = every | varied
        effective = masked(params, m)
        squares = diagonal(model_fn, effective, None, x, ruled, layers) if ruled else {}
        squares |= _diagonal_one_by_one(model_fn, effective, x, others) if others else {}
        terms = [(m[k].square() * d if k in m else d).sum() for k, d in squares.items()]
        return torch.stack(terms).sum()

    return torch.func.grad(trace)(varied)


def _diagonal_one_by_one(
    model_fn: ModelFn, effective: Params, x: Any, names: tuple[str, ...]
) -> Params:
    """Return the diagonal of JᵀJ by one backward pass per sample and output.

    Under ``vmap`` the second derivatives of some functions are silently wrong: those of layer and
    instance norm by their scale, for instance.
    """
    varied = {name: effective[name] for name in names}
    squares = {name: torch.zeros_like(t) for name, t in varied.items()}
    for n in range(batch_size(x)):
        sample = take(x, n, n + 1)
        outputs, pullback = torch.func.vjp(  # type: ignore[misc]
            lambda v, s=sample: soundly(model_fn)(effective | v, s), varied
        )
        for e in torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device):
            row = pullback(e.unsqueeze(0))[0]
            squares = {name: squares[name] + row[name].square() for name in names}
    return squares


def gradient_chunk(
    layers: Plan, params: Params, chosen: tuple[str, ...], samples: int, outputs: int
) -> int:
    """Plan the samples per chunk: all that the C passes hold until the way back, in 256 MiB."""
    # A Linear on vectors needs no rows: its squares are a product over samples.
    single = layers.single_use()
    products = {call.weight for call in layers.calls if call.is_vector and call.weight in single}
    held_by_row = [name for name in chosen if name in layers.used() and name not in products]
    rows = sum(params[name].numel() for name in held_by_row)
    activations = sum(prod(call.output) for call in layers.calls)
    size = next(iter(params.values())).element_size()
    held = HELD * outputs * (rows + activations) * size
    return max(1, min(samples, CHUNK_BYTES // max(1, held)))


def _sound_plan(
    model_fn: ModelFn, effective: Params, x: Any, chosen: tuple[str, ...], layers: Plan | None
) -> Plan:
    """Return a plan whose rules hold on this batch; without any rule if they do not.

    The check compares values, which cannot be done while they are differentiated.
    """
    layers = layers or plan(model_fn, effective, x)
    covered = layers.covered() & set(chosen)
    try:
        if covered:
            sweep(model_fn, effective, x, layers, covered)
    except RulesDisagree:
        return Plan((), frozenset(layers.used()))
    return layers
