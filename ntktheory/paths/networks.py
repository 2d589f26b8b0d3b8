"""The two networks behind the path bounds: the gated ones net and the squared net.

*Ones net*: the gated network with every parameter 1 (m under masks) on ``x²``. Its outputs are
``z1_nc = Σ_{p→c} a_p² x_p²`` and its gradient with respect to the parameters is
``A_j = Σ_x Σ_{p∋j} a_p² x_p²``.
*Squared net*: the ungated network with parameters θ² on ones, one sample. Its outputs are
``z2_c = Σ_{p→c} v_p²`` and its gradient with respect to θ² is ``B_j = Σ_{p∋j} w_pj²``.
Each sum weights p by the multiplicity of j in p.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import replay


@dataclass(frozen=True)
class PathNet:
    """Outputs ``z`` [n, C] of one of the two networks, and its gradients, of kept parameters only."""

    z: Tensor
    gradient: Callable[[Tensor], Params]

    def by_parameter(self) -> Params:
        """Return the gradient summed over samples and outputs: A_j or B_j."""
        return self.gradient(torch.ones_like(self.z))

    def by_output(self, c: int) -> Params:
        """Return the gradient of output c summed over samples: A_jc or B_jc."""
        seed = torch.zeros_like(self.z)
        seed[:, c] = 1
        return self.gradient(seed)


def ones_net(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, gates: list[Tensor]
) -> PathNet:
    """Run the gated ones net on ``x²``. Pure, and vmap-able over ``params`` and ``masks``."""
    kept = masked({name: torch.ones_like(p) for name, p in params.items()}, masks)
    return path_net(model_fn, kept, masks, x.square(), gates)


def squared_net(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> PathNet:
    """Run the ungated squared net on one sample of ones. Pure, and vmap-able over ``params``."""
    squares = {name: p.square() for name, p in masked(params, masks).items()}
    return path_net(model_fn, squares, masks, torch.ones_like(x[:1]), None)


def gated_squared_net(
    model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor, gates: list[Tensor]
) -> PathNet:
    """Run the gated squared net on ``x²``: outputs ``Σ_{p→c} a_p² x_p² v_p²``."""
    squares = {name: p.square() for name, p in masked(params, masks).items()}
    return path_net(model_fn, squares, masks, x.square(), gates)


def path_net(
    model_fn: ModelFn, theta: Params, masks: Masks | None, x: Tensor, gates: list[Tensor] | None
) -> PathNet:
    """Run the network with fixed gates (None: all open) at the parameters ``theta`` on ``x``."""
    fixed = replay(model_fn)
    z, pullback = torch.func.vjp(lambda theta: fixed(theta, (x, gates)), theta)  # type: ignore[misc]
    return PathNet(z, lambda seed: masked(pullback(seed)[0], masks))
