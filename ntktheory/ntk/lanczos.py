"""Lanczos tridiagonalisation with full reorthogonalisation, and its Gaussian quadrature."""

from collections.abc import Callable

import torch
from torch import Tensor

Products = Callable[[Tensor], Tensor]


def lanczos(products: Products, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Tridiagonalise a symmetric matrix A from K starting vectors at once, in float64.

    ``A Q = Q T + r eᵀ`` for each start, Q orthonormal with first column ``start/‖start‖``, T
    tridiagonal. Each new vector is orthogonalised twice against all before it. A start whose Krylov
    space is exhausted goes on with zeros, which decouple: they add nodes 0 of weight 0.

    Args:
        products: ``V [n, K] -> A V``, in any precision; its rounding limits the result.
        start: The starting vectors [n, K], not zero.
        steps: m, at most n.

    Returns:
        The diagonals of T, [K, m], and its off-diagonals, [K, m−1].

    Cost:
        m products with K vectors, m²·n·K multiplications, m·n·K numbers.

    Source:
        Golub and Van Loan, Matrix Computations, ch. 10. Tested against dense eigenvalues.

    Example:
        >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        >>> alpha, beta = lanczos(lambda V: A @ V, torch.tensor([[1.0], [0.0]]), 2)
        >>> alpha.tolist(), beta.tolist()
        ([[2.0, 3.0]], [[1.0]])
    """
    q = start.double() / start.double().norm(dim=0)
    basis, alphas, betas = [q], [], []
    for step in range(steps):
        applied = products(q)
        w, eps = applied.double(), torch.finfo(applied.dtype).eps
        alphas.append((q * w).sum(0))
        scale = w.norm(dim=0)
        Q = torch.stack(basis)
        for _ in range(2):
            w = w - torch.einsum("jnk,jk->nk", Q, torch.einsum("jnk,nk->jk", Q, w))
        if step + 1 < steps:
            beta = w.norm(dim=0)
            beta = torch.where(beta > 10 * eps * scale, beta, 0.0)
            betas.append(beta)
            q = torch.where(beta > 0, w / beta, 0.0)
            basis.append(q)
    off = torch.stack(betas, dim=1) if betas else start.new_zeros(start.shape[1], 0).double()
    return torch.stack(alphas, dim=1), off


def gauss_quadrature(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nodes and weights [K, m] of the Gauss rules of K tridiagonal matrices.

    ``Σ_i w_i g(ν_i) = qᵀ g(A) q`` for every polynomial g of degree ≤ 2m−1, q the unit starting
    vector. Weights are the squared first entries of the eigenvectors of T and sum to 1.

    Args:
        alpha: Diagonals [K, m].
        beta: Off-diagonals [K, m−1].

    Returns:
        Nodes, ascending, and weights.

    Source:
        Golub and Welsch 1969.
    """
    T = torch.diag_embed(alpha) + torch.diag_embed(beta, 1) + torch.diag_embed(beta, -1)
    nodes, vectors = torch.linalg.eigh(T)
    return nodes, vectors[:, 0].square()
