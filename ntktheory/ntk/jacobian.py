"""Rows of the Jacobian for any module, a few samples at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ntktheory.calls import soundly
from ntktheory.functional import Masks, ModelFn, Params, batch_size, masked


def jacobian_rows(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Any, names: Iterable[str]
) -> Params:
    """Return ``∂f_c(x_n)/∂θ`` of the named parameters, sample by sample under ``vmap``.

    Where a function has no rule for ``vmap``, by one backward pass per sample and output.

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
        return soundly(model_fn)(masked(params | varied, masks), batch).squeeze(0)

    try:
        rows = torch.func.vmap(torch.func.jacrev(outputs), in_dims=(None, 0))(varied, x)
    except RuntimeError:  # some functions have no rule for vmap
        rows = _one_by_one(outputs, varied, x)
    else:
        if not _adds_up(model_fn, params, masks, x, rows):  # and the rules of some are wrong
            rows = _one_by_one(outputs, varied, x)
    return {name: j.reshape(*j.shape[:2], -1) for name, j in rows.items()}


def _adds_up(model_fn: ModelFn, params: Params, masks: Masks | None, x: Any, rows: Params) -> bool:
    """Check the rows against one backward pass of the whole batch, without ``vmap``.

    ``Σ_nc u_nc ∂f_c(x_n)/∂θ`` for fixed weights u. torch's rule for PReLU, for one, is silently wrong
    where the number of samples equals a width. Under an outer ``vmap`` nothing can be compared.

    Args:
        model_fn: The network.
        params: θ, unmasked.
        masks: The masks.
        x: The batch.
        rows: The rows to check, [N, C, *parameter].

    Returns:
        Whether they add up.
    """
    some = next(iter(rows.values()))
    if torch._C._functorch.is_functorch_wrapped_tensor(some):
        return True
    u = torch.arange(1, 1 + some.shape[0] * some.shape[1], device=some.device).to(some.dtype)
    u = u.cos().view(some.shape[:2])
    varied = {name: params[name] for name in rows}
    _, pullback = torch.func.vjp(  # type: ignore[misc]
        lambda v: soundly(model_fn)(masked(params | v, masks), x), varied
    )
    expected = pullback(u)[0]
    tolerance = torch.finfo(some.dtype).eps ** 0.5
    for name, j in rows.items():
        gap = torch.tensordot(u, j, 2) - expected[name]
        scale = torch.tensordot(u.abs(), j.abs(), 2)
        if bool((gap.abs() > tolerance * scale.max()).any()):
            return False
    return True


def _one_by_one(outputs: Callable[[Params, Any], Tensor], varied: Params, x: Any) -> Params:
    """Return the rows by one backward pass per sample and output."""
    by_sample = []
    for n in range(batch_size(x)):
        sample = torch.utils._pytree.tree_map(lambda leaf, n=n: leaf[n], x)
        values, pullback = torch.func.vjp(lambda p, s=sample: outputs(p, s), varied)  # type: ignore[misc]
        basis = torch.eye(values.shape[0], dtype=values.dtype, device=values.device)
        rows = [pullback(e)[0] for e in basis]
        by_sample.append({name: torch.stack([row[name] for row in rows]) for name in varied})
    return {name: torch.stack([rows[name] for rows in by_sample]) for name in varied}
