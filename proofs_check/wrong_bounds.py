"""Planted errors in ``path_bounds``: bounds computed by rules that are not theirs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ntktheory import PathBounds, functional, path_bounds
from ntktheory.functional import Masks, ModelFn, Params, masked, to_dtype
from ntktheory.paths.gates import record
from ntktheory.paths.networks import PathNet, path_net

Bounds = Callable[..., PathBounds]
Recorded = tuple[ModelFn, Params, Masks | None, Tensor, list[Tensor]]


def with_upper(**rules: Callable[[Recorded], Tensor]) -> Bounds:
    """Return ``path_bounds`` with some upper bounds computed by other rules."""

    def mutant(model: nn.Module, x: Tensor, **options: Any) -> PathBounds:
        bounds = path_bounds(model, x, **options)
        f, masks, x = to_dtype(functional(model), torch.float64), options.get("masks"), x.double()
        run = record(f.model_fn, masked(f.params, masks), x)
        recorded = (f.model_fn, f.params, masks, x, run.gates)
        wrong = {name: float(rule(recorded)) for name, rule in rules.items()}
        return replace(bounds, upper=dict(bounds.upper) | wrong)

    return mutant


def total(values: Params) -> Tensor:
    """Return the sum of all entries."""
    return torch.stack([v.sum() for v in values.values()]).sum()


def ungated_ones_net(r: Recorded) -> PathNet:
    """Run the ones net with every gate open."""
    model_fn, params, masks, x, _ = r
    return path_net(
        model_fn,
        masked({k: torch.ones_like(p) for k, p in params.items()}, masks),
        masks,
        x.square(),
        None,
    )


def gated_squared_weights(r: Recorded) -> PathNet:
    """Run the squared net with the gates of the first sample."""
    model_fn, params, masks, x, gates = r
    squares = {name: p.square() for name, p in masked(params, masks).items()}
    first = [gate[:1] for gate in gates]
    return path_net(model_fn, squares, masks, torch.ones_like(x[:1]), first)
