"""Flows through a network: what enters and what leaves every unit, by the scores of its edges.

A score ``S_j = w_j ∂F/∂w_j`` of a sum over paths ``F = Σ_p α_p Π_{j∈p} w_j`` is the flow through an
edge: px, SynFlow, SynFlow-L2 and T_sq are of this form, w = θ² or |θ|.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ntktheory import functional
from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.models import cifar_resnet, convnet, mlp, vgg
from ntktheory.models.resnet import BasicBlock
from ntktheory.pruning.scorers import px, synflow_l2, t_sq
from ntktheory.pruning.scorers.synflow import synflow
from proofs_check.compare import Worst

Scorer = Callable[..., Params]
NORMS = nn.BatchNorm2d
DOUBLE = torch.float64


def synflow_of_all(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return SynFlow's scores of every parameter."""
    return synflow(model_fn, params, masks, list(params), x)


FLOWS: dict[str, Scorer] = {
    "px": px, "synflow": synflow_of_all, "synflow_l2": synflow_l2, "t_sq": t_sq,
}  # fmt: skip


class Flow(NamedTuple):
    """The exponents of |θ| and of fixed edges in a sum over paths."""

    power: int
    edge_power: int


EXPONENTS = {
    "px": Flow(2, 1), "synflow": Flow(1, 1), "synflow_l2": Flow(2, 1), "t_sq": Flow(2, 2),
}  # fmt: skip


# --- networks --------------------------------------------------------------------------------------


def generator(seed: int) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def images(channels: int, size: int, count: int = 3, seed: int = 7) -> Tensor:
    """Return Gaussian images in float64."""
    return torch.randn(count, channels, size, size, generator=generator(seed), dtype=DOUBLE)


def plain_networks(everything: bool = True) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return networks without biases and shortcuts, in float64, with a batch each.

    Args:
        everything: Whether two VGG-11 are among them, which take the longest.
    """
    g, x = generator(0), images(3, 32, 1)
    nets: dict[str, tuple[nn.Module, Tensor]] = {
        "MLP": (mlp([12, 16, 16, 16, 5], generator=g, dtype=DOUBLE), images(3, 2)),
        "CNN, strides, average pooling": (
            convnet(
                [1, 6, 8, 8],
                5,
                image_size=8,
                stride=[1, 2, 1],
                head="average",
                generator=g,
                dtype=DOUBLE,
            ),
            images(1, 8),
        ),
    }
    if everything:
        nets["VGG-11, max pooling"] = (
            vgg(11, 5, width=4, bias=False, generator=g, dtype=DOUBLE),
            x,
        )
        start = vgg(11, 5, width=4, bias=False, batch_norm=True, generator=g, dtype=DOUBLE)
        nets["VGG-11, batch norm at its start"] = (start, x)
    return nets


def biased_mlp(bias: bool = True) -> tuple[nn.Module, Tensor]:
    """Return an MLP with biases, and a batch."""
    net = mlp([12, 16, 16, 16, 5], bias=bias, generator=generator(1), dtype=DOUBLE)
    return net, images(3, 2)


def normed_vgg(trained: bool = True) -> tuple[nn.Module, Tensor]:
    """Return VGG-11 with batch norm, its statistics, scales and shifts drawn or at their start."""
    net = vgg(11, 5, width=4, bias=False, batch_norm=True, generator=generator(2), dtype=DOUBLE)
    if trained:
        draw_statistics(net, generator(3))
    return net, images(3, 32, 1)


def draw_statistics(net: nn.Module, g: torch.Generator) -> None:
    """Draw what a batch norm learns; running means are not positive, so that SynFlow's flow is not."""
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, NORMS)):
            norm.get_buffer("running_mean").uniform_(-0.5, 0.0, generator=g)
            norm.get_buffer("running_var").uniform_(0.5, 2.0, generator=g)
            norm.weight.uniform_(0.5, 1.5, generator=g)
            norm.bias.uniform_(-0.5, 0.5, generator=g)


def resnet20(shortcuts: bool = True) -> tuple[nn.Module, Tensor]:
    """Return a narrow ResNet-20 without a head bias, its identity shortcuts written as edges of 1.

    Args:
        shortcuts: Whether there are any; else every block is a chain.

    Returns:
        The network, batch norms at their start, and a batch.
    """
    net = cifar_resnet(20, 5, width=4, channels=1, generator=generator(4), dtype=DOUBLE)
    with torch.no_grad():
        net.get_parameter("head.bias").zero_()
    for block in [m for m in net.modules() if isinstance(m, BasicBlock)]:
        if not shortcuts:
            block.shortcut = nn.Sequential(Nothing())
        elif not len(block.shortcut):
            block.shortcut.append(unit_edges(block.conv2.out_channels))
    return net, images(1, 8)


class Nothing(nn.Module):
    """The shortcut that carries nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros((), dtype=x.dtype, device=x.device)


def unit_edges(channels: int) -> nn.Conv2d:
    """Return the identity as a convolution: one edge of 1 per channel, whose flow can be read."""
    edge = nn.Conv2d(channels, channels, 1, groups=channels, bias=False, dtype=DOUBLE)
    nn.init.ones_(edge.weight)
    return edge


# --- flows -----------------------------------------------------------------------------------------


@dataclass
class Part:
    """A stretch of a network: where it begins and ends, and the junctions inside.

    Attributes:
        first: Names of the layers that read its input.
        last: Names of the layers that write its output.
        junctions: (layers that write, layers that read) for every place in between.
    """

    first: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)
    junctions: list[tuple[list[str], list[str]]] = field(default_factory=list)


def walk(module: nn.Module, name: str = "") -> Part:
    """Return a network's layers and junctions: of chains, and of blocks with a shortcut."""
    prefix = f"{name}." if name else ""
    if isinstance(module, (nn.Conv2d, nn.Linear, NORMS)):
        return Part([name], [name])
    if isinstance(module, BasicBlock):
        chain = ("conv1", "bn1", "conv2", "bn2")
        branch = _chain([walk(getattr(module, c), prefix + c) for c in chain])
        short = walk(module.shortcut, f"{prefix}shortcut")
        inside = branch.junctions + short.junctions
        return Part(branch.first + short.first, branch.last + short.last, inside)
    return _chain([walk(child, prefix + c) for c, child in module.named_children()])


def _chain(parts: list[Part]) -> Part:
    whole = Part()
    for part in parts:
        if not part.first:
            continue
        if whole.last:
            whole.junctions.append((whole.last, part.first))
        whole.junctions += part.junctions
        whole.first = whole.first or part.first
        whole.last = part.last
    return whole


def inflow(scores: Params, layer: str) -> Tensor:
    """Return what a layer brings to each of its units, from its bias too, [units]."""
    s = scores[f"{layer}.weight"]
    total = s.reshape(len(s), -1).sum(1)
    return total + scores[f"{layer}.bias"] if f"{layer}.bias" in scores else total


def outflow(scores: Params, layer: str, units: int, mean: Tensor | float) -> Tensor:
    """Return what leaves each of so many units (channels) through a layer that reads them, [units].

    Args:
        scores: Score of every parameter.
        layer: A layer; a batch norm, or edges of 1, have one edge per unit.
        units: How many units it reads.
        mean: What a batch norm's running mean brings into its scale, from nowhere before it.
    """
    s = scores[f"{layer}.weight"]
    if s.ndim == 1 or (s.ndim == 4 and s.shape[1] == 1 and len(s) == units):
        return s.reshape(units) - mean
    if s.ndim == 2:  # the positions of a channel stand together
        return s.reshape(len(s), units, -1).sum((0, 2))
    return s.sum((0, 2, 3))


def mean_flow(scores: Params, net: nn.Module, layer: str, flow: Flow) -> Tensor | float:
    """Return ``γ̃ |μ/σ|^e · ∂F/∂β̃``: the flow from a batch norm's running mean through its scale."""
    norm = net.get_submodule(layer)
    if not isinstance(norm, NORMS) or norm.running_mean is None or norm.running_var is None:
        return 0.0
    if not norm.running_mean.any():
        return 0.0
    edge = norm.running_mean.abs() / (norm.running_var + norm.eps).sqrt()
    scale, shift = norm.weight.detach().abs(), norm.bias.detach().abs()
    slope = scores[f"{layer}.bias"] / shift**flow.power
    return scale**flow.power * edge**flow.edge_power * slope


def layer_sums(net: nn.Module, scores: Params) -> dict[str, float]:
    """Return the sum of the scores of every layer with prunable weights, edges of 1 left out."""
    return {
        name: float(scores[f"{name}.weight"].sum())
        for name, m in net.named_modules()
        if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1)
    }


def scores_of(scorer: Scorer, net: nn.Module, x: Tensor) -> Params:
    """Return the score of every parameter."""
    f = functional(net)
    return scorer(f.model_fn, f.params, None, x)


def see_units(worst: Worst, title: str, net: nn.Module, scores: Params, flow: Flow) -> None:
    """Compare what enters with what leaves at every unit between two layers."""
    for writers, readers in walk(net).junctions:
        into = torch.stack([inflow(scores, name) for name in writers]).sum(0)
        out = [
            outflow(scores, name, len(into), mean_flow(scores, net, name, flow)) for name in readers
        ]
        where = f"{title}: {' + '.join(writers)} → {' + '.join(readers)}"
        worst.see(where, torch.stack(out).sum(0), into)
