"""Masked perceptrons without their dead units: smaller networks of the same function and gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.functional import Masks, Params


@dataclass(frozen=True)
class LiveUnits:
    """Packed perceptrons, less their dead units.

    Attributes:
        params: Name -> weights [S, out, in].
        masks: Name -> bool mask of these; what is not on a kept path is masked.
        units: For each hidden layer, which units are left [S, count].
    """

    params: Params
    masks: dict[str, Tensor]
    units: tuple[Tensor, ...]

    def restore(self, trained: Params, full: Params) -> Params:
        """Return the full weights, with those on kept paths as trained.

        Args:
            trained: Name -> trained weights, of the shapes of ``params``.
            full: Name -> the weights of the full networks, which the others keep.

        Returns:
            Name -> weights, of the shapes of ``full``.
        """
        result = {}
        names = list(full)
        for depth, name in enumerate(names):
            p = full[name].clone()
            nets = torch.arange(len(p), device=p.device)[:, None, None]
            rows = _all(p.shape[1], p) if depth == len(self.units) else self.units[depth]
            columns = _all(p.shape[2], p) if depth == 0 else self.units[depth - 1]
            place = (nets, rows[:, :, None], columns[:, None, :])
            p[place] = torch.where(self.masks[name], trained[name], p[place])
            result[name] = p
        return result


def drop_dead_units(params: Params, masks: Masks) -> LiveUnits:
    """Return packed perceptrons without biases, less the hidden units on no kept path.

    A unit that no input reaches, or that reaches no output, outputs 0 or is not looked at. With an
    activation of a(0) = 0 neither it nor its weights change outputs, or gradients of other weights;
    their own gradients are 0.

    Args:
        params: Layer by layer, weights [S, out, in] of S networks.
        masks: Name -> bool mask [S, out, in], for every layer.

    Returns:
        Networks with as many hidden units in each layer as the one that has most live ones there, at
        least one. Inputs and outputs stay as they are.

    Raises:
        ValueError: If a parameter is no matrix of each network or has no mask.

    Example:
        >>> params = {"a": torch.ones(1, 2, 3), "b": torch.ones(1, 1, 2)}
        >>> masks = {name: torch.ones_like(p).bool() for name, p in params.items()}
        >>> masks["a"][0, 0] = False
        >>> {name: list(p.shape) for name, p in drop_dead_units(params, masks).params.items()}
        {'a': [1, 1, 3], 'b': [1, 1, 1]}
    """
    for name, p in params.items():
        if p.ndim != 3 or name not in masks:
            expected = "weights [S, out, in] with a mask"
            remedy = "Leave out biases, and mask every layer."
            raise ValueError(complaint(f"params[{name!r}]", expected, list(p.shape), remedy))
    kept = [masks[name] for name in params]
    live = _live(kept)
    counts = [max(1, int(units.sum(1).max())) for units in live]
    units = tuple(
        (~alive).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
        for alive, count in zip(live, counts, strict=True)
    )
    small: Params = {}
    small_masks: Params = {}
    for depth, (name, p) in enumerate(params.items()):
        mask = kept[depth]
        if depth < len(units):
            p = _rows(p, units[depth])
            mask = _rows(mask & live[depth][:, :, None], units[depth])
        if depth > 0:
            before = units[depth - 1]
            alive = live[depth - 1].gather(1, before)[:, None, :]
            p, mask = _rows(p.mT, before).mT, _rows(mask.mT, before).mT & alive
        small[name], small_masks[name] = p.contiguous(), mask.contiguous()
    return LiveUnits(small, small_masks, units)


def _live(kept: list[Tensor]) -> list[Tensor]:
    """Return for each hidden layer which units lie on a path from an input to an output [S, units]."""
    reached = [kept[0].any(2)]
    for mask in kept[1:-1]:
        reached.append((mask & reached[-1][:, None, :]).any(2))
    seen = kept[-1].any(1)
    live = []
    for depth in range(len(kept) - 2, -1, -1):
        live.append(reached[depth] & seen)
        seen = (kept[depth] & seen[:, :, None]).any(1)
    return live[::-1]


def _rows(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order[:, :, None].expand(-1, -1, x.shape[2]))


def _all(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, device=like.device).expand(len(like), size)
