"""The toy's network: one hidden ReLU layer, and what its loss asks of its outputs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ntktheory.checks import check_choice, complaint
from ntktheory.functional import FunctionalModel, Loss, Params, functional
from ntktheory.models import mlp

OUTPUTS = {"mse": 1, "cross_entropy": 2, "logistic": 1}
"""The losses, and how many outputs each has. ``logistic`` is cross-entropy with one logit."""
INITS = ("kaiming_normal", "uniform")


@dataclass(frozen=True)
class ToyNetwork:
    """A one-hidden-layer ReLU network with biases, whose P parameters can all be pruned.

    Attributes:
        dimension: d, the inputs' dimension.
        width: U, hidden units.
        loss: A key of ``OUTPUTS``: ``mse`` of labels ±1, ``cross_entropy`` of two logits, or
            ``logistic``, that of one; each the mean over the points.
    """

    dimension: int = 3
    width: int = 4
    loss: str = "mse"

    def __post_init__(self) -> None:
        """Check the fields."""
        check_choice("loss", self.loss, OUTPUTS)
        for name in ("dimension", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    complaint(name, "a positive integer", repr(value), "Choose a few.")
                )

    @property
    def outputs(self) -> int:
        """How many outputs the loss asks for."""
        return OUTPUTS[self.loss]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters' shapes, in the order of the mask's bits."""
        d, u, c = self.dimension, self.width, self.outputs
        return {
            "layer1.weight": (u, d), "layer1.bias": (u,),
            "layer2.weight": (c, u), "layer2.bias": (c,),
        }  # fmt: skip

    @property
    def size(self) -> int:
        """P = U(d + 1) + C(U + 1), the number of parameters."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def split(self, flat: Tensor) -> Params:
        """Return parameters [P, ...] by name, each of its shape before the further axes."""
        parts = flat.split([torch.Size(shape).numel() for shape in self.shapes.values()])
        return {
            name: part.view(*shape, *flat.shape[1:])
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def model(self, flat: Tensor) -> FunctionalModel:
        """Return the network with parameters [P] as a function; all of them are prunable."""
        net = functional(
            mlp([self.dimension, self.width, self.outputs], bias=True, dtype=flat.dtype,
                generator=torch.Generator())
        )  # fmt: skip
        return FunctionalModel(net.model_fn, self.split(flat), prunable=tuple(self.shapes))

    def labels(self, y: Tensor) -> Tensor:
        """Return labels ±1 [..., n] as the loss takes them: [..., n, 1] floats, or [..., n] classes."""
        if self.loss == "cross_entropy":
            return (y > 0).long()
        return (y if self.loss == "mse" else (y > 0).to(y.dtype)).unsqueeze(-1)

    @property
    def loss_fn(self) -> Loss:
        """``loss_fn(outputs [n, C], labels) -> scalar``, the mean over the points."""
        losses: dict[str, Loss] = {
            "mse": F.mse_loss,
            "cross_entropy": F.cross_entropy,
            "logistic": F.binary_cross_entropy_with_logits,
        }
        return losses[self.loss]


def initial_weights(network: ToyNetwork, seed: int, init: str = "kaiming_normal") -> Tensor:
    """Return initial parameters, [P] float64.

    Args:
        network: The network.
        seed: Seed of torch's generator.
        init: ``kaiming_normal``: weights N(0, 2/fan_in), biases U(±1/√fan_in), as ``models.mlp`` draws
            them; or ``uniform``: weights and biases U(±1/√fan_in), torch's default.

    Returns:
        The parameters, in the order of the mask's bits.

    Raises:
        ValueError: If there is no such init.

    Example:
        >>> initial_weights(ToyNetwork(), 0).shape
        torch.Size([21])
    """
    check_choice("init", init, INITS)
    generator = torch.Generator().manual_seed(seed)
    widths = [network.dimension, network.width, network.outputs]
    net = mlp(widths, bias=True, generator=generator, dtype=torch.float64)
    if init == "uniform":
        for name, p in net.named_parameters():
            reach = (widths[0] if name.startswith("layer1") else widths[1]) ** -0.5
            torch.nn.init.uniform_(p, -reach, reach, generator=generator)
    return torch.cat([p.detach().flatten() for p in net.parameters()])
