"""Networks, inputs and masks drawn by value, in float64.

Weights and inputs are small integers, and fixed edges and slopes are powers of two, so that traces and
bounds are exact in float64 and a counterexample shrinks to a net that a person can read. Zero weights,
dead units, inputs exactly on a kink, duplicate samples and (``scaled``) layers scaled by 2^±500 occur.
Every network has at most 20,000 paths.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from proofs_check.cases import Residual, enumerable_networks, family_network, random_masks

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
AVERAGE_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
VALUES = st.integers(-3, 3)
SLOPES = (0.5, 0.25, -0.5, 2.0)


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
        lines = [_module(self.model), f"x = {self.x.tolist()}"]
        for name, p in self.model.named_parameters():
            lines.append(f"{name} = {p.tolist()}")
        for name, module in self.model.named_modules():
            if isinstance(module, NORMS) and module.track_running_stats:
                lines.append(
                    f"{name}: μ = {_listed(module.running_mean)}, "
                    f"σ² = {_listed(module.running_var)} + {module.eps}"
                )
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


def family_cases(family: str) -> list[Case]:
    """Return the fixed network of one of ``FAMILIES``, dense and masked."""
    net = family_network(family)
    return [
        Case(net.model, net.x, masks, net.name) for masks in (None, random_masks(net.model, 0.7))
    ]


def _module(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{name}({module.in_features} → {module.out_features})"
    if isinstance(module, nn.Sequential):
        return " → ".join(_module(m) for m in module._modules.values() if m is not None)
    if isinstance(module, Residual):
        shortcut = "x" if module.shortcut is None else _module(module.shortcut)
        return f"[{shortcut} + {_module(module.body)}]"
    return f"{name}({module.extra_repr()})"


def _listed(values: Tensor | None) -> list[float]:
    return [] if values is None else values.tolist()


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    """Draw a float64 tensor of small integers."""
    count = torch.Size(shape).numel()
    values = draw(st.lists(VALUES, min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


@st.composite
def mlps(
    draw: st.DrawFn,
    max_width: int = 4,
    max_depth: int = 4,
    bias: bool | None = None,
    min_depth: int = 1,
) -> Case:
    """Draw a ReLU MLP, widths 1–4 and 1–4 weight layers, with a batch of 1–3 samples."""
    depth = draw(st.integers(min_depth, max_depth))
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
def leaky_mlps(draw: st.DrawFn) -> Case:
    """Draw an MLP with leaky ReLUs of slope 1/2, 1/4, −1/2 or 2."""
    case = draw(mlps(max_width=3, max_depth=3))
    slope = draw(st.sampled_from(SLOPES))
    swapped = [nn.LeakyReLU(slope) if isinstance(m, nn.ReLU) else m for m in case.model]
    return Case(nn.Sequential(*swapped), case.x)


@st.composite
def convolutions(
    draw: st.DrawFn, pool: dict[int, Any] | None = None, norms: bool = False, bias: bool = True
) -> Case:
    """Draw a CNN on sequences or images: stride, padding, dilation, groups, biases.

    Args:
        draw: Hypothesis's.
        pool: Pooling by number of spatial axes, put once behind a ReLU or in front of one.
        norms: Whether batch norms stand before the ReLUs.
        bias: Whether biases may occur.

    Returns:
        The case, 1–2 inputs.
    """
    axes = draw(st.sampled_from((1, 1, 2)))
    size = start = draw(st.integers(2, 5 if axes == 1 else 3))
    depth = 2 if axes == 1 and draw(st.booleans()) else 1
    channels = width = draw(st.integers(1, 2))
    has_bias = bias and draw(st.booleans())
    model = nn.Sequential()
    for layer in range(depth):
        out = draw(st.integers(1, 2))
        convolution, size = draw(_convolution(axes, width, out, size, has_bias))
        width = out
        gate: list[nn.Module] = [nn.ReLU()]
        if norms:
            gate.insert(0, draw(_norm(nn.BatchNorm1d if axes == 1 else nn.BatchNorm2d, width)))
        if pool is not None and layer == 0 and size > 1:
            pooling, size = draw(_pool(pool[axes], size))
            gate.insert(draw(st.integers(0, len(gate))), pooling)
        model.extend([convolution, *gate])
    model.append(nn.Flatten())
    model.append(nn.Linear(width * size**axes, draw(st.integers(1, 2)), bias=has_bias))
    x = draw(tensors((draw(st.integers(1, 2)), channels, *[start] * axes)))
    return Case(draw(_filled(model)), x)


@st.composite
def _convolution(
    draw: st.DrawFn, axes: int, channels: int, out: int, size: int, bias: bool
) -> tuple[nn.Module, int]:
    """Draw a convolution, and return it with the size of its map."""
    dilation = draw(st.integers(1, 2)) if size > 2 else 1
    kernel = draw(st.integers(1, min(2 if axes == 2 else 3, (size - 1) // dilation + 1)))
    stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, kernel // 2))
    groups = 2 if channels == out == 2 and draw(st.booleans()) else 1
    module = CONVOLUTIONS[axes](channels, out, kernel, stride, padding, dilation, groups, bias)
    return module, (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def _pool(draw: st.DrawFn, pool: Any, size: int) -> tuple[nn.Module, int]:
    """Draw a pooling layer over 2 entries per axis, or for maxima 3, windows overlapping or not."""
    largest = pool in MAX_POOLS.values()
    kernel = draw(st.integers(2, min(3, size))) if largest else 2
    stride = draw(st.integers(1, 2))
    padding = draw(st.integers(0, 1)) if largest else 0
    return pool(kernel, stride, padding), (size + 2 * padding - kernel) // stride + 1


@st.composite
def _norm(draw: st.DrawFn, norm: Any, channels: int) -> nn.Module:
    """Draw an eval-mode batch norm: μ an integer, 1/σ = 2, 1 or 1/2, with eps inside σ² or 0."""
    module = norm(channels, eps=draw(st.sampled_from((0.0, 0.125))), affine=draw(st.booleans()))
    variances = st.sampled_from((0.25, 1.0, 4.0))
    drawn = draw(st.lists(variances, min_size=channels, max_size=channels))
    module.running_var.copy_(torch.tensor(drawn) - module.eps)
    module.running_mean.copy_(draw(tensors((channels,))))
    return module


@st.composite
def normed_mlps(draw: st.DrawFn) -> Case:
    """Draw an MLP with eval-mode batch norm before its ReLUs; γ of either sign."""
    case = draw(mlps(max_width=3, max_depth=3))
    model = nn.Sequential()
    for module, following in zip(case.model, [*list(case.model)[1:], None], strict=True):
        model.append(module)
        if isinstance(module, nn.Linear) and isinstance(following, nn.ReLU):
            model.append(draw(_norm(nn.BatchNorm1d, module.out_features)))
    return Case(draw(_filled(model)), case.x)


@st.composite
def residual_mlps(draw: st.DrawFn, bias: bool = True) -> Case:
    """Draw stem, one or two residual blocks with identity or Linear shortcut, and head."""
    has_bias = bias and draw(st.booleans())
    inputs, width = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    model = nn.Sequential(nn.Linear(inputs, width, bias=has_bias))
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            model.append(nn.ReLU())
        hidden = draw(st.integers(1, 2))
        out = draw(st.integers(1, 2)) if (projects := draw(st.booleans())) else width
        body = nn.Sequential(
            nn.Linear(width, hidden, bias=has_bias),
            nn.ReLU(),
            nn.Linear(hidden, out, bias=has_bias),
        )
        shortcut = nn.Linear(width, out, bias=has_bias) if projects else None
        model.append(Residual(body, shortcut))
        width = out
    model.append(nn.Linear(width, draw(st.integers(1, 2)), bias=has_bias))
    return Case(draw(_filled(model)), draw(tensors((draw(st.integers(1, 3)), inputs))))


@st.composite
def residual_convolutions(draw: st.DrawFn, bias: bool = True) -> Case:
    """Draw a stem, a block of two convolutions with identity or 1×1 shortcut, ReLU and a head."""
    has_bias = bias and draw(st.booleans())
    axes, inputs = draw(st.sampled_from((1, 1, 2))), draw(st.integers(1, 2))
    size = start = draw(st.integers(1, 3 if axes == 1 else 2))
    width, hidden, convolution = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
        CONVOLUTIONS[axes],
    )
    out, stride = width, 1
    if projects := draw(st.booleans()):
        out, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(st.sampled_from((1, 3))) if axes == 1 else 1
    body = nn.Sequential(
        convolution(width, hidden, kernel, stride, kernel // 2, bias=has_bias),
        nn.ReLU(),
        convolution(hidden, out, kernel, 1, kernel // 2, bias=has_bias),
    )
    shortcut = convolution(width, out, 1, stride, bias=has_bias) if projects else None
    size = (size - 1) // stride + 1
    model = nn.Sequential(
        convolution(inputs, width, 1, bias=has_bias),
        *[nn.ReLU()] * draw(st.integers(0, 1)),
        Residual(body, shortcut),
        *[nn.ReLU()] * draw(st.integers(0, 1)),
        nn.Flatten(),
        nn.Linear(out * size**axes, draw(st.integers(1, 2)), bias=has_bias),
    )
    x = draw(tensors((draw(st.integers(1, 2)), inputs, *[start] * axes)))
    return Case(draw(_filled(model)), x)


@st.composite
def tied(draw: st.DrawFn) -> Case:
    """Draw a chain that uses one square Linear layer twice, with ReLUs between and Linears around."""
    width, has_bias = draw(st.integers(1, 2)), draw(st.booleans())
    layer = nn.Linear(width, width, bias=has_bias)
    model, inputs = nn.Sequential(), width
    if draw(st.booleans()):
        inputs = draw(st.integers(1, 2))
        model.extend([nn.Linear(inputs, width, bias=False), nn.ReLU()])
    model.append(layer)
    if draw(st.booleans()):
        model.append(nn.ReLU())
    model.append(layer)
    if draw(st.booleans()):
        model.extend([nn.ReLU(), nn.Linear(width, draw(st.integers(1, 2)), bias=has_bias)])
    return Case(draw(_filled(model)), draw(tensors((draw(st.integers(1, 2)), inputs))))


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
    """Draw a case and, now and then, scale one of its tensors by 2^±500 (about 1e±150).

    Where sums join terms of different layers (biases, shortcuts, batch norm) only the head is scaled so
    far: elsewhere one term would drown the other, and rounding would decide gates.

    Args:
        draw: Hypothesis's.
        cases: What to draw from.

    Returns:
        The case, scaled, and noted as such.
    """
    case = draw(cases)
    exponent = draw(st.sampled_from((0, 0, 0, -500, 500, -30)))
    joins = any(isinstance(m, (*NORMS, Residual)) for m in case.model.modules())
    joins |= any(name.endswith("bias") for name, _ in case.model.named_parameters())
    if joins and abs(exponent) > 30:
        targets = list(case.model[-1].parameters())
    else:
        targets = [draw(st.sampled_from(list(case.model.parameters())))]
    with torch.no_grad():
        for target in targets:
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


FAMILIES: dict[str, st.SearchStrategy[Case]] = {
    "MLP": mlps(max_width=3, bias=False),
    "MLP with biases": mlps(max_width=3, max_depth=3, bias=True),
    "convolution": convolutions(),
    "average pooling": convolutions(AVERAGE_POOLS),
    "max pooling": convolutions(MAX_POOLS),
    "leaky ReLU": leaky_mlps(),
    "residual": st.one_of(residual_mlps(), residual_convolutions()),
    "batch norm": st.one_of(normed_mlps(), convolutions(norms=True)),
}
