"""Masks of many networks at once: by training in rounds, and by any scorer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.checks import check_choice, complaint
from ntktheory.functional import FunctionalModel, Loss, Params, functional, to_dtype
from ntktheory.pruning.budgets import layer_counts
from ntktheory.pruning.schedules import densities
from ntktheory.pruning.scorers.registry import Scorer, check_options, find_scorer
from ntktheory.pruning.scoring import score
from ntktheory.pruning.topk import keep_highest, kept_count
from ntktheory.training.imp import DROP

PackedMasks = dict[str, Tensor]
Budget = Literal["global", "uniform"]
TrainPack = Callable[[PackedMasks], Params]


def trained_masks(
    params: Params,
    train: TrainPack,
    counts: Sequence[int],
    *,
    drop: float = DROP,
    in_rounds: bool = True,
    budget: Budget = "global",
) -> dict[int, PackedMasks]:
    """Return the masks of iterative magnitude pruning, or of magnitude after one training, of a pack.

    A run of rounds serves all counts: for a count between those of two rounds, the last round is cut
    there, as it would be if that were where pruning ends.

    Args:
        params: Prunable weights to start from [S, …].
        train: ``train(masks) -> params`` trains from the start under masks and returns weights; of
            weights that have no effect, those that they started with.
        counts: How many weights to keep of each network.
        drop: Fraction of the rest that a round drops.
        in_rounds: False prunes after the first training, to every count.
        budget: "global" compares the weights of all layers; "uniform" keeps the same fraction of
            each, and compares within layers.

    Returns:
        Count -> name -> bool masks [S, …].

    Raises:
        ValueError: If the budget is unknown or a count is not of weights of the network.

    Cost:
        One training for each round down to the smallest count, whatever the number of counts.

    Tested against ``iterative_magnitude_pruning`` of each network alone.
    """
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in params.items()}
    kept = total = sum(p[0].numel() for p in params.values())
    _check_counts(counts, total)
    check_choice("budget", budget, ("global", "uniform"))
    found = {total: masks} if total in counts else {}
    while set(counts) - set(found):
        trained = train(masks)
        sizes = {name: trained[name].abs().masked_fill(~m, -1.0) for name, m in masks.items()}
        left = {name: int(m[0].sum()) for name, m in masks.items()}
        below = min(kept - 1, round((1 - drop) * kept)) if in_rounds else 0
        for count in counts:
            if below <= count < kept:
                found[count] = _cut(sizes, count, budget, left)
        if set(counts) - set(found):
            masks, kept = _cut(sizes, below, budget, left), below
    return found


def _cut(sizes: Params, count: int, budget: Budget, left: Mapping[str, int]) -> PackedMasks:
    """Keep the largest of each network, or of each of its layers."""
    if budget == "global":
        return keep_highest_packed(sizes, count)
    shapes = {name: tuple(s.shape[1:]) for name, s in sizes.items()}
    shares = layer_counts("uniform", count, shapes, available=left)
    return {n: keep_highest_packed({n: s}, shares[n])[n] for n, s in sizes.items()}


def scored_masks(
    model: nn.Module | FunctionalModel,
    params: Params,
    scorer: str,
    counts: Sequence[int],
    *,
    inputs: Tensor,
    labels: Tensor,
    generators: Sequence[torch.Generator],
    rounds: int | None = None,
    loss_fn: Loss | None = None,
    **options: Any,
) -> dict[int, PackedMasks]:
    """Return the masks that a scorer gives the networks of a pack, each from its own data.

    Scorers are mapped over the pack in one call where they are pure functions of weights, masks and
    data; those that draw, or that take a module, are called for one network after the other.

    Args:
        model: Any one of the networks, in eval mode.
        params: Weights [S, …] by name.
        scorer: A key of ``SCORERS``.
        counts: How many prunable weights to keep.
        inputs: Samples [S, n, …].
        labels: Their labels [S, n, …].
        generators: S sources of what a scorer draws.
        rounds: Rounds to each count, exponentially falling; None means the published number.
        loss_fn: Loss of one network; None means mean cross-entropy.
        **options: Options of the scorer.

    Returns:
        Count -> name -> bool masks [S, …] of the prunable weights.

    Raises:
        ValueError: If the scorer or an option is unknown, ``bn`` is not "eval", a count is not of
            weights of the network, or there are not S generators.

    Tested against ``prune`` of each network alone.
    """
    entry, net = find_scorer(scorer), functional(model)
    check_options("option", entry, options)
    if entry.batch_norm and (mode := options.pop("bn", "eval")) != "eval":
        raise ValueError(
            complaint("bn", "'eval' in a pack", repr(mode), "Prune the networks one by one.")
        )
    if len(generators) != inputs.shape[0]:
        expected, remedy = f"{inputs.shape[0]} of them", "Give one per network."
        raise ValueError(complaint("generators", expected, len(generators), remedy))
    prunable = {name: params[name] for name in net.prunable}
    total = sum(p[0].numel() for p in prunable.values())
    _check_counts(counts, total)
    rounds = entry.rounds if rounds is None else rounds
    loss = F.cross_entropy if loss_fn is None else loss_fn
    alone = bool(entry.takes & {"model", "generator"})

    def scores(masks: PackedMasks) -> Params:
        if alone:
            return _one_by_one(
                net, params, masks, scorer, inputs, labels, generators, loss_fn, options
            )
        return _mapped(net, params, masks, entry, inputs, labels, loss, options)

    every = {name: torch.ones_like(p, dtype=torch.bool) for name, p in prunable.items()}
    first = scores(every)
    found = {}
    for count in counts:
        masks = every
        for position, density in enumerate(densities(count / total, rounds)):
            at = first if position == 0 else scores(masks)
            remaining = {n: at[n].masked_fill(~m, -float("inf")) for n, m in masks.items()}
            masks = keep_highest_packed(remaining, kept_count(density, total))
        found[count] = masks
    return found


def keep_highest_packed(scores: Mapping[str, Tensor], count: int) -> PackedMasks:
    """Return masks that keep ``count`` weights of each network, ties by index; see ``keep_highest``."""
    nets = range(len(next(iter(scores.values()))))
    each = [keep_highest({name: s[i] for name, s in scores.items()}, count) for i in nets]
    return {name: torch.stack([one[name] for one in each]) for name in scores}


def _mapped(
    net: FunctionalModel,
    params: Params,
    masks: PackedMasks,
    entry: Scorer,
    inputs: Tensor,
    labels: Tensor,
    loss_fn: Loss,
    options: dict[str, Any],
) -> Params:
    """Return the scores of all networks from one call under ``vmap``."""
    if entry.float64:
        net = to_dtype(net, torch.float64)
        params = {name: p.double() for name, p in params.items()}
        inputs = inputs.double()

    def one(theta: Params, mask: PackedMasks, x: Tensor, y: Tensor) -> Params:
        supplied: dict[str, Any] = {
            "model_fn": net.model_fn, "params": theta, "masks": mask, "names": net.prunable,
            "x": x, "y": y, "like": x[:1], "input_shape": x.shape[1:], "loss_fn": loss_fn,
        }  # fmt: skip
        given = {name: value for name, value in supplied.items() if name in entry.takes}
        found = entry.function(**given, **options)
        return {name: found[name] for name in net.prunable}

    return torch.func.vmap(one)(params, masks, inputs, labels)


def _one_by_one(
    net: FunctionalModel,
    params: Params,
    masks: PackedMasks,
    scorer: str,
    inputs: Tensor,
    labels: Tensor,
    generators: Sequence[torch.Generator],
    loss_fn: Loss | None,
    options: dict[str, Any],
) -> Params:
    """Return the scores of one network after the other."""
    found = []
    for i, generator in enumerate(generators):
        own = {name: p[i] for name, p in params.items()}
        one = FunctionalModel(net.model_fn, own, net.buffers, net.tied, net.prunable)
        mask = {name: m[i] for name, m in masks.items()}
        batch = (inputs[i], labels[i])
        found.append(
            score(
                one,
                scorer,
                batch=batch,
                masks=mask,
                loss_fn=loss_fn,
                generator=generator,
                input_shape=inputs.shape[2:],
                **options,
            )
        )
    return {name: torch.stack([one[name] for one in found]) for name in net.prunable}


def _check_counts(counts: Sequence[int], total: int) -> None:
    """Check how many weights are to be kept.

    Raises:
        ValueError: If there is nothing to find, or a count is not between 1 and ``total``.
    """
    if not counts or min(counts) < 1 or max(counts) > total:
        raise ValueError(
            complaint("counts", f"between 1 and {total}", list(counts), "Keep at least one weight.")
        )
