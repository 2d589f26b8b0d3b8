"""R_half: exact activations before an edge, the path bound after it.

For a weight from unit i to unit o, used at positions s, ``∂f_c/∂θ_j = Σ_s h_i Σ_q a_q v_q`` over the
paths q from o to c. Cauchy–Schwarz over the pairs (s, q), with ``h_i a_q/√Bpre_i`` against
``v_q √Bpre_i``, gives

    A^half_jc = Σ_x Σ_s Σ_{q: o→c} a_q² h_i²/Bpre_i,    (∂f_c/∂θ_j)² ≤ A^half_jc B_jc,

where ``Bpre_i`` is the squared net's activation at i, so that ``B_jc = Σ_s Bpre_i Σ_q v_q²``. And it
is at most R_edge, because ``h_i² ≤ Bpre_i Σ_{t→i} a_t² x_t²`` over the paths t into i. For batch norm's
γ, h is ``(z − μ)/σ``; a bias has h = Bpre = 1.
"""

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import record
from ntktheory.paths.networks import squared_weights
from ntktheory.paths.passes import Inputs, Powers, run_values
from ntktheory.paths.rules import Call
from ntktheory.paths.scales import Scaled, squared, unscaled


def own_layer_ratios(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, *, smooth: bool = False
) -> Inputs:
    """Return ``h²/Bpre`` (0/0 = 0) for every product of data and a parameter, in order.

    Pure, and vmap-able over ``params`` and ``masks``.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Masks, or None.
        x: The batch.
        smooth: Whether smooth activations are taken.

    Returns:
        The inputs of a directional pass, like what the parameters multiply. Cost: one forward pass, and
        one on one sample.
    """
    try:
        return _ratios(model_fn, params, masks, x, torch.ones_like(x[:1]), smooth)
    except _OtherShapeError:  # the network folds samples into other axes
        return _ratios(model_fn, params, masks, x, torch.ones_like(x), smooth)


class _OtherShapeError(Exception):
    """One sample's activations do not line up with the batch's."""


def _ratios(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, ones: Tensor, smooth: bool
) -> Inputs:
    before = Inputs([], raw=False)
    run_values(model_fn, squared_weights(params, masks), unscaled(ones), None, Powers(), before)
    remaining, ratios = iter(before.entries), []

    def observe(call: Call, h: Tensor) -> None:
        below = next(remaining, None)
        if below is None or not _lines_up(below.mantissa, h):
            raise _OtherShapeError
        ratios.append(_ratio(squared(h), below))

    record(model_fn, masked(params, masks), x, smooth=smooth, observe=observe)
    return Inputs(ratios, raw=False)


def _lines_up(one: Tensor, batch: Tensor) -> bool:
    if one.ndim != batch.ndim:
        return False
    return all(n in (1, m) for n, m in zip(one.shape, batch.shape, strict=True))


def _ratio(data: Scaled, below: Scaled) -> Scaled:
    """Return the quotient; 0 where the data are 0, and infinite where only ``below`` is."""
    quotient = data.mantissa / below.mantissa
    alive = torch.where(data.mantissa == 0, data.mantissa, quotient)
    return Scaled(alive, data.exponent - below.exponent)
