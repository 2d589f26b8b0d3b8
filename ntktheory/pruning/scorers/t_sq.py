"""T_sq: the path surrogate of every parameter's share of the trace."""

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import record
from ntktheory.paths.networks import gated_squared_net
from ntktheory.paths.scales import presentable
from ntktheory.paths.survey import weighted_by_squares


def t_sq(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return ``θ_j² Σ_{x,c} Σ_{p∋j→c} a_p² x_p² w_pj²``, fixed edges squared.

    It is ``θ_j² Σ_{x,c} (∂f_c/∂θ_j)²`` without the cross terms between paths: no bound, but its mean
    where the weights are symmetric and independent. Under masks, paths run through kept parameters and
    dropped ones score 0.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask.
        x: The batch.

    Returns:
        Name -> score, for every parameter, shaped like it, in its dtype; if the largest does not fit,
        all divided by one power of two. Pure, and vmap-able over ``params``. Cost: two forward passes
        and one backward pass on x.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.

    Source:
        This project's. Tested against ``paths/reference.py``.
    """
    gates = record(model_fn, masked(params, masks), x).gates
    slopes = gated_squared_net(model_fn, params, masks, x, gates).scaled_by_parameter()
    return presentable(weighted_by_squares(params, masks, slopes))
