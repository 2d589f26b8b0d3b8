"""How this library's cost grows with samples, classes, width and depth, one at a time."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.ntk_peers.worker import timed
from ntktheory import empirical_ntk, ntk_trace
from ntktheory.models import convnet, mlp

Sizes = dict[str, int]
BASE: dict[str, Sizes] = {
    "mlp": {"N": 64, "C": 8, "width": 512, "depth": 4},
    "conv": {"N": 16, "C": 8, "width": 32, "depth": 4},
}
GRID: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {
        "N": (32, 64, 128, 256),
        "C": (4, 8, 16, 32),
        "width": (256, 512, 1024, 2048),
        "depth": (2, 4, 8, 16),
    },
    "conv": {
        "N": (8, 16, 32, 64),
        "C": (4, 8, 16, 32),
        "width": (16, 32, 64, 128),
        "depth": (2, 4, 8, 16),
    },
}


def measure(repeats: int) -> list[dict[str, Any]]:
    """Return the median seconds for every network, quantity, size and value."""
    return [
        {"work": work, "quantity": quantity, "axis": axis, "value": value,
         "median_s": _median(work, quantity, BASE[work] | {axis: value}, repeats)}
        for work, axes in GRID.items()
        for quantity in ("full", "trace")
        for axis, values in axes.items()
        for value in values
    ]  # fmt: skip


def _median(work: str, quantity: str, sizes: Sizes, repeats: int) -> float:
    model, batch = NETWORKS[work](sizes)
    x = torch.randn(batch, generator=torch.Generator().manual_seed(1))
    compute = empirical_ntk if quantity == "full" else ntk_trace
    compute(model, x)
    return statistics.median(timed(lambda: compute(model, x))[0][0] for _ in range(repeats))


def _mlp(sizes: Sizes) -> tuple[nn.Module, tuple[int, ...]]:
    width = sizes["width"]
    model = mlp([width] * sizes["depth"] + [sizes["C"]], generator=_seeded())
    return model, (sizes["N"], width)


def _convnet(sizes: Sizes) -> tuple[nn.Module, tuple[int, ...]]:
    channels = [3] + [sizes["width"]] * (sizes["depth"] - 1)
    model = convnet(channels, sizes["C"], image_size=16, head="average", generator=_seeded())
    return model, (sizes["N"], 3, 16, 16)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


NETWORKS: dict[str, Callable[[Sizes], tuple[nn.Module, tuple[int, ...]]]] = {
    "mlp": _mlp,
    "conv": _convnet,
}
