"""Exact moments of the NTK-SAP objective: no sampling, no luck.

A quadratic estimator has its exact mean on any design of degree 2 and its exact variance on one of
degree 4 (``probes.py``). The finite difference is not quadratic; its bias is exact

* with fixed gates, where f is affine in each parameter: by all sign vectors, or by the subset formula;
* for smooth networks to order σ⁴, by second and third derivatives.

What this says of a given network and σ stands in ``difference_bias.py``.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ntktheory.checks import check_batch, complaint
from ntktheory.estimators.ntk_sap import check_sigma, objective
from ntktheory.functional import FunctionalModel, ModelFn, Params, check_network, functional
from ntktheory.paths.gates import record, replay
from ntktheory.probes import Design, all_signs

MAX_SUBSETS = 16
"""The largest number of parameters whose 2^P subsets are summed over."""

Statistic = Callable[[Params], Tensor]


def design_mean(statistic: Statistic, design: Design) -> Tensor:
    """Return ``Σ_k w_k T(Δ_k)``: E T(Δ) exactly, if T has at most the design's degree.

    Args:
        statistic: Takes probes {name: [K, *shape]}, returns T for each, [K].
        design: The weighted points.

    Returns:
        A 0-dim tensor.
    """
    values = statistic(dict(design.probes))
    return (design.weights.to(values.dtype) * values).sum()


def design_variance(statistic: Statistic, design: Design) -> Tensor:
    """Return Var T(Δ) exactly, if T has at most half the design's degree. 0-dim."""
    mean = design_mean(statistic, design)
    return design_mean(lambda probes: (statistic(probes) - mean).square(), design)


def with_fixed_gates(model: nn.Module | FunctionalModel, x: Tensor) -> ModelFn:
    """Return the network with the gates that it has on ``x``: affine in every single parameter.

    Args:
        model: A ReLU network in eval mode.
        x: The batch whose gates are held.

    Returns:
        ``model_fn(params, x)`` for this very batch.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    model = functional(model)
    check_batch("x", x)
    check_network(model, model.params, x)
    gates = record(model.model_fn, model.params, x).gates
    fixed = replay(model.model_fn)
    return lambda params, x, buffers=None: fixed(params, (x, gates))


def subset_bias(model: nn.Module | FunctionalModel, x: Tensor, sigma: float) -> float:
    """Return the finite difference's bias with the gates of ``x`` held fixed, by subsets.

    ``E‖f(θ+Δ)−f(θ)‖² − σ² Tr Θ = Σ_{S, |S|≥2} σ^{2|S|} ‖∂_S f‖²`` for Δ of independent coordinates of
    mean 0 and variance σ², as f is affine in each parameter; ``∂_S f`` differentiates once by each
    parameter in S. It is never negative.

    Args:
        model: A ReLU network in which every parameter is used once.
        x: The batch.
        sigma: Standard deviation σ.

    Returns:
        The bias. Cost 2^P evaluations of f, all at once: for at most 16 parameters.

    Raises:
        ValueError: If there are more than 16 parameters, or σ is not positive.
    """
    check_sigma(sigma)
    squares, _ = subset_squares(functional(model), x)
    return math.fsum(c * sigma ** (2 * size) for size, c in enumerate(squares) if size >= 2)


def subset_squares(model: FunctionalModel, x: Tensor) -> tuple[list[float], list[float]]:
    """Return ``Σ_{|S|=s} ‖∂_S f‖²`` for s = 0…P, gates held fixed, and bounds on their rounding."""
    fixed = with_fixed_gates(model, x)
    unflatten, flat = _flattened(model.params)
    p = flat.numel()
    if p > MAX_SUBSETS:
        raise ValueError(
            complaint(
                "model",
                f"a network of at most {MAX_SUBSETS} parameters",
                p,
                "Use design_mean with all_signs, or a smaller network.",
            )
        )
    corners = torch.cartesian_prod(*[torch.arange(2, dtype=flat.dtype)] * p).reshape(-1, p)
    values = torch.func.vmap(lambda theta: fixed(unflatten(theta), x).flatten())(flat + corners)
    derivatives = values.view(*[2] * p, -1)
    for axis in range(p):  # f is affine in each parameter: ∂_S f is a difference of corners
        low, high = derivatives.unbind(axis)
        derivatives = torch.stack((low, high - low), axis)
    squares = derivatives.flatten(0, p - 1).square().sum(1)
    sizes = corners.sum(1)
    sums = [float(squares[sizes == size].sum()) for size in range(p + 1)]
    unit = float(values.abs().max()) * torch.finfo(values.dtype).eps  # of each of 2^|S| values
    count = values.shape[1]
    return sums, [count * math.comb(p, s) * (2**s * unit) ** 2 for s in range(p + 1)]


def expected_finite_difference(
    model: nn.Module | FunctionalModel, x: Tensor, sigma: float
) -> float:
    """Return ``E‖f(θ+σΔ)−f(θ)‖²`` exactly, with the gates of ``x`` held fixed, by all sign vectors.

    The square of a function that is affine in each parameter has the same mean under signs and under
    Gaussians. Cost 2^P forward passes.
    """
    check_sigma(sigma)
    model = functional(model)
    fixed = with_fixed_gates(model, x)

    def statistic(probes: Params) -> Tensor:
        return objective(
            fixed, model.params, None, x, probes, sigma=sigma, form="finite_difference"
        )

    return float(design_mean(statistic, all_signs(model.params)))


def smooth_bias_coefficient(model: nn.Module | FunctionalModel, x: Tensor) -> float:
    """Return the coefficient of σ⁴ in the finite difference's bias, for a smooth network.

    ``E‖f(θ+Δ)−f(θ)‖² = σ² Tr Θ + σ⁴ Σ_o [¼(tr H_o)² + ½‖H_o‖_F² + J_o·∇(tr H_o)] + O(σ⁶)``, o over
    samples and outputs, H_o the Hessian of output o with respect to the parameters.

    Args:
        model: A network that is three times differentiable in its parameters.
        x: The batch.

    Returns:
        The coefficient. Cost: N·C Hessians of P² entries and P Hessian traces.

    Raises:
        ValueError: If the network cannot take ``x``.
    """
    model = functional(model)
    check_batch("x", x)
    check_network(model, model.params, x)
    return sigma4_coefficient(model.model_fn, model.params, x)


def sigma4_coefficient(model_fn: ModelFn, params: Params, x: Tensor) -> float:
    """Return the coefficient of ``smooth_bias_coefficient``: its pure part, nothing is checked."""
    unflatten, flat = _flattened(params)

    def outputs(theta: Tensor) -> Tensor:
        return model_fn(unflatten(theta), x).flatten()

    def hessian_trace(theta: Tensor) -> Tensor:
        return torch.func.hessian(outputs)(theta).diagonal(dim1=1, dim2=2).sum(1)

    hessian = torch.func.hessian(outputs)(flat)
    jacobian = torch.func.jacrev(outputs)(flat)
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    trace_change = torch.func.jacrev(hessian_trace)(flat)
    terms = trace.square() / 4 + hessian.square().sum((1, 2)) / 2 + (jacobian * trace_change).sum(1)
    return float(terms.sum())


def _flattened(params: Params) -> tuple[Callable[[Tensor], Params], Tensor]:
    sizes = [p.numel() for p in params.values()]

    def unflatten(theta: Tensor) -> Params:
        parts = theta.split(sizes)
        return {n: t.view(p.shape) for (n, p), t in zip(params.items(), parts, strict=True)}

    return unflatten, torch.cat([p.flatten() for p in params.values()])
