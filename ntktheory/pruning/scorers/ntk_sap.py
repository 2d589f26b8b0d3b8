"""NTK-SAP: the saliency of a random perturbation's effect, over new weights and new noise."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ntktheory.estimators.ntk_sap import Form
from ntktheory.estimators.ntk_sap_draws import Inputs, Law, Weights, sample_draws
from ntktheory.estimators.ntk_sap_score import (
    SIGMA,
    Realization,
    Sign,
    ntk_sap_score,
    score_of_realization,
)
from ntktheory.functional import FunctionalModel, Masks, Params, Select, functional

REALIZATIONS = 5


def ntk_sap(
    model: nn.Module | FunctionalModel,
    masks: Masks | None = None,
    *,
    draws: Iterable[Realization] | None = None,
    realizations: int = REALIZATIONS,
    generator: torch.Generator | None = None,
    sigma: float = SIGMA,
    form: Form = "jvp",
    bn: str = "eval",
    sign: Sign = "abs_of_mean",
    x: Tensor | None = None,
    input_shape: Sequence[int] | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    weights: Weights = "new",
    inputs: Inputs = "noise",
    perturb: Select = "prunable",
    law: Law = "gaussian",
) -> Params:
    """Return NTK-SAP's score, *summed* over its realisations as the published code does.

    ``|Σ_r ∂/∂m_j Σ_{n,c} (f_c(z_n; θ_r⊙m) − f_c(z_n; (θ_r+Δ_r)⊙m))²|`` by default. The published
    procedure is ``form="finite_difference", bn="official"``.

    Args:
        model: A module in eval mode, or a FunctionalModel.
        masks: Parameter name -> mask of the network scored.
        draws: The realisations ``(params, x, probes)``; None draws them with ``sample_draws``.
        realizations: R, where they are drawn; 5 as published for CIFAR-10.
        generator: Source of randomness where they are drawn. One seeded like the one that drew the
            network repeats its numbers: pass another seed.
        sigma: Standard deviation of the perturbation.
        form: "jvp" or "finite_difference".
        bn: "eval" or "official", see ``ntk_sap_score``.
        sign: "abs_of_mean" (published), "signed" or "mean_of_abs".
        x: Real images, or the shape of the noise; see ``sample_draws`` for this and what follows.
        input_shape: Shape of one input.
        samples: Inputs per realisation.
        batch_size: Inputs per draw.
        weights: "new" or "fixed".
        inputs: "noise", "fixed_noise" or "data".
        perturb: The perturbed parameters.
        law: "gaussian" or "rademacher".

    Returns:
        Name -> score for every prunable weight, shaped like it; larger = keep. Dropped weights have
        a score too, in general not 0. With ``draws`` given and ``bn="eval"`` it is pure, and vmap-able
        over ``masks`` and what the draws hold; nothing is checked there.

    Raises:
        TypeError: If neither draws nor a generator are given.
        ValueError: If an option or a draw does not fit.

    Cost:
        Per realisation, one forward and backward pass through two networks, or a forward-mode and a
        backward pass through it; one forward pass more for bn="official".

    Source:
        NTK-SAP §4. Tested against scores of the published code to 1e-10.

    Example:
        >>> net, generator = nn.Linear(2, 1), torch.Generator().manual_seed(0)
        >>> score = ntk_sap(net, input_shape=[2], generator=generator)
        >>> list(score), score["weight"].shape
        (['weight'], torch.Size([1, 2]))
    """
    if draws is None:
        draws = sample_draws(
            model,
            realizations=realizations,
            generator=generator,  # type: ignore[arg-type]  # None is refused there
            x=x,
            input_shape=input_shape,
            samples=samples,
            batch_size=batch_size,
            weights=weights,
            inputs=inputs,
            perturb=perturb,
            law=law,
        )
    if torch._C._functorch.peek_interpreter_stack() is not None and bn == "eval":
        return _unchecked(functional(model), draws, masks, sigma, form, sign)
    estimate = ntk_sap_score(model, draws, sigma=sigma, form=form, bn=bn, masks=masks)
    return {name: estimate.count * s for name, s in estimate.score(sign).items()}


def _unchecked(
    net: FunctionalModel,
    draws: Iterable[Realization],
    masks: Masks | None,
    sigma: float,
    form: Form,
    sign: Sign,
) -> Params:
    """The same under a transform, where values cannot be looked at."""
    total: Params = {}
    for given, x, probes in draws:
        params = net.params | dict(given)
        one = {n: p[None] if p.ndim == params[n].ndim else p for n, p in probes.items()}
        found, _ = score_of_realization(
            net.model_fn, params, masks, x, one, net.prunable, sigma=sigma, form=form
        )
        if sign == "mean_of_abs":
            found = {name: s.abs() for name, s in found.items()}
        total = {name: total[name] + s if name in total else s for name, s in found.items()}
    return {name: s.abs() if sign == "abs_of_mean" else s for name, s in total.items()}
