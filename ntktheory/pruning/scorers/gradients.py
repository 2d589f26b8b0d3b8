"""Gradients for scorers: plain autograd, or ``torch.func`` where a transform is at work."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntktheory.functional import Params

Value = Callable[[Params], Tensor]
ValueAndMore = Callable[[Params], tuple[Tensor, Any]]


def gradient(value: Value, at: Params) -> Params:
    """Return ``∂value/∂at``, by name; 0 for tensors that the value does not use.

    ``torch.func.grad`` keeps the graph of its own backward pass, which costs memory. It is used only
    under a transform (``vmap``, ``grad``, …), and where ``at`` itself asks for gradients, so that the
    result can be differentiated.

    Args:
        value: A function of named tensors, to a 0-dim tensor.
        at: Where the derivative is taken.

    Returns:
        Name -> derivative, shaped like the tensor.

    Example:
        >>> gradient(lambda p: (p["a"] ** 2).sum(), {"a": torch.tensor([3.0]), "b": torch.ones(1)})
        {'a': tensor([6.]), 'b': tensor([0.])}
    """
    return gradient_and_more(lambda p: (value(p), ()), at)[0]


def gradient_and_more(value: ValueAndMore, at: Params) -> tuple[Params, Any]:
    """Return ``gradient`` of a function that returns more than its value, and what more it returned."""
    if _watched(at):
        return torch.func.grad(value, has_aux=True)(at)
    with torch.inference_mode(False), torch.enable_grad():  # in inference mode all slopes are 0
        leaves = {name: p.detach().requires_grad_() for name, p in at.items()}
        found, more = value(leaves)
        if not found.requires_grad:  # none of the tensors is used
            return {name: torch.zeros_like(p) for name, p in at.items()}, more
        slopes = torch.autograd.grad(found, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True)), more


def _watched(at: Params) -> bool:
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return transformed or any(p.requires_grad for p in at.values())
