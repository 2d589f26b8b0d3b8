"""Masks on a module: a copy that computes, and trains, f(θ⊙m)."""

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ntktheory.checks import check_masks, check_module, complaint
from ntktheory.functional import FunctionalModel, Masks

ORIGINAL, MASK = "_orig", "_mask"  # what torch.nn.utils.prune adds to the name of a parameter


class Masked(nn.Module):
    """The parametrisation ``θ ↦ θ⊙m``; the mask is a buffer and travels in the state dict."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, theta: Tensor) -> Tensor:
        """Return θ⊙m."""
        return theta * self.mask


def apply_masks(model: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy of a module that computes f(θ⊙m), and trains under the masks.

    Every masked parameter becomes a parametrisation of ``torch.nn.utils.parametrize``: reading it
    gives θ⊙m whatever an optimiser did to θ, so momentum and weight decay revive nothing. Its own θ
    is stored as ``<module>.parametrizations.<parameter>.original``. Under that name such a copy can be
    masked again: the copy of the copy keeps what both masks keep.

    Args:
        model: The module; it is not changed.
        masks: Parameter name -> bool mask, True = kept; missing names are unmasked. A name of a tied
            parameter masks all of its uses.

    Returns:
        The copy, in the mode of ``model``.

    Raises:
        TypeError: If the model is not a module, the masks are no mapping, or one is not a tensor.
        ValueError: If a name is unknown, a shape differs, an entry is not 0 or 1, two names of one
            parameter get different masks, or ``torch.nn.utils.prune`` has pruned the model.

    Example:
        >>> pruned = apply_masks(nn.Linear(2, 1, bias=False), {"weight": torch.tensor([[True, False]])})
        >>> bool(pruned.weight[0, 1] == 0)
        True
    """
    check_module(model)
    check_not_exported(model)
    sparse = copy.deepcopy(model)
    for module, name, mask in places_of(sparse, masks):
        theta = getattr(module, name)
        kept = mask.to(device=theta.device, dtype=torch.bool)
        earlier = [p for p in module.children() if isinstance(p, Masked)]
        if isinstance(module, parametrize.ParametrizationList) and earlier:
            earlier[0].mask = earlier[0].mask & kept
        else:
            parametrize.register_parametrization(module, name, Masked(kept), unsafe=True)
    return sparse


def check_not_exported(model: nn.Module) -> None:
    """Check that ``torch.nn.utils.prune`` has not pruned a module, which thus could not be copied.

    Raises:
        ValueError: If it has; the message names the layer.
    """
    for path, module in model.named_modules():
        own = {name for name, _ in module.named_parameters(recurse=False)}
        for name, _ in module.named_buffers(recurse=False):
            if name.endswith(MASK) and name.removesuffix(MASK) + ORIGINAL in own:
                raise ValueError(
                    complaint(
                        "model",
                        "one whose layers hold their weights",
                        f"{path!r} with a mask of torch.nn.utils.prune",
                        "Take the masks by from_torch_prune, call torch.nn.utils.prune.remove, and "
                        "put them on by apply_masks.",
                    )
                )


def places_of(model: nn.Module, masks: Masks) -> list[tuple[nn.Module, str, Tensor]]:
    """Return every (module, attribute) that holds a masked parameter, with its mask.

    Args:
        model: The module.
        masks: Parameter name -> mask.

    Returns:
        The places; a tied parameter has one for each use.

    Raises:
        TypeError: If the masks are no mapping, or one is not a tensor.
        ValueError: If a name is unknown, a shape differs, an entry is not 0 or 1, or two names of one
            parameter get different masks.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    check_masks(masks, own, binary=True, optional=False)
    by_identity: dict[int, Tensor] = {}
    for name, mask in masks.items():
        known = by_identity.setdefault(id(model.get_parameter(name)), mask)
        if not torch.equal(known.bool(), mask.bool()):
            raise ValueError(
                complaint(
                    f"masks[{name!r}]",
                    "the same for every name of a tied parameter",
                    "another mask",
                    "Give one of the names only.",
                )
            )
    return [
        (module, name, by_identity[id(p)])
        for module in model.modules()
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(p) in by_identity
    ]


def carried_masks(model: nn.Module | FunctionalModel) -> dict[str, Tensor]:
    """Return the masks that a model made by ``apply_masks`` carries.

    Args:
        model: The model; any other one carries none.

    Returns:
        Name of θ, as ``functional(model)`` has it, -> bool mask.

    Example:
        >>> pruned = apply_masks(nn.Linear(2, 1), {"weight": torch.tensor([[True, False]])})
        >>> carried_masks(pruned)
        {'parametrizations.weight.original': tensor([[ True, False]])}
    """
    if not isinstance(model, nn.Module):
        return {}
    names = {id(p): name for name, p in model.named_parameters()}
    carried: dict[str, Tensor] = {}
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList) and hasattr(module, "original"):
            for masking in module:
                if isinstance(masking, Masked):
                    carried[names[id(module.original)]] = masking.mask
    return carried


def without_masks(
    model: nn.Module | FunctionalModel, names: Collection[str]
) -> tuple[nn.Module | FunctionalModel, dict[str, Tensor]]:
    """Take the masks of ``apply_masks`` off a model: f(θ⊙m) becomes f(θ), and m.

    Args:
        model: The model; it is not changed.
        names: The parameters, as ``functional(model)`` names them, whose masks are taken off.

    Returns:
        A copy that shares its tensors with the model and has the same names, and the masks; the model
        itself if it carries none of them.

    Example:
        >>> pruned = apply_masks(nn.Linear(2, 1, bias=False), {"weight": torch.tensor([[True, False]])})
        >>> name = "parametrizations.weight.original"
        >>> bare, masks = without_masks(pruned, [name])
        >>> torch.equal(bare.weight, bare.get_parameter(name)), masks[name]
        (True, tensor([[ True, False]]))
    """
    off = {name: m for name, m in carried_masks(model).items() if name in names}
    if not off or not isinstance(model, nn.Module):
        return model, {}
    shared = [*model.parameters(), *model.buffers()]
    bare = copy.deepcopy(model, {id(t): t for t in shared})
    own = {id(bare.get_parameter(name)) for name in off}
    for module in bare.modules():
        if isinstance(module, parametrize.ParametrizationList) and hasattr(module, "original"):
            for place, masking in enumerate(module):
                if isinstance(masking, Masked) and id(module.original) in own:
                    module[place] = nn.Identity()
    return bare, off
