"""SynFlow-L2: the squared-weight version of SynFlow."""

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.paths.networks import squared_net
from ntktheory.paths.scales import presentable
from ntktheory.paths.survey import weighted_by_squares


def synflow_l2(model_fn: ModelFn, params: Params, masks: Masks | None, like: Tensor) -> Params:
    """Return ``θ_j² ∂z₂/∂θ_j²`` with ``z₂ = Σ_p v_p²``, the squared net on ones.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask; dropped parameters score 0.
        like: An input or a batch; only its shape and dtype matter.

    Returns:
        Name -> score, for every parameter, shaped like it, in its dtype; if the largest does not fit,
        all divided by one power of two. Pure, and vmap-able over ``params``.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.

    Source:
        Gebhart et al. 2021 and PX; SynFlow is Tanaka et al. 2020.
    """
    slopes = squared_net(model_fn, params, masks, like).scaled_by_parameter()
    return presentable(weighted_by_squares(params, masks, slopes))
