"""How many paths from an input to an output cross each weight, whatever the weights are.

The ones net with open gates: a kept weight is 1, a dropped one 0, a fixed edge c ≠ 0 is 1, and a maximum
passes its whole window. Constants (biases, batch norm's shift) are no inputs, so that they add nothing.
The output for an input of ones is then the number of paths, and its gradient with respect to weight j
the number of those that cross j. Both are exact until they pass 2^53, and never overflow.
"""

from typing import Any

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import record
from ntktheory.paths.networks import ones_weights
from ntktheory.paths.passes import Powers, Weights
from ntktheory.paths.rules import Norm
from ntktheory.paths.scales import Scaled, unscaled
from ntktheory.paths.values import Values


class Structure(Values):
    """The values pass without constants: what is added to data and is none counts as 0."""

    def _term(self, t: Any, data: bool) -> Scaled:
        if data and not self._is_data(t):
            return Scaled(torch.zeros_like(self._plain(t)), self.none)
        return super()._term(t, data)

    def _normalise(
        self, norm: Norm, scale: Tensor, shift: Tensor, gamma: Scaled, beta: Scaled, trained: bool
    ) -> Tensor:
        return super()._normalise(norm, scale, torch.zeros_like(shift), gamma, beta, trained)


def count_paths(
    model_fn: ModelFn, params: Params, masks: Masks | None, like: Tensor
) -> tuple[Scaled, Params]:
    """Return the number of paths, and how many cross each parameter.

    Args:
        model_fn: The network, in float64.
        params: Its parameters; only their shapes matter.
        masks: Parameter name -> mask.
        like: One input, [1, …]; only its shape matters.

    Returns:
        The number of paths; and name -> number of paths through each entry, divided by one power of
        two for each tensor, so that only signs and ratios within it count. Parameters are crossed as
        often as a path has them.

    Raises:
        UnsupportedModule: If the network calls a function without a path rule.
    """
    ones = torch.ones_like(like)
    record(model_fn, masked(params, masks), ones, smooth=True)  # refuses what has no paths
    weights = ones_weights(params, masks)

    def outputs(theta: Params) -> tuple[Tensor, Tensor]:
        own = Weights(theta, weights.exponents, weights.constant)
        z = Structure(own, unscaled(ones), None, Powers(edge=0)).run(model_fn, theta)
        return z.mantissa, z.exponent

    z, pullback, exponent = torch.func.vjp(outputs, weights.theta, has_aux=True)  # type: ignore[misc]
    crossing = masked(pullback(torch.ones_like(z))[0], masks)
    return Scaled(z, exponent).sum(), crossing
