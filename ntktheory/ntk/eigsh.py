"""The k largest eigenvalues of an operator by ARPACK, with none missed.

Kernels have eigenvalues of high multiplicity (C copies of each for a linear network), and a Krylov
space grown from one vector holds one copy of each: ARPACK then returns smaller ones in their place
without a word. So what is left after removing the found eigenvectors is searched again, until its
largest eigenvalue is no larger than the smallest one found.
"""

from typing import Any

import numpy as np
import torch

from ntktheory.checks import NumericalError, complaint
from ntktheory.ntk.lanczos import lanczos

SCALE_STEPS = 8


def largest_eigenvalues(operator: Any, k: int) -> np.ndarray:
    """Return the k largest eigenvalues of a symmetric operator, descending, copies included.

    ARPACK starts from seeded vectors, so the same operator gives the same numbers.

    Args:
        operator: A scipy LinearOperator, [n, n], in float32 or float64, positive semi-definite.
        k: How many, at most n − 1.

    Returns:
        The eigenvalues [k], exact to about √n·eps of the largest.

    Raises:
        NumericalError: If ARPACK does not converge.

    Cost:
        ARPACK's run for k eigenvalues, one more for the largest of the rest, and one more for each
        missed copy; memory n·(k + 20) numbers.

    Source:
        Lehoucq, Sorensen and Yang, ARPACK Users' Guide (1998). Tested against dense eigenvalues.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> largest_eigenvalues(aslinearoperator(np.diag([5.0, 1.0, 5.0, 2.0])), 2).round(12).tolist()
        [5.0, 5.0]
    """
    n, dtype = operator.shape[0], np.dtype(operator.dtype)
    random = np.random.default_rng(0)
    scale = _scale(operator, random.standard_normal(n).astype(dtype))
    if scale == 0:
        return np.zeros(k, dtype)
    tolerance = n**0.5 * float(np.finfo(dtype).eps)
    vectors, values = np.zeros((n, 0), dtype), np.zeros(0, dtype)
    for search in range(n - k + 1):
        # A fresh start: the last one has no part in the copies that it missed.
        start = random.standard_normal(n).astype(dtype)
        value, vector = _eigsh(operator, 1 if search else k, start, scale, vectors, tolerance)
        if search and value[0] <= values[k - 1] + 10 * tolerance * scale:
            break
        vectors = np.linalg.qr(np.hstack([vectors, vector]))[0]
        values = np.sort(np.append(values, value))[::-1][:k]
    return values.copy()


def _scale(operator: Any, start: np.ndarray) -> float:
    """Estimate the largest eigenvalue from below; 0 for the zero operator."""
    steps = min(SCALE_STEPS, operator.shape[0])

    def products(v: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(operator.matmat(v.detach().numpy().astype(start.dtype)))

    alpha, beta = lanczos(products, torch.from_numpy(start[:, None]), steps)
    T = torch.diag(alpha[0]) + torch.diag(beta[0], 1) + torch.diag(beta[0], -1)
    return float(torch.linalg.eigvalsh(T).abs().max())


def _eigsh(
    operator: Any, k: int, start: np.ndarray, scale: float, found: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest eigenpairs of ``P A P``, P the projector off the found eigenvectors.

    ARPACK's tolerance is relative to each eigenvalue, and rounding is relative to the largest: the
    shift by ``scale`` lets small eigenvalues converge too, and leaves Krylov spaces as they are.

    Args:
        operator: A, positive semi-definite.
        k: How many.
        start: Where to start from, [n].
        scale: About the largest eigenvalue of A.
        found: Eigenvectors to leave out, orthonormal columns.
        tolerance: Relative to the scale.

    Returns:
        Eigenvalues and eigenvectors, in any order.

    Raises:
        NumericalError: If ARPACK does not converge.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    dtype = start.dtype

    def project(v: np.ndarray) -> np.ndarray:
        return v - found @ (found.T @ v)

    def apply(v: np.ndarray) -> np.ndarray:
        v = project(v.reshape(-1).astype(dtype))
        return project(operator.matvec(v) + dtype.type(scale) * v)

    shifted = LinearOperator(operator.shape, matvec=apply, dtype=dtype)
    try:
        values, vectors = eigsh(shifted, k=k, which="LA", v0=project(start), tol=tolerance)
    except ArpackError as error:
        raise NumericalError(
            complaint(
                "operator",
                "one whose eigenvalues ARPACK can find",
                str(error),
                "Use k=None, a smaller k, or float64.",
            )
        ) from error
    return values - dtype.type(scale), vectors
