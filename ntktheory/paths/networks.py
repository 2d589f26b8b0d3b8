"""The networks behind the path bounds: the gated ones net and the squared net.

*Ones net*: the gated network with every parameter 1 (m under masks) on ``x²``. Its outputs are
``z1_nc = Σ_{p→c} |c_p| a_p² x_p²`` and its gradient with respect to the parameters is
``A_j = Σ_x Σ_{p∋j} |c_p| a_p² x_p²``, where c_p is the product of a path's fixed edges.
*Squared net*: the ungated network with parameters θ² on ones, one sample; a maximum sums its window. Its
outputs are ``z2_c = Σ_{p→c} |c_p| v_p²`` and its gradient with respect to θ² is
``B_j = Σ_{p∋j} |c_p| w_pj²``. Each sum weights p by the multiplicity of j in p.
*Gated squared net*: the gated network with parameters θ² on x², fixed edges squared.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import Gates
from ntktheory.paths.passes import Powers, Weights, run_values
from ntktheory.paths.scales import Scaled, squared, unscaled

Pullback = Callable[[Tensor], Params]


@dataclass(frozen=True)
class PathNet:
    """A path network run on a batch, with its gradients, of kept parameters only.

    Attributes:
        outputs: Its outputs, [n, C].
        exponents: The exponents of its parameters.
        pullback: Takes a seed like the outputs to the gradient, both mantissas.
    """

    outputs: Scaled
    exponents: dict[str, Tensor]
    pullback: Pullback

    @property
    def z(self) -> Tensor:
        """The outputs, [n, C]."""
        return self.outputs.value()

    def scaled_gradient(self, seed: Scaled) -> dict[str, Scaled]:
        """Return the gradient of ``⟨seed, outputs⟩``."""
        slopes, exponent = self.pullback(seed.mantissa), self.outputs.exponent + seed.exponent
        return {name: Scaled(g, exponent - self.exponents[name]) for name, g in slopes.items()}

    def scaled_by_parameter(self) -> dict[str, Scaled]:
        """Return the gradient summed over samples and outputs: A_j or B_j."""
        return self.scaled_gradient(unscaled(torch.ones_like(self.outputs.mantissa)))

    def scaled_by_output(self, c: int) -> dict[str, Scaled]:
        """Return the gradient of output c summed over samples: A_jc or B_jc."""
        seed = torch.zeros_like(self.outputs.mantissa)
        seed[:, c] = 1
        return self.scaled_gradient(unscaled(seed))

    def gradient(self, seed: Tensor) -> Params:
        """Return the gradient of ``⟨seed, outputs⟩``, as plain tensors."""
        return {name: g.value() for name, g in self.scaled_gradient(unscaled(seed)).items()}

    def by_parameter(self) -> Params:
        """Return A_j or B_j, as plain tensors."""
        return {name: g.value() for name, g in self.scaled_by_parameter().items()}

    def by_output(self, c: int) -> Params:
        """Return A_jc or B_jc, as plain tensors."""
        return {name: g.value() for name, g in self.scaled_by_output(c).items()}


def ones_net(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, gates: Gates
) -> PathNet:
    """Run the gated ones net on ``x²``. Pure, and vmap-able over ``params`` and ``masks``."""
    return _path_net(model_fn, ones_weights(params, masks), masks, squared(x), gates, Powers())


def squared_net(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> PathNet:
    """Run the ungated squared net on one sample of ones. Pure, and vmap-able over ``params``."""
    ones = unscaled(torch.ones_like(x[:1]))
    return _path_net(model_fn, squared_weights(params, masks), masks, ones, None, Powers())


def gated_squared_net(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, gates: Gates
) -> PathNet:
    """Run the gated squared net on ``x²``: outputs ``Σ_{p→c} c_p² a_p² x_p² v_p²``."""
    weights = squared_weights(params, masks)
    return _path_net(model_fn, weights, masks, squared(x), gates, Powers(edge=2))


def path_net(
    model_fn: ModelFn, theta: Params, masks: Masks | None, x: Tensor, gates: Gates | None
) -> PathNet:
    """Run the path network with parameters ``theta`` on ``x``, both not negative.

    Gates enter squared (None: all open), fixed edges as ``|c|``.

    Returns:
        The network with its gradients.
    """
    return _path_net(model_fn, plain_weights(theta), masks, unscaled(x), gates, Powers())


def ones_weights(params: Params, masks: Masks | None) -> Weights:
    """Return the parameters of the ones net: 1, or m."""
    kept = masked({name: torch.ones_like(p) for name, p in params.items()}, masks)
    constant = frozenset(name for name in params if name not in (masks or {}))
    return Weights(kept, plain_weights(kept).exponents, constant)


def squared_weights(params: Params, masks: Masks | None) -> Weights:
    """Return the parameters of the squared net: (θ⊙m)²."""
    squares = {name: squared(p) for name, p in masked(params, masks).items()}
    theta = {name: s.mantissa for name, s in squares.items()}
    return Weights(theta, {name: s.exponent for name, s in squares.items()})


def plain_weights(theta: Params) -> Weights:
    """Return parameters as they are."""
    return Weights(theta, {name: unscaled(p).exponent for name, p in theta.items()})


def _path_net(
    model_fn: ModelFn,
    weights: Weights,
    masks: Masks | None,
    x: Scaled,
    gates: Gates | None,
    powers: Powers,
) -> PathNet:
    def outputs(theta: Params) -> tuple[Tensor, Tensor]:
        own = Weights(theta, weights.exponents, weights.constant)
        z = run_values(model_fn, own, x, gates, powers)
        return z.mantissa, z.exponent

    z, pullback, exponent = torch.func.vjp(outputs, weights.theta, has_aux=True)  # type: ignore[misc]
    return PathNet(
        Scaled(z, exponent),
        dict(weights.exponents),
        lambda seed: masked(pullback(seed)[0], masks),
    )
