"""The trace of the NTK from random outputs: exact over samples, random over classes."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import check_batch, check_choice, check_masks
from ntktheory.estimators.estimate import Estimate, standard_error
from ntktheory.estimators.linear_operator import LAWS, SAMPLERS, check_number
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    Select,
    check_network,
    functional,
    masked,
    selected,
)
from ntktheory.ntk.operator import activation_count, planned_chunks
from ntktheory.ntk.trace import sample_traces
from ntktheory.probes import Law

Per = Literal["total", "sample"]
PER: tuple[Per, ...] = ("total", "sample")


def output_probe_trace(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    probes: int,
    law: Law = "rademacher",
    generator: torch.Generator,
    per: Per = "total",
    select: Select = None,
    masks: Masks | None = None,
) -> Estimate:
    """Estimate ``Tr Θ = Σ_n ‖J_n‖_F²`` as ``1/K Σ_k Σ_n ‖J_nᵀ u_kn‖²``; sums over n and c.

    J_n [C, P] is the Jacobian of one sample and u_kn a random vector of C outputs, of its own for
    every sample: one backward pass gives the term of every sample exactly, in place of C of them.
    Unbiased. With the C×C blocks ``Θ_nn = J_n J_nᵀ`` the variance is ``Σ_n 2 ‖Θ_nn‖_F² / K`` for
    Gaussian and ``Σ_n 2 (‖Θ_nn‖_F² − Σ_c Θ_nn,cc²) / K`` for Rademacher probes: that of
    `hutchinson_trace` on Θ without its blocks off the diagonal. The standard error is
    ``√(Σ_n s_n² / K)``, s_n² the sample variance of sample n over probes; its square is unbiased.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x: N samples, sample axis first.
        probes: K ≥ 1.
        law: "rademacher" or "gaussian".
        generator: Source of randomness.
        per: "total" the trace; "sample" its N terms ``‖J_n‖_F²``.
        select: None for all parameters, "prunable", names, or ``predicate(name, tensor)``.
        masks: Parameter name -> mask; the network is f(θ⊙m, x), differentiated with respect to θ.

    Returns:
        The estimate and its standard error, 0-dim or [N], in the model's dtype; standard errors are
        nan for K = 1. ``products`` is K: backward passes over the batch.

    Raises:
        TypeError: If ``model``, ``x`` or a mask is of the wrong type, ``probes`` is no int, or
            ``generator`` no torch.Generator.
        ValueError: If the batch, a mask or ``select`` does not fit, an option is unknown, ``probes``
            < 1, or the model is in train mode.
        NumericalError: If the batch, the outputs or the estimate are not finite.

    Cost:
        One forward pass and K backward passes to layer outputs, then per layer and probe what
        `ntk_trace` does per output. It pays for convolutions while K is well below C; the exact
        trace of an MLP is as cheap. Chunks of probes and samples are planned from a budget of 1 GiB;
        each chunk repeats the forward pass.

    Source:
        Hutchinson 1990 on each Θ_nn. Tested against ``ntk/reference.py`` by enumeration of all
        signs.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> net = nn.Linear(3, 2, bias=False)
        >>> output_probe_trace(net, torch.ones(5, 3), probes=1, generator=generator).value
        tensor(30.)
    """
    model = functional(model)
    check_choice("per", per, PER)
    check_choice("law", law, LAWS)
    check_number("probes", probes, 1)
    check_masks(masks, model.params)
    names = selected(model, select)
    check_batch("x", x)
    effective = masked(model.params, masks)
    outputs = check_network(model, effective, x)
    like = outputs.new_empty(x.shape[0], outputs.shape[1])
    U = SAMPLERS[law]({"u": like}, probes, generator=generator)["u"]
    largest = max(model.params[name].numel() for name in names)
    at_once, samples = planned_chunks(
        probes,
        x.shape[0],
        0,
        largest + activation_count(model.model_fn, effective, x[:1]),
        element_bytes=outputs.element_size(),
        on_cpu=outputs.device.type == "cpu",
    )

    def norms(part: Tensor, rows: Tensor) -> Tensor:
        def of_probe(u: Tensor) -> Tensor:
            return squared_pullbacks(model.model_fn, model.params, masks, part, u, names)

        return torch.func.vmap(of_probe, chunk_size=at_once)(rows)

    chunks = zip(x.split(samples), U.split(samples, dim=1), strict=True)
    squares = torch.cat([norms(part, rows) for part, rows in chunks], dim=1)
    value, error = squares.mean(0), standard_error(squares)
    if per == "sample":
        return Estimate(value, error, probes)
    return Estimate(value.sum(), error.square().sum().sqrt(), probes)


def squared_pullbacks(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Any,
    u: Tensor,
    names: tuple[str, ...],
) -> Tensor:
    """Return ``‖J_nᵀ u_n‖²``, [N]: the layer rules of the network ``Σ_c u_nc f_c(x_n)``.

    Pure, and vmap-able over ``params``, ``masks`` and ``u``.

    Args:
        model_fn: The network.
        params: θ, unmasked.
        masks: The network is f(θ⊙m, x), differentiated with respect to θ.
        x: The batch (a tensor, or a tree of tensors).
        u: Weights of the outputs, [N, C].
        names: Which parameters to differentiate.

    Returns:
        The squared norms.
    """

    def contracted(theta: Params, batch: tuple[Any, Tensor]) -> Tensor:
        samples, weights = batch
        return (model_fn(theta, samples) * weights).sum(1, keepdim=True)

    terms = sample_traces(contracted, params, masks, (x, u), names)
    return torch.stack(list(terms.values())).sum(0)
