"""Lower bounds on the trace: the head's own block, and Euler's identity layer by layer."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ntktheory.functional import masked, take
from ntktheory.paths.gates import replay
from ntktheory.paths.survey import Survey


def last_layer(survey: Survey) -> Tensor:
    """Return ``C Σ_x ‖h(x)‖²`` of the head's inputs h, kept weights only."""
    name, h = survey.run.head  # type: ignore[misc]
    kept = masked({name: torch.ones_like(survey.params[name])}, survey.masks)[name]
    return (h.square() @ kept.T).sum()


def euler_terms(survey: Survey, names: list[str] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (layer carries all of f, its term). f is affine in W_l, so it does iff f = 0 at W_l = 0.

    Then ``f_c = ⟨∂f_c/∂W_l, W_l⟩``, and Cauchy–Schwarz gives the term.
    """
    effective = masked(survey.params, survey.masks)
    fixed = replay(survey.model_fn)
    squares = survey.run.outputs.square().sum()
    for name in _weights(survey) if names is None else names:
        norm = effective[name].square().sum()
        without = effective | {name: torch.zeros_like(effective[name])}
        rest = fixed(without, (survey.x, survey.run.gates))
        once = survey.run.uses[name] == 1
        carries = (rest == 0).all() & (norm > 0) & once
        yield carries, torch.where(carries, squares / torch.where(norm > 0, norm, 1.0), 0.0)


def likely_carriers(survey: Survey, samples_first: bool) -> list[str]:
    """Return the layers that may carry all of f, by one backward pass of one sample.

    For output c with the largest ``|f_c|`` of the first sample, a layer that carries all of f has
    ``⟨∂f_c/∂W_l, W_l⟩ = f_c``. Those that miss it by more than rounding are left out: the sum over the
    others is the same, or smaller if rounding was that bad. Not vmap-able.
    """
    names = _weights(survey)
    if not samples_first or not names:
        return names
    effective = masked(survey.params, survey.masks)
    x, gates = take((survey.x, survey.run.gates), 0, 1)
    c = int(survey.run.outputs[0].abs().argmax())
    fixed = replay(survey.model_fn)
    value, pullback = torch.func.vjp(lambda theta: fixed(theta, (x, gates))[0, c], effective)  # type: ignore[misc]
    (slopes,) = pullback(torch.ones_like(value))
    kept = []
    for name in names:
        shares = slopes[name] * effective[name]
        if float((shares.sum() - value).abs()) <= 1e-6 * float(shares.abs().sum()):
            kept.append(name)
    return kept


def _weights(survey: Survey) -> list[str]:
    return [name for name in survey.run.uses if survey.params[name].ndim > 1]
