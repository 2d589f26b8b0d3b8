"""Networks by name, for the command line and for configurations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ntktheory.checks import check_choice, complaint
from ntktheory.models.convnet import convnet
from ntktheory.models.imagenet_resnet import resnet18, resnet50
from ntktheory.models.mlp import mlp
from ntktheory.models.resnet import cifar_resnet
from ntktheory.models.vgg import CONVOLUTIONS, vgg


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be asked for by name.

    Attributes:
        build: ``build(input_shape, generator=…, dtype=…, **options) -> nn.Module``, in eval mode.
        description: One line.
        options: The options and their defaults; an option has the type of its default.
    """

    build: Callable[..., nn.Module]
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)


def build_model(
    name: str,
    input_shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> nn.Module:
    """Build a network by name, for inputs of a given shape.

    Args:
        name: A key of ``MODELS``.
        input_shape: Shape of one input, without the sample axis.
        generator: Source of the weights; None uses torch's global one.
        dtype: Type of the parameters.
        **options: The entry's options; the rest keep their defaults.

    Returns:
        The network, in eval mode.

    Raises:
        ValueError: If the name or an option is unknown, an option has another type than its default
            or is not positive, or the network does not fit the inputs.

    Example:
        >>> net = build_model("mlp", (1, 8, 8), hidden=[16], outputs=3)
        >>> net(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5, 3])
    """
    check_choice("model", name, MODELS)
    entry = MODELS[name]
    for key in options:
        check_choice(f"option of the model {name}", key, entry.options)
    chosen = {
        key: _like(key, options[key], default) if key in options else default
        for key, default in entry.options.items()
    }
    return entry.build(tuple(input_shape), generator=generator, dtype=dtype, **chosen)


def _mlp(
    input_shape: tuple[int, ...], *, hidden: Sequence[int], outputs: int, **options: Any
) -> nn.Module:
    size = torch.Size(input_shape).numel()
    return mlp([size, *hidden, outputs], **options)


def _convnet(
    input_shape: tuple[int, ...], *, channels: Sequence[int], outputs: int, **options: Any
) -> nn.Module:
    if len(input_shape) != 3 or input_shape[1] != input_shape[2]:
        raise ValueError(
            complaint(
                "inputs of a convnet",
                "square images [channels, size, size]",
                list(input_shape),
                "Reshape the data, or use the model mlp.",
            )
        )
    strides = options.pop("stride")
    stride = strides[0] if len(strides) == 1 else strides
    return convnet(
        [input_shape[0], *channels], outputs, image_size=input_shape[1], stride=stride, **options
    )


def _resnet(
    input_shape: tuple[int, ...], *, build: Callable[..., nn.Module], **options: Any
) -> nn.Module:
    _check_images("a ResNet", input_shape)
    return build(channels=input_shape[0], **options)


def _vgg(input_shape: tuple[int, ...], *, depth: int, form: str, **options: Any) -> nn.Module:
    _check_images("a VGG", input_shape)
    small, large = min(input_shape[1:]), max(input_shape[1:])
    if small < 32 or (form == "cifar" and large > 63):
        raise ValueError(
            complaint(
                f"inputs of a VGG of form {form}",
                f"images of {'32 to 63 pixels' if form == 'cifar' else 'at least 32 pixels'} a side",
                list(input_shape),
                "It halves them five times: resize them, choose form=cifar|imagenet or a ResNet.",
            )
        )
    return vgg(depth, channels=input_shape[0], form=form, **options)


def _check_images(network: str, input_shape: tuple[int, ...]) -> None:
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(
            complaint(
                f"inputs of {network}",
                "images [channels, height, width]",
                list(input_shape),
                "Reshape the data, or use the model mlp.",
            )
        )


MODELS: dict[str, ModelEntry] = {
    "mlp": ModelEntry(
        _mlp,
        "multi-layer perceptron with ReLU, He weights; flattens its inputs",
        {"hidden": (64, 64), "outputs": 10, "bias": False},
    ),
    "convnet": ModelEntry(
        _convnet,
        "3×3 convolutions with ReLU and a linear head, He weights; square images",
        {"channels": (8, 16), "outputs": 10, "stride": (1, 2), "head": "flatten", "bias": False},
    ),
    **{
        f"resnet{depth}": ModelEntry(
            partial(_resnet, build=partial(cifar_resnet, depth)),
            f"ResNet-{depth} for small images, He weights; 1×1 convolutions as shortcuts",
            {"outputs": 10, "width": 16},
        )
        for depth in (20, 32, 44, 56)
    },
    "resnet18": ModelEntry(
        partial(_resnet, build=resnet18),
        "ResNet-18, He weights; stem=cifar (3×3) or imagenet (7×7 of stride 2, max pooling)",
        {"outputs": 10, "width": 64, "stem": "cifar"},
    ),
    "resnet50": ModelEntry(
        partial(_resnet, build=resnet50),
        "ResNet-50 of bottleneck blocks, stride in the 3×3, He weights; stem=imagenet or cifar",
        {"outputs": 10, "width": 64, "stem": "imagenet"},
    ),
    **{
        f"vgg{depth}": ModelEntry(
            partial(_vgg, depth=depth),
            f"VGG-{depth}, He weights; form=cifar (one linear layer) or imagenet (three)",
            {"outputs": 10, "width": 64, "form": "cifar", "batch_norm": False, "bias": True},
        )
        for depth in CONVOLUTIONS
    },
}


def _like(key: str, value: Any, default: Any) -> Any:
    """Return an option as the type of its default; counts are positive, one count makes a list."""
    kind = {bool: "true or false", int: "a positive integer", str: "a text"}.get(
        type(default), "positive integers"
    )
    if isinstance(default, tuple):
        value = tuple(value) if isinstance(value, Sequence) else (value,)
        fits = not value or all(_is_count(item) for item in value)
    elif isinstance(default, int) and not isinstance(default, bool):
        fits = _is_count(value)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise ValueError(complaint(key, kind, repr(value), f"Its default is {_shown(default)}."))
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)
