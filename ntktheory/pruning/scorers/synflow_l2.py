"""SynFlow-L2: the squared-weight version of SynFlow."""

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.networks import squared_net


def synflow_l2(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return ``θ_j² ∂z₂/∂θ_j²`` with ``z₂ = Σ_p v_p²``, the squared net on ones.

    Args:
        model_fn: The network; its squared net must not need gates.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask; dropped parameters score 0.
        x: A batch; only its shape and dtype matter.

    Returns:
        Name -> score, for every parameter, shaped like it. Pure, and vmap-able over ``params``.

    Source:
        Gebhart et al. 2021 and PX; SynFlow is Tanaka et al. 2020.
    """
    slopes = squared_net(model_fn, params, masks, x).by_parameter()
    effective = masked(params, masks)
    return {name: effective[name].square() * slope for name, slope in slopes.items()}
