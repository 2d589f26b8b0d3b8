"""Controls for masks: shuffled within layers, and on other weights.

A mask whose accuracy survives both is no better than its number of weights per layer.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    check_choice,
    check_generator,
    check_masks,
    check_module,
    complaint,
)
from ntktheory.functional import as_function
from ntktheory.pruning.masks import check_not_exported

Method = Literal["kaiming_normal", "permutation"]


def shuffle_masks(masks: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, Tensor]:
    """Return masks whose entries are permuted uniformly within each layer.

    Every layer keeps as many weights as before.

    Args:
        masks: Parameter name -> mask of 0 and 1.
        generator: Source of randomness.

    Returns:
        Parameter name -> bool mask.

    Raises:
        TypeError: If the masks are no mapping, one is not a tensor, or the generator is none.
        ValueError: If an entry is not 0 or 1.

    Source:
        Frankle et al. 2021; Su et al. 2020.

    Example:
        >>> masks = {"a": torch.tensor([True, True, False, False, False])}
        >>> int(shuffle_masks(masks, generator=torch.Generator().manual_seed(0))["a"].sum())
        2
    """
    check_masks(masks, masks, binary=True, optional=False)
    check_generator(generator)
    return {name: _permuted(mask.bool(), generator) for name, mask in masks.items()}


def reinitialise(
    model: nn.Module, method: Method = "kaiming_normal", *, generator: torch.Generator
) -> nn.Module:
    """Return a copy of a module with other prunable weights; all else is kept.

    Args:
        model: The module, in any mode; it is not changed. One made by ``apply_masks`` keeps its masks.
        method: "kaiming_normal" draws every weight from N(0, 2/fan_in); "permutation" permutes the
            weights of each layer, so that their values are the same.
        generator: Source of randomness, of another seed than the one that drew the model: that would
            repeat its numbers.

    Returns:
        The copy.

    Raises:
        TypeError: If the model is not a module, or the generator is none.
        ValueError: If the method is unknown, nothing is prunable, ``torch.nn.utils.prune`` has pruned
            the model, or the weights drawn for a layer are those that it has.

    Source:
        Frankle et al. 2021, Sec. 5.
    """
    check_choice("method", method, ("kaiming_normal", "permutation"))
    check_module(model)
    check_generator(generator)
    check_not_exported(model)
    other = copy.deepcopy(model)
    names = as_function(other).prunable
    if not names:
        raise ValueError(
            complaint("model", "a network with prunable weights", "none", "Nothing can be redrawn.")
        )
    with torch.no_grad():
        for name in names:
            weight = other.get_parameter(name)
            if method == "permutation":
                weight.copy_(_permuted(weight, generator))
            else:
                drawn = torch.empty(weight.shape, dtype=weight.dtype, device=generator.device)
                nn.init.kaiming_normal_(drawn, generator=generator)
                drawn = drawn.to(weight.device)
                _check_new(name, drawn, weight)
                weight.copy_(drawn)
    return other


def _check_new(name: str, drawn: Tensor, weight: Tensor) -> None:
    """Check that drawn weights are others than before: else the control would change nothing."""
    if drawn.numel() and torch.equal(drawn, weight):
        raise ValueError(
            complaint(
                "generator",
                "of another seed than the one that drew the model",
                f"one that draws the same {name!r} again",
                "Pass torch.Generator().manual_seed(seed) with another seed.",
            )
        )


def _permuted(x: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(x.numel(), generator=generator, device=generator.device)
    return x.flatten()[order.to(x.device)].view(x.shape)
