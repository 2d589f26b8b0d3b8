"""How much a masked network memorises: labels drawn at random, or images under heavy noise.

Many networks at once: a pack has one seed, and so one data set and one initialisation, for each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.checks import check_batch, check_choice, check_count, complaint
from ntktheory.functional import Params, as_function
from ntktheory.information.streams import stream
from ntktheory.models import mlp
from ntktheory.pruning.scorers import SCORERS
from ntktheory.pruning.topk import kept_count
from ntktheory.training.imp import DROP
from ntktheory.training.live_units import drop_dead_units
from ntktheory.training.loop import Optimizer, Schedule
from ntktheory.training.packed import stack_models, train_packed
from ntktheory.training.packed_masks import Budget, PackedMasks, scored_masks, trained_masks

THRESHOLD_NATS = math.log(2) / 10
TRAINED = ("imp", "magnitude_after")
Init = Literal["he", "torch"]
Stop = Literal["steps", "level", "change"]
INITS: tuple[Init, ...] = ("he", "torch")
STOPS: tuple[Stop, ...] = ("steps", "level", "change")


@dataclass(frozen=True)
class Pack:
    """Networks of one shape, each with its own data.

    Attributes:
        model: One of them; it gives the function.
        params: Weights at initialisation [S, out, in] by name.
        inputs: [S, n, d].
        labels: Classes [S, n].
        seeds: S seeds.
    """

    model: nn.Module
    params: Params
    inputs: Tensor
    labels: Tensor
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Training:
    """How networks are trained, before pruning and after.

    Attributes:
        optimizer: "adam" or "sgd".
        lr: Learning rate.
        momentum: Of "sgd".
        schedule: "constant" or "cosine".
        epochs: Passes over the samples, at most.
        batch: Samples per step; None means all.
        stop: "steps" takes all epochs. "level" stops a network once its mean loss on the samples is at
            most ``tolerance``, "change" once that differs from the look before by at most
            ``tolerance``; both also once its accuracy is the same at ``patience`` + 1 looks in a row.
        tolerance: In nats.
        patience: In looks; None turns that rule off.
        look_every: Epochs between looks. The paper's epoch has 938 steps: where an epoch has few,
            neither loss nor accuracy need change from one to the next long before convergence.
    """

    optimizer: Optimizer = "adam"
    lr: float = 1e-2
    momentum: float = 0.9
    schedule: Schedule = "constant"
    epochs: int = 1000
    batch: int | None = None
    stop: Stop = "steps"
    tolerance: float = 0.01
    patience: int | None = 3
    look_every: int = 1


@dataclass(frozen=True)
class Memorised:
    """What the networks of a pack fit under their masks.

    Attributes:
        counts: How many samples have a loss of at most the threshold [S].
        correct: How many samples are classified as their label [S].
        loss: Mean loss [S].
        epochs: Passes that each took [S].
        samples: n.
    """

    counts: Tensor
    correct: Tensor
    loss: Tensor
    epochs: Tensor
    samples: int


def random_label_pack(
    seeds: Sequence[int],
    *,
    samples: int = 30,
    dim: int = 30,
    width: int = 100,
    hidden_layers: int = 2,
    init: Init = "he",
    dtype: torch.dtype = torch.float32,
) -> Pack:
    """Return networks and data sets of Gaussian points with random labels.

    ``x_i ~ N(0, I_d)``, ``y_i`` one of two classes with probability ½ each (±1 as a class), network
    ``d → width → … → 2`` of ReLUs without biases.

    Args:
        seeds: One for each network and its data.
        samples: n.
        dim: d.
        width: Hidden units per layer.
        hidden_layers: How many hidden layers.
        init: "he", N(0, 2/fan_in); or "torch", U(−1/√fan_in, 1/√fan_in), as ``nn.Linear`` draws.
        dtype: Of weights and data.

    Returns:
        The pack.

    Raises:
        ValueError: If there are no seeds, or a size is not positive, or ``init`` is unknown.

    Source:
        No Free Prune, Fig. 1a: n = d = 30, two hidden layers; width, init and biases are not stated.

    Example:
        >>> pack = random_label_pack([0, 1], width=5)
        >>> pack.inputs.shape, sorted(pack.labels.unique().tolist())
        (torch.Size([2, 30, 30]), [0, 1])
    """
    for name, value in (("samples", samples), ("dim", dim), ("hidden_layers", hidden_layers)):
        check_count(name, value)
    data, nets = [], []
    for seed in check_seeds(seeds):
        generator = stream(seed, "data and weights")
        x = torch.randn(samples, dim, generator=generator, dtype=dtype)
        data.append((x, torch.randint(2, (samples,), generator=generator)))
        nets.append(perceptron([dim, *[width] * hidden_layers, 2], init, generator, dtype))
    inputs, labels = (torch.stack(part) for part in zip(*data, strict=True))
    return Pack(nets[0], stack_models(nets), inputs, labels, tuple(seeds))


def noisy_image_pack(
    images: Tensor,
    labels: Tensor,
    seeds: Sequence[int],
    *,
    noise_variance: float = 3.0,
    widths: Sequence[int] = (200, 200),
    init: Init = "he",
) -> Pack:
    """Return networks and the same images under noise of their own, with their true labels.

    ``x_i + N(0, σ² I)``, pixels in the unit of ``images``; the noise is drawn once and stays.

    Args:
        images: n images, of any shape.
        labels: Their classes [n].
        seeds: One for each network and its noise.
        noise_variance: σ².
        widths: Hidden units, layer by layer.
        init: See ``random_label_pack``.

    Returns:
        The pack; images are flattened.

    Raises:
        ValueError: If the variance is negative or not finite, labels do not fit, or there are no seeds.

    Source:
        No Free Prune, Fig. 1b: FashionMNIST, σ² = 3, 200-200.

    Example:
        >>> pack = noisy_image_pack(torch.zeros(4, 1, 2, 2), torch.arange(4), [0, 1])
        >>> pack.inputs.shape, pack.params["layer3.weight"].shape
        (torch.Size([2, 4, 4]), torch.Size([2, 4, 200]))
    """
    check_batch("images", images)
    if not (math.isfinite(noise_variance) and noise_variance >= 0):
        raise ValueError(
            complaint("noise_variance", "finite and not negative", noise_variance, "Use 3.")
        )
    if labels.shape != images.shape[:1] or labels.is_floating_point() or int(labels.min()) < 0:
        expected = f"{len(images)} classes 0, 1, …"
        actual = f"{labels.dtype} of shape {list(labels.shape)} from {labels.min().item()}"
        raise ValueError(complaint("labels", expected, actual, "Pass one class per image."))
    clean, classes = images.flatten(1), int(labels.max()) + 1
    inputs, nets = [], []
    for seed in check_seeds(seeds):
        generator = stream(seed, "noise and weights")
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        inputs.append(clean + noise * noise_variance**0.5)
        nets.append(perceptron([clean.shape[1], *widths, classes], init, generator, clean.dtype))
    every = labels.expand(len(inputs), -1)
    return Pack(nets[0], stack_models(nets), torch.stack(inputs), every, tuple(seeds))


def masks_of(
    pack: Pack,
    method: str,
    densities: Sequence[float],
    training: Training,
    *,
    drop: float = DROP,
    budget: Budget = "global",
    rounds: int | None = None,
) -> dict[float, PackedMasks]:
    """Return the masks of a method at several densities; masks that learn see the pack's own data.

    Args:
        pack: The networks and data.
        method: "imp", "magnitude_after" or a key of ``SCORERS``.
        densities: Fractions of weights kept.
        training: How "imp" and "magnitude_after" train; they rewind to the initialisation.
        drop: What a round of "imp" drops of the rest.
        budget: What "imp" and "magnitude_after" compare: all weights ("global"), or those of a layer
            ("uniform", the same density in each).
        rounds: Rounds of a scorer; None means the published number.

    Returns:
        Density -> name -> bool masks [S, out, in], with ``max(1, round(density·P))`` kept weights each.

    Raises:
        ValueError: If the method is unknown, or a density, ``drop`` or ``rounds`` is out of range.
    """
    check_choice("method", method, [*TRAINED, *SCORERS])
    check_count("rounds", rounds)
    check_drop(drop)
    total = sum(p[0].numel() for p in pack.params.values())
    counts = {density: kept_count(density, total) for density in densities}
    numbers = sorted(set(counts.values()))

    def train(masks: PackedMasks) -> Params:
        return train_pack(pack, masks, training)[0]

    if method in TRAINED:
        in_rounds = method == "imp"
        found = trained_masks(
            pack.params, train, numbers, drop=drop, in_rounds=in_rounds, budget=budget
        )
    else:
        found = scored_masks(
            pack.model, pack.params, method, numbers, inputs=pack.inputs, labels=pack.labels,
            generators=[stream(seed, "scorer") for seed in pack.seeds], rounds=rounds,
        )  # fmt: skip
    return {density: found[count] for density, count in counts.items()}


def train_pack(pack: Pack, masks: PackedMasks, training: Training) -> tuple[Params, Tensor]:
    """Train a pack from its initialisation under masks.

    Dead units are left out meanwhile; weights on no kept path stay as they were.

    Args:
        pack: The networks and data.
        masks: Name -> bool masks [S, out, in].
        training: How.

    Returns:
        The weights θ (dropped ones included, as at initialisation), and the epochs that each took [S].

    Raises:
        ValueError: If an option of the training is unknown or out of range.
        NumericalError: If a loss is not finite.
    """
    _check_training(training)
    n = pack.inputs.shape[1]
    batch = n if training.batch is None else min(n, training.batch)
    per_epoch = -(-n // batch)
    live = drop_dead_units(pack.params, masks)
    run = train_packed(
        pack.model, live.params, pack.inputs, pack.labels, masks=live.masks, batch=batch,
        steps=training.epochs * per_epoch, optimizer=training.optimizer, lr=training.lr,
        momentum=training.momentum, schedule=training.schedule,
        generators=[stream(seed, "order of samples") for seed in pack.seeds],
        on_epoch=None if training.stop == "steps" else _stopping(pack, training),
    )  # fmt: skip
    return live.restore(run.params, pack.params), run.steps // per_epoch


def _check_training(training: Training) -> None:
    """Check what ``train_packed`` does not.

    Raises:
        ValueError: If an option is unknown or out of range.
    """
    check_choice("stop", training.stop, STOPS)
    for name in ("epochs", "batch", "patience", "look_every"):
        check_count(name, getattr(training, name))
    check_rate(training.lr)
    if not 0 <= training.momentum < 1:
        raise ValueError(complaint("momentum", "in [0, 1)", training.momentum, "Use 0.9."))
    if not (math.isfinite(training.tolerance) and training.tolerance >= 0):
        raise ValueError(
            complaint("tolerance", "finite and not negative", training.tolerance, "Use 0.01 nats.")
        )


def memorised(
    pack: Pack, masks: PackedMasks, training: Training, *, threshold_nats: float = THRESHOLD_NATS
) -> Memorised:
    """Train a pack under masks and count what it has memorised.

    A sample is memorised if its cross-entropy is at most the threshold: its label has probability
    ``e^{−threshold}``, 0.93 by default.

    Args:
        pack: The networks and data.
        masks: Name -> bool masks [S, out, in].
        training: How they are trained.
        threshold_nats: Largest loss of a memorised sample; (log 2)/10 in the paper.

    Returns:
        Counts of samples.

    Raises:
        ValueError: If an option is unknown or out of range.
        NumericalError: If a loss is not finite.
    """
    if not (math.isfinite(threshold_nats) and threshold_nats > 0):
        raise ValueError(
            complaint("threshold_nats", "positive and finite", threshold_nats, "Use (log 2)/10.")
        )
    trained, epochs = train_pack(pack, masks, training)
    live = {name: trained[name] * masks[name] for name in trained}
    losses, right = _evaluate(pack, live)
    counts = (losses <= threshold_nats).sum(1)
    return Memorised(counts, right.sum(1), losses.mean(1), epochs, losses.shape[1])


def _stopping(pack: Pack, training: Training) -> Callable[[int, Params], Tensor | None]:
    """Return the rule that says which networks have converged after an epoch."""
    history: list[Tensor] = []
    before: list[Tensor] = []

    def finished(epoch: int, params: Params) -> Tensor | None:
        if epoch % training.look_every:
            return None
        losses, right = _evaluate(pack, params)
        mean = losses.mean(1)
        history.append(right.sum(1))
        done = torch.zeros_like(right[:, 0])
        if training.patience is not None and len(history) > training.patience:
            last = history[-training.patience - 1 :]
            done = torch.stack([entry == last[-1] for entry in last]).all(0)
        if training.stop == "level":
            done = done | (mean <= training.tolerance)
        elif before:
            done = done | ((mean - before[-1]).abs() <= training.tolerance)
        before.append(mean)
        return done

    return finished


def _evaluate(pack: Pack, params: Params) -> tuple[Tensor, Tensor]:
    """Return the loss of every sample and whether it is classified right, both [S, n]."""
    function = as_function(pack.model).model_fn
    with torch.no_grad():
        outputs = torch.func.vmap(function)(params, pack.inputs)
        losses = F.cross_entropy(outputs.flatten(0, 1), pack.labels.flatten(), reduction="none")
    return losses.view(pack.labels.shape), outputs.argmax(2) == pack.labels


def perceptron(
    widths: Sequence[int], init: Init, generator: torch.Generator, dtype: torch.dtype
) -> nn.Sequential:
    """Return a perceptron.

    Raises:
        ValueError: If the init is unknown, or a width is not positive.
    """
    check_choice("init", init, INITS)
    net = mlp(widths, generator=generator, dtype=dtype)
    if init == "torch":
        with torch.no_grad():
            for p in net.parameters():
                p.uniform_(-(p.shape[1] ** -0.5), p.shape[1] ** -0.5, generator=generator)
    return net


def check_seeds(seeds: Sequence[int]) -> Sequence[int]:
    """Return the seeds, at least one and none twice.

    Raises:
        ValueError: If not.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            complaint("seeds", "one or more, all different", list(seeds), "Use range(25).")
        )
    return seeds


def check_rate(lr: float | Tensor) -> None:
    """Check a learning rate, or one for each network.

    Raises:
        ValueError: If it is not positive and finite.
    """
    rates = torch.as_tensor(lr)
    if not bool((torch.isfinite(rates) & (rates > 0)).all()):
        raise ValueError(complaint("lr", "positive and finite", lr, "Use 0.01."))


def check_drop(drop: float) -> None:
    """Check which fraction of the remaining weights a round drops.

    Raises:
        ValueError: If it is not inside (0, 1).
    """
    if not 0 < drop < 1:
        raise ValueError(complaint("drop", "inside (0, 1)", drop, "Drop 0.2 of the rest."))
