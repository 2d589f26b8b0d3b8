"""The saliency of the literal bound R_PX, which is not the one PX uses."""

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import record, replay
from ntktheory.paths.networks import ones_net


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
        Name -> score, for every parameter, shaped like it. Pure, and vmap-able over ``params``.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.

    Source:
        PX, Eq. 6, differentiated as printed.
    """
    effective = masked(params, masks)
    gates = record(model_fn, effective, x).gates
    data = ones_net(model_fn, params, masks, x, gates).z.sum()
    squares = {name: p.square() for name, p in effective.items()}
    kept = masked({name: torch.ones_like(p) for name, p in params.items()}, masks)
    net, ones = replay(model_fn), torch.ones_like(x[:1])

    def path_kernel_trace(squares: Params) -> Tensor:
        """Return ``Tr Π = Σ_i ∂z₂/∂θ_i²``."""
        return torch.func.jvp(lambda s: net(s, (ones, None)).sum(), (squares,), (kept,))[1]

    slopes = torch.func.grad(path_kernel_trace)(squares)
    return {name: data * squares[name] * slope for name, slope in slopes.items()}
