"""What the trace estimators accept: a square matrix known by its products only, and probes for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import NumericalError, complaint
from ntktheory.probes import Law, sample_gaussian, sample_rademacher

LAWS: tuple[Law, ...] = ("rademacher", "gaussian")
DTYPES = (torch.float32, torch.float64)
SAMPLERS = {"rademacher": sample_rademacher, "gaussian": sample_gaussian}

MatMat = Callable[[Tensor], Tensor]
"""``V [n, K] -> A V [n, K]``."""


class Products:
    """The products ``V -> A V`` of a square matrix A of order n, checked and counted.

    ========================================  ===================================================
    operator                                  products
    ========================================  ===================================================
    a dense tensor [n, n]                     ``A @ V``
    with ``.matmat`` (``NTKOperator``)        ``A.matmat(V)``, V [n, K]
    with ``.matvec`` only                     ``A.matvec(v)``, column by column
    either of these with a NumPy ``.dtype``   the same on NumPy arrays (scipy's LinearOperator)
    ========================================  ===================================================

    An operator also has ``.shape``; ``.dtype`` and ``.device`` where they are not float64 and the
    CPU. Integer NumPy types are computed in float64. Symmetry is not checked: that would take n
    products.

    Args:
        operator: A.

    Attributes:
        size: n.
        dtype: torch.float32 or torch.float64: that of probes and products.
        device: Their device.
        count: How many products were taken so far.

    Raises:
        TypeError: If ``operator`` is none of the above, or computes in other numbers.
        ValueError: If it is not square.

    Example:
        >>> A = Products(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
        >>> A(torch.eye(2)), A.count
        (tensor([[2., 1.],
                [1., 3.]]), 2)
    """

    def __init__(self, operator: Any) -> None:
        self.size = _order(operator)
        self._in_numpy = isinstance(getattr(operator, "dtype", None), np.dtype)
        self.dtype = _number_type(operator)
        self.device = torch.device("cpu" if self._in_numpy else getattr(operator, "device", "cpu"))
        self._many: Any = operator.__matmul__ if isinstance(operator, Tensor) else None
        self._many = self._many or getattr(operator, "matmat", None)
        self._one: Any = getattr(operator, "matvec", None)
        self.count = 0
        if self._many is None and self._one is None:
            raise TypeError(
                complaint(
                    "operator",
                    "a tensor, or an object with matmat or matvec",
                    type(operator).__name__,
                    "Convert arrays with torch.as_tensor, sparse ones with scipy's aslinearoperator.",
                )
            )

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return ``A V`` for V [n, K].

        Raises:
            ValueError: If the operator returns another shape.
            NumericalError: If a product is not finite; names the first, counted from 0 over all
                calls.
        """
        try:
            result = self._apply(vectors)
        except NumericalError:  # the operator's own check: find out which product
            result = torch.cat([self._single(v, k) for k, v in _columns(vectors)], dim=1)
        if result.shape != vectors.shape:
            raise ValueError(
                complaint(
                    "operator",
                    f"one whose products have shape {list(vectors.shape)}",
                    list(result.shape),
                    "matmat maps [n, K] to [n, K], matvec [n] to [n].",
                )
            )
        bad = (~torch.isfinite(result)).nonzero()
        if len(bad):
            raise NumericalError(_not_finite(self.count + int(bad[:, 1].min())))
        self.count += vectors.shape[1]
        return result

    def _apply(self, vectors: Tensor) -> Tensor:
        if self._many is not None:
            return self._taken(self._many(self._given(vectors)))
        columns = [self._taken(self._one(self._given(v))) for v in vectors.unbind(1)]
        return torch.stack(columns, dim=1)

    def _given(self, vectors: Tensor) -> Any:
        return vectors.numpy() if self._in_numpy else vectors

    def _taken(self, result: Any) -> Tensor:
        return torch.as_tensor(result).to(self.device, self.dtype)

    def _single(self, v: Tensor, k: int) -> Tensor:
        try:
            return self._apply(v)
        except NumericalError as error:
            raise NumericalError(_not_finite(self.count + k)) from error


def draw(operator: Products, law: Law, count: int, generator: torch.Generator) -> Tensor:
    """Draw K probes of mean 0 and unit variance for an operator.

    Args:
        operator: The products; they give size, dtype and device.
        law: "rademacher" or "gaussian".
        count: K.
        generator: Source of randomness. Numbers are drawn on its device and then moved.

    Returns:
        The probes [n, K].

    Raises:
        TypeError: If generator is not a torch.Generator.
    """
    like = torch.empty(operator.size, dtype=operator.dtype, device=operator.device)
    return SAMPLERS[law]({"z": like}, count, generator=generator)["z"].mT.contiguous()


def check_number(
    argument: str, value: Any, lowest: int, highest: int | None = None, *, even: bool = False
) -> None:
    """Check how many products or probes an estimator is to take.

    Args:
        argument: Name used in the error text.
        value: The number.
        lowest: The least that it needs.
        highest: The most that it can use; None means any number.
        even: Whether the number must be even.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is out of range, or odd and must not be.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(complaint(argument, "an int", repr(value), "Pass how many to take."))
    if highest is not None and value > highest:
        raise ValueError(
            complaint(
                argument,
                f"at most {highest}",
                value,
                "Products with the columns of the identity give the exact trace, in n of them.",
            )
        )
    if value < lowest or (even and value % 2):
        kind = "an even number of" if even else "a number of"
        raise ValueError(
            complaint(argument, f"{kind} at least {lowest}", value, "Take as many as are needed.")
        )


def _columns(vectors: Tensor) -> enumerate[Tensor]:
    return enumerate(vectors.split(1, dim=1))


def _not_finite(index: int) -> str:
    return complaint(
        "operator",
        "one with finite products",
        f"NaN or Inf in product {index}, counted from 0",
        "The probes were finite: rescale the operator or use float64.",
    )


def _order(operator: Any) -> int:
    shape = getattr(operator, "shape", None)
    if shape is None:
        raise TypeError(
            complaint(
                "operator",
                "a tensor, or an object with shape and matmat or matvec",
                type(operator).__name__,
                "Wrap the products into such an object.",
            )
        )
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(
            complaint(
                "operator",
                "square, of shape [n, n]",
                list(shape),
                "A trace is that of a square matrix.",
            )
        )
    return int(shape[0])


def _number_type(operator: Any) -> torch.dtype:
    given = getattr(operator, "dtype", torch.float64)
    known = given
    if isinstance(given, np.dtype):
        known = torch.float64 if given.kind in "biu" else getattr(torch, given.name, None)
    if known not in DTYPES:
        raise TypeError(
            complaint(
                "operator",
                "of float32 or float64 numbers",
                given,
                "Convert it: orthogonal bases need one of these.",
            )
        )
    return known
