"""The saliency of the literal bound R_PX, which is not the one PX uses."""

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.paths.networks import squared_weights
from ntktheory.paths.passes import Powers, Weights, run_values
from ntktheory.paths.scales import Scaled, power, presentable, unscaled
from ntktheory.paths.survey import survey, weighted_by_squares


def px_bound(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return ``θ_j² ∂R_PX/∂θ_j²`` with ``R_PX = (Σ_{n,c} z1_nc) Σ_i ∂z₂/∂θ_i²``, gates held fixed.

    ``Σ_i ∂z₂/∂θ_i²`` is the derivative of the squared net along the all-ones direction (kept
    parameters only), so one forward-mode and one reverse pass give the score.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask.
        x: The batch.

    Returns:
        Name -> score, for every parameter, shaped like it, in its dtype; if the largest does not fit,
        all divided by one power of two. Pure, and vmap-able over ``params``.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.

    Source:
        PX, Eq. 6, differentiated as printed.
    """
    net = survey(model_fn, params, masks, x)
    squares, ones = squared_weights(params, masks), unscaled(torch.ones_like(x[:1]))
    along = {name: kept * power(-squares.exponents[name]) for name, kept in net.ones.theta.items()}

    def z2(theta: Params) -> tuple[Tensor, Tensor]:
        z = run_values(model_fn, Weights(theta, squares.exponents), ones, None, Powers())
        return z.mantissa.sum(), z.exponent

    def path_kernel_trace(theta: Params) -> tuple[Tensor, Tensor]:
        """Return ``Tr Π = Σ_i ∂z₂/∂θ_i²``, as mantissa and exponent."""
        _, trace, exponent = torch.func.jvp(z2, (theta,), (along,), has_aux=True)  # type: ignore[misc]
        return trace, exponent

    gradient, exponent = torch.func.grad(path_kernel_trace, has_aux=True)(squares.theta)
    data = net.z1.sum()
    slopes = {
        name: Scaled(g, exponent - squares.exponents[name]).times(data)
        for name, g in gradient.items()
    }
    return presentable(weighted_by_squares(params, masks, slopes))
