"""Masks on a module: a copy that computes, and trains, f(θ⊙m)."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ntktheory.checks import check_masks, complaint
from ntktheory.functional import Masks


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
    is stored as ``<module>.parametrizations.<parameter>.original``.

    Args:
        model: The module; it is not changed.
        masks: Parameter name -> bool mask, True = kept; missing names are unmasked. A name of a tied
            parameter masks all of its uses.

    Returns:
        The copy, in the mode of ``model``.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If a name is unknown, a shape differs, an entry is not 0 or 1, or two names of one
            parameter get different masks.

    Example:
        >>> pruned = apply_masks(nn.Linear(2, 1, bias=False), {"weight": torch.tensor([[True, False]])})
        >>> bool(pruned.weight[0, 1] == 0)
        True
    """
    check_masks(masks, dict(model.named_parameters(remove_duplicate=False)), binary=True)
    sparse = copy.deepcopy(model)
    by_identity: dict[int, Tensor] = {}
    for name, mask in masks.items():
        known = by_identity.setdefault(id(sparse.get_parameter(name)), mask)
        if not torch.equal(known.bool(), mask.bool()):
            raise ValueError(
                complaint(
                    f"masks[{name!r}]",
                    "the same for every name of a tied parameter",
                    "another mask",
                    "Give one of the names only.",
                )
            )
    places = [
        (module, name, by_identity[id(p)])
        for module in sparse.modules()
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(p) in by_identity
    ]
    for module, name, mask in places:
        theta = getattr(module, name)
        kept = mask.to(device=theta.device, dtype=torch.bool)
        parametrize.register_parametrization(module, name, Masked(kept), unsafe=True)
    return sparse
