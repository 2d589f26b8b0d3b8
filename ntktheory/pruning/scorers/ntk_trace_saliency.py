"""The oracle of NTK-SAP: the exact derivative of the NTK's trace by the masks."""

from typing import Literal

import torch
from torch import Tensor

from ntktheory.checks import check_choice, check_count
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    Select,
    masked,
    selected,
    take,
)
from ntktheory.ntk.layerwise import plan
from ntktheory.ntk.trace_gradient import gradient_chunk, trace_gradient


def ntk_trace_saliency(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Tensor,
    names: tuple[str, ...],
    *,
    select: Select = None,
    sign: Literal["abs", "signed"] = "abs",
    chunk_size: int | None = None,
) -> Params:
    """Return ``|∂Tr Θ/∂m_j|`` exactly, ``Tr Θ(m) = Σ_{n,c,i} m_i² (∂f_c(x_n)/∂(θ⊙m)_i)²`` at θ⊙m.

    Masks enter twice: as the factors m_i of the rows of the Jacobian, and through the point θ⊙m at
    which it is taken. A dropped weight has a score too, in general not 0: what the trace would gain by
    a first little of it.

    With ``select="prunable"`` and the mean over weights and noise it is the limit of NTK-SAP's score
    divided by σ² as σ → 0, which perturbs the prunable weights only; the default, all parameters, is
    the trace that ``ntk_trace`` returns. Both are the same for networks of prunable weights only.

    Args:
        model_fn: The network.
        params: θ, unmasked.
        masks: Parameter name -> mask; parameters without one have m = 1.
        x: The batch.
        names: The parameters to score.
        select: Which parameters i the trace adds up: None for all, "prunable" for ``names``, a list of
            names, or ``predicate(name, tensor)``.
        sign: "abs" (NTK-SAP's: weights that matter most either way are kept) or "signed", of which
            ``Σ_{j∈layer} m_j ∂Tr Θ/∂m_j = 2 Tr Θ`` for every layer of a ReLU network without biases,
            shortcuts and batch norm.
        chunk_size: Samples at a time; None plans it from a budget of 256 MiB.

    Returns:
        Name -> score, shaped like the parameter, in its dtype. Pure, and vmap-able over ``params`` and
        ``masks``. Cost: 2C + 1 forward and backward passes.

    Raises:
        TypeError: If ``select`` is of another type.
        ValueError: If an option is unknown or chooses nothing.

    Source:
        NTK-SAP, §4 (the quantity that its score estimates). Tested against ``ntk/reference.py``.

    Example:
        >>> ones = {"weight": torch.ones(1, 2)}
        >>> linear = lambda params, x: x @ params["weight"].T
        >>> ntk_trace_saliency(linear, ones, None, torch.ones(3, 2), ("weight",))
        {'weight': tensor([[6., 6.]])}
    """
    check_choice("sign", sign, ("abs", "signed"))
    check_count("chunk_size", chunk_size)
    chosen = selected(FunctionalModel(model_fn, params, prunable=names), select)
    effective = masked(params, masks)
    layers = plan(model_fn, effective, x)
    n, c = x.shape[0], model_fn(effective, x[:1]).shape[1]
    size = chunk_size or gradient_chunk(layers, params, chosen, n, c)
    chunks = [
        trace_gradient(model_fn, params, masks, take(x, i, i + size), names, chosen, layers)
        for i in range(0, n, size)
    ]
    total = {name: torch.stack([chunk[name] for chunk in chunks]).sum(0) for name in names}
    return total if sign == "signed" else {name: t.abs() for name, t in total.items()}
