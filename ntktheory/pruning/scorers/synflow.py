"""SynFlow: every weight's share of the flow of ones through absolute weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.gradients import gradient


def synflow(
    model_fn: ModelFn, params: Params, masks: Masks | None, names: Sequence[str], like: Tensor
) -> Params:
    """Return ``|w_j ∂R/∂w_j|`` with ``R = Σ_c f_c(w, 1)`` and ``w = |θ⊙m|``, all parameters of them.

    Biases and batch norms' scales and shifts are parameters, and enter by their absolute values. Running
    statistics are not: they enter *as they are*, so that a negative running mean adds to the flow and a
    positive one takes from it (``synflow_repo`` makes them positive). Dropped weights score 0.

    Args:
        model_fn: The network, of any layers and functions.
        params: Its parameters θ, unmasked.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        like: An input or a batch; only its shape and type matter.

    Returns:
        Name -> score, shaped like the parameter; larger = keep. Pure, and vmap-able over ``params`` and
        ``masks``. ``score`` runs it in float64: R is a product over layers of hundreds each, which
        passes float32 on deep networks.

    Cost:
        One forward and backward pass on one sample.

    Source:
        Tanaka et al. 2020, Algorithm 1: 100 rounds, exponential.

    Example:
        >>> run = lambda p, x: x @ p["w"].T
        >>> synflow(run, {"w": torch.tensor([[2.0, -3.0]])}, None, ["w"], torch.zeros(1, 2))
        {'w': tensor([[2., 3.]])}
    """
    state = {name: w.abs() for name, w in masked(params, masks).items()}
    slopes = slopes_on_ones(model_fn, state, names, like)
    return {name: (state[name] * slopes[name]).abs() for name in names}


def slopes_on_ones(
    model_fn: ModelFn,
    state: Params,
    names: Sequence[str],
    like: Tensor,
    buffers: Params | None = None,
) -> Params:
    """Return ``∂/∂w Σ_c f_c(w, 1)`` for the named parameters.

    Args:
        model_fn: The network.
        state: Its parameters w.
        names: Those of the derivative.
        like: An input or a batch; one sample of ones is shaped like it.
        buffers: The network's buffers; None or none at all means its own.

    Returns:
        Name -> derivative.
    """
    ones = torch.ones_like(like[:1])

    def flow(weights: Params) -> Tensor:
        if buffers:
            return model_fn(state | weights, ones, buffers).sum()
        return model_fn(state | weights, ones).sum()

    return gradient(flow, {name: state[name] for name in names})
