"""What a statistical check concludes, and how its inputs are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import NumericalError, complaint

Numbers = Tensor | np.ndarray | Sequence[Any] | SupportsFloat
Status = Literal["pass", "fail", "inconclusive"]
Kind = Literal["mean", "sequential mean", "same distribution"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one statistical check, with what it can and cannot have missed.

    Attributes:
        status: "fail": the null hypothesis is rejected. "pass": it is not, though a bias of
            ``detectable_bias`` would have been (for "same distribution": though a rejection was
            possible). "inconclusive": it is not, and n is too small to conclude anything from that.
        kind: The check: "mean", "sequential mean" or "same distribution".
        n: Number of samples (pairs) used.
        delta: Upper bound on the probability of a "fail" under the null hypothesis.
        beta: Upper bound on the probability of missing a bias of ``detectable_bias``; nan for
            "same distribution".
        detectable_bias: Smallest bias |E X - expected| that is caught with probability 1 - beta, in
            the unit of the samples, the largest over coordinates; ``math.inf`` if n is too small
            for any; nan for "same distribution", which has no moment condition and promises none.
        observed: Mean of the samples (of the differences), one per coordinate.
        expected: What it is compared with, one per coordinate.
        worst: Index of the coordinate with the most evidence against the null hypothesis.
        statistic: That evidence; a value of ``threshold`` or more is a "fail".
        threshold: See ``statistic``.

    Example:
        >>> from ntktheory.estimators.evidence import check_mean
        >>> print(check_mean([0.9, 1.1] * 1000, 1.0, 1.0, delta=1e-9, bias=0.3).summary)
        pass: mean 1 of 2000 samples against 1; false alarm <= 1e-09, bias 0.297 missed <= 1e-09
    """

    status: Status
    kind: Kind
    n: int
    delta: float
    beta: float
    detectable_bias: float
    observed: tuple[float, ...]
    expected: tuple[float, ...]
    worst: int
    statistic: float
    threshold: float

    @property
    def summary(self) -> str:
        """The verdict in one line, for the worst coordinate."""
        k = self.worst
        where = f" (coordinate {k} of {len(self.observed)})" if len(self.observed) > 1 else ""
        what = "samples" if self.kind != "same distribution" else "paired differences"
        text = (
            f"{self.status}: mean {self.observed[k]:.6g} of {self.n} {what}"
            f" against {self.expected[k]:.6g}{where}; false alarm <= {self.delta:.3g}"
        )
        if math.isnan(self.detectable_bias):
            return f"{text}, no bias promised"
        if math.isinf(self.detectable_bias):
            return f"{text}, too few samples to promise any bias"
        return f"{text}, bias {self.detectable_bias:.3g} missed <= {self.beta:.3g}"


def read_samples(argument: str, values: Numbers) -> Tensor:
    """Read samples as a float64 tensor [n, K] on the CPU.

    Args:
        argument: Name used in the error text.
        values: [n] or [n, K], a tensor, an array or a (nested) sequence.

    Returns:
        Tensor [n, K], float64, K = 1 for one-dimensional samples.

    Raises:
        TypeError: If they are not real numbers.
        ValueError: If there are none, or the shape is another one.
        NumericalError: If one is NaN or Inf; names the first.
    """
    x = to_float64(argument, values)
    if x.ndim not in (1, 2) or x.numel() == 0:
        raise ValueError(
            complaint(
                argument,
                "a non-empty [n] or [n, K]",
                f"shape {list(x.shape)}",
                "Put the sample axis first and flatten the others.",
            )
        )
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        index = first[0] if x.ndim == 1 else first
        raise NumericalError(
            complaint(
                argument,
                "finite",
                f"{x[first].item()} at index {index} ({len(bad)} of {x.numel()} non-finite)",
                "A sample that is not a number cannot be evidence: fix the estimator.",
            )
        )
    return x if x.ndim == 2 else x.unsqueeze(1)


def read_coordinates(argument: str, values: Numbers, coordinates: int) -> Tensor:
    """Read a number per coordinate as a float64 tensor [K]; a scalar stands for all of them.

    Args:
        argument: Name used in the error text.
        values: A scalar or [K].
        coordinates: K.

    Returns:
        Tensor [K], float64.

    Raises:
        TypeError: If they are not real numbers.
        ValueError: If the shape is neither scalar nor [K].
        NumericalError: If one is NaN or Inf.
    """
    x = to_float64(argument, values)
    if x.shape not in (torch.Size([]), torch.Size([coordinates])):
        raise ValueError(
            complaint(
                argument,
                f"a scalar or of shape [{coordinates}], as the samples",
                f"shape {list(x.shape)}",
                "Give one number, or one per coordinate.",
            )
        )
    if not torch.isfinite(x).all():
        raise NumericalError(
            complaint(
                argument, "finite", x.tolist(), "Without a finite value there is nothing to check."
            )
        )
    return x.expand(coordinates)


def read_variance(values: Numbers, coordinates: int) -> Tensor:
    """Read a variance per coordinate.

    Args:
        values: A scalar or [K].
        coordinates: K.

    Returns:
        Tensor [K], float64, non-negative.

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it is negative, or of another shape.
        NumericalError: If it is NaN or Inf.
    """
    variance = read_coordinates("variance", values, coordinates)
    if (variance < 0).any():
        raise ValueError(
            complaint(
                "variance",
                "non-negative",
                variance.min().item(),
                "Pass an exact variance or an upper bound of it.",
            )
        )
    return variance


def check_probability(argument: str, value: float) -> None:
    """Check that a probability lies strictly between 0 and 1.

    Args:
        argument: Name used in the error text.
        value: The probability.

    Raises:
        ValueError: If it does not.
    """
    if not 0 < value < 1:
        raise ValueError(
            complaint(argument, "in (0, 1)", value, "Pass a probability such as 1e-9.")
        )


def to_float64(argument: str, values: Numbers) -> Tensor:
    """Convert real numbers to a float64 tensor on the CPU.

    Args:
        argument: Name used in the error text.
        values: A tensor, an array, a number or a (nested) sequence.

    Returns:
        Tensor of the same shape, float64, without gradient.

    Raises:
        TypeError: If they are not real numbers.
    """
    if isinstance(values, Tensor) and not values.is_complex():
        return values.detach().to("cpu", torch.float64)
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":  # Fraction and the like
            array = np.vectorize(float, otypes=[np.float64])(array)
        if array.dtype.kind in "biuf":
            return torch.from_numpy(array.astype(np.float64))
    except (TypeError, ValueError):
        pass
    raise TypeError(
        complaint(
            argument,
            "real numbers",
            getattr(values, "dtype", type(values).__name__),
            "Pass a tensor, an array or a sequence of floats, all rows of the same length.",
        )
    )
