"""VGG-11, 13, 16 and 19 of Simonyan & Zisserman 2015, for large and for small images."""

import torch
from torch import nn

from ntktheory.checks import check_choice, complaint
from ntktheory.models.arguments import check_positive
from ntktheory.models.mlp import he_init

FORMS = ("cifar", "imagenet")
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}  # per stage


def vgg(
    depth: int,
    outputs: int,
    *,
    form: str = "cifar",
    batch_norm: bool = False,
    bias: bool = True,
    width: int = 64,
    channels: int = 3,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build a VGG network in eval mode: five stages of 3×3 convolutions, then a linear head.

    The stages have w, 2w, 4w, 8w and 8w channels (w = ``width``); each ends with 2×2 max pooling, so
    that images shrink by 32. Every convolution is followed by ReLU, with a batch norm between them if
    asked for. Form "cifar" has one linear layer from the 8w channels of a 1×1 map; form "imagenet"
    averages to a 7×7 map, and has two hidden layers of 64w units with ReLU and dropout ½.

    Convolutions and linear layers are drawn from N(0, 2/fan_in) (He), biases from
    U(−1/√fan_in, 1/√fan_in). Batch norms start with scale 1, shift 0, running mean 0 and variance 1.

    VGG-16 has 14,719,818 parameters for CIFAR-10 and 138,357,544 for ImageNet; batch norms add 8,448.

    Args:
        depth: Layers with weights in the form "imagenet": 11, 13, 16 or 19. The form "cifar" has two
            linear layers fewer and keeps the name.
        outputs: Number of outputs C.
        form: "cifar" for images of 32 to 63 pixels, or "imagenet" for 32 and more (224 in the paper).
        batch_norm: Whether a batch norm follows every convolution.
        bias: Whether convolutions and linear layers have biases; VGG's have, also before a batch norm.
        width: Channels of the first stage.
        channels: Channels of the image.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.

    Returns:
        The network: ``stage1, …, stage5, flatten, head`` or ``stage1, …, stage5, pool, flatten, layer1,
        activation1, dropout1, layer2, activation2, dropout2, head``; a stage is ``conv1, [bn1,]
        activation1, …, pool``.

    Raises:
        ValueError: If depth or form is unknown, or a number is no positive integer.

    Source:
        Simonyan and Zisserman 2015, *Very Deep Convolutional Networks for Large-Scale Image
        Recognition*, configurations A, B, D and E.

    Example:
        >>> net = vgg(16, 10, batch_norm=True, width=2, generator=torch.Generator().manual_seed(0))
        >>> net(torch.ones(5, 3, 32, 32)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([5, 10]), 14984)
    """
    check_choice("form", form, FORMS)
    if depth not in CONVOLUTIONS:
        raise ValueError(complaint("depth", "11, 13, 16 or 19", depth, "Choose one of them."))
    check_positive(outputs=outputs, width=width, channels=channels)
    net = nn.Sequential()
    inputs = channels
    for stage, count in enumerate(CONVOLUTIONS[depth]):
        units = width * 2 ** min(stage, 3)
        net.add_module(f"stage{stage + 1}", _stage(inputs, units, count, batch_norm, bias, dtype))
        inputs = units
    if form == "imagenet":
        net.add_module("pool", nn.AdaptiveAvgPool2d(7))
    net.add_module("flatten", nn.Flatten())
    if form == "imagenet":
        inputs *= 49
        for layer in (1, 2):
            net.add_module(f"layer{layer}", nn.Linear(inputs, 64 * width, bias=bias, dtype=dtype))
            net.add_module(f"activation{layer}", nn.ReLU())
            net.add_module(f"dropout{layer}", nn.Dropout(0.5))
            inputs = 64 * width
    net.add_module("head", nn.Linear(inputs, outputs, bias=bias, dtype=dtype))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            he_init(module, generator)
    return net.eval()


def _stage(
    inputs: int, outputs: int, count: int, batch_norm: bool, bias: bool, dtype: torch.dtype
) -> nn.Sequential:
    stage = nn.Sequential()
    for i in range(1, count + 1):
        conv = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=bias, dtype=dtype)
        stage.add_module(f"conv{i}", conv)
        if batch_norm:
            stage.add_module(f"bn{i}", nn.BatchNorm2d(outputs, dtype=dtype))
        stage.add_module(f"activation{i}", nn.ReLU())
        inputs = outputs
    stage.add_module("pool", nn.MaxPool2d(2))
    return stage
