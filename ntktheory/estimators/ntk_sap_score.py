"""NTK-SAP's score over many realisations: new weights, new inputs, new perturbations.

| form | mean of one realisation, over σ² | second moment at kinks |
|---|---|---|
| "finite_difference" | ``∂/∂m_j E Tr`` as σ → 0, and a bias | of order σ³ |
| "jvp" | ``E ∂/∂m_j Tr`` for every σ | of order σ⁴ |

``Tr = Σ m_i² ‖∂_i f(θ⊙m)‖²``, differentiated off the kinks. It jumps where a gate flips, so that the two
means differ once the pre-activations at the kinks do not average out, as with biases (S5.kinks).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    check_batch,
    check_choice,
    check_masks,
    complaint,
)
from ntktheory.estimators.batch_norm_modes import (
    BN_MODES,
    Statistics,
    batch_norms,
    official_statistics,
)
from ntktheory.estimators.ntk_sap import FORMS, Form, check_sigma, objective_of_probe
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    check_network,
    evaluate,
    functional,
    masked,
)
from ntktheory.probes import check_probes

SIGMA = 0.01
Sign = Literal["signed", "abs_of_mean", "mean_of_abs"]
SIGNS: tuple[Sign, ...] = ("signed", "abs_of_mean", "mean_of_abs")
Realization = tuple[Mapping[str, Tensor], Tensor, Mapping[str, Tensor]]


@dataclass(frozen=True)
class ScoreEstimate:
    """What R realisations say about the score, by parameter name.

    Attributes:
        mean: Mean of the signed realisations; unbiased for ``∂/∂m_j E objective``.
        mean_abs: Mean of their absolute values.
        variance: Their sample variance, divided by R − 1; NaN for R = 1.
        count: R.
    """

    mean: Params
    mean_abs: Params
    variance: Params
    count: int

    def score(self, sign: Sign = "abs_of_mean") -> Params:
        """Return the score with its sign handled as named.

        Args:
            sign: "signed": the mean. "abs_of_mean": ``|mean|``, as published; not unbiased for the
                absolute value of the expectation. "mean_of_abs": the mean of ``|·|``, further off.

        Returns:
            Name -> score.

        Raises:
            ValueError: If ``sign`` is unknown.
        """
        check_choice("sign", sign, SIGNS)
        if sign == "mean_of_abs":
            return dict(self.mean_abs)
        return {name: s if sign == "signed" else s.abs() for name, s in self.mean.items()}

    def standard_error(self) -> Params:
        """Return ``√(variance/R)`` of the mean."""
        return {name: (v / self.count).sqrt() for name, v in self.variance.items()}


def ntk_sap_score(
    model: nn.Module | FunctionalModel,
    draws: Iterable[Realization],
    *,
    sigma: float = SIGMA,
    form: Form = "jvp",
    bn: str = "eval",
    masks: Masks | None = None,
) -> ScoreEstimate:
    """Estimate ``∂/∂m_j E_{θ0,z,Δ} Σ_{n,c} (f_c(z_n; θ0⊙m) − f_c(z_n; (θ0+Δ)⊙m))²``.

    Sums over samples and outputs, a mean over realisations, of the size of σ². Nothing is random
    here: the draws are given, by hand or by ``sample_draws``. The model is not changed.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        draws: The realisations ``(params, x, probes)``, see ``Draw``; with K probes, their mean.
        sigma: Standard deviation σ of the perturbation. The published ε = 1e-4 is its square.
        form: "finite_difference", as published, or "jvp": ``σ²‖JΔ‖²``, without its bias.
        bn: "eval": the model's own running statistics. "official": those of each batch by the
            procedure of the published code (``batch_norm_modes.py``); and, in the finite difference,
            the perturbed network keeps the *model's* scale and shift in its batch norms whatever the
            draw says, as that code does. With 1 and 0 in both this changes nothing.
        masks: Parameter name -> mask of the network scored; the derivative is taken there.

    Returns:
        Mean, mean of absolute values and variance for every prunable weight. The derivative with
        respect to the mask of a dropped weight is not 0 in general.

    Raises:
        TypeError: If a draw is not such a triple, or bn="official" has no ``nn.Module``.
        ValueError: If there is no draw, σ is not positive, an option, batch, mask, parameter or probe
            does not fit, or the model is in train mode.
        NumericalError: If a value is not finite; the message names the realisation.

    Cost:
        Per realisation and probe, a forward and a backward pass through two networks (finite
        difference), or a forward-mode and a backward pass through it; one forward pass more for
        bn="official". Memory 3P beside.

    Source:
        NTK-SAP §4. Tested against scores of the published code.

    Example:
        >>> from ntktheory.estimators.ntk_sap_draws import Draw
        >>> net = nn.Linear(2, 1, bias=False)
        >>> draw = Draw({}, torch.tensor([[1.0, 3.0]]), {"weight": torch.ones(1, 1, 2)})
        >>> ntk_sap_score(net, [draw], sigma=1.0).score("signed")["weight"]
        tensor([[ 8., 24.]])
    """
    totals: _Moments | None = None
    for values in realization_scores(model, draws, sigma=sigma, form=form, bn=bn, masks=masks):
        totals = totals or _Moments(values)
        totals.add(values)
    if totals is None:
        raise ValueError(
            complaint("draws", "at least one realisation", "none", "Draw some with sample_draws.")
        )
    return totals.estimate()


def realization_scores(
    model: nn.Module | FunctionalModel,
    draws: Iterable[Realization],
    *,
    sigma: float = SIGMA,
    form: Form = "jvp",
    bn: str = "eval",
    masks: Masks | None = None,
) -> Iterator[Params]:
    """Yield the signed score of one realisation after the other; see ``ntk_sap_score``.

    Args:
        model: As there.
        draws: As there.
        sigma: As there.
        form: As there.
        bn: As there.
        masks: As there.

    Returns:
        An iterator over name -> score of every prunable weight. Options are checked at once, draws
        when they come.

    Raises:
        ValueError: If an option does not fit, or nothing is prunable.
    """
    net = functional(model)
    check_sigma(sigma)
    check_choice("form", form, FORMS)
    check_choice("bn", bn, BN_MODES)
    check_masks(masks, net.params)
    if not net.prunable:
        raise ValueError(
            complaint(
                "model",
                "a network with prunable weights",
                "none",
                "Only weights of Linear and convolution layers are scored.",
            )
        )
    statistics = official_statistics(model) if bn == "official" else None
    affine = _affine(model) if bn == "official" and form == "finite_difference" else {}

    def scores() -> Iterator[Params]:
        for r, draw in enumerate(draws):
            params, x, probes = _read(net, draw, r)
            effective = masked(params, masks)
            if r == 0:
                check_network(net, effective, x)
            model_fn = _with_statistics(net, statistics, effective, x)
            evaluate(model_fn, effective, x[:1])
            probes = _stale(probes, affine, params, sigma)
            score, value = score_of_realization(
                model_fn, params, masks, x, probes, net.prunable, sigma=sigma, form=form
            )
            _check_finite(r, value, score)
            yield score

    return scores()


def score_of_realization(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Tensor,
    probes: Mapping[str, Tensor],
    names: Iterable[str],
    *,
    sigma: float,
    form: Form = "jvp",
) -> tuple[Params, Tensor]:
    """Return the mean over K probes of ``∂ objective/∂m_j``, and of the objective.

    The pure function behind ``ntk_sap_score``: vmap-able over ``params``, ``masks``, ``x`` and
    ``probes``. Nothing is checked.

    Args:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Where the derivative is taken; missing names are unmasked.
        x: The batch.
        probes: Name -> [K, *shape].
        names: The parameters scored.
        sigma: σ.
        form: "jvp" or "finite_difference".

    Returns:
        Name -> score, shaped like the parameter; and a 0-dim tensor.
    """
    masks = masks or {}
    at = {
        name: masks[name].to(params[name].dtype) if name in masks else torch.ones_like(params[name])
        for name in names
    }

    def value(moving: Params, probe: Params) -> Tensor:
        return objective_of_probe(
            model_fn, params, {**masks, **moving}, x, probe, sigma=sigma, form=form
        )

    count = _count(probes)
    score = {name: torch.zeros_like(m) for name, m in at.items()}
    objective = torch.zeros(())
    differentiate = _within_transform if _transformed(params, at, {"": x}, probes) else _directly
    for k in range(count):  # one after the other: vmap over weights makes slow convolutions
        one = {name: probe[k] for name, probe in probes.items()}
        slopes, term = differentiate(value, at, one)
        score = {name: s + slopes[name] / count for name, s in score.items()}
        objective = objective.to(term) + term / count
    return score, objective


def _within_transform(
    value: Callable[[Params, Params], Tensor], at: Params, probe: Params
) -> tuple[Params, Tensor]:
    return torch.func.grad_and_value(value)(at, probe)


def _directly(
    value: Callable[[Params, Params], Tensor], at: Params, probe: Params
) -> tuple[Params, Tensor]:
    """The same outside of ``torch.func``, which would keep the graph of the backward pass too."""
    with torch.enable_grad():
        leaves = {name: m.detach().requires_grad_() for name, m in at.items()}
        found = value(leaves, probe)
        slopes = torch.autograd.grad(found, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True)), found.detach()


def _transformed(*groups: Mapping[str, Tensor]) -> bool:
    """Say whether a tensor belongs to a ``torch.func`` transform, or asks for gradients itself."""
    return any(
        torch._C._functorch.is_functorch_wrapped_tensor(t) or t.requires_grad
        for group in groups
        for t in group.values()
    )


class _Moments:
    """Running mean, mean of absolute values and sum of squared deviations (Welford)."""

    def __init__(self, like: Params) -> None:
        self.count = 0
        self.mean, self.mean_abs, self.spread = (
            {name: torch.zeros_like(s) for name, s in like.items()} for _ in range(3)
        )

    def add(self, values: Params) -> None:
        """Take in one realisation."""
        self.count += 1
        for name, s in values.items():
            before = s - self.mean[name]
            self.mean[name] += before / self.count
            self.mean_abs[name] += (s.abs() - self.mean_abs[name]) / self.count
            self.spread[name] += before * (s - self.mean[name])

    def estimate(self) -> ScoreEstimate:
        """Return what was seen."""
        degrees = self.count - 1 or math.nan
        variance = {name: spread / degrees for name, spread in self.spread.items()}
        return ScoreEstimate(self.mean, self.mean_abs, variance, self.count)


def _read(net: FunctionalModel, draw: Any, r: int) -> tuple[Params, Tensor, Params]:
    """Check one draw; probes without an axis of their own are one probe."""
    if not (isinstance(draw, tuple | list) and len(draw) == 3):
        raise TypeError(
            complaint(
                f"draws[{r}]",
                "a triple (params, x, probes)",
                type(draw).__name__,
                "Build it as Draw(params, x, probes).",
            )
        )
    given, x, probes = draw
    check_batch(f"draws[{r}]'s x", x)
    for name, p in given.items():
        own = net.params.get(name)
        if own is None or not isinstance(p, Tensor) or p.shape != own.shape:
            expected = f"of shape {list(own.shape)}" if own is not None else "a parameter's"
            raise ValueError(
                complaint(
                    f"draws[{r}]'s params[{name!r}]",
                    expected,
                    list(p.shape) if own is not None and isinstance(p, Tensor) else repr(name),
                    "Draw them for this model.",
                )
            )
    params = net.params | {name: p.detach() for name, p in given.items()}
    with_axis = {
        name: probe[None]
        if name in params and isinstance(probe, Tensor) and probe.shape == params[name].shape
        else probe
        for name, probe in probes.items()
    }
    check_probes(with_axis, params)
    return params, x, with_axis


def _with_statistics(
    net: FunctionalModel, statistics: Statistics | None, effective: Params, x: Tensor
) -> ModelFn:
    if statistics is None:
        return net.model_fn
    return partial(_run, net.model_fn, statistics(effective, x))


def _run(model_fn: ModelFn, buffers: Params, params: Params, x: Tensor) -> Tensor:
    return model_fn(params, x, buffers)


def _affine(model: nn.Module | FunctionalModel) -> Params:
    """Return the model's own scales and shifts of batch norms, by parameter name."""
    return {
        f"{path}.{name}" if path else name: p.detach()
        for path, norm in batch_norms(model).items()
        for name, p in norm.named_parameters(recurse=False)
    }


def _stale(probes: Params, own: Params, drawn: Params, sigma: float) -> Params:
    """Return the probes, and on top the steps from the drawn scales and shifts to the model's own."""
    steps = {name: (p - drawn[name]) / sigma for name, p in own.items()}
    moved = {name: step[None] for name, step in steps.items() if bool(step.any())}
    count = _count(probes)
    return probes | {
        name: probes[name] + step if name in probes else step.expand(count, *step.shape[1:])
        for name, step in moved.items()
    }


def _count(probes: Mapping[str, Tensor]) -> int:
    return next(iter(probes.values())).shape[0]


def _check_finite(r: int, value: Tensor, score: Params) -> None:
    for what, numbers in {"the objective": value, **score}.items():
        if not bool(torch.isfinite(numbers).all()):
            raise NumericalError(
                complaint(
                    what if what == "the objective" else f"the score of {what}",
                    "finite",
                    f"NaN or Inf in realisation {r}",
                    "Its draws were finite: use a smaller sigma, or rescale the weights.",
                )
            )
