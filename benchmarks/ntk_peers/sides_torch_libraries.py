"""curvlinops, BackPACK and NNGeometry: what they offer that gives the full kernel or its trace."""

from collections.abc import Callable
from pathlib import Path

import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad, BatchL2Grad, DiagGGNExact, SqrtGGNExact
from curvlinops import TransposedJacobianLinearOperator
from nngeometry import GramMatrix
from nngeometry.backend import TorchHooksJacobianBackend
from nngeometry.layercollection import LayerCollection
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.ntk_peers.workloads import load

Call = Callable[[], Tensor]
COLUMNS = 64


def curvlinops(work: str, quantity: str, folder: Path) -> Call:
    """Multiply the transposed Jacobian by the unit vectors, 64 at a time.

    Its trace estimators are stochastic; this is its exact way to either number.
    """
    model, x = load(work)
    n, c = len(x), 10
    params = list(model.parameters())
    targets = torch.zeros(n, c)
    operator = TransposedJacobianLinearOperator(
        model, params, [(x, targets)], check_deterministic=False, num_data=n
    )
    units = torch.eye(n * c).split(COLUMNS, dim=1)

    def full() -> Tensor:
        columns = torch.cat([operator @ unit for unit in units], dim=1)
        return (columns.T @ columns).view(n, c, n, c).transpose(1, 2)

    def trace() -> Tensor:
        return torch.stack([(operator @ unit).square().sum() for unit in units]).sum()

    return full if quantity == "full" else trace


def backpack_first_order(work: str, quantity: str, folder: Path) -> Call:
    """Take every sample's gradient, or its squared norm, in one backward pass per class."""
    model, x = load(work)
    extend(model)
    params = list(model.parameters())

    def passes() -> list[list[Tensor]]:
        outputs = model(x)
        extension, field = (
            (BatchGrad(), "grad_batch") if quantity == "full" else (BatchL2Grad(), "batch_l2")
        )
        found = []
        for c in range(outputs.shape[1]):
            with backpack(extension, retain_graph=True):
                outputs[:, c].sum().backward(retain_graph=True)
            found.append([getattr(p, field) for p in params])
            for p in params:
                delattr(p, field)
        return found

    def full() -> Tensor:
        rows = [torch.stack(blocks, 1).flatten(2) for blocks in zip(*passes(), strict=True)]
        return torch.stack([torch.einsum("ncp,mdp->nmcd", j, j) for j in rows]).sum(0)

    def trace() -> Tensor:
        return torch.stack([norms.sum() for blocks in passes() for norms in blocks]).sum()

    return full if quantity == "full" else trace


def backpack_second_order(work: str, quantity: str, folder: Path) -> Call:
    """Take the square root, or the diagonal, of the Gauss–Newton matrix of the summed square loss.

    The Hessian of ``Σ (f − y)²`` is 2, so both numbers come out doubled.
    """
    model, x = load(work)
    residual = work == "resnet20"
    model = extend(model, use_converter=residual)
    loss_fn = extend(nn.MSELoss(reduction="sum"))
    targets = torch.zeros(len(x), 10)
    params = list(model.parameters())
    extension, field = (
        (SqrtGGNExact(), "sqrt_ggn_exact")
        if quantity == "full"
        else (DiagGGNExact(), "diag_ggn_exact")
    )

    def compute() -> Tensor:
        with backpack(extension):
            loss_fn(model(x), targets).backward()
        found = [getattr(p, field) for p in params]
        if quantity == "trace":
            return torch.stack([d.sum() for d in found]).sum() / 2
        rows = [v.flatten(2) for v in found]
        return torch.stack([torch.einsum("cnp,dmp->nmcd", j, j) for j in rows]).sum(0) / 2

    return compute


def nngeometry(work: str, quantity: str, folder: Path) -> Call:
    """Use ``GramMatrix`` for the kernel; the trace is its mean over samples, times N."""
    model, x = load(work)

    def loader() -> DataLoader:
        return DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))

    def function(*batch: Tensor) -> Tensor:
        return model(batch[0])

    layers = LayerCollection.from_model(model)
    if quantity == "full":
        return lambda: GramMatrix(
            model, loader(), function=function, layer_collection=layers
        ).data.permute(1, 3, 0, 2)
    backend = TorchHooksJacobianBackend(model=model, function=function, layer_collection=layers)
    return lambda: backend.implicit_trace(loader()) * len(x)


SIDES = {
    "curvlinops": curvlinops,
    "BackPACK first order": backpack_first_order,
    "BackPACK second order": backpack_second_order,
    "NNGeometry": nngeometry,
}
