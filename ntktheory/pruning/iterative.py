"""Pruning in rounds: score, keep the highest, score again."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory.checks import check_masks, complaint
from ntktheory.files import check_folder
from ntktheory.functional import FunctionalModel, Loss, functional
from ntktheory.pruning.budgets import (
    Budget,
    check_budget,
    floors,
    keep_by_budget,
    layer_counts,
    most_kept,
)
from ntktheory.pruning.inference_mode import outside_inference_mode
from ntktheory.pruning.masks import carried_masks
from ntktheory.pruning.rounds import Round, summarised
from ntktheory.pruning.run_files import Digests, describe_run, described, load_run, save_run
from ntktheory.pruning.schedules import Schedule, densities
from ntktheory.pruning.scorers.registry import find_scorer
from ntktheory.pruning.scoring import check_own_weights, check_prunable, score
from ntktheory.pruning.topk import kept_count

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class PruneResult:
    """Masks, and how they came about.

    Attributes:
        masks: Prunable parameter name -> bool mask, True = kept.
        density: The fraction of prunable weights that they keep.
        per_layer: Name -> the fraction of its weights.
        history: One ``Round`` per round, in order.
        settings: Scorer, density asked for, rounds, schedule, budget, floor, and all options of the
            scorer, those left at their defaults too.
    """

    masks: Masks
    density: float
    per_layer: Mapping[str, float]
    history: tuple[Round, ...]
    settings: Mapping[str, Any]


@outside_inference_mode
def prune(
    model: nn.Module | FunctionalModel,
    scorer: str,
    density: float,
    *,
    rounds: int | None = None,
    schedule: Schedule | None = None,
    budget: Budget | None = None,
    floor: int = 0,
    batch: Any = None,
    loss_fn: Loss | None = None,
    masks: Mapping[str, Tensor] | None = None,
    input_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
    resume: str | Path | None = None,
    **options: Any,
) -> PruneResult:
    """Prune a model in rounds: each scores what is left, and keeps the highest scores.

    After every round exactly ``max(1, round(d·P))`` of the P prunable weights are kept, d the density
    that the schedule gives to the round; ties go by index. (Before the last round, that is at most what
    the first masks have left, and what a layerwise budget can hold.) Masks are nested: a weight once
    pruned stays pruned, unless the scorer is one that regrows. The first masks are those given, and
    those of a model made by ``apply_masks``; nothing that they drop comes back. The model is not
    changed.

    Args:
        model: A module in eval mode, or a FunctionalModel.
        scorer: A key of ``SCORERS``.
        density: The fraction of prunable weights kept in the end, in (0, 1].
        rounds: How many rounds; None means the scorer's published number.
        schedule: "exponential", "linear", "inverse" or "one_shot"; None means the published one.
        budget: "global", "uniform", "erk", or layer name -> density or mask (see ``layer_counts``);
            None means the published one.
        floor: How many weights every layer keeps at least, if it has as many.
        batch: ``(x, y)``, or only ``x``; or a function from the number of the round, from 0 on, to it.
        loss_fn: ``loss_fn(outputs, y) -> scalar``; None means mean cross-entropy.
        masks: Name -> bool mask of prunable parameters, to start from.
        input_shape: Shape of one input, for scorers that only need to know it.
        generator: Source of randomness of the scorers that draw.
        progress: Show a progress bar on stderr.
        resume: A file that holds the last complete round. If it exists, the run goes on from there and
            ends with the very masks of an uninterrupted one; what a finished run left is returned.
            The file is refused if the model, a setting or the batch is another; a batch by round is
            compared at the first and at the last complete round, for which the function must return
            the same again. A loss function is known by its name only.
        **options: Options of the scorer, see ``score``.

    Returns:
        Masks and history.

    Raises:
        TypeError: If the batch, the budget, a mask or the generator is of another type, or ``resume``
            is given and an option or the batch is an object that could not be compared.
        ValueError: If the density is not in (0, 1] or keeps no weight, more than the first masks have
            left or the budget can hold, or fewer than the floor; if a mask is unknown or does not fit;
            if there is nothing to prune, or a layer computes its weight from other parameters; if
            scorer, schedule, budget or an option is unknown; if something that the scorer needs is
            missing; if an option is an iterator, which the first of several rounds would use up; or if
            ``resume`` names a file that is damaged or of another run.
        NumericalError: If the batch or a score is not finite; the message names the layer.

    Cost:
        Per round, that of the scorer and O(P).

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = net.weight.copy_(torch.tensor([[1.0, -4.0], [2.0, 3.0]]))
        >>> prune(net, "magnitude", 0.5).masks["weight"]
        tensor([[False,  True],
                [False,  True]])
    """
    entry, net = find_scorer(scorer), functional(model)
    check_own_weights(model)
    check_prunable(net)
    params = {name: net.params[name] for name in net.prunable}
    rounds = entry.rounds if rounds is None else rounds
    schedule, budget = schedule or entry.schedule, entry.budget if budget is None else budget
    settings = {
        "scorer": scorer,
        "density": density,
        "rounds": rounds,
        "schedule": schedule,
        "budget": budget,
        "floor": floor,
        "options": entry.options | options,
    }
    start = _first(model, params, masks)
    counts = _planned(density, rounds, schedule, start)
    _check_lasting(options, rounds)
    check_budget(budget, {name: p.shape for name, p in params.items()})
    counts = _held(counts, budget, start, floor)

    def scored(batch: Any, masks: Masks) -> Masks:
        dropped = any(not bool(mask.all()) for mask in masks.values())
        return score(
            model,
            scorer,
            batch=batch,
            loss_fn=loss_fn,
            masks=masks if dropped else None,  # without masks the path scorers save a pass
            input_shape=input_shape,
            generator=generator,
            **options,
        )

    left = start
    history: tuple[Round, ...] = ()
    batches: Digests = ()
    batch_of = batch if callable(batch) else None
    path = None if resume is None else Path(resume)
    if path is not None:
        check_folder(path, "resume")
        given = {
            "batch": "by round" if batch_of else batch,
            "loss function": loss_fn,
            "input shape": input_shape,
            "masks": masks,
        }
        seed = None if generator is None else generator.initial_seed()
        run = describe_run({**settings, **given, "seed": seed}, net)
        if path.exists():
            left, history, batches = load_run(path, run, batch_of, generator)
            left = {name: left[name].to(p.device) for name, p in params.items()}
    for number in _track(range(len(history), rounds), rounds, progress):
        candidates = start if entry.regrows else left
        began = time.perf_counter()
        now = batch_of(number) if batch_of else batch
        if path is not None and batch_of:
            batches = (*batches, described(now, "batch"))
        scores = scored(now, left)
        left = keep_by_budget(scores, counts[number], budget, candidates=candidates, floor=floor)
        seconds = time.perf_counter() - began
        history = (*history, summarised(scores, candidates, left, seconds))
        if path is not None:
            save_run(path, run, left, history, batches, generator)
    return PruneResult(left, history[-1].density, history[-1].per_layer, history, settings)


def _first(
    model: nn.Module | FunctionalModel,
    params: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
) -> Masks:
    """Return masks of the weights that are there to begin with."""
    check_masks(masks, params, binary=True)
    first = {name: torch.ones_like(p, dtype=torch.bool) for name, p in params.items()}
    for own in (carried_masks(model), masks or {}):
        first |= {n: first[n] & m.to(first[n].device).bool() for n, m in own.items() if n in first}
    return first


def _check_lasting(options: Mapping[str, Any], rounds: int) -> None:
    """Check that no option is used up by the first of several rounds."""
    for name, value in options.items():
        if rounds > 1 and isinstance(value, Iterator):
            raise ValueError(
                complaint(
                    name,
                    "a collection that every round can go through",
                    f"{type(value).__name__}, which one round uses up",
                    "Make it a list.",
                )
            )


def _planned(density: float, rounds: int, schedule: Schedule, start: Masks) -> list[int]:
    """Return how many weights are kept after each round, at most what there is."""
    total, available = sum(m.numel() for m in start.values()), sum(_counts(start).values())
    final = kept_count(density, total)
    if final > available:
        raise ValueError(
            complaint(
                "density",
                f"at most {available / total:.6g}, what the first masks keep",
                repr(density),
                "It is relative to all prunable weights, dropped ones included.",
            )
        )
    between = densities(density, rounds, schedule)[:-1]
    return [*(min(kept_count(d, total), available) for d in between), final]


def _held(counts: list[int], budget: Budget, start: Masks, floor: int) -> list[int]:
    """Return how many weights are kept after each round, at most what the budget can hold.

    Raises:
        ValueError: If the budget cannot hold the last count, or that is less than the floor.
    """
    shapes = {name: tuple(mask.shape) for name, mask in start.items()}
    available = _counts(start)
    floors(available, counts[-1], floor)
    if budget != "global":
        layer_counts(budget, counts[-1], shapes, available=available, floor=floor)
    room = most_kept(budget, shapes, available=available, floor=floor)
    return [min(count, room) for count in counts]


def _counts(masks: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: int(mask.count_nonzero()) for name, mask in masks.items()}


def _track(numbers: range, rounds: int, progress: bool) -> Iterable[int]:
    if not progress:
        return numbers
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(numbers, "Pruning", total=rounds, completed=numbers.start, console=console)
