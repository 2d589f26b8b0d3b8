"""Training a network with mini-batches."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import NumericalError, check_batch, check_choice, check_count, complaint
from ntktheory.functional import Loss

Optimizer = Literal["sgd", "adam"]
Schedule = Literal["constant", "cosine"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam")
SCHEDULES: tuple[Schedule, ...] = ("constant", "cosine")


def train(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch: int = 128,
    optimizer: Optimizer = "sgd",
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: Schedule = "cosine",
    loss_fn: Loss | None = None,
    generator: torch.Generator | None = None,
    first_step: int = 0,
    on_step: Callable[[int], None] | None = None,
    progress: bool = False,
) -> list[float]:
    """Train a network in place, and leave it in eval mode.

    Args:
        model: The network; under masks, what ``apply_masks`` returned.
        inputs: N samples.
        labels: Their classes [N], or targets.
        steps: How many mini-batches.
        batch: Samples per step; all N at every step if there are no more.
        optimizer: "sgd" (with ``momentum``) or "adam".
        lr: Learning rate at the first step.
        momentum: Of "sgd".
        weight_decay: Of the optimiser; it moves kept weights only, dropped ones have no effect.
        schedule: "constant", or "cosine" down to 0.
        loss_fn: ``loss_fn(outputs, labels) -> scalar``; None means mean cross-entropy.
        generator: Draws the order of the samples, anew in every epoch.
        first_step: Where to enter the schedule and the order of the samples: steps before it are
            left out. The optimiser starts afresh.
        on_step: Called with the number of steps behind, before the first one and after each.
        progress: Show a progress bar.

    Returns:
        The loss before each step taken.

    Raises:
        ValueError: If an option is unknown or not positive, labels do not fit, ``first_step`` is not
            one of the steps, or no parameter requires a gradient.
        NumericalError: If the loss is not finite; the message says at which step, and the weights are
            those before it.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> losses = train(net, torch.eye(2), torch.arange(2), steps=20, lr=1.0)
        >>> losses[-1] < losses[0]
        True
    """
    check_batch("inputs", inputs)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_choice("schedule", schedule, SCHEDULES)
    check_count("steps", steps)
    check_count("batch", batch)
    if type(first_step) is not int or not 0 <= first_step < steps:
        raise ValueError(
            complaint("first_step", f"in 0…{steps - 1}", repr(first_step), "Train more steps.")
        )
    if labels.shape[0] != inputs.shape[0]:
        raise ValueError(
            complaint(
                "labels", f"{inputs.shape[0]} of them", labels.shape[0], "One per sample is needed."
            )
        )
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        raise ValueError(
            complaint(
                "model",
                "a network with parameters to train",
                "one whose parameters are all frozen",
                "Call model.requires_grad_().",
            )
        )
    if optimizer == "adam":
        stepper: torch.optim.Optimizer = torch.optim.Adam(params, lr, weight_decay=weight_decay)
    else:
        stepper = torch.optim.SGD(params, lr, momentum, weight_decay=weight_decay)
    loss_fn = nn.functional.cross_entropy if loss_fn is None else loss_fn
    losses: list[float] = []
    model.train()
    try:
        on_step = (lambda step: None) if on_step is None else on_step
        on_step(first_step)
        picks = enumerate(sample_order(inputs.shape[0], batch, steps, generator))
        remaining = itertools.islice(picks, first_step, None)
        for step, pick in _track(remaining, steps - first_step, progress):
            for group in stepper.param_groups:
                group["lr"] = rate(lr, step, steps, schedule)
            loss = loss_fn(model(inputs[pick]), labels[pick])
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise NumericalError(
                    complaint(
                        f"loss at step {step}", "finite", losses[-1], "Use a smaller learning rate."
                    )
                )
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            on_step(step + 1)
    finally:
        model.eval()
    return losses


def rate(lr: float, step: int, steps: int, schedule: Schedule) -> float:
    """Return the learning rate of a step."""
    return lr if schedule == "constant" else lr * 0.5 * (1 + math.cos(math.pi * step / steps))


def sample_order(
    n: int, batch: int, steps: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield the samples of each step; an epoch's last batch may be smaller."""
    while steps > 0:
        order = torch.arange(n) if batch >= n else torch.randperm(n, generator=generator)
        for pick in order.split(batch)[:steps]:
            yield pick
            steps -= 1


def _track(
    steps: Iterable[tuple[int, Tensor]], total: int, progress: bool
) -> Iterable[tuple[int, Tensor]]:
    if not progress:
        return steps
    from rich.progress import track

    return track(steps, description="training", total=total)
