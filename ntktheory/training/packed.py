"""Many networks of one shape, trained at once in one tensor program.

Everything has an axis of S networks in front. The weights that an optimiser moves are kept as one
vector of *kept* entries of all networks; the dense weights only exist for the products, with zeros where
a weight is dropped. So a step costs the products, and else what the kept weights cost.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory.checks import NumericalError, check_batch, check_choice, check_count, complaint
from ntktheory.functional import Masks, Params, as_function
from ntktheory.training.loop import (
    OPTIMIZERS,
    SCHEDULES,
    Loss,
    Optimizer,
    Schedule,
    rate,
    sample_order,
)

NoiseUnit = Literal["absolute", "relative"]
NOISE_UNITS: tuple[NoiseUnit, ...] = ("absolute", "relative")
OnEpoch = Callable[[int, Params], Tensor | None]


@dataclass(frozen=True)
class PackedRun:
    """What packed training returns.

    Attributes:
        params: Parameter name -> weights θ⊙m [S, …] after training.
        losses: Mean loss of each network before each step [steps, S]; NaN once it is finished.
        steps: How many steps each network took [S].
    """

    params: Params
    losses: Tensor
    steps: Tensor


def stack_models(models: Sequence[nn.Module]) -> Params:
    """Return the parameters of networks of one shape: name -> tensor [S, …], copied.

    Raises:
        ValueError: If there are none, or their parameters differ in name or shape.
    """
    each = [dict(model.named_parameters()) for model in models]
    shapes = [{name: p.shape for name, p in one.items()} for one in each]
    if not each or any(s != shapes[0] for s in shapes):
        raise ValueError(
            complaint("models", "networks of one shape", f"{len(each)} others", "Pack like ones.")
        )
    return {name: torch.stack([one[name].detach() for one in each]) for name in each[0]}


def train_packed(
    model: nn.Module,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int,
    masks: Masks | None = None,
    batch: int = 128,
    optimizer: Optimizer = "sgd",
    lr: float | Tensor = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: Schedule = "cosine",
    loss_fn: Loss | None = None,
    generators: Sequence[torch.Generator] | None = None,
    gradient_noise: float | Tensor = 0.0,
    noise_unit: NoiseUnit = "absolute",
    noise_generators: Sequence[torch.Generator] | None = None,
    on_epoch: OnEpoch | None = None,
) -> PackedRun:
    """Train S networks, each on its own data, and each as ``train`` would train it alone.

    Args:
        model: Any one of the networks, without buffers that training changes; it gives the function
            only and is not changed.
        params: Parameter name -> weights to start from [S, …]; not changed.
        inputs: n samples for each network [S, n, …].
        labels: Their classes, or targets [S, n, …].
        steps: How many mini-batches, at most.
        masks: Parameter name -> bool mask [S, …]; parameters without one are kept.
        batch: Samples per step; all n at every step if there are no more.
        optimizer: "sgd" (with ``momentum``) or "adam".
        lr: Learning rate at the first step; a tensor [S] for one of each network.
        momentum: Of "sgd".
        weight_decay: Of the optimiser.
        schedule: "constant", or "cosine" down to 0.
        loss_fn: ``loss_fn(outputs, labels) -> scalar`` of one network; None means mean cross-entropy.
        generators: S of them, each draws the order of its network's samples; None uses torch's own.
        gradient_noise: s, a number or one for each network [S]: every gradient coordinate of a kept
            weight gets N(0, s²) added in every step.
        noise_unit: "absolute"; or "relative", where s is in units of the root mean square over the
            kept weights of that network's gradient in that step.
        noise_generators: S of them, each draws its network's noise; None uses torch's own.
        on_epoch: ``on_epoch(epochs done, params) -> finished [S] bool, or None``, called after every
            pass over the samples. A finished network is frozen; training ends when all are.

    Returns:
        The weights, losses and steps.

    Raises:
        ValueError: If an option is unknown or out of range, or something is not of S networks.
        NumericalError: If a loss is not finite; the message says of which network at which step.

    Cost:
        The products of S forward and backward passes per step, and a few passes over kept weights.

    Tested against ``training.loop.train`` on each network alone, in float64.

    Example:
        >>> params = {"weight": torch.zeros(3, 2, 2), "bias": torch.zeros(3, 2)}
        >>> x, y = torch.eye(2).expand(3, 2, 2), torch.arange(2).expand(3, 2)
        >>> run = train_packed(nn.Linear(2, 2), params, x, y, steps=20, lr=1.0)
        >>> run.losses.shape, bool((run.losses[-1] < run.losses[0]).all())
        (torch.Size([20, 3]), True)
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_choice("schedule", schedule, SCHEDULES)
    check_choice("noise_unit", noise_unit, NOISE_UNITS)
    check_count("steps", steps)
    check_count("batch", batch)
    count = _check_pack(params, masks, inputs, labels, generators)
    if noise_generators is not None and len(noise_generators) != count:
        expected, remedy = f"{count} of them", "Give one per network."
        raise ValueError(complaint("noise_generators", expected, len(noise_generators), remedy))
    rates, noise = (
        _per_net("lr", lr, count, inputs),
        _per_net("gradient_noise", gradient_noise, count, inputs),
    )
    kept = _Kept(params, masks)
    function = as_function(model).model_fn
    one_loss = F.cross_entropy if loss_fn is None else loss_fn
    objective = torch.func.vmap(lambda p, x, y: one_loss(function(p, x), y))
    update = _Update(optimizer, momentum, weight_decay, kept.theta)
    losses = inputs.new_full((steps, count), float("nan"))
    active = torch.ones(count, dtype=torch.bool, device=inputs.device)
    done = torch.zeros(count, dtype=torch.long, device=inputs.device)
    for step, (pick, ends_epoch) in enumerate(_picks(inputs, batch, steps, generators)):
        x, y = (inputs, labels) if pick is None else (_rows(inputs, pick), _rows(labels, pick))
        leaves = kept.leaves()
        values = objective(leaves, x, y)
        _check_losses(values.detach(), active, step)
        losses[step] = torch.where(active, values.detach(), losses[step])
        slopes = kept.gather(torch.autograd.grad(values.sum(), list(leaves.values())))
        if bool((noise > 0).any()):
            slopes = slopes + _noise(slopes, kept, noise, noise_unit, noise_generators)
        scale = rate(1.0, step, steps, schedule)
        kept.move(*update(slopes, kept.theta), _sizes(rates, active, scale, kept.owner))
        done += active
        if on_epoch is not None and ends_epoch:
            finished = on_epoch(int(ends_epoch), kept.params())
            active = active if finished is None else active & ~finished
            if not bool(active.any()):
                losses = losses[: step + 1]
                break
    return PackedRun({name: p.clone() for name, p in kept.params().items()}, losses, done)


class _Kept:
    """The kept weights of all networks as one vector, and the dense weights that they fill."""

    def __init__(self, params: Params, masks: Masks | None) -> None:
        masks = masks or {}
        self.dense: Params = {}
        self.places: dict[str, Tensor | None] = {}
        parts, owners = [], []
        for name, p in params.items():
            nets = torch.arange(p.shape[0], device=p.device).repeat_interleave(p[0].numel())
            mask = masks.get(name)
            self.dense[name] = p.detach().clone() if mask is None else p.detach() * mask
            place = None if mask is None else mask.flatten().nonzero().flatten()
            self.places[name] = place
            flat = self.dense[name].flatten()
            parts.append(flat.clone() if place is None else flat[place])
            owners.append(nets if place is None else nets[place])
        self.theta, self.owner = torch.cat(parts), torch.cat(owners)
        self.sizes = [part.numel() for part in parts]
        self.by_owner = self.owner.argsort(stable=True)
        self.counts = self.owner.bincount(minlength=next(iter(params.values())).shape[0]).tolist()

    def params(self) -> Params:
        """Return the dense weights; they change with the next move."""
        return self.dense

    def leaves(self) -> Params:
        """Return the dense weights as leaves of a new graph."""
        return {name: p.detach().requires_grad_() for name, p in self.dense.items()}

    def gather(self, slopes: Sequence[Tensor]) -> Tensor:
        """Return the kept entries of dense gradients as one vector."""
        pairs = zip(slopes, self.places.values(), strict=True)
        return torch.cat([g.flatten() if at is None else g.flatten()[at] for g, at in pairs])

    def move(self, numerator: Tensor, denominator: Tensor | None, sizes: float | Tensor) -> None:
        """Subtract ``sizes · numerator / denominator`` from the kept weights."""
        if isinstance(sizes, Tensor):
            step = numerator if denominator is None else numerator / denominator
            self.theta.sub_(step.mul(sizes))
        elif denominator is None:
            self.theta.sub_(numerator, alpha=sizes)
        else:
            self.theta.addcdiv_(numerator, denominator, value=-sizes)
        parts = self.theta.split(self.sizes)
        for part, (name, place) in zip(parts, self.places.items(), strict=True):
            flat = self.dense[name].view(-1)
            flat.copy_(part) if place is None else flat.index_copy_(0, place, part)


class _Update:
    """Directions of SGD with momentum and of Adam, as in ``torch.optim``, before the learning rate."""

    betas, eps = (0.9, 0.999), 1e-8

    def __init__(
        self, optimizer: Optimizer, momentum: float, weight_decay: float, theta: Tensor
    ) -> None:
        self.optimizer, self.momentum, self.weight_decay = optimizer, momentum, weight_decay
        self.first, self.second = torch.zeros_like(theta), torch.zeros_like(theta)
        self.steps = 0

    def __call__(self, slopes: Tensor, theta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return numerator and denominator (None = 1) of the direction of the next step."""
        self.steps += 1
        if self.weight_decay:
            slopes = slopes + self.weight_decay * theta
        if self.optimizer == "sgd":
            if not self.momentum:
                return slopes, None
            return self.first.mul_(self.momentum).add_(slopes), None
        self.first.lerp_(slopes, 1 - self.betas[0])
        self.second.mul_(self.betas[1]).addcmul_(slopes, slopes, value=1 - self.betas[1])
        root = (1 - self.betas[1] ** self.steps) ** 0.5
        unbias = (1 - self.betas[0] ** self.steps) / root
        denominator = self.second.sqrt().mul_(unbias).add_(self.eps * unbias * root)
        return self.first, denominator


def _sizes(rates: Tensor, active: Tensor, scale: float, owner: Tensor) -> float | Tensor:
    """Return the step of every kept weight: one number where all networks take the same."""
    if bool((rates == rates[0]).all()) and bool(active.all()):
        return float(rates[0]) * scale
    return (rates * active * scale)[owner]


def _noise(
    slopes: Tensor,
    kept: _Kept,
    size: Tensor,
    unit: NoiseUnit,
    generators: Sequence[torch.Generator] | None,
) -> Tensor:
    """Return Gaussian noise for every kept coordinate of the gradient."""
    if unit == "relative":
        zeros = torch.zeros_like(size)
        squares = zeros.index_add(0, kept.owner, slopes.square())
        counts = zeros.index_add(0, kept.owner, torch.ones_like(slopes))
        size = size * (squares / counts.clamp(min=1)).sqrt()
    sources: Sequence[torch.Generator | None] = generators or [None] * len(size)
    draws = [
        torch.randn(count, generator=source, dtype=slopes.dtype, device=slopes.device)
        for count, source in zip(kept.counts, sources, strict=True)
    ]
    noise = torch.empty_like(slopes).index_copy_(0, kept.by_owner, torch.cat(draws))
    return noise * size[kept.owner]


def _picks(
    inputs: Tensor, batch: int, steps: int, generators: Sequence[torch.Generator] | None
) -> Iterator[tuple[Tensor | None, int]]:
    """Yield the samples [S, b] of each step (None = all), and the epochs done if one ends, else 0."""
    count, n = inputs.shape[:2]
    per_epoch = -(-n // batch)
    if batch >= n:
        yield from ((None, step + 1) for step in range(steps))
        return
    sources: Sequence[torch.Generator | None] = generators or [None] * count
    orders = zip(*(sample_order(n, batch, steps, g) for g in sources), strict=True)
    for step, picks in enumerate(orders, start=1):
        done = step // per_epoch if step % per_epoch == 0 else 0
        yield torch.stack(picks).to(inputs.device), done


def _rows(x: Tensor, pick: Tensor) -> Tensor:
    return x[torch.arange(len(x), device=x.device)[:, None], pick]


def _per_net(name: str, value: float | Tensor, count: int, like: Tensor) -> Tensor:
    """Return one number for each network.

    Raises:
        ValueError: If there are others than one or S, or one is negative.
    """
    numbers = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != count):
        raise ValueError(
            complaint(
                name, f"a number or {count} of them", f"shape {list(numbers.shape)}", "Give [S]."
            )
        )
    if not bool((torch.isfinite(numbers) & (numbers >= 0)).all()):
        raise ValueError(complaint(name, "finite and not negative", value, "Choose another."))
    return numbers.expand(count)


def _check_pack(
    params: Params,
    masks: Masks | None,
    inputs: Tensor,
    labels: Tensor,
    generators: Sequence[torch.Generator] | None,
) -> int:
    """Return S.

    Raises:
        ValueError: If data, weights, masks or generators are not of S networks.
    """
    check_batch("inputs", inputs)
    count = inputs.shape[0]
    remedy = "Stack one for each network in front: [S, …]."
    if inputs.ndim < 2 or labels.shape[:2] != inputs.shape[:2]:
        expected = f"one for each sample, {list(inputs.shape[:2])}"
        raise ValueError(complaint("labels", expected, list(labels.shape), remedy))
    for name, p in params.items():
        if p.ndim < 1 or p.shape[0] != count:
            expected = f"of {count} networks"
            raise ValueError(complaint(f"params[{name!r}]", expected, list(p.shape), remedy))
    for name, mask in (masks or {}).items():
        check_choice("masks", name, params)
        if mask.shape != params[name].shape or mask.dtype != torch.bool:
            expected = f"bool of shape {list(params[name].shape)}"
            actual = f"{mask.dtype} of {list(mask.shape)}"
            raise ValueError(complaint(f"masks[{name!r}]", expected, actual, remedy))
    if generators is not None and len(generators) != count:
        raise ValueError(complaint("generators", f"{count} of them", len(generators), remedy))
    return count


def _check_losses(values: Tensor, active: Tensor, step: int) -> None:
    """Check that the losses of running networks are finite.

    Raises:
        NumericalError: If one is not.
    """
    bad = (~torch.isfinite(values) & active).nonzero().flatten()
    if len(bad):
        raise NumericalError(
            complaint(
                f"loss of network {int(bad[0])} at step {step}",
                "finite",
                float(values[bad[0]]),
                "Use a smaller learning rate.",
            )
        )
