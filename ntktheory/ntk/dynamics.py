"""Training of the linearised network in closed form, for the squared loss.

With ``f_lin(x; θ) = f(x; θ0) + J(x)(θ − θ0)`` and the loss ``L = ½ Σ_{n,c} (f_c(x_n) − y_nc)²`` (a sum:
nothing is divided by N or C), the residual ``r = f0 − y`` on the training batch evolves by its kernel Θ
alone. In the eigenbasis of Θ a component shrinks, by the time t or after s steps of size η, by

    flow      dθ/dt = −∇L       decay(λ) = exp(−λt)
    descent   θ ← θ − η∇L       decay(λ) = (1 − ηλ)^s

    train:  f(t) = f0 − (1 − decay(Θ)) r            test:  f(t) = f0 − Θ_test,train φ(Θ) r

with ``φ(λ) = (1 − decay(λ))/λ``, whose limit at λ = 0 is t, or ηs. For a mean loss, ``1/(NC) L``, divide
the time or the learning rate by N·C.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntktheory.checks import check_batch, check_masks, complaint
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    Select,
    check_network,
    evaluate,
    functional,
    masked,
    selected,
)
from ntktheory.ntk.kernel import empirical_ntk
from ntktheory.ntk.matrix import check_labels, check_precision, to_matrix

Times = float | Sequence[float] | Tensor
Progress = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trajectory:
    """Outputs along training.

    Attributes:
        train: Outputs on the training batch, [T, N, C]; [N, C] for a single time.
        test: Outputs on the test batch, [T, M, C] or [M, C]; None without one.
    """

    train: Tensor
    test: Tensor | None


def linearized_predict(
    model: nn.Module | FunctionalModel,
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor | None = None,
    *,
    time: Times | None = None,
    steps: Times | None = None,
    learning_rate: float | None = None,
    select: Select = None,
    masks: Masks | None = None,
) -> Trajectory:
    """Predict the outputs of the linearised network along training on the loss ``½ Σ (f − y)²``.

    A sum over samples and outputs: for the mean squared error ``1/(NC) Σ (f − y)²`` multiply the time
    or the learning rate by 2/(NC). Eigenvalues up to ``NC·eps·λ_max`` (eps of the model's dtype)
    count as exactly 0: such directions of the training outputs do not move, and act on the test
    outputs with the limit of φ at 0, at infinity with nothing (pseudo-inverse). In exact arithmetic
    they have no kernel with test samples; computed, their rounding is multiplied by t or ηs.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C]: the network at the
            start of training.
        x_train: N samples, sample axis first.
        y_train: Targets [N, C].
        x_test: M samples, or None.
        time: Gradient flow: a time or T times ≥ 0, in units of 1/λ; ``math.inf`` is allowed.
        steps: Gradient descent: a number of steps or T numbers ≥ 0; ``math.inf`` is allowed.
        learning_rate: η of gradient descent, below ``2/λ_max(Θ)``.
        select: Which parameters are trained: None for all, "prunable", names, or a predicate.
        masks: Parameter name -> mask; the network is f(θ⊙m, x) and θ is trained.

    Returns:
        The outputs, in the model's dtype, with a leading axis T unless a single number was given.

    Raises:
        TypeError: If the targets are no tensor.
        ValueError: If not exactly one of ``time`` and ``steps`` with ``learning_rate`` is given, one
            is negative, steps are not whole, the learning rate is not below 2/λ_max, a batch,
            target, mask or ``select`` does not fit, the model is in train mode, or it computes in
            another precision than float32 or float64.
        NumericalError: If an input or the kernel is not finite.

    Cost:
        The kernels Θ [NC, NC] and [MC, NC] (``empirical_ntk``), O((NC)³) for the eigenvectors in
        float64, and T·(N + M)·C·NC.

    Source:
        Lee et al. 2019 (flow). Tested against explicit recursion and integration.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> x, y = torch.ones(1, 1), torch.ones(1, 1)
        >>> linearized_predict(net, x, y, steps=[0, 1, 2, math.inf], learning_rate=0.5).train[:, 0, 0]
        tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    model = functional(model)
    check_masks(masks, model.params)
    names = selected(model, select)
    moments = _moments(time, steps, learning_rate)
    effective = masked(model.params, masks)
    f_train = _outputs(model, x_train, "x_train", effective)
    f_test = None if x_test is None else _outputs(model, x_test, "x_test", effective)
    check_precision(f_train.dtype)
    y_train = check_labels("y_train", y_train, f_train)
    theta = to_matrix(empirical_ntk(model, x_train, select=names, masks=masks))
    cross = None
    if x_test is not None:
        cross = to_matrix(empirical_ntk(model, x_test, x_train, select=names, masks=masks))
    eigenvalues, vectors = torch.linalg.eigh(theta.double())
    cutoff = len(theta) * torch.finfo(theta.dtype).eps * float(eigenvalues.abs().max())
    eigenvalues = torch.where(eigenvalues > cutoff, eigenvalues, 0.0)
    if learning_rate is not None:
        _check_stable(learning_rate, float(eigenvalues.max()))
    residual = (f_train - y_train).double().flatten()
    moved_train, moved_test = displacements(
        eigenvalues, vectors, residual, cross, moments, learning_rate
    )
    single = isinstance(time if steps is None else steps, (int, float))
    train = _at(f_train, moved_train, single)
    test = None if f_test is None or moved_test is None else _at(f_test, moved_test, single)
    return Trajectory(train, test)


def displacements(
    eigenvalues: Tensor,
    vectors: Tensor,
    residual: Tensor,
    cross: Tensor | None,
    moments: Tensor,
    learning_rate: float | None,
) -> tuple[Tensor, Tensor | None]:
    """Return how far the linearised outputs have moved: the pure function behind the prediction.

    Args:
        eigenvalues: Those of Θ on the training batch, [NC], none negative.
        vectors: Its eigenvectors, [NC, NC].
        residual: f0 − y, [NC].
        cross: Θ between test and training batch, [MC, NC], or None.
        moments: Times, or numbers of steps, [T].
        learning_rate: η, or None for the flow.

    Returns:
        ``−(1 − decay(Θ)) r`` [T, NC] and ``−Θ_test,train φ(Θ) r`` [T, MC] or None.
    """
    coefficients = vectors.T @ residual
    lost = [lost_fraction(eigenvalues, float(m), learning_rate) for m in moments]
    train = -(torch.stack(lost) * coefficients) @ vectors.T
    if cross is None:
        return train, None
    rate = 1.0 if learning_rate is None else learning_rate
    limits = [0.0 if math.isinf(m) else rate * float(m) for m in moments]
    phi = [
        torch.where(eigenvalues > 0, fraction / eigenvalues, limit)
        for fraction, limit in zip(lost, limits, strict=True)
    ]
    return train, -(torch.stack(phi) * coefficients) @ vectors.T @ cross.double().T


def lost_fraction(eigenvalues: Tensor, moment: float, learning_rate: float | None) -> Tensor:
    """Return ``1 − decay(λ)`` to full relative precision, small λ included; 0 at λ = 0.

    Args:
        eigenvalues: λ ≥ 0, below 2/η.
        moment: A time (flow) or a number of steps; may be inf.
        learning_rate: η, or None for the flow.

    Returns:
        A tensor like the eigenvalues.

    Example:
        >>> lost_fraction(torch.tensor([0.0, 1.0, 2.0]), 2, learning_rate=0.5)
        tensor([0.0000, 0.7500, 1.0000])
    """
    if math.isinf(moment):
        return (eigenvalues > 0).to(eigenvalues.dtype)
    if learning_rate is None:
        return -torch.expm1(-eigenvalues * moment)
    # From the logarithm where 1 − (1 − ηλ)^s would cancel; not beyond, where 1 − ηλ may be ≤ 0.
    contraction = learning_rate * eigenvalues
    small = -torch.expm1(moment * torch.log1p(-contraction.clamp(max=0.5)))
    return torch.where(contraction < 0.5, small, 1 - (1 - contraction) ** moment)


def _outputs(model: FunctionalModel, x: Tensor, argument: str, params: dict[str, Tensor]) -> Tensor:
    check_batch(argument, x)
    check_network(model, params, x, argument)
    return evaluate(model.model_fn, params, x, argument)


def _at(start: Tensor, moved: Tensor, single: bool) -> Tensor:
    outputs = (start.double() + moved.view(-1, *start.shape)).to(start.dtype)
    return outputs[0] if single else outputs


def _moments(time: Times | None, steps: Times | None, learning_rate: float | None) -> Tensor:
    """Return the times or the numbers of steps as a float64 tensor [T].

    Raises:
        ValueError: If the options do not go together or a number is not allowed.
    """
    if (time is None) == (steps is None) or (steps is None) != (learning_rate is None):
        given = {"time": time, "steps": steps, "learning_rate": learning_rate}
        names = [name for name, value in given.items() if value is not None]
        raise ValueError(
            complaint(
                "time",
                "given alone, or steps and learning_rate instead",
                " and ".join(names) or "neither",
                "Give time= for gradient flow, or steps= and learning_rate= for gradient descent.",
            )
        )
    argument, value = ("time", time) if steps is None else ("steps", steps)
    moments = torch.as_tensor(value, dtype=torch.float64).cpu().reshape(-1)
    whole = argument == "time" or bool((moments == moments.floor()).all())
    if not len(moments) or not bool((moments >= 0).all()) or not whole:
        kind = "numbers" if argument == "time" else "whole numbers"
        raise ValueError(
            complaint(argument, f"{kind} ≥ 0", value, "Give one or several; math.inf is the limit.")
        )
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ValueError(
            complaint("learning_rate", "a positive number", learning_rate, "Start below 2/λ_max.")
        )
    return moments


def _check_stable(learning_rate: float, largest: float) -> None:
    if learning_rate * largest >= 2:
        raise ValueError(
            complaint(
                "learning_rate",
                f"below 2/λ_max = {2 / largest:.6g}, where gradient descent on ½Σ(f − y)² converges",
                learning_rate,
                "Lower it: the loss is a sum, so a rate for a mean over N·C is N·C times too large.",
            )
        )
