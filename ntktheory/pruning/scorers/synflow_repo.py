"""SynFlow as published code computes it: running statistics become positive too."""

from collections.abc import Sequence

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.synflow import slopes_on_ones


def synflow_repo(
    model_fn: ModelFn,
    params: Params,
    buffers: Params,
    masks: Masks | None,
    names: Sequence[str],
    like: Tensor,
) -> Params:
    """Return ``|w_j ∂R/∂w_j|``, R the sum of the outputs on ones with every state entry ``|·|``.

    Departure from the formula (``synflow``): *the absolute value is taken of every entry of the state
    dictionary, the batch norms' running means included*. Without batch norm, or where running means are
    not negative, both agree.

    Args:
        model_fn: The network, ``model_fn(params, x, buffers)``.
        params: Its parameters θ, unmasked.
        buffers: Its buffers; those that are not of floating-point type stay.
        masks: Parameter name -> mask.
        names: The parameters scored.
        like: An input or a batch; only its shape and type matter.

    Returns:
        Name -> score, shaped like the parameter; larger = keep, 0 for dropped weights. Pure, and
        vmap-able over ``params``, ``buffers`` and ``masks``.

    Cost:
        One forward and backward pass on one sample.

    Source:
        The repository of Tanaka et al. 2020, in eval mode. Tested against scores made with it.
    """
    state = {name: w.abs() for name, w in masked(params, masks).items()}
    positive = {n: b.abs() if b.is_floating_point() else b for n, b in buffers.items()}
    slopes = slopes_on_ones(model_fn, state, names, like, positive)
    return {name: (state[name] * slopes[name]).abs() for name in names}
