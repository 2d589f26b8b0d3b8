"""ProsPr: how much the loss after a few steps of training depends on whether a weight is there."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ntktheory.functional import Loss, Masks, ModelFn, Params, masked
from ntktheory.pruning.scorers.arguments import check_fraction, check_positive_number, check_steps
from ntktheory.pruning.scorers.gradients import gradient


def prospr(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
    steps: int = 3,
    lr: float = 0.1,
    momentum: float = 0.0,
) -> Params:
    """Return ``|∂ℓ(w_M)/∂c_j|`` at c = m, where ``w_0 = θ⊙c`` and w_M comes from M steps of SGD.

    ``v_{k+1} = μ v_k + m⊙∂ℓ(w_k)/∂w`` with v_0 = 0, and ``w_{k+1} = w_k − η v_{k+1}``: all parameters
    train, dropped ones stay 0. The derivative goes through every step. The one batch serves every step
    and the last loss. With M = 0 it is SNIP, also on dropped weights.

    Args:
        model_fn: The network.
        params: Its parameters θ, unmasked.
        masks: Parameter name -> mask m.
        names: The parameters scored.
        x: The inputs of the batch.
        y: Its labels.
        loss_fn: ``loss_fn(outputs, y) -> scalar`` ℓ, the mean over the batch as published.
        steps: M, at least 0.
        lr: The learning rate η > 0.
        momentum: μ in [0, 1).

    Returns:
        Name -> score, shaped like the parameter; larger = keep. Pure, and vmap-able over ``params``,
        ``masks``, ``x`` and ``y``.

    Raises:
        ValueError: If ``steps``, ``lr`` or ``momentum`` is out of range.

    Cost:
        M + 1 forward and backward passes, and a backward pass through the first M of them, which is
        twice as long: 3M + 1.
        Memory: that of M + 1 batches.

    Source:
        Alizadeh et al. 2022. Defaults are those of the published command line (its README has η = 0.5,
        μ = 0.9). Three departures of the published code, by default: it takes *a new batch* for every
        step and for the last loss, this one batch for all; for μ ≠ 0 it *detaches the first momentum
        buffer*, and so leaves out the derivative through the whole first step, ``∂w_1/∂w_0 = 1 − ηH``
        becoming 1; and it has *batch norm in train mode*, ``score(…, bn="train")``.

    Example:
        >>> w, batch = {"w": torch.tensor([[2.0]])}, (torch.ones(1, 1), torch.zeros(1, 1))
        >>> run, half = (lambda p, x: x @ p["w"]), (lambda f, y: ((f - y) ** 2).sum() / 2)
        >>> prospr(run, w, None, ["w"], *batch, half, steps=1, lr=0.5)  # ℓ = (½·2c)²/2
        {'w': tensor([[1.]])}
    """
    check_steps("steps", steps)
    check_positive_number("lr", lr)
    check_fraction("momentum", momentum)
    start = masked(params, masks)

    def loss(weights: Params) -> Tensor:
        return loss_fn(model_fn(weights, x), y)

    def after_training(cuts: Params) -> Tensor:
        weights = start | {name: params[name] * cut for name, cut in cuts.items()}
        speed: Params = {}
        for _ in range(steps):
            slopes = masked(torch.func.grad(loss)(weights), masks)
            speed = {n: momentum * speed[n] + s if n in speed else s for n, s in slopes.items()}
            weights = {name: w - lr * speed[name] for name, w in weights.items()}
        return loss(weights)

    uncut = {name: torch.ones_like(params[name]) for name in names}
    kept = {name: m for name, m in (masks or {}).items() if name in uncut}
    slopes = gradient(after_training, masked(uncut, kept))
    return {name: slopes[name].abs() for name in names}
