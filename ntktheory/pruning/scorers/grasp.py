"""GraSP: what a weight contributes to the gradient flow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.gradients import gradient
from ntktheory.pruning.scorers.snip import Loss

TEMPERATURE = 200.0


def grasp(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
    temperature: float = TEMPERATURE,
) -> Params:
    """Return ``θ_j (H g)_j``, signed, with g and H the gradient and Hessian of ℓ(f(θ⊙m, x)/T, y).

    g and H are those with respect to the scored parameters only, from one and the same batch, and
    ``H g = ∂(½‖g‖²)/∂θ``. To first order, setting θ_j to 0 changes the gradient flow ‖g‖² by
    ``−2 θ_j (H g)_j``. So a weight with a large positive score carries the flow, and one with a
    negative score holds it down: *the largest are kept*. In the paper's notation this is −S(−θ), and
    the weights with the largest S are removed. Dropped weights score 0.

    Args:
        model_fn: The network.
        params: Its parameters θ, unmasked.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        x: The inputs of the batch.
        y: Its labels.
        loss_fn: ``loss_fn(outputs, y) -> scalar`` ℓ, the mean over the batch as published.
        temperature: T, by which the outputs are divided.

    Returns:
        Name -> score, shaped like the parameter; larger = keep. Pure, and vmap-able over ``params``,
        ``masks``, ``x`` and ``y``.

    Cost:
        A forward and a backward pass, and a backward pass through both: 2 forward and backward passes.

    Source:
        Wang, Zhang and Grosse 2020, Eq. 8. The published code divides by ``|Σ score| + 1e-10``, which
        changes no mask. Public figures "of GraSP" exist that were made with the opposite sign.

    Example:
        >>> w, batch = {"w": torch.tensor([[2.0]])}, (torch.ones(1, 1), torch.zeros(1, 1))
        >>> run, half = (lambda p, x: x @ p["w"]), (lambda f, y: ((f - y) ** 2).sum() / 2)
        >>> grasp(run, w, None, ["w"], *batch, half, temperature=1.0)  # g = w, H = 1
        {'w': tensor([[4.]])}
    """

    def loss(weights: Params) -> Tensor:
        return loss_fn(model_fn(masked(params | weights, masks), x) / temperature, y)

    def flow(weights: Params) -> Tensor:
        slopes = torch.func.grad(loss)(weights)
        return torch.stack([slope.square().sum() for slope in slopes.values()]).sum() / 2

    hg = gradient(flow, {name: params[name] for name in names})
    return {name: params[name] * hg[name] for name in names}
