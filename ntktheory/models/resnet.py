"""Residual networks for small images: ResNet-20, 32, 44, 56 of He et al. 2016, §4.2."""

import torch
from torch import Tensor, nn

from ntktheory.checks import complaint
from ntktheory.models.arguments import check_positive
from ntktheory.models.mlp import he_init


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut, ``relu(bn2(conv2(h)) + s(x))``.

    ``h = relu(bn1(conv1(x)))``; the shortcut s is the identity where shapes allow it, else a 1×1
    convolution with the block's stride and a batch norm ("option B" of the paper).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False, dtype=dtype)
        self.bn1 = nn.BatchNorm2d(outputs, dtype=dtype)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False, dtype=dtype)
        self.bn2 = nn.BatchNorm2d(outputs, dtype=dtype)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False, dtype=dtype)
            self.shortcut.add_module("conv", conv)
            self.shortcut.add_module("bn", nn.BatchNorm2d(outputs, dtype=dtype))
        self.activation2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, [N, outputs, height / stride, width / stride]."""
        h = self.activation1(self.bn1(self.conv1(x)))
        return self.activation2(self.bn2(self.conv2(h)) + self.shortcut(x))


def cifar_resnet(
    depth: int,
    outputs: int,
    *,
    width: int = 16,
    channels: int = 3,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build a ResNet of the CIFAR family, in eval mode: ``depth = 6b + 2`` with b blocks per stage.

    A 3×3 convolution, three stages of ``width``, ``2·width`` and ``4·width`` channels (the later ones
    start with stride 2), global average pooling, a linear head. Shortcuts that change the shape are
    1×1 convolutions with batch norm, as in most code for pruning at initialisation; the paper's own
    CIFAR networks pad with zeros ("option A") and have 2,752 parameters fewer at width 16.

    Convolutions and the head are drawn from N(0, 2/fan_in) (He), the head's bias from
    U(−1/√fan_in, 1/√fan_in). Batch norms start with scale 1, shift 0, running mean 0 and variance 1.

    With w = ``width``, k = ``channels`` and C = ``outputs`` it has
    ``(378b − 80)w² + (28b + 9k + 14)w + 4wC + C`` parameters.

    Args:
        depth: Layers with weights on the longest path: 8, 14, 20, 26, 32, …
        outputs: Number of outputs C.
        width: Channels of the first stage.
        channels: Channels of the image.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.

    Returns:
        The network: ``conv1, bn1, activation1, stage1, stage2, stage3, pool, flatten, head``. It takes
        images of any size.

    Raises:
        ValueError: If the depth is none of the family's, or another number is no positive integer.

    Source:
        He, Zhang, Ren and Sun 2016, *Deep Residual Learning for Image Recognition*, §4.2.

    Example:
        >>> net = cifar_resnet(20, 10, generator=torch.Generator().manual_seed(0))
        >>> net(torch.ones(5, 3, 32, 32)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([5, 10]), 272474)
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            complaint(
                "depth", "6b + 2 with b ≥ 1", depth, "ResNet-20, 32, 44, 56 have b = 3, 5, 7, 9."
            )
        )
    check_positive(outputs=outputs, width=width, channels=channels)
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(channels, width, 3, 1, 1, bias=False, dtype=dtype))
    net.add_module("bn1", nn.BatchNorm2d(width, dtype=dtype))
    net.add_module("activation1", nn.ReLU())
    blocks = (depth - 2) // 6
    for stage in range(3):
        before, after = width * 2 ** max(0, stage - 1), width * 2**stage
        first = BasicBlock(before, after, 1 if stage == 0 else 2, dtype)
        rest = [BasicBlock(after, after, 1, dtype) for _ in range(blocks - 1)]
        net.add_module(f"stage{stage + 1}", nn.Sequential(first, *rest))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(4 * width, outputs, dtype=dtype))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            he_init(module, generator)
    return net.eval()
