"""The masks of every pruner on every data set of the toy, for every number of pruned weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import NumericalError, check_choice, complaint
from ntktheory.functional import Params
from ntktheory.information.code_words import check_code_length
from ntktheory.information.enumeration import check_repeats
from ntktheory.information.toy_data import ToyData
from ntktheory.information.toy_learner import train
from ntktheory.information.toy_network import ToyNetwork
from ntktheory.pruning.scorers import SCORERS
from ntktheory.pruning.scorers.registry import Scorer

TRAINED = ("imp", "magnitude_after")
NEAR = 1e-9
"""Scores on either side of the cut that differ by less, relative to the larger, are a near-tie."""
HUGE = 1e300
"""What a weight that has diverged is taken for."""
SCORED = 4096
"""Data sets scored together."""
AGAIN = 16
"""Data sets scored again, to see whether the scorer is deterministic."""


@dataclass(frozen=True)
class ToyMasks:
    """Masks of one pruner from one init.

    Attributes:
        codes: Code words, [P, N] int64: row k has k weights pruned.
        near_ties: Where a mask hangs on rounding, [P, N] bool. Two scores that are exactly 0 are no
            near-tie: they are equal, and the index decides.
    """

    codes: Tensor
    near_ties: Tensor


def toy_masks(
    method: str,
    data: ToyData,
    network: ToyNetwork,
    start: Tensor,
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    diverged: bool = False,
) -> ToyMasks:
    """Return a pruner's masks on every data set, k = 0…P−1 of the P parameters pruned.

    ``imp`` prunes one weight per round, the smallest after training from ``start`` under the mask so
    far. ``magnitude_after`` trains once and prunes the smallest of the trained weights. Any key of
    ``SCORERS`` prunes the lowest scores at ``start``, of one call without masks. Among equal scores the
    smaller index is kept.

    Args:
        method: ``imp``, ``magnitude_after`` or a key of ``SCORERS``.
        data: The data sets.
        network: The network and its loss.
        start: The initial weights, [P] float64; for pruners that train also [P, N].
        steps: Steps of each training.
        lr: Its learning rate.
        seed: Seed of the scorers that draw: the same numbers for every data set.
        options: Options of the scorer.
        diverged: Whether training may diverge on some data sets. Their masks then count as near-ties:
            they could be any.

    Returns:
        The masks.

    Raises:
        ValueError: If the method or an option is unknown, P passes 62, a setting is out of range, or a
            second call of a scorer gives other masks.
        NumericalError: If a score is not finite, or a trained weight, and ``diverged`` is False.

    Cost:
        P − 1 trainings for ``imp``, one for ``magnitude_after``; for a scorer one call per data set, or
        per multiset of inputs where it asks for no labels, or once where it asks for no data.
    """
    known = options_of(method)
    check_code_length(network.size)
    _check_options(method, options, known)
    if method == "imp":
        return _iterative(data, network, start, steps, lr, diverged)
    if method == "magnitude_after":
        trained = train(data, network, start, steps=steps, lr=lr)
        return masks_by_rank(trained.abs(), diverged=diverged)
    found = masks_by_rank(scores_at(data, network, start, method, seed=seed, options=options))
    few = data.part(torch.arange(min(AGAIN, len(data))))
    again = masks_by_rank(scores_at(few, network, start, method, seed=seed, options=options))
    sure = ~found.near_ties[:, : len(few)]
    for first, second in zip(found.codes[:, : len(few)][sure], again.codes[sure], strict=True):
        check_repeats(int(first), int(second))
    return found


def options_of(method: str) -> tuple[str, ...]:
    """Return the names of a pruner's options on the toy, none for those that train.

    Raises:
        ValueError: If the method is unknown.
    """
    check_choice("method", method, [*TRAINED, *SCORERS])
    if method in TRAINED:
        return ()
    return tuple(name for name in SCORERS[method].options if name != "bn")  # no batch norm here


def masks_by_rank(scores: Tensor, *, diverged: bool = False) -> ToyMasks:
    """Return the masks that keep the P − k highest scores, ties by index, for k = 0…P−1.

    Args:
        scores: Scores [P, N].
        diverged: Whether scores may be NaN or infinite; all masks of such a data set are near-ties.

    Returns:
        The masks.

    Raises:
        NumericalError: If a score is NaN or infinite, and none may be.
    """
    scores, lost = _finite(scores, diverged)
    ordered, index = scores.sort(dim=0, descending=True, stable=True)
    words = (1 << index).cumsum(0).flip(0)  # row k: the P − k highest
    lowest_kept, highest_dropped = ordered[:-1].flip(0), ordered[1:].flip(0)
    near = torch.zeros_like(words, dtype=torch.bool)
    near[1:] = near_tie(lowest_kept, highest_dropped) | lost
    return ToyMasks(words, near)


def near_tie(a: Tensor, b: Tensor) -> Tensor:
    """Return where ``|a − b| ≤ 1e-9 max(|a|, |b|)``, but for a = b = 0."""
    scale = torch.maximum(a.abs(), b.abs())
    return ((a - b).abs() <= NEAR * scale) & (scale > 0)


def scores_at(
    data: ToyData,
    network: ToyNetwork,
    start: Tensor,
    scorer: str,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return a scorer's scores at the init on every data set, [P, N]: ``SCORERS``, under ``vmap``.

    Args:
        data: The data sets.
        network: The network and its loss.
        start: The initial weights, [P] float64.
        scorer: A key of ``SCORERS``. It gets data only if it cannot do without.
        seed: Seed of its random numbers, the same for every data set.
        options: Its options.

    Returns:
        The scores; N views of one column if it needs no data.
    """
    entry = SCORERS[scorer]
    own = network.model(start)
    supplied = {
        "model": own, "model_fn": own.model_fn, "params": own.params, "buffers": {}, "masks": None,
        "names": own.prunable, "loss_fn": network.loss_fn, "input_shape": (network.dimension,),
        "like": torch.ones(1, network.dimension, dtype=start.dtype),
    }  # fmt: skip
    given = {name: supplied[name] for name in entry.takes & set(supplied)}

    def call(**batch: Tensor) -> Tensor:
        drawn = (
            {"generator": torch.Generator().manual_seed(seed)} if "generator" in entry.takes else {}
        )
        return _flat(entry.function(**given, **drawn, **batch, **(options or {})), network)

    if not entry.needs & {"x", "y"}:
        return call().unsqueeze(1).expand(-1, len(data))
    index, inverse = _distinct(data, entry)
    return torch.cat(
        [_scored(call, data, network, entry, part) for part in index.split(SCORED)], dim=1
    )[:, inverse]


def _scored(call: Any, data: ToyData, network: ToyNetwork, entry: Scorer, index: Tensor) -> Tensor:
    x, y = data.part(index).points()
    batch = {"x": x, "y": network.labels(y)}
    needed = {name: batch[name] for name in ("x", "y") if name in entry.needs}
    names = tuple(needed)

    def one(*values: Tensor) -> Tensor:
        return call(**dict(zip(names, values, strict=True)))

    return torch.func.vmap(one, randomness="same")(*needed.values()).T


def _distinct(data: ToyData, entry: Scorer) -> tuple[Tensor, Tensor]:
    """Return data sets that differ in what the scorer sees, and each data set's place among them."""
    everything = torch.arange(len(data))
    if "y" in entry.needs:
        return everything, everything
    _, inverse = torch.unique(data.counts.sum(0).T, dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(data))
    return first.scatter_reduce_(0, inverse, everything, "amin"), inverse


def _flat(scores: Params, network: ToyNetwork) -> Tensor:
    return torch.cat([scores[name].flatten() for name in network.shapes])


def _iterative(
    data: ToyData, network: ToyNetwork, start: Tensor, steps: int, lr: float, diverged: bool
) -> ToyMasks:
    """Return IMP's masks; a near-tie in one round counts in all that follow."""
    size, number = network.size, len(data)
    kept = torch.ones(size, number, dtype=torch.bool)
    near = torch.zeros(size, number, dtype=torch.bool)
    words = torch.full((size, number), (1 << size) - 1)
    for k in range(1, size):
        trained = train(data, network, start, kept, steps=steps, lr=lr).abs()
        trained, lost = _finite(trained, diverged)
        trained[~kept] = torch.inf
        lowest, second = torch.from_numpy(np.partition(trained.numpy(), 1, axis=0)[:2])
        near[k] = near[k - 1] | near_tie(lowest, second) | lost
        last = np.argmin(trained.numpy()[::-1], axis=0)  # the first from the end
        dropped = size - 1 - torch.from_numpy(last)
        kept[dropped, torch.arange(number)] = False
        words[k] = words[k - 1] - (1 << dropped)
    return ToyMasks(words, near)


def _check_options(method: str, options: Mapping[str, Any] | None, known: Any) -> None:
    for name in options or {}:
        if name not in known:
            raise ValueError(
                complaint(
                    f"option of {method!r}",
                    f"among {', '.join(known)}" if known else "left out",
                    repr(name),
                    "Remove it.",
                )
            )


def _finite(values: Tensor, diverged: bool) -> tuple[Tensor, Tensor]:
    """Return values without NaN and Inf, and where a data set had them, [N].

    Raises:
        NumericalError: If there are any, and none may be.
    """
    lost = (~torch.isfinite(values)).any(0)
    if diverged or not bool(lost.any()):
        return values.nan_to_num(nan=HUGE, posinf=HUGE, neginf=-HUGE), lost
    raise NumericalError(
        complaint(
            "scores and trained weights",
            "finite",
            f"NaN or Inf on {int(lost.sum())} of {values.shape[1]} data sets",
            "If they were trained, lower lr, or pass diverged=True: their masks are then left open.",
        )
    )
