"""ResNet-18 and ResNet-50 of He et al. 2016, §4.1, with a stem for large or for small images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ntktheory.checks import check_choice
from ntktheory.models.arguments import check_positive
from ntktheory.models.mlp import he_init
from ntktheory.models.resnet import BasicBlock

STEMS = ("cifar", "imagenet")
EXPANSION = 4  # a bottleneck's outputs per inner channel


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with batch norm and a shortcut, ``relu(bn3(conv3(h)) + s(x))``.

    ``h = relu(bn2(conv2(relu(bn1(conv1(x))))))`` has ``inner`` channels, the output four times as
    many. The stride sits in the 3×3 convolution ("v1.5"; in the paper it sits in the first 1×1, which
    then skips three quarters of the positions). The shortcut s is the identity where shapes allow
    it, else a 1×1 convolution with the block's stride and a batch norm.
    """

    def __init__(
        self, inputs: int, inner: int, stride: int, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        outputs = EXPANSION * inner
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False, dtype=dtype)
        self.bn1 = nn.BatchNorm2d(inner, dtype=dtype)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False, dtype=dtype)
        self.bn2 = nn.BatchNorm2d(inner, dtype=dtype)
        self.activation2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False, dtype=dtype)
        self.bn3 = nn.BatchNorm2d(outputs, dtype=dtype)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False, dtype=dtype)
            self.shortcut.add_module("conv", conv)
            self.shortcut.add_module("bn", nn.BatchNorm2d(outputs, dtype=dtype))
        self.activation3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, [N, 4·inner, height / stride, width / stride]."""
        h = self.activation1(self.bn1(self.conv1(x)))
        h = self.activation2(self.bn2(self.conv2(h)))
        return self.activation3(self.bn3(self.conv3(h)) + self.shortcut(x))


def resnet18(
    outputs: int,
    *,
    stem: str = "cifar",
    width: int = 64,
    channels: int = 3,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build ResNet-18, in eval mode: a stem and four stages of two basic blocks.

    The stages have w, 2w, 4w and 8w channels (w = ``width``); the later three start with stride 2. Then
    global average pooling and a linear head. The law of the weights is that of ``cifar_resnet``.

    With k = ``channels``, C = ``outputs`` and a stem of s = 9 (cifar) or 49 (imagenet) positions it has
    ``2724w² + (sk + 150)w + 8wC + C`` parameters: 11,173,962 for CIFAR-10, 11,689,512 for ImageNet.

    Args:
        outputs: Number of outputs C.
        stem: "cifar": a 3×3 convolution of stride 1. "imagenet": a 7×7 convolution of stride 2, then
            3×3 max pooling of stride 2.
        width: Channels of the stem and the first stage.
        channels: Channels of the image.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.

    Returns:
        The network: ``conv1, bn1, activation1, [stem_pool,] stage1, …, stage4, pool, flatten, head``. It
        takes images of any size.

    Raises:
        ValueError: If the stem is unknown, or a number is no positive integer.

    Source:
        He, Zhang, Ren and Sun 2016, *Deep Residual Learning for Image Recognition*, §4.1.

    Example:
        >>> net = resnet18(10, width=4, generator=torch.Generator().manual_seed(0))
        >>> net(torch.ones(5, 3, 32, 32)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([5, 10]), 44622)
    """
    return _four_stages(
        BasicBlock, 1, (2, 2, 2, 2), outputs, stem, width, channels, generator, dtype
    )


def resnet50(
    outputs: int,
    *,
    stem: str = "imagenet",
    width: int = 64,
    channels: int = 3,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build ResNet-50, in eval mode: a stem and stages of 3, 4, 6 and 3 bottleneck blocks.

    The blocks of the stages have w, 2w, 4w and 8w inner channels (w = ``width``) and four times as many
    outputs; the later three stages start with stride 2, in the 3×3 convolution ("v1.5"). Then global
    average pooling and a linear head. The law of the weights is that of ``cifar_resnet``.

    With k = ``channels``, C = ``outputs`` and a stem of s = 9 (cifar) or 49 (imagenet) positions it has
    ``5724w² + (sk + 830)w + 32wC + C`` parameters: 25,557,032 for ImageNet.

    Args:
        outputs: Number of outputs C.
        stem: "cifar" or "imagenet", as for ``resnet18``.
        width: Channels of the stem, and inner channels of the first stage.
        channels: Channels of the image.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.

    Returns:
        The network, with the names of ``resnet18``. It takes images of any size.

    Raises:
        ValueError: If the stem is unknown, or a number is no positive integer.

    Source:
        He, Zhang, Ren and Sun 2016, *Deep Residual Learning for Image Recognition*, §4.1.

    Example:
        >>> net = resnet50(10, width=2, generator=torch.Generator().manual_seed(0))
        >>> net(torch.ones(5, 3, 64, 64)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([5, 10]), 25500)
    """
    return _four_stages(
        Bottleneck, EXPANSION, (3, 4, 6, 3), outputs, stem, width, channels, generator, dtype
    )


def _four_stages(
    block: Callable[[int, int, int, torch.dtype], nn.Module],
    expansion: int,
    depths: Sequence[int],
    outputs: int,
    stem: str,
    width: int,
    channels: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
) -> nn.Sequential:
    """Build stem, stages and head; ``block(inputs, w, stride, dtype)`` has ``expansion·w`` outputs."""
    check_choice("stem", stem, STEMS)
    check_positive(outputs=outputs, width=width, channels=channels)
    net = nn.Sequential()
    kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False, dtype=dtype)
    net.add_module("conv1", conv)
    net.add_module("bn1", nn.BatchNorm2d(width, dtype=dtype))
    net.add_module("activation1", nn.ReLU())
    if stem == "imagenet":
        net.add_module("stem_pool", nn.MaxPool2d(3, 2, 1))
    inputs = width
    for stage, blocks in enumerate(depths):
        inner = width * 2**stage
        first = block(inputs, inner, 1 if stage == 0 else 2, dtype)
        inputs = expansion * inner
        rest = [block(inputs, inner, 1, dtype) for _ in range(blocks - 1)]
        net.add_module(f"stage{stage + 1}", nn.Sequential(first, *rest))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(inputs, outputs, dtype=dtype))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            he_init(module, generator)
    return net.eval()
