"""The trace of a matrix: its main directions exactly, the rest by Hutchinson (Hutch++)."""

from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import check_choice
from ntktheory.estimators.estimate import Estimate, standard_error
from ntktheory.estimators.hutchinson import quadratic_forms
from ntktheory.estimators.linear_operator import LAWS, MatMat, Products, check_number, draw
from ntktheory.probes import Law


def hutchpp_trace(
    operator: Any, *, products: int, law: Law = "rademacher", generator: torch.Generator
) -> Estimate:
    """Estimate the trace as ``Tr QᵀAQ + 1/g Σ_i r_iᵀ A r_i`` with ``r_i = (I − QQᵀ) z_i``.

    Q is an orthonormal basis of A S for s = ⌊k/3⌋ probes S; the g = k − 2s probes z are independent
    of it. Unbiased, and exact (up to rounding) for matrices of rank ≤ s. Given Q the variance is
    that of Hutchinson's estimator for ``(I − QQᵀ) A (I − QQᵀ)`` and g probes: for positive
    semi-definite A an error of ε·Tr A takes O(1/ε) products in place of O(1/ε²). The standard error
    is √(sample variance of r_iᵀ A r_i / g), its square unbiased.

    Args:
        operator: A, square: a tensor, an ``NTKOperator``, a scipy LinearOperator or another object
            with products (`Products`).
        products: k, from 3 to 3n.
        law: "rademacher" or "gaussian", for S and z.
        generator: Source of randomness.

    Returns:
        The estimate, 0-dim, in the operator's dtype and device; its standard error is nan for
        g = 1, which is k = 3.

    Raises:
        TypeError: If ``operator`` has no products or other numbers than float32 or float64,
            ``products`` is no int, or ``generator`` no torch.Generator.
        ValueError: If ``operator`` is not square, ``products`` is out of range, or ``law`` is
            unknown.
        NumericalError: If a product (the message names the first) or the estimate is not finite.

    Cost:
        k products, O(n·k²) multiplications, 2·k·n numbers.

    Source:
        Meyer, Musco, Musco and Woodruff 2021, Algorithm 1. Tested against its definition with dense
        projectors, and by enumeration of all signs.

    Example:
        >>> x = torch.arange(1.0, 9.0, dtype=torch.float64)
        >>> generator = torch.Generator().manual_seed(0)
        >>> round(hutchpp_trace(torch.outer(x, x), products=3, generator=generator).value.item(), 9)
        204.0
    """
    A = Products(operator)
    check_choice("law", law, LAWS)
    check_number("products", products, 3, 3 * A.size)
    sketch = products // 3
    probes = draw(A, law, products - sketch, generator)
    captured, rest = captured_and_rest(A, probes[:, :sketch], probes[:, sketch:])
    return Estimate(captured + rest.mean(), standard_error(rest), A.count)


def captured_and_rest(products: MatMat, S: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``Tr QᵀAQ`` and the g numbers ``r_iᵀ A r_i``: the pure function, vmap-able.

    Args:
        products: V -> A V.
        S: Probes of the range, [n, s].
        Z: Probes of the rest, [n, g].

    Returns:
        A 0-dim tensor and [g]; the estimate is the former plus the mean of the latter.
    """
    # QR completes a deficient A S by directions that Z knows nothing of: they cost no bias.
    Q, _ = torch.linalg.qr(products(S))
    captured = (Q * products(Q)).sum()
    rest = Z - Q @ (Q.mT @ Z)
    return captured, quadratic_forms(products, rest)
