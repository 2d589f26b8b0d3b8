"""R_op: exact activations before a layer, operator norms after it.

In a chain of layers, gates and pools, ``∂f_c/∂W_l = g_c h_lᵀ`` with the exact input h_l, and the map
from the layer's output to f is a product of operators: the gates (norm ≤ 1, or the slope), pools, and
the later layers. So, with ``‖·‖`` of the *operators* on their maps,

    R_op = Σ_l (Σ_x ‖input_l‖²) κ_l,   κ_l = min_{m>l} ‖W_m‖_F² Π_{m'>l, m'≠m} ‖W_m'‖₂²,   κ_L = C,

times the squared norms of the fixed operators after l. ``input_l`` is the unfolded input of a
convolution, with one more row of ones for a bias. Under masks W is θ⊙m, and ``‖input_l‖²`` is the
largest over the units o of the layer of the sum over the inputs that o keeps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntktheory.calls import CONVOLUTIONS
from ntktheory.functional import masked
from ntktheory.paths.gates import Recording, Step, record
from ntktheory.paths.operator_norms import (
    convolution_axes,
    frobenius_of_convolution,
    norm_of_convolution,
    row_energies,
    spectral_cost,
)
from ntktheory.paths.rules import Call, Layer, averaged, bind_layer, negative_slope, pool_arguments
from ntktheory.paths.scales import Scaled, magnitude, power, squared, total
from ntktheory.paths.survey import Survey
from ntktheory.paths.windows import POOLS, pool_axes, squared_norm

# Every entry of the result is one entry of the argument, each once and in the same order.
REARRANGEMENTS = frozenset(
    ("flatten", "view", "reshape", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone",
     "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
)  # fmt: skip


@dataclass(frozen=True)
class _Norms:
    """Squared norms of one layer's operator, W = 2^exponent · (mantissa)."""

    frobenius: Tensor
    spectral: Tensor
    exponent: Tensor


def no_chain(run: Recording) -> str | None:
    """Say why R_op is undefined for a recorded network, or return None."""
    if run.chain is None:
        return "the network is no chain of layers"
    samples = run.outputs.shape[0]
    for step in run.chain:
        if step.shape[0] != samples:
            return "its activations do not have the sample axis first"
        if not _is_layer(step) and _fixed_norm(step) is None:
            return f"{step.call.short} is no operator with a known norm"
        if _is_layer(step) and not _covers(step):
            return f"{step.call.short} has no certified norm here"
    repeated = [name for name, n in run.uses.items() if n > 1]
    return f"{repeated[0]!r} is used twice" if repeated else None


def cost(survey: Survey) -> int:
    """Return about how many multiply-adds the norms of R_op take."""
    count = 0
    for step in _layers(survey.run):
        weight = survey.params[step.weight or ""]
        if step.call.short == "linear":
            small, large = sorted(weight.shape)
            count += 4 * small * small * (large + 8 * small)
        else:
            layer = _bound(step, weight)
            stride = layer.options["stride"]
            d = weight.ndim - 2
            stride = [stride] * d if isinstance(stride, int) else stride
            count += spectral_cost(weight.shape, stride, step.shape[2:])
    return count


def operator_bound(survey: Survey) -> Scaled:
    """Return R_op of a chain, 0-dim. Pure, and vmap-able over parameters and masks."""
    effective = masked(survey.params, survey.masks)
    layers = list(_layers(survey.run))
    remaining, inputs = iter(layers), []

    def observe(call: Call, h: Tensor) -> None:
        inputs.append(_input_energy(survey, next(remaining), call, h))

    record(survey.model_fn, effective, survey.x, observe=observe)
    terms = []
    product, best = None, None  # Π ‖W_m‖₂² over later layers, and κ; both mantissas
    exponent, fixed = torch.zeros_like(survey.x.flatten()[0]), 1.0
    for step in reversed(survey.run.chain or []):
        if not _is_layer(step):
            fixed *= _fixed_norm(step) or 1.0
            continue
        kappa = exponent.new_tensor(float(survey.outputs)) if best is None else best
        terms.append(inputs.pop().times(Scaled(kappa * fixed, exponent)))
        norms = _norms(step, effective[step.weight or ""])
        if product is None or best is None:
            product, best = norms.spectral, norms.frobenius
        else:
            best = torch.minimum(norms.frobenius * product, norms.spectral * best)
            product = norms.spectral * product
        k = magnitude(best)
        product, best = product * power(-k), best * power(-k)
        exponent = exponent + norms.exponent + k
    return total(terms)


def _layers(run: Recording) -> Iterator[Step]:
    return (step for step in run.chain or [] if _is_layer(step))


def _is_layer(step: Step) -> bool:
    return step.call.kind == "layer"


def _covers(step: Step) -> bool:
    if step.call.short == "linear":
        return True
    d = CONVOLUTIONS.get(step.call.short)
    if d is None or len(step.shape) != d + 2:
        return False
    layer = bind_layer(step.call)
    return layer.options["padding"] != "same"


def _fixed_norm(step: Step) -> float | None:
    """Return a bound on the squared norm of a step without parameters; None if it has none."""
    call, like = step.call, torch.empty(step.shape, device="meta")
    if call.short in REARRANGEMENTS:
        return 1.0
    if call.kind == "relu":
        return max(1.0, negative_slope(call) ** 2)
    call = _with_input(call, like)
    if call.short in POOLS:
        if not len(step.shape) == POOLS[call.short] + 2:
            return None
        given = pool_arguments(call)
        axes = pool_axes(call.short, given)
        if call.kind == "average":
            return squared_norm(given, axes)
        return 1.0 if all(axis.disjoint for axis in axes) else None
    if call.short == "mean":
        dim = call.given(("input", "dim"), dim=None)["dim"]
        axes_ = (dim,) if isinstance(dim, int) else tuple(dim or ())
        if not axes_ or any(a % len(step.shape) == 0 for a in axes_):
            return None
        return 1.0 / averaged(call)
    return None


def _with_input(call: Call, like: Tensor) -> Call:
    """Put a tensor where a step's call had its input."""
    if call.args:
        return replace(call, args=(like, *call.args[1:]))
    return replace(call, kwargs=dict(call.kwargs) | {"input": like})


def _bound(step: Step, weight: Tensor) -> Layer:
    """Return a step's layer, bound to no tensors but the weight."""
    layer = bind_layer(step.call)
    return replace(layer, weight=weight)


def _norms(step: Step, weight: Tensor) -> _Norms:
    k = magnitude(weight)
    w = weight * power(-k)
    if step.call.short == "linear":
        positions = math.prod(step.shape[1:-1])
        spectral = torch.linalg.matrix_norm(w, 2).square()
        return _Norms(positions * w.square().sum(), spectral, 2 * k)
    layer, sizes = _bound(step, w), step.shape[2:]
    return _Norms(
        frobenius_of_convolution(layer, w, sizes), norm_of_convolution(layer, w, sizes), 2 * k
    )


def _input_energy(survey: Survey, step: Step, call: Call, h: Tensor) -> Scaled:
    """Return ``Σ_x max_o Σ (kept inputs of o)²``, with the ones of the bias."""
    layer, h2 = bind_layer(call), squared(h)
    name, bias = step.weight or "", step.bias
    weight = survey.params[name]
    masks = survey.masks or {}
    kept = masks[name].to(h.dtype) if name in masks else torch.ones_like(weight)
    if call.short == "linear":
        rows = h2.mantissa.flatten(1, -2).sum(1) if h.ndim > 2 else h2.mantissa
        positions = math.prod(h.shape[1:-1])
        energies = rows @ kept.T
    else:
        axes = convolution_axes(layer, weight, h.shape[2:]) or ()
        rows = row_energies(h2.mantissa, axes, layer, weight.shape[2:])
        groups = layer.options["groups"]
        rows = rows.unflatten(1, (groups, -1)).flatten(2)
        by_group = kept.flatten(1).unflatten(0, (groups, -1))
        energies = torch.einsum("ngd,god->ngo", rows, by_group).flatten(1)
        positions = math.prod(len(axis.positions) for axis in axes)
    exponent = h2.exponent
    if bias is not None:
        ones = masks[bias].to(h.dtype) if bias in masks else torch.ones_like(survey.params[bias])
        exponent = exponent.clamp(min=0.0)
        energies = energies * power(h2.exponent - exponent) + positions * ones * power(-exponent)
    return Scaled(energies.amax(1).sum(), exponent)
