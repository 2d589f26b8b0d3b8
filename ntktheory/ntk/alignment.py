"""How well the NTK is aligned with the labels."""

from typing import Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import NumericalError, check_choice, check_finite, complaint
from ntktheory.functional import FunctionalModel, Masks, Select
from ntktheory.ntk.kernel import empirical_ntk
from ntktheory.ntk.matrix import check_labels

Output = Literal["full", "trace"]


def label_alignment(
    model: nn.Module | FunctionalModel | Tensor,
    x: Tensor | None,
    y: Tensor,
    *,
    output: Output = "full",
    centred: bool = False,
    select: Select = None,
    masks: Masks | None = None,
) -> Tensor:
    """Compute the alignment ``⟨Θ, K_y⟩_F / (‖Θ‖_F ‖K_y‖_F)`` of the NTK with the labels' kernel.

    * "full": Θ over pairs (n, c), and ``K_y = vec(y) vec(y)ᵀ``: the alignment is
      ``yᵀ Θ y / (‖Θ‖_F ‖y‖²)``;
    * "trace": ``Θ[n, m] = Σ_c Theta[n, m, c, c]``, and ``K_y = y yᵀ``, both [N, N].

    Centred, every kernel loses its mean over samples, ``H K H`` with ``H = I − 11ᵀ/N`` on the sample
    axes (class by class), as in centred kernel alignment; raw otherwise.

    Args:
        model: A network in eval mode with outputs [N, C]; or a kernel, of shape [N, N, C, C]
            ("full") or [N, N] ("trace").
        x: N samples, sample axis first; None for a kernel.
        y: Labels [N, C], one-hot or any numbers.
        output: Which kernel: "full" or "trace"; a kernel of shape [N, N] needs "trace".
        centred: Whether to centre over samples.
        select: Which parameters, if ``model`` is a network.
        masks: Parameter name -> mask, if ``model`` is a network.

    Returns:
        A 0-dim tensor in [0, 1] up to rounding, in the kernel's dtype.

    Raises:
        TypeError: If ``x`` is missing for a network or given with a kernel, or ``y`` is no tensor.
        ValueError: If ``output`` is unknown, or the kernel or the labels do not fit.
        NumericalError: If a number is not finite, or a kernel is 0, as a centred one is for
            constant labels.

    Cost:
        The kernel (``empirical_ntk``) and one pass over it.

    Source:
        Cristianini et al. 2001; centred: Cortes, Mohri and Rostamizadeh 2012. Tested against their
        definitions with explicit kernels.

    Example:
        >>> y = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(label_alignment(y @ y.T, None, y, output="trace").item(), 6)
        1.0
    """
    check_choice("output", output, ("full", "trace"))
    theta = _kernel(model, x, output, select, masks)
    classes = theta.shape[-1]
    if output == "trace":  # the kernel no longer knows how many
        classes = y.shape[1] if isinstance(y, Tensor) and y.ndim == 2 else 1
    y = check_labels("y", y, theta.new_empty(theta.shape[0], classes))
    if centred:
        y = y - y.mean(0)
        theta = theta - theta.mean(0, keepdim=True)
        theta = theta - theta.mean(1, keepdim=True)
    return alignment(theta, y)


def alignment(theta: Tensor, y: Tensor) -> Tensor:
    """Return ``⟨Θ, K_y⟩ / (‖Θ‖ ‖K_y‖)`` for Θ [N, N, C, C] or [N, N] and y [N, C].

    Raises:
        NumericalError: If Θ or y is 0.
    """
    for argument, value in (("Theta", theta), ("y", y)):
        if not bool(value.any()):
            raise NumericalError(
                complaint(
                    argument,
                    "other than 0",
                    "only zeros",
                    "Centred, constants become 0; else look for a collapsed layer or empty labels.",
                )
            )
    if theta.ndim == 4:
        product = torch.einsum("nc,nmcd,md->", y, theta, y)
        return product / (theta.norm() * y.square().sum())
    return torch.einsum("nc,nm,mc->", y, theta, y) / (theta.norm() * (y.T @ y).norm())


def _kernel(
    model: nn.Module | FunctionalModel | Tensor,
    x: Tensor | None,
    output: Output,
    select: Select,
    masks: Masks | None,
) -> Tensor:
    given = isinstance(model, Tensor)
    if given == (x is not None):
        raise TypeError(
            complaint(
                "x",
                "None with a kernel and a batch with a network",
                f"{'a batch' if given else 'nothing'} with {type(model).__name__}",
                "Pass label_alignment(model, x, y) or label_alignment(kernel, None, y).",
            )
        )
    if not isinstance(model, Tensor):
        return empirical_ntk(model, x, output=output, select=select, masks=masks)  # type: ignore[arg-type]
    ndim = 4 if output == "full" else 2
    square = model.ndim == ndim and model.shape[0] == model.shape[1]
    if not square or model.numel() == 0 or model.shape[-1] != model.shape[-2]:
        raise ValueError(
            complaint(
                "model",
                f"a kernel of shape {'[N, N, C, C]' if ndim == 4 else '[N, N]'} for {output!r}",
                list(model.shape),
                "Choose the output that the kernel was computed with.",
            )
        )
    check_finite("model", model, "The kernel itself is non-finite.")
    return model
