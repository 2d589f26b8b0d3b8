"""The trace of a matrix, every product used twice: for its range and for the rest (XTrace)."""

from typing import Any, Literal

import torch
from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.estimators.estimate import Estimate, mean_of
from ntktheory.estimators.linear_operator import MatMat, Products, check_number, draw

XTraceLaw = Literal["sphere", "gaussian", "rademacher"]
XTRACE_LAWS: tuple[XTraceLaw, ...] = ("sphere", "gaussian", "rademacher")
ROUNDING = 10.0
"""Singular values up to this times √m·eps of the largest count as 0."""


def xtrace(
    operator: Any, *, products: int, law: XTraceLaw = "sphere", generator: torch.Generator
) -> Estimate:
    """Estimate the trace as the mean of m = k/2 leave-one-out estimates.

    ``t_i = Tr(P_i A) + ω_iᵀ (I − P_i) A (I − P_i) ω_i``, P_i the orthogonal projector on the range
    of A Ω without its column i. P_i is independent of ω_i, so each t_i is unbiased; so is their
    mean, which is exact (up to rounding) for matrices of rank ≤ m − 1. All m come from the same 2m
    products. "sphere" rescales each second term by ``(n − rank P_i) / ‖(I − P_i) ω_i‖²``, as if
    ω_i had been drawn on the sphere in the complement: still unbiased for Gaussian ω, and of
    smaller variance.

    The variance has no closed form, but it is at most that of t_1, hence at most
    ``2 E‖(I − P_1) B (I − P_1)‖_F² ≤ 2 ‖B‖_F²`` with B = (A + Aᵀ)/2. The standard error is the
    authors' error estimate ``√(Σ(t_i − t̄)² / (m(m − 1)))``. The t_i share products and are
    correlated, so it is a guide, not a theorem, and as a rule too small: in
    ``benchmarks/results/trace_estimators.json`` its root mean square is 0.67 to 0.97 of the error's.

    Args:
        operator: A, square: a tensor, an ``NTKOperator``, a scipy LinearOperator or another object
            with products (`Products`).
        products: k, even, from 2 to 2n.
        law: "sphere" (Gaussian with that rescaling), "gaussian" or "rademacher".
        generator: Source of randomness.

    Returns:
        The estimate, 0-dim, in the operator's dtype and device; its standard error is nan for
        k = 2.

    Raises:
        TypeError: If ``operator`` has no products or other numbers than float32 or float64,
            ``products`` is no int, or ``generator`` no torch.Generator.
        ValueError: If ``operator`` is not square, ``products`` is odd or out of range, or ``law`` is
            unknown.
        NumericalError: If a product (the message names the first) or the estimate is not finite.

    Cost:
        k products, O(n·k²) multiplications, 4·k·n numbers.

    Source:
        Epperly, Tropp and Webber 2024, XTrace: making the most of every sample in stochastic trace
        estimation. Tested against the definition, one projector at a time, and by enumeration of
        all signs.

    Example:
        >>> x = torch.arange(1.0, 9.0, dtype=torch.float64)
        >>> generator = torch.Generator().manual_seed(0)
        >>> round(xtrace(torch.outer(x, x), products=4, generator=generator).value.item(), 9)
        204.0
    """
    A = Products(operator)
    check_choice("law", law, XTRACE_LAWS)
    check_number("products", products, 2, 2 * A.size, even=True)
    omega = draw(A, "rademacher" if law == "rademacher" else "gaussian", products // 2, generator)
    return mean_of(leave_one_out(A, omega, rescale=law == "sphere"), A.count)


def leave_one_out(products: MatMat, omega: Tensor, *, rescale: bool) -> Tensor:
    r"""Return the m leave-one-out estimates t_i: the pure function, vmap-able.

    Let ``Y = A Ω = B Σ Vᵀ`` (by QR, then the singular values of R). Leaving column i out of Y takes
    from its range the one direction B s_i that is orthogonal to all other columns:
    ``(Σ Vᵀ)ᵀ s_i ∝ e_i``, so ``s_i ∝ Σ⁻¹ Vᵀ e_i`` and ``P_i = B (I − s_i s_iᵀ) Bᵀ``. If Y has
    dependent columns, B and Σ keep the rank, and s_i = 0 unless e_i is in the row space of Y:
    otherwise the rest already spans y_i. With ``x_i = (I − s_i s_iᵀ) Bᵀ ω_i`` the residual is
    ``r_i = ω_i − B x_i``, and ``A r_i = y_i − (A B) x_i`` takes no further product.

    Args:
        products: V -> A V.
        omega: Ω, [n, m], m ≤ n.
        rescale: Whether to give r_i the length √(n − rank P_i).

    Returns:
        The estimates, [m].
    """
    n, m = omega.shape
    Y = products(omega)
    Q, R = torch.linalg.qr(Y)
    U, sigma, Vh = torch.linalg.svd(R)
    eps = torch.finfo(omega.dtype).eps
    kept = sigma > ROUNDING * m**0.5 * eps * sigma[0]
    B = (Q @ U) * kept
    AB = products(B)

    S = torch.where(kept, sigma[0] / torch.where(kept, sigma, 1.0), 0.0)[:, None] * Vh
    alone = (Vh.square() * ~kept[:, None]).sum(0) <= m * eps
    length = torch.linalg.vector_norm(S, dim=0)
    S = S * alone / torch.where(length > 0, length, 1.0)

    W = B.mT @ omega
    X = W - S * (S * W).sum(0)
    residual = omega - B @ X
    rest = (residual * (Y - AB @ X)).sum(0)
    if rescale:
        rank = kept.sum() - (alone & (length > 0)).to(torch.int64)
        rest = rest * (n - rank) / residual.square().sum(0)
    H = B.mT @ AB
    return H.diagonal().sum() - (S * (H @ S)).sum(0) + rest
