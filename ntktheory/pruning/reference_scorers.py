"""The scorers by their definitions: slow, on copies of the module, with no code of the fast ones.

Every function takes a module in eval mode, masks by parameter name (None keeps everything), and returns
name -> score for the weights of Linear and convolution layers. Hessians are built row by row, so that P
may be some hundreds. ``paths/reference.py`` has the sums over paths.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

Masks = Mapping[str, Tensor] | None
Scores = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def prunable(model: nn.Module) -> list[str]:
    """Return the names of the scored weights."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | _ConvNd)]
    return [n for n, p in model.named_parameters() if any(p is layer.weight for layer in layers)]


def reference_snip(
    model: nn.Module, masks: Masks, x: Tensor, y: Tensor, loss_fn: Loss, *, train: bool = False
) -> Scores:
    """Return ``|θ ∂ℓ/∂w|`` at w = θ⊙m; ``train``: batch norms in train mode."""
    net = _masked_copy(model, masks, train)
    loss_fn(net(x), y).backward()
    theta = dict(model.named_parameters())
    return {n: (theta[n].detach() * _slope(net, n)).abs() for n in prunable(model)}


def reference_grasp(
    model: nn.Module,
    masks: Masks,
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
    *,
    temperature: float = 200.0,
    train: bool = False,
) -> Scores:
    """Return ``w·(Hg)``, H the full Hessian of the kept scored weights, w = θ⊙m."""
    net, names = _masked_copy(model, masks, train), prunable(model)
    weights = [net.get_parameter(n) for n in names]
    slope, rows = _hessian(loss_fn(net(x) / temperature, y), weights)
    kept = torch.cat([_mask(masks, n, w).flatten() for n, w in zip(names, weights, strict=True)])
    flat = torch.cat([w.detach().flatten() for w in weights])
    score = flat * kept * (rows @ (kept * slope))
    parts = score.split([w.numel() for w in weights])
    return {n: s.view_as(w) for n, s, w in zip(names, parts, weights, strict=True)}


def reference_prospr(
    model: nn.Module,
    masks: Masks,
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
    *,
    steps: int = 3,
    lr: float = 0.1,
    momentum: float = 0.0,
    train: bool = False,
) -> Scores:
    """Return ``|∂ℓ(w_M)/∂c|``, by carrying ``D_k = ∂w_k/∂w_0`` forwards through full Hessians.

    ``V_{k+1} = μ V_k + M H_k D_k`` and ``D_{k+1} = D_k − η V_{k+1}``, M the diagonal matrix of the mask.
    """
    net = _masked_copy(model, masks, train)
    named = dict(net.named_parameters())
    weights, sizes = list(named.values()), [p.numel() for p in named.values()]
    kept = torch.cat([_mask(masks, n, p).flatten() for n, p in named.items()])
    speed, moved = torch.zeros_like(kept), torch.eye(len(kept), dtype=kept.dtype)
    accelerated = torch.zeros_like(moved)
    for _ in range(steps):
        slope, rows = _hessian(loss_fn(net(x), y), weights)
        speed = momentum * speed + kept * slope
        accelerated = momentum * accelerated + kept[:, None] * (rows @ moved)
        moved = moved - lr * accelerated
        with torch.no_grad():
            for p, v in zip(weights, speed.split(sizes), strict=True):
                p.sub_(lr * v.view_as(p))
    final = torch.autograd.grad(loss_fn(net(x), y), weights, materialize_grads=True)
    chained = torch.cat([g.flatten() for g in final]) @ moved
    slopes = dict(zip(named, chained.split(sizes), strict=True))
    theta = dict(model.named_parameters())
    return {n: (theta[n].detach() * slopes[n].view_as(theta[n])).abs() for n in prunable(model)}


def reference_synflow(
    model: nn.Module,
    masks: Masks,
    ones: Tensor,
    *,
    rule: Callable[[Tensor], Tensor] = torch.abs,
    buffers: bool = False,
) -> Scores:
    """Return ``|w ∂R/∂rule(w)|``, R the sum of the outputs of a copy with every entry by ``rule``.

    Args:
        model: The module.
        masks: Parameter name -> mask.
        ones: One sample of ones.
        rule: ``abs`` for SynFlow, ``square`` for the published code of its squared version.
        buffers: Whether running statistics are rewritten too, as in published code.

    Returns:
        Name -> score.
    """
    net = _masked_copy(model, masks)
    with torch.no_grad():
        for t in [*net.parameters(), *(net.buffers() if buffers else ())]:
            t.copy_(rule(t))
    net.double()(ones.double()).sum().backward()
    theta = dict(model.named_parameters())
    return {
        n: (theta[n].detach() * _mask(masks, n, theta[n]) * _slope(net, n)).abs()
        for n in prunable(model)
    }


def reference_ntk_sap(
    model: nn.Module,
    masks: Masks,
    draws: Iterable[tuple[Mapping[str, Tensor], Tensor, Mapping[str, Tensor]]],
    *,
    sigma: float = 0.01,
) -> Scores:
    """Return ``|Σ_r ∂/∂m Σ_nc (f(θ_r⊙m) − f((θ_r+σΔ_r)⊙m))²|``, a finite difference of two copies.

    One probe per realisation, shaped like the parameter or with one axis before.
    """
    names = prunable(model)
    total: Scores = {}
    for given, x, probes in draws:
        first, second = copy.deepcopy(model), copy.deepcopy(model)
        raw: list[dict[str, Tensor]] = []
        for net, step in ((first, 0.0), (second, sigma)):
            with torch.no_grad():
                for n, p in net.named_parameters():
                    p.copy_(given.get(n, p))
                    if n in probes:
                        p.add_(step * probes[n].reshape(p.shape))
            raw.append({n: p.detach().clone() for n, p in net.named_parameters()})
            _mask_in_place(net, masks)
        (first(x) - second(x)).square().sum().backward()
        for n in names:
            slope = raw[0][n] * _slope(first, n) + raw[1][n] * _slope(second, n)
            total[n] = total[n] + slope if n in total else slope
    return {n: s.abs() for n, s in total.items()}


def reference_px_repo(model: nn.Module, masks: Masks, x: Tensor) -> Scores:
    """Return ``θ² |∂Z/∂θ²|`` by copies in train mode whose ReLUs are replaced, all of the batch."""
    gates: list[Tensor] = []
    with torch.no_grad(), _Relu(lambda z: gates.append(z > 0) or z.clamp(min=0)):  # type: ignore[func-returns-value]
        _masked_copy(model, masks)(x)
    replay = iter(gates)
    squared, ones = (_untouched(model, masks, rule) for rule in (torch.square, torch.ones_like))
    with torch.no_grad(), _Relu(lambda z: z * next(replay).to(z.dtype)):
        data = ones(x.square())
    with _Relu(lambda z: z):
        (data * squared(torch.ones_like(x))[:1]).sum().backward()
    theta = dict(model.named_parameters())
    return {
        n: theta[n].detach().square() * _mask(masks, n, theta[n]) * _slope(squared, n).abs()
        for n in prunable(model)
    }


class _Relu(TorchFunctionMode):
    """Puts another function in the place of ReLU."""

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.other = other

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.relu, torch.relu_, nn.functional.relu, Tensor.relu, Tensor.relu_):
            return self.other(args[0])
        return func(*args, **(kwargs or {}))


def _untouched(model: nn.Module, masks: Masks, rule: Callable[[Tensor], Tensor]) -> nn.Module:
    net = copy.deepcopy(model).train()
    with torch.no_grad():
        for n, p in net.named_parameters():
            if "bn" not in n and "fc" not in n:
                p.copy_(rule(p))
    _mask_in_place(net, masks)
    return net


def _masked_copy(model: nn.Module, masks: Masks, train: bool = False) -> nn.Module:
    net = copy.deepcopy(model)
    for p in net.parameters():
        p.requires_grad_(True)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.train(train)
    _mask_in_place(net, masks)
    return net


def _mask_in_place(net: nn.Module, masks: Masks) -> None:
    with torch.no_grad():
        for n, p in net.named_parameters():
            p.mul_(_mask(masks, n, p))


def _mask(masks: Masks, name: str, p: Tensor) -> Tensor:
    return masks[name].to(p.dtype) if masks and name in masks else torch.ones_like(p.detach())


def _slope(net: nn.Module, name: str) -> Tensor:
    p = net.get_parameter(name)
    return torch.zeros_like(p) if p.grad is None else p.grad


def _hessian(loss: Tensor, weights: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Return the gradient and the Hessian, row by row."""
    parts = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    slope = torch.cat([g.flatten() for g in parts])
    rows = []
    for entry in slope:
        if not entry.requires_grad:
            rows.append(torch.zeros_like(slope))
            continue
        row = torch.autograd.grad(entry, weights, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in row]))
    return slope.detach(), torch.stack(rows).detach()
