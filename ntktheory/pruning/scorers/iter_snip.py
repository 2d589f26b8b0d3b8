"""IterSNIP: SNIP in rounds, in which what is dropped stays dropped."""

from collections.abc import Sequence

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.snip import Loss, snip


def iter_snip(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
) -> Params:
    """Return ``|w_j ∂ℓ/∂w_j|`` at ``w = θ⊙m``: SNIP, but 0 for dropped weights.

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
    found = snip(model_fn, params, masks, names, x, y, loss_fn)
    return masked(found, {name: m for name, m in (masks or {}).items() if name in found})
