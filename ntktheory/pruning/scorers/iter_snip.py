"""IterSNIP: SNIP in rounds, in which what is dropped stays dropped."""

from collections.abc import Sequence

from torch import Tensor

from ntktheory.functional import Loss, Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.snip import snip


def iter_snip(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
) -> Params:
    """Return ``|w_j ∂ℓ/∂w_j|`` at ``w = θ⊙m``: SNIP's score, arguments and cost, but 0 where m is 0.

    Source:
        De Jorge et al. 2021, *Progressive Skeletonization*, §4; 60 rounds, exponential, as in the
        commands of its published code. That code, FORCE's too, has batch norm in train mode, takes new
        batches in every round, rounds counts down, and keeps all weights that tie at the cut.
    """
    found = snip(model_fn, params, masks, names, x, y, loss_fn)
    return masked(found, {name: m for name, m in (masks or {}).items() if name in found})
