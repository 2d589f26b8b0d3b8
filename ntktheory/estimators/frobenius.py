"""The squared Frobenius norm of a matrix from random products."""

from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.estimators.estimate import Estimate, mean_of
from ntktheory.estimators.linear_operator import LAWS, MatMat, Products, check_number, draw
from ntktheory.probes import Law


def hutchinson_frobenius(
    operator: Any, *, products: int, law: Law = "rademacher", generator: torch.Generator
) -> Estimate:
    """Estimate ``‖A‖_F² = Tr AᵀA`` as ``1/k Σ_i ‖A z_i‖²``, z_i of mean 0 and covariance I.

    Unbiased: the trace estimator of ``G = AᵀA`` at one product with A each. The variance is
    ``2 ‖G‖_F² / k`` for Gaussian and ``2 (‖G‖_F² − Σ_i G_ii²) / k`` for Rademacher probes. The
    standard error is √(sample variance / k), its square unbiased. The root of the value is too small
    an ``‖A‖_F`` in the mean, because a root is concave.

    Args:
        operator: A, square: a tensor, an ``NTKOperator``, a scipy LinearOperator or another object
            with products (`Products`).
        products: k ≥ 1.
        law: "rademacher" or "gaussian".
        generator: Source of randomness.

    Returns:
        The estimate of the *squared* norm, 0-dim, in the operator's dtype and device; its standard
        error is nan for k = 1.

    Raises:
        TypeError: If ``operator`` has no products or other numbers than float32 or float64,
            ``products`` is no int, or ``generator`` no torch.Generator.
        ValueError: If ``operator`` is not square, ``products`` < 1, or ``law`` is unknown.
        NumericalError: If a product (the message names the first) or the estimate is not finite.

    Cost:
        k products, k·n multiplications, 2·k·n numbers.

    Source:
        Hutchinson 1990, applied to AᵀA. Tested against enumeration of all signs and Gaussian
        cubature.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> hutchinson_frobenius(torch.diag(torch.tensor([3.0, 4.0])), products=1, generator=generator)
        Estimate(value=tensor(25.), standard_error=tensor(nan), products=1)
    """
    A = Products(operator)
    check_choice("law", law, LAWS)
    check_number("products", products, 1)
    return mean_of(squared_norms(A, draw(A, law, products, generator)), A.count)


def squared_norms(products: MatMat, Z: Tensor) -> Tensor:
    """Return ``‖A z_i‖²`` of the columns of Z [n, k], shape [k]: the pure function, vmap-able."""
    return products(Z).square().sum(0)
