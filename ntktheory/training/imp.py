"""Masks from trained weights: iterative magnitude pruning, and magnitude after training."""

import inspect
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntktheory.checks import check_choice, complaint
from ntktheory.functional import functional
from ntktheory.pruning.masks import Masked, apply_masks, carried_masks
from ntktheory.pruning.run_files import described
from ntktheory.pruning.scoring import check_own_weights
from ntktheory.pruning.topk import keep_highest, kept_count
from ntktheory.training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from ntktheory.training.loop import train

Rewind = Literal["init", "early", "learning_rate"]
REWINDS: tuple[Rewind, ...] = ("init", "early", "learning_rate")
DROP = 0.2
TrainFn = Callable[..., list[float]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class TrainedRound:
    """One round: train, then prune.

    Attributes:
        kept: How many prunable weights are kept after it.
        density: Their fraction.
        threshold: The smallest magnitude kept.
        per_layer: Parameter name -> fraction kept.
        first_loss: Loss before the first step of its training.
        last_loss: Loss before the last.
        seconds: What it took.
    """

    kept: int
    density: float
    threshold: float
    per_layer: dict[str, float]
    first_loss: float
    last_loss: float
    seconds: float


@dataclass(frozen=True)
class TrainedMasks:
    """Masks that training has chosen.

    Attributes:
        masks: Parameter name -> bool mask, True = kept, of the prunable weights. Of a model that
            carries masks they are named as in ``carried_masks``.
        model: A copy under these masks, with the weights and buffers that the last rewinding gives;
            train it from ``first_step``.
        first_step: Where in the schedule its training starts.
        density: Fraction of the prunable weights kept.
        history: The rounds.
    """

    masks: dict[str, Tensor]
    model: nn.Module
    first_step: int
    density: float
    history: tuple[TrainedRound, ...]


def training_on(
    inputs: Tensor, labels: Tensor, *, steps: int, seed: int = 0, **options: Any
) -> TrainFn:
    """Return the ``train_fn`` that trains on given data with ``train``, the same way in every round.

    Args:
        inputs: N samples.
        labels: Their classes or targets.
        steps: Length of the schedule.
        seed: Of the order of the samples, drawn anew from it in every round.
        **options: Further options of ``train``.

    Returns:
        ``train_fn(model, *, first_step, on_step) -> losses``. Its attribute ``fingerprint`` returns
        what tells it from others, made of what JSON knows: digests of data and labels, the steps, the
        seed and the options of ``train``; a loss function is known by its name only.
    """

    def train_fn(model: nn.Module, **where: Any) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return train(model, inputs, labels, steps=steps, generator=generator, **options, **where)

    def identity() -> dict[str, Any]:
        data = fingerprint({"inputs": inputs, "labels": labels})
        told = _train_defaults() | options | {"steps": steps, "seed": seed}
        told.pop("progress")
        return {"data": data, **described(told, "options")}

    train_fn.fingerprint = identity  # type: ignore[attr-defined]
    return train_fn


def _train_defaults() -> dict[str, Any]:
    """Return the options of ``train`` that say how, not where, and their defaults."""
    parameters = inspect.signature(train).parameters.values()
    where = ("generator", "first_step", "on_step")
    return {
        p.name: p.default for p in parameters if p.default is not p.empty and p.name not in where
    }


def iterative_magnitude_pruning(
    model: nn.Module,
    train_fn: TrainFn,
    density: float,
    *,
    drop: float = DROP,
    rewind: Rewind = "init",
    rewind_step: int = 0,
    checkpoint: str | Path | None = None,
) -> TrainedMasks:
    """Train, drop the smallest of the remaining weights, rewind, and repeat.

    Every round keeps the largest ``|θ|`` of the prunable weights that are still kept, of all layers
    together: ``round((1 − drop)·kept)`` of them, ties by index, until ``max(1, round(density·P))`` are
    left. A density of 1 takes no round. A model made by ``apply_masks`` starts from its masks, and
    nothing that they drop comes back.

    Args:
        model: The network at initialisation, in eval mode; it is not changed.
        train_fn: ``train_fn(model, *, first_step, on_step) -> losses`` trains a masked copy in place
            from that step of its schedule on, and calls ``on_step(steps behind)`` before the first
            step and after each; see ``training_on``. With a checkpoint, an attribute ``fingerprint``,
            a function that returns JSON data, tells it from others; without one it is not compared.
        density: Fraction of the prunable weights to keep.
        drop: Fraction of the rest that a round drops.
        rewind: What the kept weights are after a round. "init": those of ``model``, buffers too.
            "early": those after ``rewind_step`` steps of the first training. "learning_rate": those
            that training ended with, while the schedule goes back to ``rewind_step``.
        rewind_step: Where the later trainings enter the schedule; 0 for "init". The optimiser starts
            afresh every time.
        checkpoint: A file that a killed run leaves and the same call resumes from; None keeps none.

    Returns:
        Masks, the masked model to train, and the history.

    Raises:
        ValueError: If an option is out of range, the density is more than the model's own masks keep, a
            layer computes its weight from other parameters, ``train_fn`` never reaches
            ``rewind_step``, or the checkpoint is of another call: of another model, other options or
            another training.
        NumericalError: If training diverges.

    Cost:
        ``log(density)/log(1 − drop)`` trainings.

    Source:
        Frankle and Carbin 2019 ("init"); Frankle et al. 2020 ("early"); Renda, Frankle and Carbin 2020
        ("learning_rate").

    Example:
        >>> net = nn.Linear(4, 2).eval()
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> found = iterative_magnitude_pruning(net, training_on(x, y, steps=5), 0.5)
        >>> int(found.masks["weight"].sum()), [r.kept for r in found.history]
        (4, [6, 5, 4])
    """
    if not 0 < drop < 1:
        raise ValueError(complaint("drop", "inside (0, 1)", drop, "Drop 0.2 of the rest."))
    available, count = _to_keep(model, density)
    counts = kept_counts(available, count, drop)
    file = None if checkpoint is None else Path(checkpoint)
    return _rounds(model, train_fn, counts, rewind, rewind_step, file)


def magnitude_after(
    model: nn.Module,
    train_fn: TrainFn,
    density: float,
    *,
    rewind: Rewind = "init",
    rewind_step: int = 0,
    checkpoint: str | Path | None = None,
) -> TrainedMasks:
    """Train once and keep the largest ``|θ|``: iterative magnitude pruning in a single round.

    Args:
        model: See ``iterative_magnitude_pruning``, also for what follows.
        train_fn: Trains a masked copy.
        density: Fraction of the prunable weights to keep.
        rewind: What the kept weights are afterwards.
        rewind_step: Where their training enters the schedule.
        checkpoint: A file to resume from.

    Returns:
        Masks, the masked model to train, and the history.

    Raises:
        ValueError: If an option is out of range, the density is more than the model's own masks keep,
            or the checkpoint is of another call.
        NumericalError: If training diverges.

    Example:
        >>> net = nn.Linear(4, 2).eval()
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> found = magnitude_after(net, training_on(x, y, steps=5), 0.25)
        >>> theta = found.model.parametrizations.weight.original
        >>> int(found.masks["weight"].sum()), torch.equal(theta, net.weight)
        (2, True)
    """
    available, count = _to_keep(model, density)
    file = None if checkpoint is None else Path(checkpoint)
    return _rounds(model, train_fn, [count] if count < available else [], rewind, rewind_step, file)


def kept_counts(total: int, count: int, drop: float = DROP) -> list[int]:
    """Return how many weights each round keeps, from ``total`` down to ``count``.

    Every round keeps ``round((1 − drop)·kept)`` of the weights before it, at least one less, and never
    less than ``count``.

    Example:
        >>> kept_counts(100, 50)
        [80, 64, 51, 50]
    """
    counts: list[int] = []
    kept = total
    while kept > count:
        kept = max(count, min(kept - 1, round((1 - drop) * kept)))
        counts.append(kept)
    return counts


def _rounds(
    model: nn.Module,
    train_fn: TrainFn,
    counts: list[int],
    rewind: Rewind,
    rewind_step: int,
    checkpoint: Path | None,
) -> TrainedMasks:
    _check_rewind(rewind, rewind_step)
    masks = _first_masks(model)
    total = sum(mask.numel() for mask in masks.values())
    state = _theta(model)
    early = state
    call: dict[str, Any] = {}
    if checkpoint is not None:
        call = {
            "counts": counts,
            "rewind": [rewind, rewind_step],
            "model": fingerprint(model.state_dict()),
            "training": getattr(train_fn, "fingerprint", lambda: None)(),
        }
    history: list[TrainedRound] = []
    if checkpoint is not None and checkpoint.exists():
        masks, state, early, history = _resume(checkpoint, call, masks, state)
    for position in range(len(history), len(counts)):
        start, first_step = time.perf_counter(), rewind_step if position else 0
        trained, seen, losses = _train(model, state, masks, train_fn, first_step, rewind_step)
        if position == 0 and rewind == "early":
            early = _reached(seen, rewind_step)
        sizes = {name: trained[name].abs().masked_fill(~m, -1.0) for name, m in masks.items()}
        masks = keep_highest(sizes, counts[position])
        state = trained if rewind == "learning_rate" else early
        threshold = min(float(sizes[n][m].min()) for n, m in masks.items() if bool(m.any()))
        per_layer = {name: float(m.double().mean()) for name, m in masks.items()}
        seconds = time.perf_counter() - start
        kept = counts[position]
        history.append(
            TrainedRound(kept, kept / total, threshold, per_layer, losses[0], losses[-1], seconds)
        )
        if checkpoint is not None:
            _save(checkpoint, call, masks, state, early, history)
    first_step = rewind_step if counts else 0
    kept = sum(int(m.sum()) for m in masks.values())
    start_model = _under(model, state, masks)
    return TrainedMasks(masks, start_model, first_step, kept / total, tuple(history))


def _to_keep(model: nn.Module, density: float) -> tuple[int, int]:
    """Return how many prunable weights a model has left, and how many of them a density keeps.

    Raises:
        ValueError: If there are not as many, or a layer computes its weight from other parameters.
    """
    check_own_weights(model)
    masks = _first_masks(model)
    total = sum(mask.numel() for mask in masks.values())
    available = sum(int(mask.sum()) for mask in masks.values())
    count = kept_count(density, total)
    if count > available:
        raise ValueError(
            complaint(
                "density",
                f"at most {available / total:.6g}, what the model's own masks keep",
                repr(density),
                "It is relative to all prunable weights, dropped ones included.",
            )
        )
    return available, count


def _first_masks(model: nn.Module) -> dict[str, Tensor]:
    """Return masks of all that a model has left of its prunable weights.

    Raises:
        ValueError: If there are none.
    """
    net = functional(model)
    if not net.prunable:
        raise ValueError(
            complaint("model", "a network with prunable weights", "none", "Add a linear layer.")
        )
    own = carried_masks(model)
    return {
        name: own.get(name, torch.ones_like(net.params[name], dtype=torch.bool))
        for name in net.prunable
    }


def _theta(model: nn.Module) -> State:
    """Return copies of a model's parameters and buffers, less the masks that it carries."""
    carried = {path for path, module in model.named_modules() if isinstance(module, Masked)}
    return {
        name: t.detach().clone()
        for name, t in model.state_dict().items()
        if name.rpartition(".")[0] not in carried
    }


def _check_rewind(rewind: Rewind, rewind_step: int) -> None:
    check_choice("rewind", rewind, REWINDS)
    if type(rewind_step) is not int or rewind_step < 0 or (rewind == "init" and rewind_step):
        expected = "0" if rewind == "init" else "a number of steps"
        raise ValueError(
            complaint(
                f"rewind_step of {rewind!r}", expected, repr(rewind_step), 'Or rewind="early".'
            )
        )


def _under(model: nn.Module, state: State, masks: dict[str, Tensor]) -> nn.Module:
    """Return a copy of a model with a state and masks."""
    sparse = apply_masks(model, masks)
    own = sparse.state_dict()
    for name in own:
        plain = _plain_name(name, state)
        if plain in state:
            own[name].copy_(state[plain])
    return sparse


def _plain_name(name: str, state: State) -> str:
    """Return what a model calls a tensor of its masked copy; it may have been masked before."""
    if name in state:
        return name
    return name.replace("parametrizations.", "").removesuffix(".original")


def _train(
    model: nn.Module,
    state: State,
    masks: dict[str, Tensor],
    train_fn: TrainFn,
    first_step: int,
    look_at: int,
) -> tuple[State, State | None, list[float]]:
    """Return the states after training and after ``look_at`` steps, and the losses."""
    sparse = _under(model, state, masks)
    seen: list[State] = []

    def read() -> State:
        own = {
            _plain_name(name, state): t.detach().clone() for name, t in sparse.state_dict().items()
        }
        return {name: own[name] for name in state}

    def on_step(step: int) -> None:
        if step == look_at:
            seen.append(read())

    losses = train_fn(sparse, first_step=first_step, on_step=on_step)
    return read(), seen[0] if seen else None, losses


def _reached(seen: State | None, step: int) -> State:
    """Return the state at the step to rewind to.

    Raises:
        ValueError: If training has not been there.
    """
    if seen is None:
        raise ValueError(
            complaint(
                "rewind_step", "a step that train_fn reports to on_step", step, "Rewind earlier."
            )
        )
    return seen


def _save(
    path: Path,
    call: dict[str, Any],
    masks: dict[str, Tensor],
    state: State,
    early: State,
    history: list[TrainedRound],
) -> None:
    groups = {"masks": masks, "state": state, "early": early}
    tensors = {f"{group}/{name}": t for group, one in groups.items() for name, t in one.items()}
    save_checkpoint(path, tensors, call | {"history": [asdict(r) for r in history]})


def _resume(
    path: Path, call: dict[str, Any], own_masks: dict[str, Tensor], own_state: State
) -> tuple[dict[str, Tensor], State, State, list[TrainedRound]]:
    """Return masks, state, early state and history of a killed run, on the devices of the own ones.

    Raises:
        ValueError: If it was another run.
    """
    tensors, values = load_checkpoint(path)
    history = [TrainedRound(**entry) for entry in values.pop("history", [])]
    if values != call:
        raise ValueError(
            complaint("checkpoint", "of the same call", f"{path} of another", "Move it away.")
        )
    masks, state, early = (
        {name: tensors[f"{group}/{name}"].to(t.device) for name, t in own.items()}
        for group, own in (("masks", own_masks), ("state", own_state), ("early", own_state))
    )
    return masks, state, early, history
