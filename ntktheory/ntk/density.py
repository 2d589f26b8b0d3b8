"""The spectral density of the NTK by stochastic Lanczos quadrature, without the kernel."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntktheory.checks import NumericalError, check_finite, complaint
from ntktheory.functional import FunctionalModel
from ntktheory.ntk.lanczos import Products, gauss_quadrature, lanczos
from ntktheory.ntk.operator import NTKOperator

GRID_POINTS = 256
RELATIVE_WIDTH = 0.01  # of the largest node


@dataclass(frozen=True)
class SpectralDensity:
    """Fraction of eigenvalues per unit of λ, as nodes and weights and smoothed on a grid.

    Attributes:
        nodes: Nodes of each probe's Gauss rule, ascending, [K, m], float64.
        weights: Their weights, [K, m]; each probe's sum to 1.
        grid: Where the density is evaluated, [G].
        density: ``1/K Σ_k Σ_i w_ki N(λ; ν_ki, width²)``, [G]; its integral over all λ is 1.
        width: Standard deviation of the smoothing, in units of λ.
    """

    nodes: Tensor
    weights: Tensor
    grid: Tensor
    density: Tensor
    width: float

    def moment(self, power: int) -> Tensor:
        """Return each probe's ``Σ_i w_i ν_i^power``, [K].

        Its mean over probes estimates ``Tr Θ^power / NC`` without bias for power ≤ 2m−1.
        """
        return (self.weights * self.nodes**power).sum(1)


def spectral_density(
    model: nn.Module | FunctionalModel | NTKOperator,
    x: Tensor | None = None,
    *,
    probes: int = 8,
    steps: int = 32,
    generator: torch.Generator,
    grid: Tensor | None = None,
    width: float | None = None,
) -> SpectralDensity:
    """Estimate the density of the eigenvalues of ``Θ = J Jᵀ`` from products with Θ only.

    For a Rademacher probe z of n = NC signs, ``E zᵀ g(Θ) z / n = Tr g(Θ) / n`` exactly; m Lanczos
    steps give ``zᵀ g(Θ) z / n`` exactly for polynomials g of degree ≤ 2m−1 (Gaussian quadrature).
    With m = n the only error is that of the finitely many probes.

    Args:
        model: An ``NTKOperator``, or a network in eval mode with outputs [N, C].
        x: N samples, sample axis first, if ``model`` is a network; nothing for an operator.
        probes: K, how many probes.
        steps: m, Lanczos steps per probe; capped at NC.
        generator: Source of the probes.
        grid: Where to evaluate the smoothed density, [G], in units of λ; None takes 256 points
            that leave three widths on both sides of the nodes.
        width: Standard deviation of the Gaussian that smooths, in units of λ; None takes 1 % of the
            largest node.

    Returns:
        The density, in float64 on the operator's device.

    Raises:
        TypeError: If ``x`` is given with an operator or missing with a network, ``generator`` or
            ``grid`` is of the wrong type, or ``probes`` or ``steps`` is no integer.
        ValueError: If ``probes``, ``steps`` or ``width`` is not positive, or the grid is not [G].
        NumericalError: If the grid is not finite, or Θ = 0 and no width is given.

    Cost:
        m products of Θ with K vectors; m²·K·NC multiplications to reorthogonalise; m·K·NC float64
        numbers of memory.

    Source:
        Golub and Welsch 1969; Ubaru, Chen and Saad 2017. Tested against dense eigenvalues.

    Example:
        >>> net = nn.Linear(2, 3, bias=False)
        >>> generator = torch.Generator().manual_seed(0)
        >>> density = spectral_density(net, torch.tensor([[3.0, 4.0]]), probes=2, generator=generator)
        >>> [round(value, 3) for value in density.moment(1).tolist()]
        [25.0, 25.0]
    """
    operator = _operator(model, x)
    _check_positive_count("probes", probes)
    _check_positive_count("steps", steps)
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            complaint(
                "generator",
                "a torch.Generator",
                type(generator).__name__,
                "Pass torch.Generator().manual_seed(seed).",
            )
        )
    _check_smoothing(grid, width)
    n = operator.shape[0]
    bits = torch.randint(0, 2, (n, probes), generator=generator, device=generator.device)
    start = (2.0 * bits - 1.0).to(operator.device, torch.float64)
    nodes, weights = quadrature(
        lambda v: operator.matmat(v.to(operator.dtype)), start, min(steps, n)
    )
    spread = RELATIVE_WIDTH * float(nodes.abs().max()) if width is None else float(width)
    if not spread:
        raise NumericalError(
            complaint("Theta", "other than 0", "only zeros", "Give a width to smooth it anyway.")
        )
    points = _planned_grid(nodes, spread) if grid is None else grid.to(nodes)
    return SpectralDensity(nodes, weights, points, smoothed(nodes, weights, points, spread), spread)


def quadrature(products: Products, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights [K, m] of ``g ↦ zᵀ g(A) z / ‖z‖²`` for the columns z of ``start``.

    The pure function behind ``spectral_density``: products V -> A V, start [n, K], m ≤ n steps.
    """
    return gauss_quadrature(*lanczos(products, start, steps))


def smoothed(nodes: Tensor, weights: Tensor, grid: Tensor, width: float) -> Tensor:
    """Return ``1/K Σ_k Σ_i w_ki N(λ; ν_ki, width²)`` on the grid, [G], from nodes [K, m]."""
    z = (grid[:, None] - nodes.flatten()) / width
    bells = torch.exp(-0.5 * z.square()) / (width * (2 * torch.pi) ** 0.5)
    return bells @ weights.flatten() / nodes.shape[0]


def _planned_grid(nodes: Tensor, width: float) -> Tensor:
    low, high = float(nodes.min()) - 3 * width, float(nodes.max()) + 3 * width
    return torch.linspace(low, high, GRID_POINTS, dtype=nodes.dtype, device=nodes.device)


def _operator(model: nn.Module | FunctionalModel | NTKOperator, x: Tensor | None) -> NTKOperator:
    given = isinstance(model, NTKOperator)
    if given == (x is not None):
        raise TypeError(
            complaint(
                "x",
                "missing with an NTKOperator and a batch with a network",
                f"{'a batch' if given else 'nothing'} with {type(model).__name__}",
                "Pass spectral_density(operator) or spectral_density(model, x).",
            )
        )
    return model if isinstance(model, NTKOperator) else NTKOperator(model, x)  # type: ignore[arg-type]


def _check_positive_count(argument: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(complaint(argument, "an int", repr(value), "Pass how many."))
    if value < 1:
        raise ValueError(complaint(argument, "at least 1", value, "Pass how many."))


def _check_smoothing(grid: Tensor | None, width: float | None) -> None:
    if width is not None and not 0 < width < float("inf"):
        raise ValueError(
            complaint("width", "a positive number", width, "Leave it out to have it planned.")
        )
    if grid is None:
        return
    if not isinstance(grid, Tensor):
        raise TypeError(
            complaint(
                "grid", "a torch.Tensor", type(grid).__name__, "Build one with torch.linspace."
            )
        )
    if grid.ndim != 1 or not len(grid):
        raise ValueError(
            complaint("grid", "of shape [G]", list(grid.shape), "Leave it out to have it planned.")
        )
    check_finite("grid", grid, "The grid itself is non-finite.")
