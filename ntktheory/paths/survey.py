"""A recorded network and, made when first needed, what the bounds on its trace are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from ntktheory.functional import Masks, ModelFn, Params, masked
from ntktheory.paths.gates import Gates, Recording, record
from ntktheory.paths.half import own_layer_ratios
from ntktheory.paths.networks import PathNet, ones_weights, squared_net, squared_weights
from ntktheory.paths.passes import Direction, Inputs, Powers, Weights, run_directional, run_values
from ntktheory.paths.scales import Scaled, squared, total


@dataclass(frozen=True)
class Survey:
    """A recorded network with its parameters, masks and batch.

    Attributes:
        model_fn: The network.
        params: Its parameters, unmasked.
        masks: Masks, or None.
        x: The batch.
        run: Its recording under the masks.
        smooth: Whether its activations may be smooth.
        memo: What rules keep for each other.
    """

    model_fn: ModelFn
    params: Params
    masks: Masks | None
    x: Tensor
    run: Recording
    smooth: bool = False
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def ones(self) -> Weights:
        """The parameters of the ones net."""
        return ones_weights(self.params, self.masks)

    @cached_property
    def data(self) -> tuple[Scaled, Inputs]:
        """Outputs z1 of the ones net, [N, C], and what its parameters multiply."""
        inputs = Inputs([], copy=self.run.writes)
        z = run_values(self.model_fn, self.ones, squared(self.x), self.run.gates, Powers(), inputs)
        return z, inputs

    @cached_property
    def z1(self) -> Scaled:
        """Outputs z1 of the ones net, [N, C]."""
        if "data" in self.__dict__:
            return self.data[0]
        return run_values(self.model_fn, self.ones, squared(self.x), self.run.gates, Powers())

    @cached_property
    def squared(self) -> PathNet:
        """The squared net."""
        return squared_net(self.model_fn, self.params, self.masks, self.x)

    @cached_property
    def b(self) -> dict[str, Scaled]:
        """B_j."""
        return self.squared.scaled_by_parameter()

    @cached_property
    def ratios(self) -> Inputs:
        """``h²/Bpre`` at every product of data and a parameter."""
        return own_layer_ratios(self.model_fn, self.params, self.masks, self.x, smooth=self.smooth)

    @property
    def outputs(self) -> int:
        """C."""
        return self.run.outputs.shape[1]

    def forget(self, remaining: Iterable[str]) -> None:
        """Drop the activations that none of the remaining bounds needs."""
        for kept, bound in (("data", "edge"), ("ratios", "half")):
            if not any(name.startswith(bound) for name in remaining):
                self.__dict__.pop(kept, None)

    def along(
        self, direction: dict[str, Scaled], inputs: Inputs, gates: Gates | None = None
    ) -> Scaled:
        """Return ``Σ_j B_j · (paths after j of the gated ones net) · inputs``, by output, [N, C].

        Args:
            direction: B.
            inputs: What stands before the edges.
            gates: The gates after them; None means the recorded derivatives.
        """
        return run_directional(
            self.model_fn,
            self.ones,
            Direction(direction),
            inputs,
            self.x,
            self.run.slopes if gates is None else gates,
            Powers(),
        )

    def gated_squared(self) -> Scaled:
        """Return the sum of the gradient of the gated squared net, outputs and kept parameters."""
        weights = squared_weights(self.params, self.masks)
        powers = Powers(edge=2)
        inputs = Inputs([], copy=self.run.writes)
        run_values(self.model_fn, weights, squared(self.x), self.run.gates, powers, inputs)
        kept = {
            name: Scaled(weight, self.ones.exponents[name])
            for name, weight in self.ones.theta.items()
        }
        return run_directional(
            self.model_fn,
            weights,
            Direction(kept, self.ones.constant),
            inputs,
            self.x,
            self.run.slopes,
            powers,
        ).sum()


def sum_of(terms: Iterable[Scaled]) -> Scaled:
    """Return the sum of the entries of all terms, 0-dim."""
    return total(term.sum() for term in terms)


def at_output(z: Scaled, c: int) -> Scaled:
    """Return the sum over samples of output c."""
    return Scaled(z.mantissa[:, c].sum(), z.exponent)


def survey(model_fn: ModelFn, params: Params, masks: Masks | None, x: Tensor) -> Survey:
    """Record a network under masks. Pure, and vmap-able over ``params`` and ``masks``."""
    return Survey(model_fn, params, masks, x, record(model_fn, masked(params, masks), x))


def weighted_by_squares(
    params: Params, masks: Masks | None, slopes: Mapping[str, Scaled]
) -> dict[str, Scaled]:
    """Return ``θ_j² s_j`` for every parameter, 0 where it is dropped."""
    effective = masked(params, masks)
    return {name: squared(effective[name]).times(slope) for name, slope in slopes.items()}
