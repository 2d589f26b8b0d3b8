"""FORCE: SNIP in rounds, in which a dropped weight may return."""

from collections.abc import Sequence

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.pruning.scorers.snip import Loss, snip


def force(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
) -> Params:
    """Return ``|θ_j ∂ℓ/∂w_j|`` at ``w = θ⊙m``, for dropped weights as for kept ones.

    FORCE looks for the mask of a given size with the largest ``Σ_{j kept} |θ_j ∂ℓ/∂w_j|`` *after*
    pruning. Its rounds keep the highest of this score among all weights, so that a dropped one may
    return: the registry says ``regrows``. On a single round it is SNIP.

    Args:
        model_fn: The network.
        params: Its parameters θ, unmasked.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        x: The inputs of the batch.
        y: Its labels.
        loss_fn: ``loss_fn(outputs, y) -> scalar`` ℓ.

    Returns:
        Name -> score, shaped like the parameter; larger = keep. Pure, and vmap-able like ``snip``.

    Cost:
        One forward and backward pass.

    Source:
        De Jorge et al. 2021, *Progressive Skeletonization*, §4; 60 rounds, exponential, as in the
        commands of its published code. That code has batch norm in train mode, takes new batches in
        every round, and keeps all weights that tie at the cut.
    """
    return snip(model_fn, params, masks, names, x, y, loss_fn)
