"""Magnitude: the size of a weight."""

from collections.abc import Sequence

from ntktheory.functional import Masks, Params, masked


def magnitude(params: Params, masks: Masks | None, names: Sequence[str]) -> Params:
    """Return ``|θ_j|``, and 0 for dropped weights.

    At an initialisation N(0, σ_l²) per layer, the share of layer l above a threshold t is
    ``2 Q(t/σ_l)``, Q the tail of the standard normal: wide layers lose most.

    Args:
        params: The parameters, unmasked.
        masks: Parameter name -> mask.
        names: Those that are scored.

    Returns:
        Name -> score, shaped like the parameter. Pure, and vmap-able.

    Cost:
        No pass.

    Source:
        Janowsky 1989; Han et al. 2015, there after training.

    Example:
        >>> magnitude({"weight": torch.tensor([[-2.0, 1.0]])}, None, ["weight"])
        {'weight': tensor([[2., 1.]])}
    """
    effective = masked({name: params[name] for name in names}, masks)
    return {name: effective[name].abs() for name in names}
