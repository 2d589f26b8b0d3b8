"""The oracle of path scores: every weight's exact share of the NTK's trace."""

import torch
from torch import Tensor

from ntktheory.checks import check_count
from ntktheory.functional import Masks, ModelFn, Params, masked, take
from ntktheory.ntk.layerwise import plan
from ntktheory.ntk.trace import diagonal, planned_chunk


def ntk_trace(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Tensor,
    names: tuple[str, ...],
    *,
    chunk_size: int | None = None,
) -> Params:
    """Return ``θ_j² Σ_{n,c} (∂f_c(x_n)/∂θ_j)²`` of the network f(θ⊙m), exactly; sums, never means.

    It is what ``t_sq``, ``path_edge`` and ``px`` stand for: the size, to first order, of what f loses
    with the weight. The derivative by θ carries the factor m_j, so dropped weights score 0.

    Args:
        model_fn: The network.
        params: θ, unmasked.
        masks: Parameter name -> mask.
        x: The batch.
        names: The parameters to score.
        chunk_size: Samples at a time; None plans it from a budget of 256 MiB.

    Returns:
        Name -> score, shaped like the parameter, in its dtype. Pure, and vmap-able over ``params`` and
        ``masks``. Cost: one forward pass, C backward passes, and C weight gradients of every sample.

    Raises:
        ValueError: If ``chunk_size`` is no positive integer.

    Source:
        This project's. Tested against ``ntk/reference.py``.

    Example:
        >>> weight = {"weight": torch.tensor([[1.0, 2.0]])}
        >>> linear = lambda params, x: x @ params["weight"].T
        >>> ntk_trace(linear, weight, None, torch.ones(3, 2), ("weight",))
        {'weight': tensor([[ 3., 12.]])}
    """
    check_count("chunk_size", chunk_size)
    effective = masked(params, masks)
    layers = plan(model_fn, effective, x)
    n, c = x.shape[0], model_fn(effective, x[:1]).shape[1]
    size = chunk_size or planned_chunk(layers, params, names, x, c, patches=True)
    chunks = [
        diagonal(model_fn, params, masks, take(x, i, i + size), names, layers)
        for i in range(0, n, size)
    ]
    return {
        name: params[name].square() * torch.stack([chunk[name] for chunk in chunks]).sum(0)
        for name in names
    }
