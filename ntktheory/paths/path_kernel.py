"""The path kernel ``Π = J_θv (J_θv)ᵀ`` of a network: its trace and its rank, without its paths.

``(J_θ v)_pj = ∂v_p/∂θ_j`` with ``v_p`` the product of a path's parameters; fixed edges are no part of v.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ntktheory.checks import (
    NumericalError,
    UnsupportedModule,
    check_batch,
    check_masks,
    complaint,
)
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    Params,
    check_network,
    functional,
    masked,
    to_dtype,
)
from ntktheory.paths.gates import record
from ntktheory.paths.networks import plain_weights, squared_weights
from ntktheory.paths.passes import (
    Direction,
    Inputs,
    Powers,
    Weights,
    run_directional,
    run_values,
    run_with_factors,
)
from ntktheory.paths.scales import Scaled, unscaled

PRIME = 2**31 - 1
LARGEST = 2**53
MAX_PARAMETERS = 2000


def path_kernel_trace(
    model: nn.Module | FunctionalModel, x: Tensor, *, masks: Masks | None = None
) -> float:
    """Return ``Tr Π = Σ_p Σ_j w_pj²``, the sum of the squared net's gradient with fixed edges 1.

    Args:
        model: A network that ``path_bounds`` takes, every parameter used once.
        x: A batch, for the shape of an input.
        masks: Parameter name -> mask; paths run through kept parameters only.

    Returns:
        The trace, a Python float computed in float64. Cost: two passes of one sample.

    Raises:
        ValueError: If a batch or mask does not fit, or the model is in train mode.
        UnsupportedModule: If the network calls a function without a path rule, or uses a parameter
            twice.
        NumericalError: If the trace does not fit float64.

    Source:
        Gebhart et al. 2021; PX. Tested against ``paths/reference.py``.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
        >>> _ = [nn.init.constant_(p, v) for p, v in zip(net.parameters(), (2.0, 3.0))]
        >>> path_kernel_trace(net, torch.ones(1, 1))
        13.0
    """
    model, x = _checked(model, x, masks)
    weights = squared_weights(model.params, masks)
    like = torch.ones_like(x[:1])
    inputs = Inputs([])
    run_values(model.model_fn, weights, unscaled(like), None, Powers(edge=0), inputs)
    kept = masked({name: torch.ones_like(p) for name, p in model.params.items()}, masks)
    along = Direction({name: unscaled(p) for name, p in kept.items()})
    z = run_directional(model.model_fn, weights, along, inputs, like, None, Powers(edge=0)).sum()
    value = float(z.value())
    if not np.isfinite(value):
        raise NumericalError(
            complaint(
                "Tr Π",
                "finite in float64",
                f"{value}, its decimal logarithm is {z.log10():.1f}",
                "Rescale the parameters.",
            )
        )
    return value


def path_kernel_rank(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    *,
    masks: Masks | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Return ``rank Π`` of a small network, by exact integers modulo a prime.

    The rank depends on which parameters are 0 only, so that the others are replaced by small whole
    numbers. Every unit is then given a random whole factor: the gradient of an output is a random
    combination of the rows of ``J_θ v``, with one unknown per path, and twice as many gradients as there
    are parameters span what the rows span, almost surely. The result is never too large.

    Args:
        model: As in ``path_kernel_trace``; at most 2,000 parameters.
        x: A batch, for the shape of an input.
        masks: Parameter name -> mask.
        generator: Source of the factors; None uses torch's global one.

    Returns:
        The rank. Cost: two backward passes of one sample per kept parameter, and Gaussian elimination.

    Raises:
        ValueError: If a batch or mask does not fit, the network has more parameters, or the model is in
            train mode.
        UnsupportedModule: If the network calls a function without a path rule, or uses a parameter
            twice.
        NumericalError: If the network is so deep that whole numbers pass 2^53.

    Source:
        Gebhart et al. 2021; PX. Tested against ``paths/reference.py``.
    """
    model, x = _checked(model, x, masks)
    effective = masked(model.params, masks)
    kept = {
        name: masks[name].bool()
        if masks and name in masks
        else torch.ones_like(p, dtype=torch.bool)
        for name, p in effective.items()
    }
    count = sum(int(k.sum()) for k in kept.values())
    if count > MAX_PARAMETERS:
        raise ValueError(
            complaint(
                "model",
                f"a network of at most {MAX_PARAMETERS} kept parameters",
                count,
                "Use a smaller one.",
            )
        )
    theta = {
        name: (torch.randint(1, 4, p.shape, generator=generator) * (p != 0)).to(p.dtype)
        for name, p in effective.items()
    }
    rows = []
    for _ in range(2 * count + 8):
        gradient = _random_gradient(model, theta, x, generator)
        rows.append(torch.cat([gradient[name][kept[name]] for name in kept]))
    return rank_modulo_prime(torch.stack(rows).to(torch.int64).numpy())


def rank_modulo_prime(matrix: np.ndarray) -> int:
    """Return the rank of a matrix of integers modulo 2³¹ − 1: at most its rank, and almost surely it."""
    rows = matrix % PRIME
    rank = 0
    for column in range(rows.shape[1]):
        alive = np.flatnonzero(rows[rank:, column])
        if not alive.size:
            continue
        pivot = rank + alive[0]
        rows[[rank, pivot]] = rows[[pivot, rank]]
        rows[rank] = rows[rank] * pow(int(rows[rank, column]), -1, PRIME) % PRIME
        below = rows[rank + 1 :]
        below -= below[:, column : column + 1] * rows[rank] % PRIME
        below %= PRIME
        rank += 1
        if rank == rows.shape[0]:
            break
    return rank


def _random_gradient(
    model: FunctionalModel, theta: Params, x: Tensor, generator: torch.Generator | None
) -> Params:
    """Return the gradient of the sum of the outputs, every unit with a random whole factor."""

    def draw(like: Tensor) -> Tensor:
        return torch.randint(0, 8, like.shape, generator=generator).to(like.dtype)

    weights, like = plain_weights(theta), unscaled(draw(x[:1]))

    def outputs(theta: Params) -> tuple[Tensor, Tensor]:
        z = run_with_factors(
            model.model_fn, Weights(theta, weights.exponents), like, Powers(edge=0), draw
        ).sum()
        return z.mantissa, z.exponent

    slopes, exponent = torch.func.grad(outputs, has_aux=True)(theta)
    gradient = {name: Scaled(g, exponent).value() for name, g in slopes.items()}
    largest = max(float(g.max()) for g in gradient.values() if g.numel())
    if largest > LARGEST:
        raise NumericalError(
            complaint(
                "model",
                "small enough for whole numbers below 2^53",
                f"an entry of {largest:.1e}",
                "Use a smaller network.",
            )
        )
    return gradient


def _checked(
    model: nn.Module | FunctionalModel, x: Tensor, masks: Masks | None
) -> tuple[FunctionalModel, Tensor]:
    model = to_dtype(functional(model), torch.float64)
    check_batch("x", x)
    check_masks(masks, model.params, binary=True)
    x = x.double()
    effective = masked(model.params, masks)
    check_network(model, effective, x)
    uses = record(model.model_fn, effective, x[:1]).uses
    repeated = [name for name, count in uses.items() if count > 1]
    if repeated:
        raise UnsupportedModule(
            complaint(
                "model",
                "a network that uses every parameter once",
                f"{repeated[0]!r} used twice",
                "Enumerate its paths instead.",
            )
        )
    return model, x
