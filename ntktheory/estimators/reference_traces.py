"""The trace estimators by definition: dense matrices, one probe at a time. Slow; for comparison."""

import torch
from torch import Tensor


def trace_samples(matrix: Tensor, Z: Tensor) -> list[float]:
    """Return ``zᵀ A z`` of every column z, as double sums."""
    return [
        sum(
            float(z[i]) * float(matrix[i, j]) * float(z[j])
            for i in range(len(z))
            for j in range(len(z))
        )
        for z in Z.T
    ]


def squared_norm_samples(matrix: Tensor, Z: Tensor) -> list[float]:
    """Return ``‖A z‖² = zᵀ (AᵀA) z`` of every column z, as double sums."""
    return trace_samples(torch.einsum("ki,kj->ij", matrix, matrix), Z)


def diagonal_estimate(matrix: Tensor, Z: Tensor) -> Tensor:
    """Return ``Σ_k z_kj (A z_k)_j / Σ_k z_kj²`` for every j."""
    above, below = torch.zeros_like(matrix[0]), torch.zeros_like(matrix[0])
    for z in Z.T:
        above += z * torch.mv(matrix, z)
        below += z * z
    return above / below


def projector(columns: Tensor) -> Tensor:
    """Return the orthogonal projector on the range of the columns, from their singular vectors."""
    if columns.shape[1] == 0:
        return columns.new_zeros(columns.shape[0], columns.shape[0])
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    basis = left[:, values > 1e-14 * values[0]]
    return basis @ basis.T


def hutchpp_by_definition(matrix: Tensor, S: Tensor, Z: Tensor) -> Tensor:
    """Return Hutch++'s estimate from probes S of the range and Z of the rest."""
    P = projector(matrix @ S)
    rest = torch.eye(len(P), dtype=P.dtype) - P
    deflated = rest @ matrix @ rest
    return torch.trace(P @ matrix) + torch.stack([z @ deflated @ z for z in Z.T]).mean()


def xtrace_by_definition(matrix: Tensor, omega: Tensor, *, rescale: bool) -> Tensor:
    """Return XTrace's m leave-one-out estimates, with a projector of its own for each."""
    estimates = []
    for i in range(omega.shape[1]):
        others = [j for j in range(omega.shape[1]) if j != i]
        P = projector(matrix @ omega[:, others])
        rest = torch.eye(len(P), dtype=P.dtype) - P
        r = rest @ omega[:, i]
        scale = torch.trace(rest).round() / (r @ r) if rescale else 1.0
        estimates.append(torch.trace(P @ matrix) + scale * (r @ matrix @ r))
    return torch.stack(estimates)


def output_probe_norms(jacobian: Tensor, u: Tensor) -> Tensor:
    """Return ``‖J_nᵀ u_n‖²``, [N], from the explicit Jacobian [N, C, P] and u [N, C]."""
    return torch.stack([(J.T @ v).square().sum() for J, v in zip(jacobian, u, strict=True)])
