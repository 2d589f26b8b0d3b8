"""What is computed: three networks and their inputs, the same for every peer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory.models import cifar_resnet, convnet, mlp


@dataclass(frozen=True)
class Workload:
    """A network, the shape of its batch, the sample axis first, and the seed of the batch.

    Where rounding moves a pre-activation across 0, two correct float32 kernels differ by up to 1e-3.
    The seeds of the convolutional nets are those, of 24, that keep all pre-activations furthest from
    0; that of the MLP is a typical one.
    """

    build: Callable[[torch.Generator], nn.Module]
    batch: tuple[int, ...]
    seed: int


def _mlp(generator: torch.Generator) -> nn.Module:
    return mlp([784, 512, 512, 10], generator=generator)


def _convnet(generator: torch.Generator) -> nn.Module:
    return convnet([3, 32, 32, 32], 10, image_size=32, generator=generator)


def _resnet(generator: torch.Generator) -> nn.Module:
    return cifar_resnet(20, 10, generator=generator)


WORKLOADS = {
    "mlp": Workload(_mlp, (64, 784), 1),
    "conv": Workload(_convnet, (32, 3, 32, 32), 7),
    "resnet20": Workload(_resnet, (32, 3, 32, 32), 10),
}


def load(work: str) -> tuple[nn.Module, Tensor]:
    """Return the network of a workload and its batch, from fixed seeds, float32."""
    workload = WORKLOADS[work]
    model = workload.build(torch.Generator().manual_seed(0))
    return model, torch.randn(
        workload.batch, generator=torch.Generator().manual_seed(workload.seed)
    )


def export(folder: Path) -> None:
    """Write parameters, buffers and inputs of every workload, for peers that do not use torch."""
    for work in WORKLOADS:
        model, x = load(work)
        tensors = {name: t.numpy() for name, t in model.state_dict().items()}
        np.savez(folder / f"{work}.npz", x=x.numpy(), **tensors)
