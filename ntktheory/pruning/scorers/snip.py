"""SNIP: how much the loss depends on whether a weight is there."""

from collections.abc import Sequence

from torch import Tensor

from ntktheory.functional import Loss, Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.gradients import gradient


def snip(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
) -> Params:
    """Return ``|∂ℓ/∂m_j| = |θ_j ∂ℓ/∂w_j|`` at ``w = θ⊙m``, not normalised.

    A dropped weight has a score too, in general not 0: what the loss would gain from its return. Rounds
    in which dropped weights stay dropped have to leave it out, as ``iter_snip`` does. FORCE's rounds
    keep the highest of this very score among all weights, dropped ones too: the registry has it as
    ``force``, which ``regrows``. It looks for the mask of a given size with the largest
    ``Σ_{j kept} |θ_j ∂ℓ/∂w_j|`` *after* pruning.

    Args:
        model_fn: The network.
        params: Its parameters θ, unmasked.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        x: The inputs of the batch.
        y: Its labels.
        loss_fn: ``loss_fn(outputs, y) -> scalar`` ℓ, the mean over the batch as published.

    Returns:
        Name -> score, shaped like the parameter; larger = keep. Pure, and vmap-able over ``params``,
        ``masks``, ``x`` and ``y``.

    Cost:
        One forward and backward pass.

    Source:
        Lee, Ajanthan and Torr 2019, Eq. 6. The published code divides by the sum over all weights,
        which changes no mask, and leaves batch norm in train mode: ``score(…, bn="train")``. FORCE:
        de Jorge et al. 2021, see ``iter_snip``.

    Example:
        >>> net, batch = nn.Linear(2, 1, bias=False), (torch.ones(1, 2), torch.zeros(1, 1))
        >>> w = {"weight": torch.tensor([[2.0, -1.0]])}
        >>> from ntktheory import functional
        >>> model_fn, loss = functional(net).model_fn, nn.functional.mse_loss
        >>> snip(model_fn, w, None, ["weight"], *batch, loss)  # loss (2 − 1)², slopes 2 and 2
        {'weight': tensor([[4., 2.]])}
    """
    effective = masked(params, masks)

    def loss(weights: Params) -> Tensor:
        return loss_fn(model_fn(effective | weights, x), y)

    slopes = gradient(loss, {name: effective[name] for name in names})
    return {name: (params[name] * slopes[name]).abs() for name in names}
