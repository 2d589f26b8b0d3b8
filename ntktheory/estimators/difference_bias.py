"""The bias of NTK-SAP's finite difference on a given network, and the σ that keeps it small.

``moments.py`` has the exact part, gates held or to order σ⁴. What that does not see, gates that flip and
higher orders, is measured: ``sampled_bias`` and ``kink_contribution``.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ntktheory.checks import NumericalError, UnsupportedModule, check_batch, complaint
from ntktheory.estimators.moments import (
    MAX_SUBSETS,
    sigma4_coefficient,
    subset_squares,
    with_fixed_gates,
)
from ntktheory.estimators.ntk_sap import check_sigma, objective
from ntktheory.functional import FunctionalModel, ModelFn, Params, check_network, functional
from ntktheory.ntk import ntk_trace
from ntktheory.probes import check_probes

SMALLEST_SIGMA = 1e-6
"""Where ``sigma_for_bias`` gives up."""


@dataclass(frozen=True)
class FiniteDifferenceBias:
    """The finite difference's bias ``E‖f(θ+Δ)−f(θ)‖² − σ² Tr Θ`` as a polynomial in σ².

    Attributes:
        trace: Tr Θ.
        coefficients: Of σ⁴, σ⁶, …
        complete: Whether these are all, gates held fixed; else terms of order σ⁶ are left out.
    """

    trace: float
    coefficients: tuple[float, ...]
    complete: bool

    def at(self, sigma: float) -> float:
        """Return the bias at σ.

        Raises:
            ValueError: If σ is not positive.
        """
        check_sigma(sigma)
        return math.fsum(c * sigma ** (2 * s) for s, c in enumerate(self.coefficients, start=2))

    def relative(self, sigma: float) -> float:
        """Return the bias at σ, divided by σ² Tr Θ."""
        return self.at(sigma) / (sigma**2 * self.trace)

    def largest_sigma(self, tolerance: float) -> float:
        """Return the largest σ up to which ``|relative(σ)|`` is at most ``tolerance``.

        Args:
            tolerance: The relative bias allowed.

        Returns:
            σ, or ``math.inf`` if there is no bias. Coefficients of both signs count as if they added
            up; where ``complete`` is False it is right to leading order.

        Raises:
            ValueError: If the tolerance is not positive.
        """
        check_tolerance(tolerance)
        sizes = [abs(c) / self.trace for c in self.coefficients]
        if not any(sizes):
            return math.inf
        # Each term alone allows at most (tolerance/c)^(1/(s-1)); the sum is increasing in σ².
        high = min((tolerance / c) ** (1 / s) for s, c in enumerate(sizes, start=1) if c)
        low = 0.0
        while low < (middle := (low + high) / 2) < high:
            if math.fsum(c * middle**s for s, c in enumerate(sizes, start=1)) > tolerance:
                high = middle
            else:
                low = middle
        return math.sqrt(high)


def finite_difference_bias(model: nn.Module | FunctionalModel, x: Tensor) -> FiniteDifferenceBias:
    """Return the bias of NTK-SAP's finite difference on this network and batch, for every σ.

    * A network of gates and at most 16 parameters: every coefficient, gates held fixed
      (``subset_bias``).
    * Any other: the coefficient of σ⁴ (``smooth_bias_coefficient``); for a network of gates that is the
      one with gates held fixed. Gates that flip are in ``sampled_bias`` only.

    All parameters are perturbed, by independent Gaussians.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x: The batch.

    Returns:
        The polynomial.

    Raises:
        ValueError: If the network cannot take ``x``, or its trace is 0.

    Cost:
        2^P forward passes, or N·C Hessians of P² entries and P Hessian traces: for small networks.

    Source:
        S2. Tested against all sign vectors and Gauss–Hermite quadrature.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
        >>> for p in net.parameters():
        ...     _ = nn.init.ones_(p)
        >>> bias = finite_difference_bias(net, torch.ones(1, 1))
        >>> bias.trace, bias.coefficients, round(bias.largest_sigma(0.02), 12)
        (2.0, (1.0,), 0.2)
    """
    model = functional(model)
    trace = positive_trace(model, x)
    fixed = _gated(model, x)
    if fixed is None or sum(p.numel() for p in model.params.values()) > MAX_SUBSETS:
        run = fixed or model.model_fn
        return FiniteDifferenceBias(trace, (sigma4_coefficient(run, model.params, x),), False)
    squares, rounding = subset_squares(model, x)
    while len(squares) > 2 and squares[-1] <= rounding[len(squares) - 1]:
        squares.pop()
    return FiniteDifferenceBias(trace, tuple(squares[2:]), True)


def sigma_for_bias(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    tolerance: float,
    *,
    probes: Params,
    start: float | None = None,
) -> float:
    """Return a σ at which the finite difference's *measured* relative bias is within a tolerance.

    Starts at ``finite_difference_bias(…).largest_sigma(tolerance)``, at most 1, or at a σ given (for
    networks that are too large for that polynomial), and divides by √2 until
    ``|mean| + 3 standard errors`` of ``sampled_bias`` is at most ``tolerance·σ² Tr Θ``: what the
    polynomial leaves out, kinks and higher orders, is seen too.

    Args:
        model: A module in eval mode, or a FunctionalModel.
        x: The batch.
        tolerance: The relative bias allowed, 0.01 for 1 %.
        probes: Name -> [K, *shape], independent draws, K ≥ 2.
        start: The largest σ tried; None computes the polynomial.

    Returns:
        σ.

    Raises:
        ValueError: If the tolerance or ``start`` is not positive, a probe or the batch does not fit, or
            the trace is 0.
        NumericalError: If no σ down to 1e-6 is seen to do: too few probes, or rounding.

    Cost:
        That of ``finite_difference_bias`` without ``start``, and four passes per probe for every σ
        tried.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> sigma_for_bias(net, torch.ones(1, 2), 0.01, probes={"weight": torch.ones(3, 1, 2)})
        1.0
    """
    if start is None:
        bias = finite_difference_bias(model, x)
        trace, sigma = bias.trace, min(bias.largest_sigma(tolerance), 1.0)
    else:
        check_sigma(start)
        check_tolerance(tolerance)
        trace, sigma = positive_trace(model, x), float(start)
    while sigma >= SMALLEST_SIGMA:
        measured = sampled_bias(model, x, sigma, probes)
        if abs(measured.mean) + 3 * measured.standard_error <= tolerance * sigma**2 * trace:
            return sigma
        sigma /= math.sqrt(2)
    raise NumericalError(
        complaint(
            "probes",
            f"enough to see a relative bias of {tolerance}",
            f"none that shows it for a sigma above {SMALLEST_SIGMA}",
            "Pass more probes, allow a larger tolerance, or use float64.",
        )
    )


def check_tolerance(tolerance: float) -> None:
    """Check that a relative bias allowed is a positive number.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < tolerance < math.inf:
        raise ValueError(
            complaint("tolerance", "a positive number", tolerance, "Pass 0.01 for 1 %.")
        )


def positive_trace(model: nn.Module | FunctionalModel, x: Tensor) -> float:
    """Return Tr Θ, by which biases are divided.

    Raises:
        ValueError: If it is 0.
    """
    trace = float(ntk_trace(model, x))
    if not trace > 0:
        raise ValueError(
            complaint(
                "model", "a network with a positive trace", trace, "Nothing depends on θ here."
            )
        )
    return trace


def _gated(model: FunctionalModel, x: Tensor) -> ModelFn | None:
    try:
        return with_fixed_gates(model, x)
    except UnsupportedModule:
        return None


class Sampled(NamedTuple):
    """A mean over probes, and its standard error."""

    mean: float
    standard_error: float


def sampled_bias(
    model: nn.Module | FunctionalModel, x: Tensor, sigma: float, probes: Params
) -> Sampled:
    """Measure ``E‖f(θ+σΔ)−f(θ)‖² − σ² Tr Θ`` on any network, kinks included.

    Every probe is used with both signs, and the JVP form of the same probe, whose mean is ``σ² Tr Θ``
    exactly, is the control variate.

    Args:
        model: A module in eval mode, or a FunctionalModel.
        x: The batch.
        sigma: σ.
        probes: Name -> [K, *shape], independent draws.

    Returns:
        Mean and standard error over K (NaN for K = 1).

    Raises:
        ValueError: If σ is not positive, or a probe does not fit.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> sampled_bias(net, torch.ones(1, 2), 0.1, {"weight": torch.ones(3, 1, 2)}).mean < 1e-6
        True
    """
    return _paired(model, x, sigma, probes, None)


def kink_contribution(
    model: nn.Module | FunctionalModel, x: Tensor, sigma: float, probes: Params
) -> Sampled:
    """Measure the part of the finite difference's mean that comes from gates that flip.

    The mean over probes, with both signs, of the finite difference less the one with the gates of
    ``x`` held fixed.

    Args:
        model: A network of gates, in eval mode.
        x: The batch.
        sigma: σ.
        probes: Name -> [K, *shape], independent draws.

    Returns:
        Mean and standard error over K (NaN for K = 1).

    Raises:
        ValueError: If σ is not positive, or a probe does not fit.
        UnsupportedModule: If the network calls a function without a path rule.
    """
    return _paired(model, x, sigma, probes, with_fixed_gates(model, x))


def _paired(
    model: nn.Module | FunctionalModel,
    x: Tensor,
    sigma: float,
    probes: Params,
    fixed: ModelFn | None,
) -> Sampled:
    """Return the finite difference less the JVP form, or less the finite difference of ``fixed``."""
    check_sigma(sigma)
    model = functional(model)
    check_batch("x", x)
    check_probes(probes, model.params)
    check_network(model, model.params, x)
    excess = torch.zeros(())
    for sign in (1, -1):
        signed = {name: sign * probe for name, probe in probes.items()}
        found = objective(
            model.model_fn, model.params, None, x, signed, sigma=sigma, form="finite_difference"
        )
        control = objective(
            fixed or model.model_fn,
            model.params,
            None,
            x,
            signed,
            sigma=sigma,
            form="finite_difference" if fixed else "jvp",
        )
        excess = excess + (found - control) / 2
    error = float(excess.std()) / len(excess) ** 0.5 if len(excess) > 1 else math.nan
    return Sampled(float(excess.mean()), error)
