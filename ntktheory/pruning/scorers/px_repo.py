"""PX as its authors' code of February 2025 computes it, which is not the published formula."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory.calls import Watch, call_name
from ntktheory.functional import Params, functional

UNTOUCHED = ("bn", "fc")  # parts of names whose parameters are neither squared nor set to one


def px_repo(model: nn.Module, x: Tensor) -> Params:
    """Return the scores ``θ_j² |∂Z/∂θ_j²|`` of the published code, of every prunable parameter.

    ``Z = Σ_{n,c} z1_nc z2_c`` as for ``px``, but: both networks run in *train mode*, so that batch
    norms take the statistics of ``x²`` and of an all-ones input; parameters whose name contains "bn"
    or "fc" keep their values, signs included, hence the absolute value; ReLU is the only function
    with gates, so max pooling stays a maximum.

    The squared network's input is the same everywhere, and a train-mode batch norm subtracts the mean
    over positions. Behind global average pooling the exact gradient of every weight all of whose
    routes pass such a batch norm is therefore zero; what this returns for it is rounding noise.

    Args:
        model: The network, in eval mode; it is not changed.
        x: The batch; the gates are those of eval mode.

    Returns:
        Name -> score, for prunable parameters. Cost: two forward passes on x, and one forward and
        backward pass on one sample.

    Source:
        PX, the authors' repository. Tested against scores made with it.
    """
    gates: list[Tensor] = []
    with torch.no_grad():
        _run(model, x, lambda z: gates.append(z > 0) or torch.clamp(z, min=0))  # type: ignore[func-returns-value]
        ones = _rewritten(model, torch.ones_like)
        remaining = iter(gates)
        data = _run(ones, x.square(), lambda z: z * next(remaining).to(z.dtype)).sum(0)
    squared = _rewritten(model, torch.square)
    outputs = _run(squared, torch.ones_like(x[:1]), lambda z: z)
    tensors = dict(squared.named_parameters())
    names = [name for name in functional(model).prunable if name in tensors]
    slopes = torch.autograd.grad((outputs[0] * data).sum(), [tensors[name] for name in names])
    theta = dict(model.named_parameters())
    return {
        name: theta[name].detach().square() * slope.abs()
        for name, slope in zip(names, slopes, strict=True)
    }


def _rewritten(model: nn.Module, rule: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a copy in train mode whose parameters are rewritten, except for some names."""
    other = copy.deepcopy(model).train()
    with torch.no_grad():
        for name, p in other.named_parameters():
            p.requires_grad_(True)
            if not any(part in name for part in UNTOUCHED):
                p.copy_(rule(p))
    return other


def _run(model: nn.Module, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a network with another function in the place of ReLU."""

    def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call_name(func) not in ("relu", "relu_"):
            return func(*args, **kwargs)
        return activation(args[0] if args else kwargs["input"])

    with Watch(handle):
        return model(x)
