"""PX: the saliency of Path eXclusion."""

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.paths.scales import Scaled, presentable
from ntktheory.paths.survey import survey, weighted_by_squares


def px(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return PX's saliency ``θ_j² ∂Z/∂θ_j²`` with ``Z = Σ_{n,c} z1_nc z2_c``.

    ``z1_nc = Σ_{p→c} a_p² x_p²`` (the gated ones net on x²) is held fixed, and
    ``z2_c = Σ_{p→c} v_p²`` (the squared net). The data enter through the C numbers Σ_n z1_nc only.
    Under masks, paths run through kept parameters and dropped ones score 0.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask.
        x: The batch.

    Returns:
        Name -> score, for every parameter, shaped like it, in its dtype; if the largest does not fit,
        all divided by one power of two. Pure, and vmap-able over ``params``. Cost: two forward passes
        on x, the second much cheaper without masks, and one forward and backward pass on one sample.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.

    Source:
        PX, Eq. 9. Tested against ``paths/reference.py``.
    """
    net = survey(model_fn, params, masks, x)
    data = Scaled(net.z1.mantissa.sum(0, keepdim=True), net.z1.exponent)
    slopes = net.squared.scaled_gradient(data)
    return presentable(weighted_by_squares(params, masks, slopes))
