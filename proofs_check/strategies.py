"""Networks, inputs and masks drawn by value, in float64.

Weights and inputs are small integers, so that traces and bounds are exact in float64 and a
counterexample shrinks to a net that a person can read. Zero weights, dead units, inputs exactly on a
kink, duplicate samples and (``scaled``) layers scaled by 2^±500 all occur.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from proofs_check.cases import enumerable_networks, random_masks

LAYERS = (nn.Linear, nn.Conv2d)
VALUES = st.integers(-3, 3)


@dataclass(frozen=True)
class Case:
    """A network, a batch, and masks (None: dense)."""

    model: nn.Sequential
    x: Tensor
    masks: dict[str, Tensor] | None = None
    note: str = field(default="", compare=False)

    @property
    def title(self) -> str:
        """A name for tables: that of a fixed network, or "drawn"."""
        return (self.note or "drawn") + (", masked" if self.masks else "")

    def __str__(self) -> str:
        lines = [" → ".join(_module(m) for m in self.model), f"x = {self.x.tolist()}"]
        for name, p in self.model.named_parameters():
            lines.append(f"{name} = {p.tolist()}")
        for name, mask in (self.masks or {}).items():
            lines.append(f"mask of {name} = {mask.int().tolist()}")
        return "\n".join(lines)


def fixed_cases(bias: bool = True) -> list[Case]:
    """Return the enumerable networks, dense and masked; without biases or pooling if so asked."""
    nets = [
        net
        for net in enumerable_networks()
        if bias or not ("bias" in net.name or "groups" in net.name or "pooling" in net.name)
    ]
    return [
        Case(net.model, net.x, masks, net.name)
        for net in nets
        for masks in (None, random_masks(net.model, 0.7))
    ]


def _module(module: nn.Module) -> str:
    return type(module).__name__ + (
        f"({', '.join(map(str, module.weight.shape))})" if isinstance(module, LAYERS) else ""
    )


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    """Draw a float64 tensor of small integers."""
    count = torch.Size(shape).numel()
    values = draw(st.lists(VALUES, min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


@st.composite
def mlps(draw: st.DrawFn, max_width: int = 4, max_depth: int = 4, bias: bool | None = None) -> Case:
    """Draw a ReLU MLP, widths 1–4 and 1–4 weight layers, with a batch of 1–3 samples."""
    depth = draw(st.integers(1, max_depth))
    widths = draw(st.lists(st.integers(1, max_width), min_size=depth + 1, max_size=depth + 1))
    has_bias = draw(st.booleans()) if bias is None else bias
    model = nn.Sequential()
    for layer in range(depth):
        model.append(nn.Linear(widths[layer], widths[layer + 1], bias=has_bias))
        if layer + 1 < depth:
            model.append(nn.ReLU())
    return Case(draw(_filled(model)), draw(tensors((draw(st.integers(1, 3)), widths[0]))))


@st.composite
def convnets(draw: st.DrawFn, bias: bool | None = None, pooling: bool = True) -> Case:
    """Draw a small CNN (stride, padding, average pooling, bias) with a batch of 1–2 images."""
    has_bias = draw(st.booleans()) if bias is None else bias
    channels = draw(st.lists(st.integers(1, 2), min_size=2, max_size=3))
    size = start = draw(st.integers(2, 4))
    model = nn.Sequential()
    for i in range(len(channels) - 1):
        kernel = draw(st.integers(1, min(3, size)))
        stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, kernel // 2))
        model.append(
            nn.Conv2d(channels[i], channels[i + 1], kernel, stride, padding, bias=has_bias)
        )
        model.append(nn.ReLU())
        size = (size + 2 * padding - kernel) // stride + 1
    if pooling and size in (2, 4) and draw(st.booleans()):
        model.append(nn.AvgPool2d(2))
        size //= 2
    model.append(nn.Flatten())
    model.append(nn.Linear(channels[-1] * size * size, draw(st.integers(1, 3)), bias=has_bias))
    images = draw(st.integers(1, 2))
    return Case(draw(_filled(model)), draw(tensors((images, channels[0], start, start))))


@st.composite
def masked(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    """Draw a case and, half of the time, masks for it."""
    case = draw(cases)
    if not draw(st.booleans()):
        return case
    masks = {
        name: draw(tensors(tuple(p.shape))) > draw(st.integers(-3, 1))
        for name, p in case.model.named_parameters()
    }
    return Case(case.model, case.x, masks)


@st.composite
def scaled(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    """Draw a case and, now and then, scale one of its tensors by 2^±500 (about 1e±150)."""
    case = draw(cases)
    exponent = draw(st.sampled_from((0, 0, 0, -500, 500, -30)))
    target = draw(st.sampled_from([p for _, p in case.model.named_parameters()]))
    with torch.no_grad():
        target.mul_(2.0**exponent)
    return Case(case.model, case.x, case.masks, f"scale 2^{exponent}")


def networks(**options: Any) -> st.SearchStrategy[Case]:
    """Draw an MLP (options as for ``mlps``) or a CNN, dense or masked."""
    return masked(st.one_of(mlps(**options), convnets()))


@st.composite
def _filled(draw: st.DrawFn, model: nn.Sequential) -> nn.Sequential:
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(draw(tensors(tuple(p.shape))))
    return model
