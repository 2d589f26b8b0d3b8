"""The trace of a matrix from random quadratic forms (Hutchinson)."""

from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import check_choice, complaint
from ntktheory.estimators.estimate import Estimate, mean_of
from ntktheory.estimators.linear_operator import LAWS, MatMat, Products, check_number, draw
from ntktheory.probes import Law


def hutchinson_trace(
    operator: Any, *, products: int, law: Law = "rademacher", generator: torch.Generator
) -> Estimate:
    """Estimate the trace as ``1/k Σ_i z_iᵀ A z_i``, z_i of mean 0 and covariance I.

    Unbiased. With B = (A + Aᵀ)/2 the variance is ``2 ‖B‖_F² / k`` for Gaussian probes and
    ``2 (‖B‖_F² − Σ_i B_ii²) / k`` for Rademacher probes, never more: of all laws with independent
    entries Rademacher's has the least. The standard error is √(sample variance / k), its square
    unbiased.

    Args:
        operator: A, square: a tensor, an ``NTKOperator``, a scipy LinearOperator or another object
            with products (`Products`).
        products: k ≥ 1.
        law: "rademacher" or "gaussian".
        generator: Source of randomness.

    Returns:
        The estimate, 0-dim, in the operator's dtype and device; its standard error is nan for
        k = 1.

    Raises:
        TypeError: If ``operator`` has no products or other numbers than float32 or float64,
            ``products`` is no int, or ``generator`` no torch.Generator.
        ValueError: If ``operator`` is not square, ``products`` < 1, or ``law`` is unknown.
        NumericalError: If a product (the message names the first) or the estimate is not finite.

    Cost:
        k products, k·n multiplications, 2·k·n numbers.

    Source:
        Girard 1989 (Gaussian); Hutchinson 1990 (Rademacher). Tested against enumeration of all
        signs and Gaussian cubature.

    Example:
        >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        >>> generator = torch.Generator().manual_seed(0)
        >>> estimate = hutchinson_trace(A, products=1000, generator=generator)
        >>> abs(estimate.value.item() - 5) < 4 * estimate.standard_error.item() < 0.3
        True
    """
    A = Products(operator)
    check_choice("law", law, LAWS)
    check_number("products", products, 1)
    return mean_of(quadratic_forms(A, draw(A, law, products, generator)), A.count)


def quadratic_forms(products: MatMat, Z: Tensor) -> Tensor:
    """Return ``z_iᵀ A z_i`` of the columns of Z [n, k], shape [k]: the pure function, vmap-able."""
    return (Z * products(Z)).sum(0)


def quadratic_form_variance(matrix: Tensor, law: Law) -> Tensor:
    """Return the variance of ``zᵀ A z`` for one probe, from the dense matrix.

    With B = (A + Aᵀ)/2: ``2 ‖B‖_F²`` ("gaussian") or ``2 (‖B‖_F² − Σ_i B_ii²)`` ("rademacher"). For
    the squared norm ``‖A z‖²`` give it ``AᵀA``.

    Args:
        matrix: A, [n, n].
        law: "rademacher" or "gaussian".

    Returns:
        The variance, 0-dim.

    Raises:
        ValueError: If ``matrix`` is not square or ``law`` is unknown.

    Cost:
        O(n²).

    Source:
        Avron and Toledo 2011, Lemma 1. Tested against exact designs.

    Example:
        >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> quadratic_form_variance(A, "gaussian"), quadratic_form_variance(A, "rademacher")
        (tensor(30.), tensor(4.))
    """
    check_choice("law", law, LAWS)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            complaint(
                "matrix",
                "square, of shape [n, n]",
                list(matrix.shape),
                "Pass the dense matrix of the quadratic form.",
            )
        )
    symmetric = (matrix + matrix.mT) / 2
    if law == "rademacher":
        symmetric = symmetric - symmetric.diagonal().diag()
    return 2 * symmetric.square().sum()
