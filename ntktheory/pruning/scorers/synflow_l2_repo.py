"""SynFlow-L2 as published code computes it: every state entry squared, one power of the weight."""

from collections.abc import Sequence

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.synflow import slopes_on_ones


def synflow_l2_repo(
    model_fn: ModelFn,
    params: Params,
    buffers: Params,
    masks: Masks | None,
    names: Sequence[str],
    like: Tensor,
) -> Params:
    """Return ``|θ_j ∂R/∂w_j|``, ``R = Σ_c f_c(w, 1)``, w = θ²⊙m, buffers squared too.

    Departures from the formula (``synflow_l2``): *the derivative is multiplied by |θ|, not by θ²*, and
    *every entry of the state dictionary is squared, running means and variances included*, so that a
    batch norm divides by √(variance² + ε), not by √(variance + ε) and then squared. On a network
    without batch norm it is ``synflow_l2`` with ``power=1``.

    Args:
        model_fn: The network, ``model_fn(params, x, buffers)``, of any layers and functions.
        params: Its parameters θ, unmasked.
        buffers: Its buffers; those that are not of floating-point type stay.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        like: An input or a batch; only its shape and type matter.

    Returns:
        Name -> score, shaped like the parameter; larger = keep, 0 for dropped weights. Pure, and
        vmap-able over ``params``, ``buffers`` and ``masks``.

    Cost:
        One forward and backward pass on one sample.

    Source:
        The repository of PX, in eval mode. Tested against scores made with it.
    """
    effective = masked(params, masks)
    state = {name: w.square() for name, w in effective.items()}
    squares = {n: b.square() if b.is_floating_point() else b for n, b in buffers.items()}
    slopes = slopes_on_ones(model_fn, state, names, like, squares)
    return {name: (effective[name] * slopes[name]).abs() for name in names}
