"""Batch norm while scoring: the model's own statistics, or those of the batch."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ntktheory.checks import complaint
from ntktheory.functional import FunctionalModel, Params, as_function, functional

Statistics = Callable[[Params, Tensor], Params]
BN_MODES = ("eval", "official")


def official_statistics(model: nn.Module | FunctionalModel) -> Statistics:
    """Return the procedure of the published code as ``statistics(params, x) -> buffers``.

    Momentum 1, statistics reset, one pass over the batch in train mode without gradients: each
    running mean becomes the batch's mean, each running variance its *unbiased* variance (n − 1). Both
    networks of the objective then run in eval mode with these buffers, held fixed in the derivative.
    Only batch norms are put in train mode; dropout stays off, so no random number is drawn.

    Args:
        model: A module in eval mode; it is copied once and not changed.

    Returns:
        The procedure; ``params`` are the effective ones, θ⊙m. It returns all buffers of the model.

    Raises:
        TypeError: If ``model`` is not an ``nn.Module``: a FunctionalModel has no modes.
        ValueError: If a module would act differently in training.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)).eval()
        >>> params = dict(net.named_parameters())
        >>> found = official_statistics(net)(params, torch.tensor([[1.0], [3.0]]))
        >>> float(found["0.running_mean"]), float(found["0.running_var"])
        (2.0, 2.0)
    """
    own = _own_copy(model, 'bn="official"')
    frozen = functional(own)  # checks that the model given is in eval mode
    norms = batch_norms(own)
    for norm in norms.values():
        norm.train()
        norm.momentum = 1.0

    def statistics(params: Params, x: Tensor) -> Params:
        buffers = {name: b.clone() for name, b in frozen.buffers.items()}
        for path in norms:
            prefix = f"{path}." if path else ""
            buffers[f"{prefix}running_mean"].zero_()
            buffers[f"{prefix}running_var"].fill_(1.0)
        with torch.no_grad():
            try:
                frozen.model_fn(params, x, buffers)
            except ValueError as error:
                raise ValueError(
                    complaint(
                        "x",
                        "a batch with a variance per channel",
                        f"shape {list(x.shape)}",
                        f'Pass more samples, or use bn="eval" ({error}).',
                    )
                ) from error
        return buffers

    return statistics


def with_batch_statistics(model: nn.Module | FunctionalModel) -> FunctionalModel:
    """Return a model as a function whose batch norms normalise by the batch itself.

    What train mode computes, derivatives through mean and variance included, but nothing is updated:
    the function is pure, and its samples mix. Everything else stays in eval mode.

    Args:
        model: A module in eval mode; it is copied and not changed.

    Returns:
        The function; its buffers are those of the other modules.

    Raises:
        TypeError: If ``model`` is not an ``nn.Module``: a FunctionalModel has no modes.
        ValueError: If a module would act differently in training.

    Example:
        >>> net = with_batch_statistics(nn.Sequential(nn.BatchNorm1d(1, eps=1e-9)).eval())
        >>> net.model_fn(net.params, torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.,  1.])
    """
    own = _own_copy(model, 'bn="train"')
    functional(own)  # checks that the model given is in eval mode
    for norm in batch_norms(own).values():
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        norm.track_running_stats = False
    return as_function(own)


def _own_copy(model: nn.Module | FunctionalModel, option: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(
            complaint(
                "model",
                f"an nn.Module for {option}",
                type(model).__name__,
                'Pass the module itself, or use bn="eval".',
            )
        )
    return copy.deepcopy(model)


def batch_norms(model: nn.Module | FunctionalModel) -> dict[str, _BatchNorm]:
    """Return the batch norms of a module by path; none for a FunctionalModel."""
    if not isinstance(model, nn.Module):
        return {}
    return {path: m for path, m in model.named_modules() if isinstance(m, _BatchNorm)}


def reset_affine(model: nn.Module | FunctionalModel) -> Params:
    """Return every batch norm's scale as 1 and shift as 0, by parameter name."""
    fresh = {}
    for path, norm in batch_norms(model).items():
        prefix = f"{path}." if path else ""
        for name, p in norm.named_parameters(recurse=False):
            value = 1.0 if name == "weight" else 0.0
            fresh[f"{prefix}{name}"] = torch.full_like(p.detach(), value)
    return fresh
