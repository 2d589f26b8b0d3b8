"""Kernels as matrices over pairs (sample, class), and labels that fit them."""

import torch
from torch import Tensor

from ntktheory.checks import NumericalError, check_finite, complaint

PRECISIONS = (torch.float32, torch.float64)


def to_matrix(theta: Tensor) -> Tensor:
    """Return a kernel [N, M, C, C] as the matrix [N·C, M·C] with row index n·C + c.

    Raises:
        ValueError: If ``theta`` is not of shape [N, M, C, C].

    Example:
        >>> to_matrix(torch.eye(2)[None, None]).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if theta.ndim != 4 or theta.shape[2] != theta.shape[3]:
        raise ValueError(
            complaint(
                "theta",
                "of shape [N, M, C, C]",
                list(theta.shape),
                'Compute it with empirical_ntk(…, output="full").',
            )
        )
    n, m, c, _ = theta.shape
    return theta.permute(0, 2, 1, 3).reshape(n * c, m * c)


def rounding_level(eigenvalues: Tensor, size: int) -> float:
    """Return ``size · eps · max|λ|``: smaller eigenvalues of a computed kernel are rounding."""
    scale = float(eigenvalues.abs().max())
    return size * torch.finfo(eigenvalues.dtype).eps * scale


def check_positive(eigenvalues: Tensor, size: int) -> None:
    """Check that no eigenvalue is negative beyond rounding: Θ is positive semi-definite.

    Raises:
        NumericalError: If one is.
    """
    lowest = float(eigenvalues.min())
    if lowest < -rounding_level(eigenvalues, size):
        raise NumericalError(
            complaint(
                "eigenvalues",
                "non-negative up to rounding",
                f"{lowest:.3e} with the largest {float(eigenvalues.max()):.3e}",
                "Pass a positive semi-definite kernel, or compute it in float64.",
            )
        )


def check_precision(dtype: torch.dtype) -> None:
    """Check that eigenvalues can be computed in this precision.

    Raises:
        ValueError: If it is neither float32 nor float64.
    """
    if dtype not in PRECISIONS:
        raise ValueError(
            complaint(
                "model",
                "in torch.float32 or torch.float64",
                dtype,
                "Convert it with model.double().",
            )
        )


def check_labels(argument: str, y: Tensor, outputs: Tensor) -> Tensor:
    """Check that labels fit outputs [N, C].

    Args:
        argument: The name of ``y`` in error messages.
        y: The labels.
        outputs: Outputs that they belong to.

    Returns:
        The labels in the outputs' dtype.

    Raises:
        TypeError: If ``y`` is not a tensor.
        ValueError: If its shape or device differs.
        NumericalError: If it holds NaN or Inf.
    """
    if not isinstance(y, Tensor):
        raise TypeError(
            complaint(
                argument, "a torch.Tensor", type(y).__name__, "Convert it with torch.as_tensor."
            )
        )
    if y.shape != outputs.shape or y.device != outputs.device:
        raise ValueError(
            complaint(
                argument,
                f"of shape {list(outputs.shape)} on {outputs.device}, as the outputs",
                f"{list(y.shape)} on {y.device}",
                "Give one number per sample and output: encode class labels one-hot.",
            )
        )
    check_finite(argument, y, "Clean the labels: the input itself is already non-finite.")
    return y.to(outputs.dtype)
