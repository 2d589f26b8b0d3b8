"""Path edge: every parameter's own share of R_edge."""

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params
from ntktheory.paths.networks import ones_net
from ntktheory.paths.scales import presentable
from ntktheory.paths.survey import survey, weighted_by_squares


def path_edge(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Params:
    """Return ``θ_j² A_j B_j``, the saliency of ``R_edge = Σ_j A_j B_j`` at each parameter's own term.

    ``A_j = Σ_x Σ_{p∋j} a_p² x_p²`` comes from the gated ones net on x², ``B_j = Σ_{p∋j} w_pj²`` from the
    squared net. It bounds ``θ_j² Σ_{x,c} (∂f_c/∂θ_j)²``, and depends on the data parameter by parameter.
    Under masks, paths run through kept parameters and dropped ones score 0.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask.
        x: The batch.

    Returns:
        Name -> score, for every parameter, shaped like it, in its dtype; if the largest does not fit,
        all divided by one power of two. Pure, and vmap-able over ``params``. Cost: two forward passes
        and one backward pass on x, and one of each on one sample; without masks the passes after the
        first cost little more than the gradients of the weights.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.

    Source:
        This project's. Tested against ``paths/reference.py``.
    """
    net = survey(model_fn, params, masks, x)
    a = ones_net(model_fn, params, masks, x, net.run.gates).scaled_by_parameter()
    slopes = {name: a[name].times(b) for name, b in net.b.items()}
    return presentable(weighted_by_squares(params, masks, slopes))
