"""GraSP: what a weight contributes to the gradient flow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ntktheory.functional import Loss, Masks, ModelFn, Params, masked
from ntktheory.paths.scales import Scaled, power, presentable, size
from ntktheory.pruning.scorers.arguments import check_positive_number
from ntktheory.pruning.scorers.gradients import gradient_and_more

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
        temperature: T > 0, by which the outputs are divided.

    Returns:
        Name -> score, shaped like the parameter; larger = keep. If the largest does not fit the dtype,
        all are divided by one power of two. Pure, and vmap-able over ``params``, ``masks``, ``x`` and
        ``y``.

    Raises:
        ValueError: If the temperature is not a positive number.

    Cost:
        A forward and a backward pass, and a backward pass through both, which is twice as long: 3
        forward and backward passes.

    Source:
        Wang, Zhang and Grosse 2020, Eq. 8. The published code divides by ``|Σ score| + 1e-10``, which
        changes no mask. Public figures "of GraSP" exist that were made with the opposite sign.

    Example:
        >>> w, batch = {"w": torch.tensor([[2.0]])}, (torch.ones(1, 1), torch.zeros(1, 1))
        >>> run, half = (lambda p, x: x @ p["w"]), (lambda f, y: ((f - y) ** 2).sum() / 2)
        >>> grasp(run, w, None, ["w"], *batch, half, temperature=1.0)  # g = w, H = 1
        {'w': tensor([[4.]])}
    """
    check_positive_number("temperature", temperature)

    def loss(weights: Params) -> Tensor:
        return loss_fn(model_fn(masked(params | weights, masks), x) / temperature, y)

    def flow(weights: Params) -> tuple[Tensor, Tensor]:
        # H g is as small as g²: g 2^(−2h), of about 1, goes through H in its place
        slopes = torch.func.grad(loss)(weights)
        largest = torch.stack([size(slope) for slope in slopes.values()]).amax()
        half = torch.where(torch.isfinite(largest), largest / 2, 0.0).floor()
        squares = [(slope * power(-half)).square().sum() for slope in slopes.values()]
        return torch.stack(squares).sum() / 2, 2 * half

    hg, exponent = gradient_and_more(flow, {name: params[name] for name in names})
    return presentable({name: Scaled(params[name] * hg[name], exponent) for name in names})
