"""What masks leave of a network: collapsed layers, dead units, paths, and weights on no path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ntktheory.checks import UnsupportedModule, check_input_shape, check_masks, complaint
from ntktheory.functional import FunctionalModel, Masks, evaluate, functional, masked, to_dtype
from ntktheory.pruning.masks import carried_masks
from ntktheory.pruning.scoring import check_own_weights, check_prunable
from ntktheory.pruning.structure import count_paths


@dataclass(frozen=True)
class LayerHealth:
    """One layer under masks; *live* weights are kept and on a path from an input to an output.

    Attributes:
        weights: Number of weights.
        kept: Those kept.
        live: Those of them that are live.
        inputs: Input units: features or channels.
        dead_inputs: Those that no live weight of this layer leaves.
        outputs: Output units.
        dead_outputs: Those that no live weight of this layer enters.
    """

    weights: int
    kept: int
    live: int
    inputs: int
    dead_inputs: int
    outputs: int
    dead_outputs: int


@dataclass(frozen=True)
class MaskHealth:
    """A network under masks.

    Attributes:
        layers: Prunable parameter name -> its layer.
        log10_paths: Decimal logarithm of the number of paths of kept weights from an input to an
            output; −inf if there is none.
        density: Kept weights ÷ weights.
        effective_density: Live weights ÷ weights.
        live: Name -> bool mask of the live weights.
    """

    layers: Mapping[str, LayerHealth]
    log10_paths: float
    density: float
    effective_density: float
    live: Mapping[str, Tensor]

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The layers that keep no weight."""
        return tuple(name for name, layer in self.layers.items() if layer.kept == 0)

    @property
    def widths(self) -> dict[str, int]:
        """Name -> number of the layer's output units that a live weight enters."""
        return {name: layer.outputs - layer.dead_outputs for name, layer in self.layers.items()}


def mask_health(
    model: nn.Module | FunctionalModel,
    masks: Masks | None = None,
    *,
    input_shape: Sequence[int],
) -> MaskHealth:
    """Describe what masks leave of a network.

    A path runs from an input coordinate through kept weights to an output, whatever the weights'
    values, and through every ReLU, every entry of a pooling window, and every shortcut. Paths that
    start in a bias do not count. A convolution's weight is live if it is on a path at any position:
    one that only ever meets padding is not.

    Args:
        model: A module in eval mode, or a FunctionalModel. Masks that a module carries
            (``apply_masks``) count too. Groups and transposed convolutions are told by the modules;
            weights of a FunctionalModel are taken to be [outputs, inputs, …].
        masks: Name -> mask of prunable parameters; missing names are kept.
        input_shape: Shape of one input, without the sample axis.

    Returns:
        The description.

    Raises:
        TypeError: If a mask is not a tensor, or ``input_shape`` no sequence.
        ValueError: If nothing is prunable, a layer computes its weight from other parameters, a mask or
            the shape does not fit, or the model is in train mode.
        NumericalError: If the model's outputs are not finite.
        UnsupportedModule: If the network calls a function without a path rule, or reads tokens.

    Cost:
        Two forward and one backward pass on one sample, in float64.

    Source:
        Effective density: Vysogorets and Kempe 2023. Tested against ``reference_health.py``.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> masks = {"0.weight": torch.tensor([[1, 1], [0, 1]]), "2.weight": torch.tensor([[1, 0]])}
        >>> health = mask_health(net, masks, input_shape=[2])
        >>> health.widths, health.density, health.effective_density
        ({'0.weight': 1, '2.weight': 1}, 0.6666666666666666, 0.5)
    """
    own = functional(model)
    check_own_weights(model)
    check_prunable(own)
    _check_real_inputs(model)
    check_input_shape(input_shape)
    check_masks(masks, {name: own.params[name] for name in own.prunable}, binary=True)
    kept = {
        name: torch.ones_like(own.params[name], dtype=torch.bool) for name in own.prunable
    } | carried_masks(model)
    for name, mask in (masks or {}).items():
        kept[name] = kept[name] & mask.bool().to(kept[name].device)
    net = to_dtype(own, torch.float64)
    first = net.params[net.prunable[0]]
    like = torch.ones(1, *input_shape, dtype=torch.float64, device=first.device)
    evaluate(net.model_fn, masked(net.params, kept), like, "input_shape")
    paths, crossing = count_paths(net.model_fn, net.params, kept, like)
    live = {name: crossing[name] > 0 for name in net.prunable}
    kinds = _kinds(model)
    total = sum(mask.numel() for mask in kept.values())
    return MaskHealth(
        {name: _layer(kept[name], live[name], *kinds.get(name, (1, False))) for name in live},
        paths.log10(),
        sum(int(mask.sum()) for mask in kept.values()) / total,
        sum(int(mask.sum()) for mask in live.values()) / total,
        live,
    )


def _check_real_inputs(model: nn.Module | FunctionalModel) -> None:
    tables = (nn.Embedding, nn.EmbeddingBag)
    if isinstance(model, nn.Module) and any(isinstance(m, tables) for m in model.modules()):
        what = "a network that looks tokens up in a table"
        remedy = "Pass the part of it after the table, with the shape of what the table returns."
        raise UnsupportedModule(complaint("model", "a network of real inputs", what, remedy))


def _kinds(model: nn.Module | FunctionalModel) -> dict[str, tuple[int, bool]]:
    """Return the groups of convolutions' weights, and whether their first axis are the inputs."""
    if not isinstance(model, nn.Module):
        return {}
    names = {id(p): name for name, p in model.named_parameters()}
    kinds = {}
    for module in model.modules():
        if isinstance(module, _ConvNd):
            parametrized = getattr(module, "parametrizations", {})
            weight = parametrized["weight"].original if "weight" in parametrized else module.weight
            kinds[names[id(weight)]] = module.groups, isinstance(module, _ConvTransposeNd)
    return kinds


def _layer(kept: Tensor, live: Tensor, groups: int, transposed: bool) -> LayerHealth:
    # [groups, first axis within the group, second axis, positions]
    grouped = live.reshape(groups, live.shape[0] // groups, live.shape[1], -1)
    first, second = grouped.any(3).any(2).flatten(), grouped.any(3).any(1).flatten()
    inputs, outputs = (first, second) if transposed else (second, first)
    return LayerHealth(
        weights=kept.numel(),
        kept=int(kept.sum()),
        live=int(live.sum()),
        inputs=inputs.numel(),
        dead_inputs=int((~inputs).sum()),
        outputs=outputs.numel(),
        dead_outputs=int((~outputs).sum()),
    )
