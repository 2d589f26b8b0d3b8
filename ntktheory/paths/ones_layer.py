"""A layer whose weights are all equal: sum the channels, then a box filter.

In the data net of an unmasked network every weight is 1, so that all output channels of a convolution
are one and the same map. Its forward and input-backward passes then cost 1/channels of a convolution;
only the weight's gradient is a full one.
"""

from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad as gradients
from torch import Tensor

from ntktheory.calls import CONVOLUTIONS
from ntktheory.paths.rules import Layer

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_WEIGHT_GRADIENT = {
    1: gradients.conv1d_weight, 2: gradients.conv2d_weight, 3: gradients.conv3d_weight,
}  # fmt: skip


def applies_to(layer: Layer) -> bool:
    """Say whether the shortcut covers a call: a Linear, or a batched convolution."""
    if layer.short == "linear":
        return layer.weight.ndim == 2
    d = CONVOLUTIONS.get(layer.short)
    return (
        d is not None
        and layer.input.ndim == d + 2
        and layer.options["padding"] != "same"
        and layer.weight.shape[0] >= layer.options["groups"]
    )


def ones_layer(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """Return ``layer(x, weight)`` without bias, for a weight whose entries are all equal.

    Differentiable in x and in every entry of the weight (backwards), and vmap-able.

    Args:
        layer: The call; its options are used.
        x: The input.
        weight: The weight.

    Returns:
        The output, contiguous.
    """
    if layer.short == "linear":
        return _OnesLinear.apply(x, weight)
    return _OnesConvolution.apply(x, weight, _options(layer))


def _options(layer: Layer) -> dict[str, Any]:
    """Return stride, padding, dilation as tuples, and groups."""
    d = CONVOLUTIONS[layer.short]

    def each(value: Any) -> tuple[int, ...]:
        values = (value,) if isinstance(value, int) else tuple(value)
        return values * d if len(values) == 1 else values

    padding = 0 if layer.options["padding"] == "valid" else layer.options["padding"]
    return {
        "stride": each(layer.options["stride"]),
        "padding": each(padding),
        "dilation": each(layer.options["dilation"]),
        "groups": layer.options["groups"],
    }


class _OnesLinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        sums = x.sum(-1, keepdim=True) * weight[0, 0]
        return sums.expand(*x.shape[:-1], weight.shape[0]).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_input = (g.sum(-1, keepdim=True) * weight[0, 0]).expand(*x.shape)
        by_weight = g.flatten(0, -2).T @ x.flatten(0, -2)
        return by_input, by_weight


class _OnesConvolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, options: dict[str, Any]) -> Tensor:
        groups = options["groups"]
        sums = x.unflatten(1, (groups, -1)).sum(2)
        kernel = _box(weight, groups)
        maps = _CONVOLVE[x.ndim - 2](sums, kernel, None, **options)
        copies = weight.shape[0] // groups
        return maps.unsqueeze(2).expand(-1, -1, copies, *[-1] * (x.ndim - 2)).flatten(1, 2).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, ctx.options = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        options, d = ctx.options, x.ndim - 2
        groups = options["groups"]
        by_input = None
        if ctx.needs_input_grad[0]:
            sums = g.unflatten(1, (groups, -1)).sum(2)
            extra = [
                n - ((m - 1) * s - 2 * p + e * (k - 1) + 1)
                for n, m, s, p, e, k in zip(
                    x.shape[2:], g.shape[2:], options["stride"], options["padding"],
                    options["dilation"], weight.shape[2:], strict=True,
                )
            ]  # fmt: skip
            maps = _TRANSPOSE[d](
                sums, _box(weight, groups), None, options["stride"], options["padding"], tuple(extra),
                groups, options["dilation"],
            )  # fmt: skip
            channels = x.shape[1] // groups
            by_input = maps.unsqueeze(2).expand(-1, -1, channels, *[-1] * d).flatten(1, 2)
        by_weight = _WEIGHT_GRADIENT[d](
            x, weight.shape, g.contiguous(), options["stride"], options["padding"],
            options["dilation"], groups,
        )  # fmt: skip
        return by_input, by_weight, None


def _box(weight: Tensor, groups: int) -> Tensor:
    """Return a kernel [groups, 1, …] of the weight's one value."""
    return weight[:1, :1].expand(groups, 1, *weight.shape[2:])
