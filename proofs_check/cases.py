"""Fixed networks that between them meet every rule of the engines, and the real images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.data import digits
from ntktheory.models import convnet, mlp


@dataclass(frozen=True)
class Network:
    """A named network with a batch, in float64."""

    name: str
    model: Any
    x: Tensor


class Twice(nn.Module):
    """One layer used twice, and its weight once more outside of it; another layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.unused = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 3]."""
        hidden = torch.relu(self.inner(torch.relu(self.inner(x))))
        return self.head(hidden + x @ self.inner.weight)


class TwiceInPlace(nn.Module):
    """One layer used twice by its module only: the layer rules sum its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 3]."""
        hidden = self.inner(x).relu_()
        return self.head(F.relu(self.inner(hidden), inplace=True))


class Positions(nn.Module):
    """Linear layers on sequences [N, T, D], averaged over positions."""

    def __init__(self, samples_first: bool) -> None:
        super().__init__()
        self.samples_first = samples_first
        self.inner, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 3]."""
        x = x if self.samples_first else x.transpose(0, 1)
        return self.head(torch.relu(self.inner(x))).mean(1 if self.samples_first else 0)


class Residual(nn.Module):
    """``x + body(x)``, or ``shortcut(x) + body(x)``."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both branches."""
        return (x if self.shortcut is None else self.shortcut(x)) + self.body(x)


def _grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 6, (3, 1), padding="same", groups=6, padding_mode="reflect"),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(54, 3),
    )


class Tokens(nn.Module):
    """Embedding with a padding row, layer norm and a Linear on every position."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(7, 4, padding_idx=2), nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, 3]; real numbers are read as tokens 0…6."""
        tokens = x if not x.is_floating_point() else (3 * x.abs()).long() % 7
        return self.head(self.norm(torch.tanh(self.table(tokens)))).mean(1)


def _transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 2, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1)),
        nn.Flatten(),
        nn.Linear(176, 3),
    )


def _one_dimensional() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding="same", padding_mode="circular", groups=2),
        nn.BatchNorm1d(4),
        nn.ELU(),
        nn.ConvTranspose1d(4, 2, 2, stride=2, output_padding=2, dilation=3),
        nn.Flatten(),
        nn.Linear(28, 2),
    )


def _norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.InstanceNorm2d(4, affine=True),
        nn.PReLU(4),
        nn.LayerNorm([4, 4]),
        nn.Flatten(),
        nn.Linear(64, 3),
        nn.PReLU(),
    )


def _batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.running_mean = torch.tensor([0.5, -1.0, 0.0])
    norm.running_var = torch.tensor([0.5, 2.0, 1.0])
    net = nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    return net


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (lambda: mlp([5, 7, 6, 3]), (6, 5)),
    "MLP with biases": (lambda: mlp([5, 7, 3], bias=True), (6, 5)),
    "tanh MLP": (lambda: mlp([5, 7, 3], activation=nn.Tanh, bias=True), (3, 5)),
    "CNN": (lambda: convnet([2, 3, 4], 3, image_size=6, stride=[1, 2], bias=True), (4, 2, 6, 6)),
    "CNN, small last map": (
        lambda: convnet([1, 3, 8], 3, image_size=8, stride=[2, 4], head="average"), (3, 1, 8, 8)
    ),
    "grouped, dilated, depthwise CNN": (_grouped, (3, 4, 7, 7)),
    "layer used twice": (TwiceInPlace, (4, 4)),
    "weight used outside its layer": (Twice, (4, 4)),
    "sequences": (lambda: Positions(True), (4, 3, 4)),
    "sequences, positions first": (lambda: Positions(False), (3, 3, 4)),
    "one position, positions first": (lambda: Positions(False), (3, 1, 4)),
    "batch norm in eval mode": (_batch_norm, (4, 2, 6, 6)),
    "transposed convolutions": (_transposed, (3, 2, 3, 3)),
    "one-dimensional convolutions": (_one_dimensional, (3, 2, 5)),
    "even kernels, same padding": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, (2, 4), padding="same"), nn.ReLU(), nn.Conv2d(3, 2, 2, padding="same"),
            nn.Flatten(), nn.Linear(32, 2),
        ),
        (3, 1, 4, 4),
    ),
    "3-d convolution": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2, stride=(1, 2, 1)), nn.Flatten(), nn.Linear(24, 2)),
        (2, 1, 4, 4, 3),
    ),
    "group, instance and layer norm, PReLU": (_norms, (3, 2, 6, 6)),
    "embedding and layer norm": (Tokens, (4, 5)),
}  # fmt: skip


@cache
def network(name: str) -> Network:
    """Build one of ``BUILDERS``."""
    build, shape = BUILDERS[name]
    return _seeded(name, build, shape, sorted(BUILDERS).index(name))


def _seeded(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], seed: int
) -> Network:
    """Build a network with seeded standard normal parameters times √(2/fan_in), and a batch."""
    generator = torch.Generator().manual_seed(seed)
    model = build().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            fan_in = max(1, p[0].numel())
            values = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.copy_(values * (2 / fan_in) ** 0.5)
    return Network(name, model, torch.randn(shape, generator=generator, dtype=torch.float64))


def networks() -> list[Network]:
    """Return every fixed network."""
    return [network(name) for name in BUILDERS]


def random_masks(model: nn.Module, density: float = 0.6, seed: int = 0) -> dict[str, Tensor]:
    """Return seeded Bernoulli masks for every parameter."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(p.shape, generator=generator) < density
        for name, p in model.named_parameters()
    }


ENUMERABLE: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "MLP 3-4-3-2": (lambda: mlp([3, 4, 3, 2]), (3, 3)),
    "MLP 3-4-3-2 with biases": (lambda: mlp([3, 4, 3, 2], bias=True), (3, 3)),
    "CNN, stride, padding, biases": (
        lambda: convnet([1, 2, 2], 2, image_size=4, stride=[1, 2], bias=True), (3, 1, 4, 4)
    ),
    "CNN, no padding": (
        lambda: convnet([2, 2, 2], 3, image_size=4, kernel_size=2, padding=0), (3, 2, 4, 4)
    ),
    "CNN, average pooling": (
        lambda: convnet([1, 2, 2], 2, image_size=4, stride=[1, 2], head="average"), (3, 1, 4, 4)
    ),
    "CNN, groups, dilation": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 2, dilation=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
        ),
        (3, 2, 4, 4),
    ),
    "linear": (lambda: mlp([3, 2]), (3, 3)),
}  # fmt: skip


@cache
def enumerable_networks() -> tuple[Network, ...]:
    """Return fixed ReLU networks whose paths can be listed, alive on their batches."""
    return tuple(
        _seeded(name, build, shape, seed)
        for seed, (name, (build, shape)) in enumerate(ENUMERABLE.items())
    )


def _max_pooled() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.MaxPool2d(2, 1), nn.ReLU(), nn.MaxPool2d(2, padding=1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip


def _leaky() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4), nn.LeakyReLU(0.25), nn.Linear(4, 3), nn.LeakyReLU(-0.5), nn.Linear(3, 2)
    )


def _residual() -> nn.Sequential:
    inner = nn.Sequential(nn.Conv1d(2, 1, 3, padding=1), nn.ReLU(), nn.Conv1d(1, 2, 1, bias=False))
    outer = nn.Sequential(nn.Conv1d(2, 1, 2, stride=2), nn.ReLU(), nn.Conv1d(1, 2, 1))
    return nn.Sequential(
        nn.Conv1d(1, 2, 1, bias=False), nn.ReLU(), Residual(inner), nn.ReLU(),
        Residual(outer, nn.Conv1d(2, 2, 1, stride=2)), nn.Flatten(), nn.Linear(2, 2),
    )  # fmt: skip


def _normed() -> nn.Sequential:
    first, second = nn.BatchNorm2d(2, eps=0.25), nn.BatchNorm1d(3)
    for norm in (first, second):
        channels = torch.arange(norm.num_features, dtype=torch.float64)
        norm.running_mean = 0.75 * (channels - 1).cos()
        norm.running_var = 0.5 + channels
    return nn.Sequential(
        nn.Conv2d(1, 2, 2), first, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, bias=False), second,
        nn.ReLU(), nn.Linear(3, 2),
    )  # fmt: skip


# One network for every family of ``strategies.FAMILIES``.
FAMILIES: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "MLP": ENUMERABLE["MLP 3-4-3-2"],
    "MLP with biases": ENUMERABLE["MLP 3-4-3-2 with biases"],
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 2, 2, stride=2, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(2, 3, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2),
        ),
        (3, 2, 3, 3),
    ),
    "average pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.AvgPool2d(2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 2),
        ),
        (3, 1, 4, 4),
    ),
    "max pooling": (_max_pooled, (3, 1, 4, 4)),
    "leaky ReLU": (_leaky, (3, 3)),
    "residual": (_residual, (3, 1, 2)),
    "batch norm": (_normed, (3, 1, 3, 3)),
}  # fmt: skip


@cache
def family_network(name: str) -> Network:
    """Build one of ``FAMILIES``."""
    build, shape = FAMILIES[name]
    return _seeded(name, build, shape, list(FAMILIES).index(name))


@cache
def real_networks(images: int = 32) -> tuple[Network, ...]:
    """Return an MLP and a CNN with He weights on the first images of the digits."""
    x, _ = digits(images, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    dense = mlp([64, 32, 32, 10], generator=generator, dtype=torch.float64)
    conv = convnet(
        [1, 4, 8],
        10,
        image_size=8,
        stride=[1, 2],
        bias=True,
        generator=generator,
        dtype=torch.float64,
    )
    return (
        Network("MLP 64-32-32-10 on digits", dense, x),
        Network("CNN 1-4-8, biases, on digits", conv, x),
    )
