"""Rows of the Jacobian for any module, a few samples at a time."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked


def jacobian_rows(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Any, names: Iterable[str]
) -> Params:
    """Return ``∂f_c(x_n)/∂θ`` of the named parameters, one sample at a time under ``vmap``.

    The network must treat samples independently. A parameter it does not use gets zeros.

    Args:
        model_fn: The network.
        params: θ, unmasked.
        masks: The network is f(θ⊙m, x) and the derivative is with respect to θ.
        x: The batch.
        names: Which parameters to differentiate.

    Returns:
        Name -> tensor [N, C, p]; memory N·C·P numbers.
    """
    varied = {name: params[name] for name in names}

    def outputs(varied: Params, sample: Any) -> Tensor:
        batch = torch.utils._pytree.tree_map(lambda leaf: leaf.unsqueeze(0), sample)
        return model_fn(masked(params | varied, masks), batch).squeeze(0)

    rows = torch.func.vmap(torch.func.jacrev(outputs), in_dims=(None, 0))(varied, x)
    return {name: j.flatten(2) for name, j in rows.items()}
