"""One pass of a path network: the model's calls, each replaced by its rule for sums over paths.

Every tensor of a pass is a mantissa; its exponent is in its tag. Before a layer multiplies, the size of
its input is taken into the weight's factor, so that mantissas neither grow nor vanish with depth; sums
and concatenations are aligned to the larger exponent. All factors are powers of two: nothing is rounded.

A pass is one of two:

* *values*: the sums over paths that end in a unit. A gate enters to some power, a fixed edge c as
  ``|c|`` to some power; a maximum gathers by its gate, or sums its window where gates are open.
* *directional*: the derivative of such sums along a direction B in the parameters. A unit's tensor is
  the derivative there, and every product of data and a parameter W adds ``u·B_W`` to it, where u comes
  from a list: of a values pass, or of anything else that is to stand before an edge.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntktheory.functional import ModelFn, Params
from ntktheory.paths.directional import Directional, Given
from ntktheory.paths.gates import Gates
from ntktheory.paths.scales import Scaled, power, size
from ntktheory.paths.values import Inputs, Powers, Values, Weights
from ntktheory.paths.variants import Absolute, WithFactors

__all__ = [
    "Direction",
    "Inputs",
    "Powers",
    "Weights",
    "absolute",
    "run_directional",
    "run_values",
    "run_with_factors",
]


@dataclass(frozen=True)
class Direction:
    """A direction in the parameters, name -> scaled tensor.

    Attributes:
        by_name: Its entries.
        constant: Names of parameters whose entries are all equal.
    """

    by_name: Mapping[str, Scaled]
    constant: frozenset[str] = frozenset()


def run_values(
    model_fn: ModelFn,
    weights: Weights,
    x: Scaled,
    gates: Gates | None,
    powers: Powers,
    collect: Inputs | None = None,
) -> Scaled:
    """Run a values pass.

    Pure, differentiable in ``weights.theta`` (backwards), and vmap-able.

    Args:
        model_fn: The network.
        weights: The parameters of its path network: θ², 1 or |θ|.
        x: The input of its path network, not negative.
        gates: The recorded gates, or None to open them all.
        powers: The powers of gates and fixed edges.
        collect: Takes what parameters multiply.

    Returns:
        The outputs, [N, C].

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    return Values(weights, x, gates, powers, collect).run(model_fn, weights.theta)


def run_with_factors(
    model_fn: ModelFn,
    weights: Weights,
    x: Scaled,
    powers: Powers,
    draw: Callable[[Tensor], Tensor],
) -> Scaled:
    """Run a values pass with open gates in which every unit is multiplied by a factor of its own.

    Args:
        model_fn: The network.
        weights: The parameters.
        x: The input.
        powers: The powers of fixed edges.
        draw: Returns the factors of a tensor of units.

    Returns:
        The outputs, [N, C]: sums over paths, each with the product of the factors of its units.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    return WithFactors(weights, x, powers, draw).run(model_fn, weights.theta)


def run_directional(
    model_fn: ModelFn,
    weights: Weights,
    direction: Direction,
    inputs: Inputs,
    like: Tensor,
    gates: Gates | None,
    powers: Powers,
) -> Scaled:
    """Run a directional pass: ``Σ_j B_j ∂z/∂θ_j`` for every output, with ``inputs`` before the edges.

    Args:
        model_fn: The network.
        weights: The parameters at which the derivative is taken.
        direction: B.
        inputs: What parameters multiply.
        like: The batch, for its shape.
        gates: The gates after an edge, or None to open them all.
        powers: The powers of gates and fixed edges.

    Returns:
        The derivative of the outputs, [N, C]. Cost: about one forward pass; more where the direction
        spans more than half of the dtype's exponents.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    relative = {name: d.shifted(-weights.exponents[name]) for name, d in direction.by_name.items()}
    sizes = {name: size(d.mantissa) + d.exponent for name, d in relative.items()}
    parts = []
    for names in _alike(sizes):
        common = torch.stack([sizes[name] for name in names]).amax()
        common = torch.where(torch.isfinite(common), common, 0.0)
        tangents = {name: torch.zeros_like(p) for name, p in weights.theta.items()} | {
            name: relative[name].mantissa * power(relative[name].exponent - common)
            for name in names
        }
        zero = Scaled(torch.zeros_like(like), torch.zeros_like(common))
        given = Given(inputs, common, direction.constant)

        def outputs(theta: Params, zero: Scaled = zero, given: Given = given) -> Any:
            z = Directional(weights, zero, gates, powers, given).run(model_fn, theta)
            return z.mantissa, z.exponent

        z, _, exponent = torch.func.jvp(outputs, (weights.theta,), (tangents,), has_aux=True)  # type: ignore[misc]
        parts.append(Scaled(z, exponent))
    if len(parts) == 1:
        return parts[0]
    largest = torch.stack([size(part.mantissa) + part.exponent for part in parts]).amax()
    largest = torch.where(torch.isfinite(largest), largest, 0.0)
    aligned = [part.mantissa * power(part.exponent - largest) for part in parts]
    return Scaled(torch.stack(aligned).sum(0), largest)


def _alike(sizes: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the parameters of a direction so that none vanishes beside another of its group.

    Args:
        sizes: Name -> exponent of the largest entry. Under ``vmap`` they are unknown: one group.

    Returns:
        Names by group, the largest first.
    """
    if any(torch._C._functorch.is_functorch_wrapped_tensor(s) for s in sizes.values()):
        return [list(sizes)]
    groups: list[list[str]] = []
    top = math.inf
    for name in sorted(sizes, key=lambda name: -float(sizes[name])):
        spread = math.log2(torch.finfo(sizes[name].dtype).max) / 2
        if not groups or float(sizes[name]) < top - spread:
            groups.append([])
            top = float(sizes[name])
        groups[-1].append(name)
    return groups


def absolute(model_fn: ModelFn) -> Callable[[Params, tuple[Tensor, Gates]], Tensor]:
    """Return ``fn(|θ|, (|x|, gates))``, the network with gates and fixed edges in absolute value."""

    def fixed(params: Params, batch: tuple[Tensor, Gates]) -> Tensor:
        zero = torch.zeros((), dtype=batch[0].dtype, device=batch[0].device)
        weights = Weights(params, dict.fromkeys(params, zero))
        run = Absolute(weights, Scaled(batch[0], zero), batch[1], Powers(gate=1))
        return run.run(model_fn, params).mantissa

    return fixed
