"""The linearised network against the network itself, trained alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntktheory.checks import NumericalError, complaint
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    Select,
    functional,
    masked,
    selected,
)
from ntktheory.ntk.dynamics import Trajectory, linearized_predict


@dataclass(frozen=True)
class TrainingComparison:
    """Outputs of the linearised and of the trained network after the same steps.

    Attributes:
        steps: The numbers of steps, ascending, [T].
        linearized: The closed form.
        trained: Gradient descent on the network itself.
        train_distance: ``‖f_lin − f‖₂ / ‖f‖₂`` over the training batch, f trained, [T].
        test_distance: The same over the test batch; None without one.
    """

    steps: tuple[int, ...]
    linearized: Trajectory
    trained: Trajectory
    train_distance: Tensor
    test_distance: Tensor | None


def compare_with_training(
    model: nn.Module | FunctionalModel,
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor | None = None,
    *,
    steps: Sequence[int],
    learning_rate: float,
    select: Select = None,
    masks: Masks | None = None,
    progress: bool = False,
) -> TrainingComparison:
    """Train a copy by full-batch gradient descent and compare it with the linearised network.

    Both minimise ``½ Σ_{n,c} (f_c(x_n) − y_nc)²`` (a sum) from the same start with the same learning
    rate; both run in eval mode. The model is not changed.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x_train: N samples, sample axis first.
        y_train: Targets [N, C].
        x_test: M samples, or None.
        steps: Numbers of steps ≥ 0 after which to compare; sorted, each once.
        learning_rate: η, below ``2/λ_max(Θ)`` of the start.
        select: Which parameters are trained.
        masks: Parameter name -> mask; the network is f(θ⊙m, x) and θ is trained.
        progress: Show a progress bar over the steps.

    Returns:
        Both trajectories, [T, N, C] and [T, M, C], and their relative distances.

    Raises:
        TypeError: If the targets are no tensor.
        ValueError: If a number of steps is not a whole number ≥ 0 or there is none, or
            ``linearized_predict`` refuses an argument.
        NumericalError: If training leaves the finite numbers.

    Cost:
        max(steps) forward and backward passes, and the cost of ``linearized_predict``.

    Source:
        Lee et al. 2019. Tested on linear models, where both agree, and against ``torch.optim``.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[1.0], [-1.0]])
        >>> result = compare_with_training(net, x, y, steps=[1, 10], learning_rate=0.1)
        >>> result.trained.train.shape, bool((result.train_distance < 1e-4).all())
        (torch.Size([2, 2, 1]), True)
    """
    model = functional(model)
    at = _whole(steps)
    linearized = linearized_predict(
        model,
        x_train,
        y_train,
        x_test,
        steps=at,
        learning_rate=learning_rate,
        select=select,
        masks=masks,
    )
    names = selected(model, select)
    y = y_train.to(linearized.train.dtype)
    train, test = [], []
    path = descent(model.model_fn, model.params, masks, x_train, y, names, learning_rate)
    for step, (theta, outputs) in zip(_track(at[-1] + 1, progress), path, strict=False):
        if not bool(torch.isfinite(outputs).all()):
            raise NumericalError(
                complaint(
                    "training",
                    "finite",
                    f"NaN or Inf outputs after {step} steps",
                    "Lower the learning rate: the kernel has grown along training.",
                )
            )
        if step in at:
            train.append(outputs)
            if x_test is not None:
                test.append(model.model_fn(masked(theta, masks), x_test))
    trained = Trajectory(torch.stack(train), torch.stack(test) if test else None)
    apart = None
    if linearized.test is not None and trained.test is not None:
        apart = relative_distance(linearized.test, trained.test)
    together = relative_distance(linearized.train, trained.train)
    return TrainingComparison(tuple(at), linearized, trained, together, apart)


def descent(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Tensor,
    y: Tensor,
    names: tuple[str, ...],
    learning_rate: float,
) -> Iterable[tuple[Params, Tensor]]:
    """Yield parameters and outputs before each step of gradient descent on ``½ Σ (f − y)²``."""
    theta = dict(params)

    def outputs(varied: Params) -> Tensor:
        return model_fn(masked(theta | varied, masks), x)

    while True:
        varied = {name: theta[name] for name in names}
        f, pullback = torch.func.vjp(outputs, varied)  # type: ignore[misc]
        yield theta, f
        (gradient,) = pullback(f - y)
        theta = theta | {name: p - learning_rate * gradient[name] for name, p in varied.items()}


def relative_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return ``‖a − b‖₂ / ‖b‖₂`` for each entry of the first axis; 0 where a = b, even at b = 0.

    Example:
        >>> relative_distance(torch.tensor([[3.0], [0.0]]), torch.tensor([[2.0], [0.0]]))
        tensor([0.5000, 0.0000])
    """
    gap, scale = (a - b).flatten(1).norm(dim=1), b.flatten(1).norm(dim=1)
    return torch.where(gap > 0, gap / scale, 0.0)


def _whole(steps: Sequence[int]) -> list[int]:
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in steps)
    if not whole or not len(steps):
        raise ValueError(
            complaint(
                "steps", "whole numbers ≥ 0", list(steps), "Say after which steps to compare."
            )
        )
    return sorted(set(steps))


def _track(count: int, progress: bool) -> Iterable[int]:
    if not progress:
        return range(count)
    from rich.progress import track

    return track(range(count), description="Steps")
