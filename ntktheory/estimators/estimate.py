"""What a stochastic estimator returns: a value, how far off it may be, and what it cost."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.checks import check_finite


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error and its price.

    Attributes:
        value: The estimate, a 0-dim tensor or, of a vector, [n].
        standard_error: Estimated standard deviation of ``value``, of its shape; nan where the
            random numbers allow none (a single probe). How is said by each estimator.
        products: Number of products with the operator; for output probes, of backward passes.

    Raises:
        NumericalError: If the value is not finite.

    Example:
        >>> Estimate(torch.tensor(3.0), torch.tensor(0.5), products=7).products
        7
    """

    value: Tensor
    standard_error: Tensor
    products: int

    def __post_init__(self) -> None:
        check_finite(
            "estimate", self.value, "The products were finite: rescale the operator or use float64."
        )


def mean_of(samples: Tensor, products: int) -> Estimate:
    """Return the mean of K samples [K, …] with ``√(Σ(x − x̄)² / (K(K − 1)))``; nan for K = 1."""
    return Estimate(samples.mean(0), standard_error(samples), products)


def standard_error(samples: Tensor) -> Tensor:
    """Return ``√(Σ(x − x̄)² / (K(K − 1)))`` over the first axis; nan for K = 1."""
    count = samples.shape[0]
    if count == 1:
        return torch.full_like(samples[0], torch.nan)
    squares = (samples - samples.mean(0)).square().sum(0)
    return (squares / (count * (count - 1))).sqrt()
