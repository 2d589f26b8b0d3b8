"""Small convolutional networks."""

from collections.abc import Sequence

import torch
from torch import nn

from ntktheory.checks import check_choice, complaint
from ntktheory.models.mlp import he_init


def convnet(
    channels: Sequence[int],
    outputs: int,
    *,
    image_size: int,
    stride: int | Sequence[int] = 1,
    kernel_size: int = 3,
    padding: int = 1,
    head: str = "flatten",
    bias: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build convolution–ReLU layers and a linear head, in eval mode.

    Weights are drawn from N(0, 2/fan_in) (He), biases from U(−1/√fan_in, 1/√fan_in).

    Args:
        channels: Channels per layer, the image's first.
        outputs: Number of outputs C.
        image_size: Height and width of the (square) images.
        stride: One stride for all layers, or one per layer.
        kernel_size: Height and width of the kernels.
        padding: Zero padding on each side.
        head: "flatten" feeds every position to the head, "average" their mean per channel.
        bias: Whether layers have biases.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.

    Returns:
        The network: ``conv1, activation1, …, [pool,] flatten, head``.

    Raises:
        ValueError: If the channels, the strides or the head do not fit, or the map vanishes.

    Example:
        >>> net = convnet([1, 4, 4], 10, image_size=8, stride=[1, 2])
        >>> net(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    check_choice("head", head, ["flatten", "average"])
    layers = len(channels) - 1
    strides = [stride] * layers if isinstance(stride, int) else list(stride)
    if layers < 1 or min(channels) < 1 or outputs < 1:
        raise ValueError(
            complaint(
                "channels",
                "at least two positive numbers, and outputs positive",
                f"{list(channels)} and {outputs}",
                "Give the image's channels first.",
            )
        )
    if len(strides) != layers or min(strides) < 1:
        raise ValueError(
            complaint(
                "stride",
                f"a positive number or {layers} of them for {list(channels)} channels",
                strides,
                "Give one stride per convolution.",
            )
        )
    net = nn.Sequential()
    size = image_size
    for i, step in enumerate(strides, start=1):
        conv = nn.Conv2d(
            channels[i - 1], channels[i], kernel_size, step, padding, bias=bias, dtype=dtype
        )
        he_init(conv, generator)
        net.add_module(f"conv{i}", conv)
        net.add_module(f"activation{i}", nn.ReLU())
        size = (size + 2 * padding - kernel_size) // step + 1
    if size < 1:
        raise ValueError(
            complaint(
                "image_size",
                "large enough for the layers",
                image_size,
                "Use fewer strides or a larger image.",
            )
        )
    if head == "average":
        net.add_module("pool", nn.AvgPool2d(size))
        size = 1
    net.add_module("flatten", nn.Flatten())
    linear = nn.Linear(channels[-1] * size * size, outputs, bias=bias, dtype=dtype)
    he_init(linear, generator)
    net.add_module("head", linear)
    return net.eval()
