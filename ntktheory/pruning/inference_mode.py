"""Leaving ``torch.inference_mode``, in which autograd finds nothing but zeros, and its tensors."""

import copy
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from ntktheory.functional import FunctionalModel, Params

P = ParamSpec("P")
R = TypeVar("R")


def outside_inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that leaves inference mode while it runs; the grad mode stays without one."""

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False):
            return function(*args, **kwargs)

    return outside


def ordinary(value: Any) -> Any:
    """Return a tree with copies of the tensors that were made in inference mode, which autograd refuses.

    Args:
        value: A tensor, or a tree of tuples, lists, dictionaries, tensors and anything else.

    Returns:
        The tree; tensors made outside of inference mode are the same ones.
    """
    return torch.utils._pytree.tree_map_only(
        Tensor, lambda t: t.clone() if t.is_inference() else t, value
    )


def ordinary_model(model: nn.Module | FunctionalModel) -> nn.Module | FunctionalModel:
    """Return a model, or a copy of it if one of its tensors was made in inference mode."""
    if isinstance(model, FunctionalModel):
        held = [*model.params.values(), *model.buffers.values()]
        return _copied(model) if any(t.is_inference() for t in held) else model
    if not isinstance(model, nn.Module):
        return model
    held = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model) if any(t.is_inference() for t in held) else model


def _copied(model: FunctionalModel) -> FunctionalModel:
    own: Params = ordinary(model.buffers)

    def model_fn(params: Params, x: Any, buffers: Params | None = None) -> Tensor:
        return model.model_fn(params, x, own if buffers is None else buffers)

    return FunctionalModel(model_fn, ordinary(model.params), own, model.tied, model.prunable)
