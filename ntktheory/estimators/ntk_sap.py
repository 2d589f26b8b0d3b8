"""The objective of NTK-SAP: how far random perturbations of the weights move the outputs."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import NumericalError, check_batch, check_choice, check_masks, complaint
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    check_network,
    functional,
    masked,
)
from ntktheory.probes import check_probes

Form = Literal["jvp", "finite_difference"]
FORMS: tuple[Form, ...] = ("jvp", "finite_difference")


def ntk_sap_objective(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    sigma: float,
    probes: Mapping[str, Tensor],
    form: Form = "jvp",
    masks: Masks | None = None,
) -> Tensor:
    """Compute NTK-SAP's objective for K given perturbations; sums over samples and outputs.

    * "finite_difference": ``Σ_{n,c} (f_c(x_n; (θ+σΔ_k)⊙m) − f_c(x_n; θ⊙m))²``, the published form.
    * "jvp": ``σ² ‖J Δ_k‖²`` with ``J = J(θ⊙m) diag(m)``. For probes of mean 0 and unit variance its
      mean is ``σ² Tr Θ`` exactly, over the perturbed parameters; the finite difference is biased
      (``estimators/moments.py``).

    Nothing is divided by σ², N or C.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x: N samples, sample axis first.
        sigma: Standard deviation σ of the perturbation (not its variance).
        probes: Parameter name -> Δ of unit variance, [K, *shape]; missing names are unperturbed.
        form: "jvp" or "finite_difference".
        masks: Parameter name -> bool or float mask; float masks are differentiated through.

    Returns:
        The K values, in the model's dtype.

    Raises:
        ValueError: If σ is not positive, an option, batch, mask or probe does not fit, or the model
            is in train mode.
        NumericalError: If a value is not finite; the message names the first such perturbation.

    Cost:
        K forward passes for the finite difference (and one shared), K forward-mode passes for the
        JVP, all at once in memory.

    Source:
        NTK-SAP, the objective of its saliency; ``E‖JΔ‖² = σ² Tr Θ`` is S1.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> probes = {"weight": torch.ones(1, 2, 3)}
        >>> ntk_sap_objective(net, torch.ones(1, 3), sigma=0.5, probes=probes)
        tensor([4.5000])
    """
    model = functional(model)
    check_choice("form", form, FORMS)
    check_sigma(sigma)
    check_batch("x", x)
    check_masks(masks, model.params)
    check_probes(probes, model.params)
    check_network(model, masked(model.params, masks), x)
    values = objective(model.model_fn, model.params, masks, x, probes, sigma=sigma, form=form)
    bad = torch.nonzero(~torch.isfinite(values.detach()))
    if bad.numel():
        raise NumericalError(
            complaint(
                "objective",
                "finite",
                f"{float(values[bad[0]])} for perturbation {int(bad[0])}",
                "The input was finite: use a smaller sigma, or rescale the parameters.",
            )
        )
    return values


def check_sigma(sigma: float) -> None:
    """Check that σ is a positive number.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise ValueError(
            complaint(
                "sigma",
                "a positive standard deviation",
                repr(sigma),
                "The published epsilon of 1e-4 is a variance: its sigma is 0.01.",
            )
        )


def objective(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Tensor,
    probes: Mapping[str, Tensor],
    *,
    sigma: float,
    form: Form = "jvp",
) -> Tensor:
    """Return the objective [K]: the pure function behind ``ntk_sap_objective``.

    vmap-able over ``params`` and ``masks``, differentiable in float masks. Nothing is checked.
    """

    def of_one(delta: Params) -> Tensor:
        return objective_of_probe(model_fn, params, masks, x, delta, sigma=sigma, form=form)

    return torch.func.vmap(of_one)(dict(probes))


def objective_of_probe(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Tensor,
    probe: Mapping[str, Tensor],
    *,
    sigma: float,
    form: Form = "jvp",
) -> Tensor:
    """Return the objective of one perturbation, ``{name: Tensor[*shape]}``, as a 0-dim tensor."""

    def outputs(moving: Params) -> Tensor:
        return model_fn(masked(params | moving, masks), x)

    start = {name: params[name] for name in probe}
    if form == "jvp":
        change = sigma * torch.func.jvp(outputs, (start,), (dict(probe),))[1]
    else:
        moved = {name: p + sigma * probe[name] for name, p in start.items()}
        change = outputs(moved) - outputs(start)
    return change.square().sum()
