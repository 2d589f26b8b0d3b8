"""Eigenvalues of the NTK, what follows from them, and distances between two spectra."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    check_choice,
    check_count,
    check_finite,
    complaint,
)
from ntktheory.functional import FunctionalModel, Masks, Select
from ntktheory.ntk.eigsh import largest_eigenvalues
from ntktheory.ntk.kernel import empirical_ntk
from ntktheory.ntk.matrix import check_positive, check_precision, rounding_level, to_matrix
from ntktheory.ntk.operator import NTKOperator


@dataclass(frozen=True)
class NTKSpectrum:
    """Eigenvalues of a kernel Θ of size NC × NC, and numbers made of them.

    Eigenvalues are kept as computed: Θ has none below 0, but rounding gives null directions values
    of either sign. Those up to ``NC·eps·λ_max`` (``.rounding``; eps of the dtype) count as 0 in
    what follows from them, and only there.

    Attributes:
        eigenvalues: All NC, or the k largest; descending; in units of (output/parameter)².
        size: NC.

    Raises:
        NumericalError: If an eigenvalue is below ``−NC·eps·λ_max``, so that Θ was no kernel.

    Example:
        >>> spectrum = NTKSpectrum(torch.tensor([2.0, 2.0, 0.0]), size=3)
        >>> spectrum.rank, spectrum.condition_number, round(spectrum.effective_rank, 6)
        (2, inf, 2.0)
    """

    eigenvalues: Tensor
    size: int

    def __post_init__(self) -> None:
        check_positive(self.eigenvalues, self.size)

    @property
    def complete(self) -> bool:
        """Whether all NC eigenvalues are here."""
        return len(self.eigenvalues) == self.size

    @property
    def rounding(self) -> float:
        """``NC·eps·λ_max``: eigenvalues up to here count as 0."""
        return rounding_level(self.eigenvalues, self.size)

    @property
    def rank(self) -> int:
        """How many eigenvalues do not count as 0; needs the complete spectrum.

        Raises:
            ValueError: If only the k largest eigenvalues were computed.
        """
        self._require_all(".rank")
        return int((self.eigenvalues > self.rounding).sum())

    @property
    def condition_number(self) -> float:
        """``λ_max / λ_min``, and inf if λ_min counts as 0; needs the complete spectrum.

        Raises:
            ValueError: If only the k largest eigenvalues were computed.
        """
        self._require_all(".condition_number")
        lowest = float(self.eigenvalues[-1])
        return float(self.eigenvalues[0]) / lowest if lowest > self.rounding else float("inf")

    @property
    def effective_rank(self) -> float:
        """``exp(−Σ p ln p)``, ``p = λ/Σλ``: a number from 1 to NC, and 0 for Θ = 0.

        The exponential of the entropy of the normalised eigenvalues (Roy and Vetterli 2007); r equal
        eigenvalues and zeros give r. Needs the complete spectrum.

        Raises:
            ValueError: If only the k largest eigenvalues were computed.
        """
        self._require_all(".effective_rank")
        p = self._counted()
        return float(torch.special.entr(p / p.sum()).sum().exp()) if len(p) else 0.0

    @property
    def participation_ratio(self) -> float:
        """``(Σλ)²/Σλ²``: the other usual effective rank, at most ``.effective_rank``; 0 for Θ = 0.

        Raises:
            ValueError: If only the k largest eigenvalues were computed.
        """
        self._require_all(".participation_ratio")
        p = self._counted()
        return float(p.sum().square() / p.square().sum()) if len(p) else 0.0

    def _counted(self) -> Tensor:
        """Return the eigenvalues that do not count as 0, relative to the largest, in float64."""
        values = self.eigenvalues[self.eigenvalues > self.rounding].double()
        return values / values[0] if len(values) else values

    def _require_all(self, quantity: str) -> None:
        if not self.complete:
            raise ValueError(
                complaint(
                    "k",
                    f"None for {quantity}",
                    f"the {len(self.eigenvalues)} largest of {self.size} eigenvalues",
                    "Compute the complete spectrum: the smallest eigenvalues are needed too.",
                )
            )


def ntk_spectrum(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    k: int | None = None,
    select: Select = None,
    masks: Masks | None = None,
) -> NTKSpectrum:
    """Compute the eigenvalues of ``Θ = J Jᵀ``, all of them or the k largest; sums, never means.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x: N samples, sample axis first.
        k: None for all N·C from the kernel itself; a number below N·C for the k largest from
            products with Θ only, copies included; N·C is the same as None.
        select: None for all parameters, "prunable", names, or ``predicate(name, tensor)``.
        masks: Parameter name -> mask; the network is f(θ⊙m, x), differentiated with respect to θ.

    Returns:
        The spectrum, in the model's dtype and device. With k, the numbers that need the smallest
        eigenvalues (``.condition_number``, ``.effective_rank``, …) are errors.

    Raises:
        ValueError: If k, the batch, a mask or ``select`` does not fit, the model is in train mode,
            or it computes in another precision than float32 or float64.
        NumericalError: If the kernel is not finite, or ARPACK does not converge.

    Cost:
        k=None: the kernel, (NC)² numbers, and O((NC)³) for its eigenvalues. Else some tens to
        hundreds of products (``NTKOperator``), one vector at a time, and NC·(k + 20) numbers.

    Source:
        NTK-SAP App. G and PX Fig. 5 plot these. Tested against ``ntk/reference.py``.

    Example:
        >>> net = nn.Linear(2, 3, bias=False)
        >>> spectrum = ntk_spectrum(net, torch.tensor([[3.0, 4.0]]))
        >>> spectrum.eigenvalues, spectrum.condition_number
        (tensor([25., 25., 25.]), 1.0)
    """
    check_count("k", k)
    operator = NTKOperator(model, x, select=select, masks=masks)
    check_precision(operator.dtype)
    size = operator.shape[0]
    if k is not None and k > size:
        raise ValueError(
            complaint("k", f"at most N·C = {size}", k, "Leave it out for the complete spectrum.")
        )
    if k is None or k == size:
        theta = to_matrix(empirical_ntk(operator.model, x, select=operator.names, masks=masks))
        return NTKSpectrum(torch.linalg.eigvalsh(theta).flip(0), size)
    values = torch.from_numpy(largest_eigenvalues(operator.to_scipy(), k))
    return NTKSpectrum(values.to(operator.device), size)


def spectral_distance(
    a: NTKSpectrum | Tensor, b: NTKSpectrum | Tensor, *, norm: str = "l2"
) -> Tensor:
    """Compute how far spectrum b (pruned) is from spectrum a (dense), eigenvalue by eigenvalue.

    With both spectra sorted descending, λ of a and μ of b:

    * "l2": ``‖λ − μ‖₂ / ‖λ‖₂``;
    * "l2_normalised": the same for ``λ/Σλ`` and ``μ/Σμ``, which compares shapes and not scales;
    * "l1": ``Σ|λ − μ| / Σ|λ|``, the Wasserstein-1 distance of the two spectra relative to the mean
      eigenvalue of a.

    Not symmetric: a is what b is measured by. Eigenvalues are used as they are, rounding included.

    Args:
        a: The spectrum to compare with, or its eigenvalues [K].
        b: The other spectrum of the same size.
        norm: "l2", "l2_normalised" or "l1".

    Returns:
        A 0-dim tensor, without unit, 0 for equal spectra. For the k largest eigenvalues of two
        spectra, "l2" and "l1" are those of the k pairs.

    Raises:
        TypeError: If a or b is neither a spectrum nor a tensor.
        ValueError: If ``norm`` is unknown, the spectra differ in size, or "l2_normalised" is asked
            for with less than the complete spectra.
        NumericalError: If an eigenvalue is not finite, or a (or, normalised, b) is zero.

    Source:
        The closeness of dense and pruned spectra in PX Fig. 5 and NTK-SAP App. G, as a number.

    Example:
        >>> spectral_distance(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0]))
        tensor(1.)
    """
    check_choice("norm", norm, DISTANCES)
    first, second = _eigenvalues("a", a), _eigenvalues("b", b)
    sizes = [s.size if isinstance(s, NTKSpectrum) else len(s) for s in (a, b)]
    if first.shape != second.shape or sizes[0] != sizes[1]:
        raise ValueError(
            complaint(
                "b",
                f"a spectrum of {len(first)} of {sizes[0]} eigenvalues, like a",
                f"{len(second)} of {sizes[1]}",
                "Compute both on the same batch, with the same k.",
            )
        )
    if norm == "l2_normalised" and len(first) < sizes[0]:
        raise ValueError(
            complaint(
                "norm",
                '"l2" or "l1" for spectra that are not complete',
                f"{norm!r} for the {len(first)} largest of {sizes[0]} eigenvalues",
                "The trace needs them all: compute the spectra with k=None.",
            )
        )
    for argument, values in (("a", first), ("b", second)):
        if not bool(values.any()) and (argument == "a" or norm == "l2_normalised"):
            raise NumericalError(
                complaint(
                    argument,
                    "a spectrum with an eigenvalue other than 0",
                    "only zeros",
                    "The network does not depend on its parameters: look for a collapsed layer.",
                )
            )
    return DISTANCES[norm](first, second)


def _l2(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).norm() / a.norm()


def _l2_normalised(a: Tensor, b: Tensor) -> Tensor:
    return _l2(a / a.sum(), b / b.sum())


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum() / a.abs().sum()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": _l2,
    "l2_normalised": _l2_normalised,
    "l1": _l1,
}


def _eigenvalues(argument: str, spectrum: NTKSpectrum | Tensor) -> Tensor:
    values = spectrum.eigenvalues if isinstance(spectrum, NTKSpectrum) else spectrum
    if not isinstance(values, Tensor):
        raise TypeError(
            complaint(
                argument,
                "an NTKSpectrum or a torch.Tensor",
                type(values).__name__,
                "Compute it with ntk_spectrum.",
            )
        )
    if values.ndim != 1 or not len(values):
        raise ValueError(
            complaint(
                argument,
                "eigenvalues of shape [K]",
                f"shape {list(values.shape)}",
                "Compute them with ntk_spectrum.",
            )
        )
    check_finite(argument, values, "Compute the spectrum in float64, or rescale the parameters.")
    return values.sort(descending=True).values
