"""The random part of NTK-SAP's score: weights, inputs and perturbations, apart from the estimate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ntktheory.checks import check_batch, check_choice, check_count, complaint
from ntktheory.estimators.batch_norm_modes import reset_affine
from ntktheory.functional import (
    FunctionalModel,
    Params,
    Select,
    evaluate,
    functional,
    selected,
)
from ntktheory.probes import sample_gaussian, sample_rademacher

LAWS = {"gaussian": sample_gaussian, "rademacher": sample_rademacher}
IMAGES_PER_CLASS = 10
Law = Literal["gaussian", "rademacher"]
Weights = Literal["new", "fixed"]
Inputs = Literal["noise", "fixed_noise", "data"]


class Draw(NamedTuple):
    """One realisation: the weights, the batch, and the perturbations of unit variance.

    Attributes:
        params: Parameter name -> tensor; a name left out keeps the model's own.
        x: The batch, sample axis first.
        probes: Parameter name -> [K, *shape]; a name left out is not perturbed.
    """

    params: Mapping[str, Tensor]
    x: Tensor
    probes: Mapping[str, Tensor]


def sample_draws(
    model: nn.Module | FunctionalModel,
    *,
    realizations: int,
    generator: torch.Generator,
    samples: int | None = None,
    input_shape: Sequence[int] | None = None,
    x: Tensor | None = None,
    batch_size: int | None = None,
    weights: Weights = "new",
    inputs: Inputs = "noise",
    perturb: Select = "prunable",
    law: Law = "gaussian",
) -> Iterator[Draw]:
    """Draw the realisations of NTK-SAP's score, one after the other.

    Every realisation goes through ``samples`` inputs in batches; each batch is a draw of its own, with
    one perturbation. "New input, new weight" of the paper is ``weights="new", inputs="noise"``.

    Args:
        model: A module in eval mode, or a FunctionalModel; it is not changed.
        realizations: R.
        generator: Source of all numbers. Per draw: weights, then inputs, then perturbations, each in
            the order of the parameters; fixed noise comes first of all.
        samples: Inputs per realisation; None means 10 per output, or all of ``x`` for "data".
        input_shape: Shape of one input; None takes it from ``x``.
        x: The real images for "data", [N, ...]; for noise, only its shape, type and device count.
        batch_size: Inputs per draw; None means all of them.
        weights: "new": every draw has fresh prunable weights from N(0, 2/fan_in) (Kaiming normal),
            batch norms' scales 1 and shifts 0; everything else, biases too, stays. "fixed": the
            model's own.
        inputs: "noise": N(0, I), new for every draw. "fixed_noise": N(0, I), drawn once. "data": ``x``.
        perturb: The perturbed parameters: "prunable" (the masked ones, as published), None for all,
            names, or a predicate.
        law: "gaussian" or "rademacher".

    Returns:
        An iterator over R·⌈samples/batch_size⌉ draws; nothing is kept.

    Raises:
        TypeError: If ``generator`` is missing, or ``x`` is not a tensor or, for noise, not real-valued.
        ValueError: If an option is unknown or not positive, or inputs are neither given nor described.

    Cost:
        P normal numbers for the weights and P for the perturbation, per draw.

    Source:
        NTK-SAP §4 and its published code, which draws weights anew for every batch.

    Example:
        >>> net, generator = nn.Linear(3, 2), torch.Generator().manual_seed(0)
        >>> draws = list(sample_draws(net, realizations=2, input_shape=[3], generator=generator))
        >>> len(draws), draws[0].x.shape, list(draws[0].probes)
        (2, torch.Size([20, 3]), ['weight'])
    """
    net = functional(model)
    check_count("samples", samples)
    check_count("batch_size", batch_size)
    check_choice("weights", weights, ("new", "fixed"))
    check_choice("inputs", inputs, ("noise", "fixed_noise", "data"))
    check_choice("law", law, LAWS)
    _check_source(realizations, generator)
    names = selected(net, perturb)
    if inputs != "data" and isinstance(x, Tensor) and not x.is_floating_point():
        raise TypeError(
            complaint(
                "x",
                "of real-valued inputs, for noise in their place",
                str(x.dtype),
                'Noise is no token: pass inputs="data".',
            )
        )
    like = _one_input(net, input_shape, x)
    if inputs == "data":
        count = len(_given(x)) if samples is None else min(samples, len(_given(x)))
    else:
        count = samples or IMAGES_PER_CLASS * _outputs(net, like)
    size = min(batch_size or count, count)
    fresh = reset_affine(model) if weights == "new" else {}

    def draws() -> Iterator[Draw]:
        fixed = x
        if inputs == "fixed_noise":
            fixed = _noise(like, count, generator)
        for _ in range(realizations):
            for start in range(0, count, size):
                params: Params = dict(fresh)
                if weights == "new":
                    redrawn = kaiming_normal(net, 1, generator=generator)
                    params |= {name: w[0] for name, w in redrawn.items()}
                stop = min(start + size, count)
                if inputs == "noise":
                    batch = _noise(like, stop - start, generator)
                else:
                    batch = _given(fixed)[start:stop]
                probes = LAWS[law](net.params, 1, generator=generator, names=names)
                yield Draw(params, batch, probes)

    return draws()


def kaiming_normal(model: FunctionalModel, count: int, *, generator: torch.Generator) -> Params:
    """Draw the prunable weights of ``count`` networks from N(0, 2/fan_in), [count, *shape]."""
    unit = sample_gaussian(model.params, count, generator=generator, names=model.prunable)
    return {
        name: math.sqrt(2 / max(1, model.params[name][0].numel())) * w for name, w in unit.items()
    }


def _check_source(realizations: int, generator: torch.Generator) -> None:
    if not isinstance(realizations, int) or realizations < 1:
        raise ValueError(
            complaint(
                "realizations", "a positive integer", repr(realizations), "Average at least one."
            )
        )
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            complaint(
                "generator",
                "a torch.Generator",
                type(generator).__name__,
                "Pass torch.Generator().manual_seed(seed).",
            )
        )


def _given(x: Tensor | None) -> Tensor:
    if x is None:
        raise ValueError(
            complaint("x", 'the real images for inputs="data"', "None", "Pass a batch.")
        )
    return x


def _one_input(
    model: FunctionalModel, input_shape: Sequence[int] | None, x: Tensor | None
) -> Tensor:
    """Return one input of zeros: of ``input_shape`` in the parameters' type, or like ``x``."""
    if x is not None:
        check_batch("x", x)
    if input_shape is not None:
        p = next(iter(model.params.values()))
        return torch.zeros(1, *input_shape, dtype=p.dtype, device=p.device)
    if x is None:
        raise ValueError(
            complaint(
                "input_shape",
                "given where no x is",
                "None",
                "Pass the shape of one input, without the sample axis.",
            )
        )
    return torch.zeros_like(x[:1])


def _outputs(model: FunctionalModel, like: Tensor) -> int:
    return evaluate(model.model_fn, model.params, like, "input_shape").shape[1]


def _noise(like: Tensor, count: int, generator: torch.Generator) -> Tensor:
    shape = (count, *like.shape[1:])
    noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device)
    return noise.to(like.device)
