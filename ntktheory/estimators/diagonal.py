"""The diagonal of a matrix from random products."""

from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.estimators.estimate import Estimate
from ntktheory.estimators.linear_operator import LAWS, MatMat, Products, check_number, draw
from ntktheory.probes import Law

LEAST: dict[Law, int] = {"rademacher": 1, "gaussian": 3}
"""Fewer Gaussian probes leave an estimate without variance (k = 2) or without mean (k = 1)."""


def hutchinson_diagonal(
    operator: Any, *, products: int, law: Law = "rademacher", generator: torch.Generator
) -> Estimate:
    """Estimate the diagonal as ``Σ_i z_i ⊙ A z_i / Σ_i z_i ⊙ z_i``, entry by entry.

    ``(A z)_j = A_jj z_j + noise``, where the noise ``Σ_{l≠j} A_jl z_l`` has variance
    ``v_j = Σ_{l≠j} A_jl²`` and is independent of z_j: the estimate is the least-squares slope
    through the origin. Hence it is unbiased for Gaussian probes too, although a ratio; its variance
    is ``v_j / k`` for Rademacher and ``v_j / (k − 2)`` for Gaussian probes. The standard error is
    that of the slope, √(residual squares / (k − 1) / Σ z_j²); its square is unbiased.

    Args:
        operator: A, square: a tensor, an ``NTKOperator``, a scipy LinearOperator or another object
            with products (`Products`).
        products: k; at least 1 for Rademacher, 3 for Gaussian probes.
        law: "rademacher" or "gaussian".
        generator: Source of randomness.

    Returns:
        The estimate and its standard error, [n] each, in the operator's dtype and device; standard
        errors are nan for k = 1.

    Raises:
        TypeError: If ``operator`` has no products or other numbers than float32 or float64,
            ``products`` is no int, or ``generator`` no torch.Generator.
        ValueError: If ``operator`` is not square, ``products`` is too small, or ``law`` is unknown.
        NumericalError: If a product (the message names the first) or the estimate is not finite.

    Cost:
        k products, 4·k·n multiplications, 3·k·n numbers.

    Source:
        Bekas, Kokiopoulou and Saad 2007; the standard error is that of linear regression. Tested
        against enumeration of all signs, and by `check_mean` for Gaussian probes.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> A = torch.diag(torch.tensor([3.0, 4.0]))
        >>> hutchinson_diagonal(A, products=2, generator=generator).value
        tensor([3., 4.])
    """
    A = Products(operator)
    check_choice("law", law, LAWS)
    check_number("products", products, LEAST[law])
    value, standard_error = slopes(A, draw(A, law, products, generator))
    return Estimate(value, standard_error, A.count)


def slopes(products: MatMat, Z: Tensor) -> tuple[Tensor, Tensor]:
    """Regress every row of A Z on that of Z, through the origin: the pure function, vmap-able.

    Args:
        products: V -> A V.
        Z: The probes [n, k].

    Returns:
        The slopes [n] and their standard errors [n], nan for k = 1.
    """
    applied, count = products(Z), Z.shape[1]
    weight = Z.square().sum(1)
    slope = (Z * applied).sum(1) / weight
    if count == 1:
        return slope, torch.full_like(slope, torch.nan)
    noise = (applied - slope[:, None] * Z).square().sum(1) / (count - 1)
    return slope, (noise / weight).sqrt()
