"""Multi-layer perceptrons."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ntktheory.checks import complaint


def mlp(
    widths: Sequence[int],
    *,
    bias: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build a multi-layer perceptron in eval mode; inputs of any shape are flattened.

    Weights are drawn from N(0, 2/fan_in) (He), biases from U(−1/√fan_in, 1/√fan_in).

    Args:
        widths: Units per layer, inputs first, outputs last.
        bias: Whether layers have biases.
        activation: Makes the module between layers.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.

    Returns:
        The network: ``flatten, layer1, activation1, layer2, …``.

    Raises:
        ValueError: If there are fewer than two widths or one is not positive.

    Example:
        >>> net = mlp([4, 3, 2], generator=torch.Generator().manual_seed(0))
        >>> net(torch.ones(5, 4)).shape, [name for name, _ in net.named_parameters()]
        (torch.Size([5, 2]), ['layer1.weight', 'layer2.weight'])
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            complaint(
                "widths",
                "at least two positive numbers",
                list(widths),
                "Give the inputs first and the outputs last.",
            )
        )
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    depth = len(widths) - 1
    for layer in range(1, depth + 1):
        linear = nn.Linear(widths[layer - 1], widths[layer], bias=bias, dtype=dtype)
        he_init(linear, generator)
        net.add_module(f"layer{layer}", linear)
        if layer < depth:
            net.add_module(f"activation{layer}", activation())
    return net.eval()


def he_init(layer: nn.Linear | nn.Conv2d, generator: torch.Generator | None) -> None:
    """Draw weights from N(0, 2/fan_in) and biases from U(−1/√fan_in, 1/√fan_in)."""
    fan_in = layer.weight[0].numel()
    with torch.no_grad():
        layer.weight.normal_(0.0, (2 / fan_in) ** 0.5, generator=generator)
        if layer.bias is not None:
            layer.bias.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
