"""SynFlow-L2: the squared-weight version of SynFlow."""

from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.networks import squared_net
from ntktheory.paths.scales import normalised, presentable
from ntktheory.paths.survey import weighted_by_squares


def synflow_l2(
    model_fn: ModelFn, params: Params, masks: Masks | None, like: Tensor, power: int = 2
) -> Params:
    """Return ``|θ_j|^power ∂z₂/∂θ_j²`` with ``z₂ = Σ_p v_p²``, the squared net on ones.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Parameter name -> mask; dropped parameters score 0.
        like: An input or a batch; only its shape and dtype matter.
        power: 2 for the saliency of z₂, which layer by layer has the same sum; 1 as public codes
            multiply, which prefers small weights.

    Returns:
        Name -> score, for every parameter, shaped like it, in its dtype; if the largest does not fit,
        all divided by one power of two. Pure, and vmap-able over ``params`` and ``masks``.

    Raises:
        ValueError: If ``power`` is neither 1 nor 2.
        UnsupportedModule: If the network calls a function without a path rule.

    Cost:
        One forward and backward pass on one sample.

    Source:
        Gebhart et al. 2021 and PX; SynFlow is Tanaka et al. 2020.

    Example:
        >>> from ntktheory import functional
        >>> net = functional(nn.Linear(2, 1, bias=False))
        >>> w = {"weight": torch.tensor([[2.0, -3.0]])}
        >>> synflow_l2(net.model_fn, w, None, torch.zeros(1, 2))
        {'weight': tensor([[4., 9.]])}
    """
    if power not in (1, 2):
        raise ValueError(
            complaint("power", "1 or 2", repr(power), "2 is the saliency; public codes have 1.")
        )
    slopes = squared_net(model_fn, params, masks, like).scaled_by_parameter()
    if power == 2:
        return presentable(weighted_by_squares(params, masks, slopes))
    sizes = {name: normalised(w.abs()) for name, w in masked(params, masks).items()}
    return presentable({name: sizes[name].times(slope) for name, slope in slopes.items()})
