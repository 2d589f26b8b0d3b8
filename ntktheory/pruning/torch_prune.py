"""Masks to and from ``torch.nn.utils.prune``."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from ntktheory.checks import check_module, complaint
from ntktheory.pruning.masks import (
    MASK,
    ORIGINAL,
    carried_masks,
    check_not_exported,
    places_of,
)


def to_torch_prune(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a module that ``torch.nn.utils.prune`` has pruned with given masks.

    Every masked parameter ``weight`` becomes a parameter ``weight_orig`` and a buffer ``weight_mask``;
    ``torch.nn.utils.prune.remove`` makes the zeros permanent. Before that torch cannot copy such a model
    by ``copy.deepcopy``.

    Args:
        model: The module; it is not changed.
        masks: Parameter name -> mask of 0 and 1. A name of a tied parameter masks all of its uses.

    Returns:
        The copy.

    Raises:
        TypeError: If the model is not a module, the masks are no mapping, or one is not a tensor.
        ValueError: If a mask does not fit, or the model carries masks of ``apply_masks`` or of
            ``torch.nn.utils.prune`` already.

    Example:
        >>> pruned = to_torch_prune(nn.Linear(2, 1), {"weight": torch.tensor([[True, False]])})
        >>> from_torch_prune(pruned)
        {'weight': tensor([[ True, False]])}
    """
    check_module(model)
    if carried_masks(model):
        raise ValueError(
            complaint(
                "model",
                "one without masks of its own",
                "one made by apply_masks",
                "Pass the dense model, and the masks.",
            )
        )
    check_not_exported(model)
    pruned = copy.deepcopy(model)
    for module, name, mask in places_of(pruned, masks):
        kept = mask.to(getattr(module, name).device)
        torch_prune.custom_from_mask(module, name, kept.to(getattr(module, name).dtype))
    return pruned


def from_torch_prune(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks of a module that ``torch.nn.utils.prune`` has pruned.

    Args:
        model: The module.

    Returns:
        Name of the parameter before it was pruned -> bool mask. A tied parameter is there under each
        of its names.

    Raises:
        TypeError: If the model is not a module.
        ValueError: If nothing is pruned, or a mask has other entries than 0 and 1.
    """
    check_module(model)
    masks = {}
    for path, module in model.named_modules():
        for name, mask in module.named_buffers(recurse=False):
            own = name.removesuffix(MASK)
            if own == name or not hasattr(module, own + ORIGINAL):
                continue
            full = f"{path}.{own}" if path else own
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise ValueError(
                    complaint(
                        f"mask of {full!r}", "made of 0 and 1", "other entries", "Threshold it."
                    )
                )
            masks[full] = mask.to(torch.bool)
    if not masks:
        raise ValueError(
            complaint(
                "model",
                "pruned by torch",
                "one without such masks",
                "Use torch.nn.utils.prune, and do not call its remove before this.",
            )
        )
    return masks
