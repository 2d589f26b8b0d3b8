"""How far a trained function goes along with the noise of its labels (No Free Prune, Figs. 2 and 3).

``q = (1/n) Σ_i (f(x_i) − E_μ f) z_i`` with z the fixed noise in the labels ``y_i = g(x_i) + z_i`` of a
teacher g: the family of variables that the law of robustness bounds through mutual information. Many
students are trained at once, each with its own teacher, data and initialisation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.checks import check_choice, check_count, complaint
from ntktheory.functional import Params, as_function
from ntktheory.information.memorization import (
    Init,
    check_drop,
    check_rate,
    check_seeds,
    perceptron,
)
from ntktheory.information.streams import stream
from ntktheory.training.imp import DROP
from ntktheory.training.loop import Optimizer
from ntktheory.training.packed import NoiseUnit, stack_models, train_packed
from ntktheory.training.packed_masks import keep_highest_packed

Continue = Literal["weights", "init"]
CONTINUES: tuple[Continue, ...] = ("weights", "init")


@dataclass(frozen=True)
class StudentTeacher:
    """Students of one shape, each with the data of its own teacher.

    Attributes:
        model: One of the students; it gives the function.
        params: The students' weights at initialisation [S, out, in] by name.
        inputs: [S, n, d].
        targets: ``g(x) + z`` [S, n, 1].
        noise: z [S, n].
        fresh: Further inputs [S, m, d], for E_μ f.
        seeds: S seeds.
    """

    model: nn.Module
    params: Params
    inputs: Tensor
    targets: Tensor
    noise: Tensor
    fresh: Tensor
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class NoiseCurve:
    """The correlation with the label noise while students train.

    Attributes:
        epochs: When, in passes over the samples [T]; the epoch of a pruning occurs twice.
        values: q [T, S].
        errors: Standard error of q that comes from estimating E_μ f [T, S].
        losses: Mean squared error on the samples [T, S].
        densities: Fraction of weights kept [T].
        prunings: Positions in ``epochs`` just after a pruning; the one before each is just before it.
    """

    epochs: tuple[int, ...]
    values: Tensor
    errors: Tensor
    losses: Tensor
    densities: tuple[float, ...]
    prunings: tuple[int, ...]


def student_teacher(
    seeds: Sequence[int],
    *,
    samples: int = 1000,
    dim: int = 50,
    student: Sequence[int] = (100, 100, 100, 100),
    teacher: Sequence[int] = (50, 50),
    noise_variance: float = 1.0,
    fresh: int = 1000,
    init: Init = "torch",
    dtype: torch.dtype = torch.float32,
) -> StudentTeacher:
    """Return students, and data of random teachers with label noise.

    ``x ~ N(0, I_d)``, ``z ~ N(0, σ²)``; both networks are perceptrons of ReLUs with one output and no
    biases, so five layers have four hidden widths. The teacher's weights are N(0, 2/fan_in).

    Args:
        seeds: One for each student, its teacher and its data.
        samples: n.
        dim: d.
        student: Hidden units of the student, layer by layer.
        teacher: Those of the teacher.
        noise_variance: σ²; with 1 the labels leave [−1, 1], which the theorem assumes.
        fresh: m, inputs on which E_μ f is estimated.
        init: How the student is drawn, "he" or "torch"; see ``random_label_pack``.
        dtype: Of weights and data.

    Returns:
        The students and their data.

    Raises:
        ValueError: If there are no seeds, a size or a variance is out of range, or ``init`` is unknown.

    Source:
        No Free Prune, Fig. 2. Inputs, init and biases are not stated.

    Example:
        >>> task = student_teacher([0, 1], samples=8, dim=3, student=[4], teacher=[2])
        >>> task.targets.shape, task.noise.shape
        (torch.Size([2, 8, 1]), torch.Size([2, 8]))
    """
    for name, value in (("samples", samples), ("dim", dim), ("fresh", fresh)):
        check_count(name, value)
    if not (math.isfinite(noise_variance) and noise_variance > 0):
        raise ValueError(
            complaint("noise_variance", "positive and finite", noise_variance, "Use 1.")
        )
    parts, students = [], []
    for seed in check_seeds(seeds):
        generator = stream(seed, "data and weights")
        x = torch.randn(samples + fresh, dim, generator=generator, dtype=dtype)
        z = torch.randn(samples, generator=generator, dtype=dtype) * noise_variance**0.5
        g = perceptron([dim, *teacher, 1], "he", generator, dtype)
        with torch.no_grad():
            y = g(x[:samples]) + z[:, None]
        parts.append((x[:samples], y, z, x[samples:]))
        students.append(perceptron([dim, *student, 1], init, generator, dtype))
    inputs, targets, noise, other = (torch.stack(part) for part in zip(*parts, strict=True))
    return StudentTeacher(
        students[0], stack_models(students), inputs, targets, noise, other, tuple(seeds)
    )


def noise_correlation(task: StudentTeacher, params: Params) -> tuple[Tensor, Tensor]:
    """Return ``q = (1/n) Σ_i (f(x_i) − Ê f) z_i`` of every student, and its standard error.

    Ê f is the mean over the m fresh inputs; its error s/√m, s the standard deviation of f there, moves q
    by ``|z̄| s/√m``.

    Args:
        task: The students and data.
        params: Their weights [S, out, in] by name.

    Returns:
        Values [S] and standard errors [S].

    Cost:
        One forward pass on n + m inputs.

    Example:
        >>> task = student_teacher([0], samples=8, dim=3, student=[4], teacher=[2])
        >>> zero = {name: torch.zeros_like(p) for name, p in task.params.items()}
        >>> float(noise_correlation(task, zero)[0])
        0.0
    """
    run = torch.func.vmap(as_function(task.model).model_fn)
    with torch.no_grad():
        f, elsewhere = run(params, task.inputs).squeeze(2), run(params, task.fresh).squeeze(2)
    mean, spread = elsewhere.mean(1, keepdim=True), elsewhere.std(1)
    values = ((f - mean) * task.noise).mean(1)
    return values, task.noise.mean(1).abs() * spread / elsewhere.shape[1] ** 0.5


def track_noise(
    task: StudentTeacher,
    *,
    epochs: int,
    optimizer: Optimizer = "adam",
    lr: float | Tensor = 1e-3,
    batch: int = 64,
    gradient_noise: float | Tensor = 0.0,
    noise_unit: NoiseUnit = "absolute",
    prune_every: int | None = None,
    drop: float = DROP,
    go_on: Continue = "weights",
    every: int = 5,
) -> NoiseCurve:
    """Train students on squared error and follow the correlation with their labels' noise.

    Args:
        task: The students and data.
        epochs: Passes over the samples in all.
        optimizer: "adam" or "sgd"; it starts afresh after each pruning.
        lr: Learning rate, constant; or one of each student [S].
        batch: Samples per step.
        gradient_noise: Size of the noise added to gradients; or one of each student [S].
        noise_unit: "absolute", per coordinate; or "relative" to the root mean square of the gradient.
        prune_every: Epochs between prunings; none after the last epoch. None prunes never.
        drop: Fraction of the remaining weights, the smallest of all layers, that a pruning drops.
        go_on: After a pruning: with the "weights" as they are, or from "init".
        every: Epochs between measurements; also just before and after each pruning, and at the end.

    Returns:
        The curve, from before the first step on.

    Raises:
        ValueError: If an option is unknown or out of range.
        NumericalError: If training diverges.

    Example:
        >>> task = student_teacher([0, 1], samples=8, dim=3, student=[4], teacher=[2])
        >>> curve = track_noise(task, epochs=4, prune_every=2, every=1)
        >>> curve.epochs, curve.prunings
        ((0, 1, 2, 2, 3, 4), (3,))
    """
    check_choice("go_on", go_on, CONTINUES)
    counts = {"epochs": epochs, "batch": batch, "every": every, "prune_every": prune_every}
    for name, value in counts.items():
        check_count(name, value)
    check_rate(lr)
    check_drop(drop)
    curve = _Curve(task, every)
    params = task.params
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in params.items()}
    kept = total = sum(p[0].numel() for p in params.values())
    curve.add(0, params, 1.0)
    per_epoch = -(-task.inputs.shape[1] // batch)
    orders = [stream(seed, "order of samples") for seed in task.seeds]
    noises = [stream(seed, "gradient noise") for seed in task.seeds]
    phase = epochs if prune_every is None else prune_every
    for start in range(0, epochs, phase):
        length = min(phase, epochs - start)
        if start:
            kept = max(1, min(kept - 1, round((1 - drop) * kept)))
            sizes = {name: params[name].abs().masked_fill(~m, -1.0) for name, m in masks.items()}
            masks = keep_highest_packed(sizes, kept)
            params = task.params if go_on == "init" else params
            curve.add(start, {name: p * masks[name] for name, p in params.items()}, kept / total)
            curve.prunings.append(len(curve.epochs) - 1)
        watch = partial(curve.watch, start=start, stop=start + length, density=kept / total)
        params = train_packed(
            task.model, params, task.inputs, task.targets, masks=masks if start else None,
            steps=length * per_epoch, batch=batch, optimizer=optimizer, lr=lr, schedule="constant",
            loss_fn=F.mse_loss, generators=orders, gradient_noise=gradient_noise,
            noise_unit=noise_unit, noise_generators=noises, on_epoch=watch,
        ).params  # fmt: skip
    return curve.finished()


class _Curve:
    """A curve while it grows."""

    def __init__(self, task: StudentTeacher, every: int) -> None:
        self.task, self.every = task, every
        self.epochs: list[int] = []
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self.densities: list[float] = []
        self.prunings: list[int] = []
        self.run = torch.func.vmap(as_function(task.model).model_fn)

    def watch(self, done: int, params: Params, *, start: int, stop: int, density: float) -> None:
        """Measure after an epoch, if it is one of those to measure at."""
        if (start + done) % self.every == 0 or start + done == stop:
            self.add(start + done, params, density)

    def add(self, epoch: int, params: Params, density: float) -> None:
        """Measure."""
        values, errors = noise_correlation(self.task, params)
        with torch.no_grad():
            misses = self.run(params, self.task.inputs) - self.task.targets
        self.rows.append((values, errors, misses.square().mean((1, 2))))
        self.epochs.append(epoch)
        self.densities.append(density)

    def finished(self) -> NoiseCurve:
        """Return the curve."""
        values, errors, losses = (torch.stack(part) for part in zip(*self.rows, strict=True))
        return NoiseCurve(
            tuple(self.epochs), values, errors, losses, tuple(self.densities), tuple(self.prunings)
        )
