"""Random probes, and finite designs that replace them without any randomness.

A probe is a random direction Delta in parameter space with E Delta = 0 and E Delta Delta^T = I.
Probes travel as ``{name: Tensor[K, *shape]}``, K of them at once, over the named parameters; a
parameter without an entry is not perturbed.

A *design* is a finite set of weighted points whose moments equal those of a law up to some degree:
``sum_k w_k p(z_k) = E p(Delta)`` for every polynomial p of that degree. An estimator that is a
polynomial in its probe then has its exact expectation as a weighted sum of K values.

| function | points, for d numbers | law | degree | good for |
|---|---|---|---|---|
| `hadamard_design` | 2^ceil(log2(d + 1)) | Rademacher | 2 | mean of a quadratic form |
| `hadamard_design(paired=True)` | 2^(1 + ceil(log2 d)) | Rademacher | 3 | the same plus odd terms |
| `cubature3` | 2d | Gaussian | 3 | the same, sparse points |
| `cubature5` | 2d^2 + 1 | Gaussian | 5 | mean *and variance* of a quadratic form |
| `all_signs` | 2^d | Rademacher | any | finite differences in fixed gates |

Up to degree 3 the two laws have the same moments. Shapes are flattened in the dict's order, and
every point keeps each parameter's own dtype and device: the designs are exact up to its rounding,
so verify in float64.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ntktheory.checks import check_finite, complaint

Law = Literal["rademacher", "gaussian"]

MAX_ALL_SIGNS = 20
"""The largest number of parameters for which `all_signs` enumerates its 2^d vectors."""

MAX_DESIGN_BYTES = 2**30
"""The largest design that is built, in bytes of its float64 points (1 GiB)."""


@dataclass(frozen=True)
class Design:
    """Weighted points with the moments of a law.

    Attributes:
        probes: ``{name: Tensor[K, *shape]}``, in the dtype and device of each parameter.
        weights: Tensor [K], float64, summing to 1; some are negative in `cubature5` for d > 4.
        degree: Polynomials up to this total degree are integrated exactly; ``math.inf`` for all
            of them.
        law: The law whose moments are reproduced, "rademacher" or "gaussian".
    """

    probes: dict[str, Tensor]
    weights: Tensor
    degree: float
    law: Law


def sample_rademacher(
    params: Mapping[str, Tensor],
    count: int,
    *,
    generator: torch.Generator,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Draw independent probes with entries +1 and -1, equally likely.

    Not normalised: E Delta_i = 0, E Delta_i^2 = 1, E Delta_i^4 = 1.

    Args:
        params: Parameters by name; they give shapes, dtypes, devices and the order of drawing.
        count: Number K of probes.
        generator: Source of randomness. Numbers are drawn on its device and then moved, so that a
            CPU generator gives the same probes on every device.
        names: Parameters to perturb; None means all.

    Returns:
        ``{name: Tensor[K, *shape]}`` in each parameter's dtype and device.

    Raises:
        TypeError: If generator is not a torch.Generator, count not an int, or a parameter not a
            real floating-point tensor.
        ValueError: If count < 1, a name is unknown, or nothing is left to perturb.

    Cost: K P random bits, K P numbers of memory.

    Source: Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.
    Tested against its moments up to degree 4.

    Example:
        >>> params = {"weight": torch.zeros(2, 3, dtype=torch.float64)}
        >>> probes = sample_rademacher(params, 5, generator=torch.Generator().manual_seed(0))
        >>> tuple(probes["weight"].shape), probes["weight"].abs().unique().tolist()
        ((5, 2, 3), [1.0])
    """
    return {
        name: torch.randint(
            0, 2, (count, *p.shape), generator=generator, dtype=p.dtype, device=generator.device
        )
        .mul_(2)
        .sub_(1)
        .to(p.device)
        for name, p in _to_draw(params, count, generator, names).items()
    }


def sample_gaussian(
    params: Mapping[str, Tensor],
    count: int,
    *,
    generator: torch.Generator,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Draw independent probes with standard normal entries.

    Not normalised: E Delta_i = 0, E Delta_i^2 = 1, E Delta_i^4 = 3.

    Args:
        params: Parameters by name; they give shapes, dtypes, devices and the order of drawing.
        count: Number K of probes.
        generator: Source of randomness. Numbers are drawn on its device and then moved, so that a
            CPU generator gives the same probes on every device.
        names: Parameters to perturb; None means all.

    Returns:
        ``{name: Tensor[K, *shape]}`` in each parameter's dtype and device.

    Raises:
        TypeError: If generator is not a torch.Generator, count not an int, or a parameter not a
            real floating-point tensor.
        ValueError: If count < 1, a name is unknown, or nothing is left to perturb.

    Cost: K P normal numbers, K P numbers of memory.

    Source: NTK-SAP (Wang et al. 2023): the perturbation Delta is sigma times such a probe.
    Tested against its moments up to degree 4.

    Example:
        >>> params = {"weight": torch.zeros(2, 3, dtype=torch.float64)}
        >>> probes = sample_gaussian(params, 5, generator=torch.Generator().manual_seed(0))
        >>> tuple(probes["weight"].shape), probes["weight"].dtype
        ((5, 2, 3), torch.float64)
    """
    return {
        name: torch.randn(
            (count, *p.shape), generator=generator, dtype=p.dtype, device=generator.device
        ).to(p.device)
        for name, p in _to_draw(params, count, generator, names).items()
    }


def hadamard_design(
    params: Mapping[str, Tensor], *, names: Collection[str] | None = None, paired: bool = False
) -> Design:
    """Return a design of sign vectors, exact up to degree 2, or 3 when paired.

    The points are the rows of Sylvester's matrix H[r, c] = (-1)^popcount(r & c), of which d columns
    are kept; all weights are 1/K. Columns are orthogonal, which gives E Delta_i Delta_j exactly.
    Unpaired, the all-ones column is left out, so that the mean is 0, but degree 3 is *not*
    reproduced for d >= 3: the product of three columns may be all ones. Paired, each row comes with
    its negative and every odd moment vanishes; the points number as many, or twice as many.

    Args:
        params: Parameters by name, flattened in the dict's order.
        names: Parameters to perturb; None means all.
        paired: Whether to add the negative of every row.

    Returns:
        A Design of law "rademacher" (which to degree 3 is also "gaussian") with K = 2^ceil(log2(d +
        1)) points of degree 2, or K = 2^(1 + ceil(log2 d)) points of degree 3.

    Raises:
        TypeError: If a parameter is not a real floating-point tensor.
        ValueError: If a name is unknown, nothing is left to perturb, or the design exceeds
            MAX_DESIGN_BYTES.

    Cost: O(d^2) numbers.

    Source: Hedayat, Sloane and Stufken (1999), Orthogonal Arrays, ch. 7. Tested by enumerating
    every moment, and by degree 3 (4 when paired) failing.

    Example:
        >>> design = hadamard_design({"weight": torch.zeros(3, dtype=torch.float64)})
        >>> design.weights.tolist()
        [0.25, 0.25, 0.25, 0.25]
        >>> design.probes["weight"].mT @ design.probes["weight"] / 4
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    chosen = _chosen(params, names)
    d = _dimension(chosen)
    order = 2 ** ((d - 1) if paired else d).bit_length()
    _check_bytes(2 * order if paired else order, d)
    matrix = _sylvester(order)
    points = torch.cat([matrix[:, :d], -matrix[:, :d]]) if paired else matrix[:, 1 : d + 1]
    return _uniform(chosen, points.double(), degree=3 if paired else 2)


def cubature3(params: Mapping[str, Tensor], *, names: Collection[str] | None = None) -> Design:
    """Return the design of the 2d points +-sqrt(d) e_i, exact up to degree 3.

    All weights are 1/(2d). Degree 4 fails: E Delta_i^2 Delta_j^2 is 0 instead of 1.

    Args:
        params: Parameters by name, flattened in the dict's order.
        names: Parameters to perturb; None means all.

    Returns:
        A Design of law "gaussian" (which to degree 3 is also "rademacher"), K = 2d.

    Raises:
        TypeError: If a parameter is not a real floating-point tensor.
        ValueError: If a name is unknown, nothing is left to perturb, or the design exceeds
            MAX_DESIGN_BYTES.

    Cost: 2 d^2 numbers.

    Source: Stroud (1971), Approximate Calculation of Multiple Integrals, rule 3-1 for the weight
    exp(-r^2). Tested by enumerating every moment, and by degree 4 failing.

    Example:
        >>> design = cubature3({"weight": torch.zeros(4, dtype=torch.float64)})
        >>> design.probes["weight"][0].tolist(), design.weights[0].item()
        ([2.0, 0.0, 0.0, 0.0], 0.125)
    """
    chosen = _chosen(params, names)
    d = _dimension(chosen)
    _check_bytes(2 * d, d)
    axes = math.sqrt(d) * torch.eye(d, dtype=torch.float64)
    weights = torch.full((2 * d,), 1 / (2 * d), dtype=torch.float64)
    return _design(chosen, torch.cat([axes, -axes]), weights, 3, "gaussian")


def cubature5(params: Mapping[str, Tensor], *, names: Collection[str] | None = None) -> Design:
    """Return the design of 2d^2 + 1 points that is exact up to Gaussian degree 5.

    Points 0, +-sqrt(3) e_i and +-sqrt(3) e_i +- sqrt(3) e_j (i < j), with weights
    1 - 2d w1 - 2d(d - 1) w2, w1 = (4 - d)/18 and w2 = 1/36. Degree 4 is what the square of a
    quadratic form needs: the variance of a quadratic estimator is exact. w1 < 0 for d > 4, hence
    partial sums may cancel. Degree 6 fails: E Delta_i^6 is 9 instead of 15.

    Args:
        params: Parameters by name, flattened in the dict's order.
        names: Parameters to perturb; None means all.

    Returns:
        A Design of law "gaussian", K = 2d^2 + 1.

    Raises:
        TypeError: If a parameter is not a real floating-point tensor.
        ValueError: If a name is unknown, nothing is left to perturb, or the design exceeds
            MAX_DESIGN_BYTES.

    Cost: about 2 d^3 numbers.

    Source: McNamee and Stenger (1967), Construction of fully symmetric numerical integration
    formulas. Tested by enumerating every moment, and by degree 6 failing.

    Example:
        >>> design = cubature5({"weight": torch.zeros(2, dtype=torch.float64)})
        >>> fourth = design.probes["weight"][:, 0] ** 4
        >>> len(design.weights), round((design.weights @ fourth).item(), 12)
        (9, 3.0)
    """
    chosen = _chosen(params, names)
    d = _dimension(chosen)
    _check_bytes(2 * d * d + 1, d)
    axes = math.sqrt(3) * torch.eye(d, dtype=torch.float64)
    i, j = torch.triu_indices(d, d, offset=1)
    pairs = [s * axes[i] + t * axes[j] for s in (1, -1) for t in (1, -1)]
    points = torch.cat([torch.zeros(1, d, dtype=torch.float64), axes, -axes, *pairs])
    weights = torch.full((len(points),), 1 / 36, dtype=torch.float64)
    weights[1 : 2 * d + 1] = (4 - d) / 18
    weights[0] = (d * d - 7 * d + 18) / 18
    return _design(chosen, points, weights, 5, "gaussian")


def all_signs(params: Mapping[str, Tensor], *, names: Collection[str] | None = None) -> Design:
    """Return all 2^d sign vectors: the Rademacher law itself.

    Every function has its exact expectation, polynomial or not. For Gaussian probes the mean of the
    square of a multi-affine function is exact too (each variable enters with degree at most 2), as
    in finite differences through fixed gates.

    Args:
        params: Parameters by name, flattened in the dict's order; at most MAX_ALL_SIGNS = 20
            numbers in all.
        names: Parameters to perturb; None means all.

    Returns:
        A Design of law "rademacher", K = 2^d, degree ``math.inf``.

    Raises:
        TypeError: If a parameter is not a real floating-point tensor.
        ValueError: If a name is unknown, nothing is left to perturb, or d > MAX_ALL_SIGNS.

    Cost: d 2^d numbers: 160 MiB for d = 20.

    Source: enumeration. Tested against the moments of independent signs.

    Example:
        >>> design = all_signs({"weight": torch.zeros(3, dtype=torch.float64)})
        >>> tuple(design.probes["weight"].shape), design.probes["weight"].unique(dim=0).shape[0]
        ((8, 3), 8)
    """
    chosen = _chosen(params, names)
    d = _dimension(chosen)
    if d > MAX_ALL_SIGNS:
        raise ValueError(
            complaint(
                "params",
                f"at most {MAX_ALL_SIGNS} numbers for an enumeration of all signs",
                f"{d} numbers, whose 2^{d} sign vectors take {_bytes(2**d, d)} bytes",
                "Name fewer parameters, or use hadamard_design or cubature5.",
            )
        )
    bits = torch.arange(2**d).unsqueeze(1) >> torch.arange(d)
    return _uniform(chosen, 1.0 - 2.0 * (bits & 1).double(), degree=math.inf)


def check_probes(probes: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> int:
    """Check that the probes fit the parameters, and return how many there are.

    Args:
        probes: ``{name: Tensor[K, *shape]}``; parameters may be missing.
        params: ``{name: Tensor[*shape]}``.

    Returns:
        The common number K of probes.

    Raises:
        TypeError: If a probe is not a tensor.
        ValueError: If there is no probe, a name is unknown, or a shape, dtype, device or the
            number of probes differs.
        NumericalError: If a probe holds NaN or Inf.

    Cost: one pass over the probes.

    Example:
        >>> params = {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}
        >>> check_probes({"bias": torch.ones(7, 3)}, params)
        7
    """
    count: int | None = None
    for name, probe in probes.items():
        _check_probe(name, probe, params)
        if count is not None and probe.shape[0] != count:
            raise ValueError(
                complaint(
                    f"probes[{name!r}]",
                    f"{count} probes, as the entries before it",
                    probe.shape[0],
                    "Draw the same number K for every parameter.",
                )
            )
        count = probe.shape[0]
        check_finite(f"probes[{name!r}]", probe, "The probes themselves are non-finite: redraw.")
    if not count:
        raise ValueError(
            complaint("probes", "at least one probe", "none", "Draw some with sample_rademacher.")
        )
    return count


def _check_probe(name: str, probe: Tensor, params: Mapping[str, Tensor]) -> None:
    if name not in params:
        raise ValueError(
            complaint(
                "probes",
                f"named like the parameters ({', '.join(params)})",
                repr(name),
                "Rename or drop that probe.",
            )
        )
    if not isinstance(probe, Tensor):
        raise TypeError(
            complaint(
                f"probes[{name!r}]",
                "a torch.Tensor",
                type(probe).__name__,
                "Convert it with torch.as_tensor.",
            )
        )
    p = params[name]
    if probe.ndim == 0 or probe.shape[1:] != p.shape:
        shape = ", ".join(["K", *map(str, p.shape)])
        raise ValueError(
            complaint(
                f"probes[{name!r}]",
                f"of shape [{shape}]",
                list(probe.shape),
                "Put the probe axis first, also for a single probe.",
            )
        )
    if (probe.dtype, probe.device) != (p.dtype, p.device):
        raise ValueError(
            complaint(
                f"probes[{name!r}]",
                f"{p.dtype} on {p.device}, as its parameter",
                f"{probe.dtype} on {probe.device}",
                "Convert it with .to(parameter).",
            )
        )


def _to_draw(
    params: Mapping[str, Tensor],
    count: int,
    generator: torch.Generator,
    names: Collection[str] | None,
) -> dict[str, Tensor]:
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            complaint(
                "generator",
                "a torch.Generator",
                type(generator).__name__,
                "Pass torch.Generator().manual_seed(seed).",
            )
        )
    if not isinstance(count, int):
        raise TypeError(
            complaint("count", "an int", type(count).__name__, "Pass the number of probes.")
        )
    if count < 1:
        raise ValueError(complaint("count", "at least 1", count, "Draw at least one probe."))
    return _chosen(params, names)


def _chosen(params: Mapping[str, Tensor], names: Collection[str] | None) -> dict[str, Tensor]:
    # In the order of params, whatever the order of names: a seed means one thing only.
    for name in () if names is None else names:
        if name not in params:
            raise ValueError(
                complaint(
                    "names",
                    f"among the parameters ({', '.join(params)})",
                    repr(name),
                    "Rename or drop it.",
                )
            )
    chosen = {name: p for name, p in params.items() if names is None or name in names}
    for name, p in chosen.items():
        if not (isinstance(p, Tensor) and p.is_floating_point()):
            raise TypeError(
                complaint(
                    f"params[{name!r}]",
                    "a real floating-point tensor",
                    getattr(p, "dtype", type(p).__name__),
                    "Leave it out with names=.",
                )
            )
    if not sum(p.numel() for p in chosen.values()):
        raise ValueError(
            complaint("params", "at least one number", "none", "Name at least one parameter.")
        )
    return chosen


def _dimension(chosen: Mapping[str, Tensor]) -> int:
    return sum(p.numel() for p in chosen.values())


def _bytes(points: int, d: int) -> int:
    return 8 * points * d


def _check_bytes(points: int, d: int) -> None:
    size = _bytes(points, d)
    if size > MAX_DESIGN_BYTES:
        raise ValueError(
            complaint(
                "params",
                f"small enough for a design of at most {MAX_DESIGN_BYTES} bytes",
                f"{d} numbers, whose {points} points take {size} bytes",
                "Name fewer parameters, or draw random probes.",
            )
        )


def _sylvester(order: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.int8)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _uniform(chosen: Mapping[str, Tensor], points: Tensor, *, degree: float) -> Design:
    weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
    return _design(chosen, points, weights, degree, "rademacher")


def _design(
    chosen: Mapping[str, Tensor], points: Tensor, weights: Tensor, degree: float, law: Law
) -> Design:
    parts = points.split([p.numel() for p in chosen.values()], dim=1)
    probes = {
        name: part.reshape(-1, *p.shape).to(p)
        for (name, p), part in zip(chosen.items(), parts, strict=True)
    }
    device = next(iter(chosen.values())).device
    return Design(probes, weights.to(device), degree, law)
