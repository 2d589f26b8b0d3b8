"""The definition of the empirical NTK, slow and dense. Fast code never imports this file.

``J = ∂f(X)/∂θ`` by ``torch.func.jacrev`` of the whole batch, and ``Θ = J Jᵀ``. With masks the
network is ``f(θ⊙m, x)``, differentiated with respect to θ. Nothing is assumed of the network.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ntktheory.functional import ModelFn, Params


def jacobian(
    model_fn: ModelFn, params: Params, masks: Mapping[str, Tensor] | None, x: Tensor
) -> Params:
    """Return ``∂f_c(x_n)/∂θ`` by parameter name, each of shape ``[N, C, *parameter]``.

    Memory N·C·P numbers.
    """

    def outputs(theta: Params) -> Tensor:
        effective = dict(theta)
        for name, mask in (masks or {}).items():
            effective[name] = theta[name] * mask.to(theta[name].dtype)
        return model_fn(effective, x)

    return torch.func.jacrev(outputs)(params)


def ntk(
    model_fn: ModelFn,
    params: Params,
    masks: Mapping[str, Tensor] | None,
    x1: Tensor,
    x2: Tensor | None = None,
    names: tuple[str, ...] | None = None,
) -> Tensor:
    """Return ``Theta[n, m, c, c'] = Σ_j ∂f_c(x1_n)/∂θ_j · ∂f_c'(x2_m)/∂θ_j``, shape [N, M, C, C]."""
    j1 = jacobian(model_fn, params, masks, x1)
    j2 = j1 if x2 is None else jacobian(model_fn, params, masks, x2)
    theta = torch.zeros(())
    for name in params if names is None else names:
        a = j1[name].reshape(*j1[name].shape[:2], -1)
        b = j2[name].reshape(*j2[name].shape[:2], -1)
        theta = theta + torch.einsum("ncp,mdp->nmcd", a, b)
    return theta


def trace(
    model_fn: ModelFn, params: Params, masks: Mapping[str, Tensor] | None, x: Tensor
) -> Params:
    """Return the diagonal of JᵀJ, ``Σ_{n,c} (∂f_c(x_n)/∂θ_j)²``, shaped like the parameters."""
    return {k: j.square().sum((0, 1)) for k, j in jacobian(model_fn, params, masks, x).items()}


def trace_saliency(
    model_fn: ModelFn,
    params: Params,
    masks: Mapping[str, Tensor],
    x: Tensor,
    names: tuple[str, ...] | None = None,
) -> Params:
    """Return ``∂/∂m_j Σ_{n,c,i} (∂f_c(x_n; θ⊙m)/∂θ_i)²`` for every mask, i over the named parameters.

    Masks may be of any numbers; one of them for every parameter by whose mask to differentiate. By
    plain double backward, one output at a time: torch's second derivatives under ``vmap`` are wrong for
    some normalisation layers.
    """
    m = {k: mask.to(params[k].dtype).clone().requires_grad_() for k, mask in masks.items()}
    theta = {k: p.clone().requires_grad_() for k, p in params.items()}
    outputs = model_fn({k: t * m[k] if k in m else t for k, t in theta.items()}, x)
    chosen = [theta[name] for name in (names or params)]
    total = torch.zeros(())
    for output in outputs.flatten():
        rows = torch.autograd.grad(output, chosen, create_graph=True, allow_unused=True)
        total = total + torch.stack([r.square().sum() for r in rows if r is not None]).sum()
    slopes = torch.autograd.grad(total, list(m.values()), allow_unused=True)
    zeros = [torch.zeros_like(t) for t in m.values()]
    return {k: z if s is None else s for k, s, z in zip(m, slopes, zeros, strict=True)}
