"""Schwartz–Zippel: the certificate's identity at random points modulo a large prime.

A polynomial of total degree d that is not 0 modulo the prime p vanishes at a uniform point of F_p with
probability at most d/p. So if ``bound − trace − Σ squares²`` is 0 modulo p at k independent points, the
identity is wrong with a chance of at most (d/p)^k: over the points, whatever the network. The
coefficients are integers with absolute values that add up to less than p, so that the identity modulo
p is the identity itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from sympy import ZZ

from proofs_check.certificates.bounds import bound_polynomial
from proofs_check.certificates.lemmas import composition, data_sets
from proofs_check.certificates.network import Names, SymbolicNet
from proofs_check.certificates.squares import list_paths, path_squares
from proofs_check.certificates.trace import trace_polynomial

PRIME = 2**61 - 1


@dataclass(frozen=True)
class PointResult:
    """The outcome of random trials.

    Attributes:
        holds: Whether the difference vanished at every point.
        error_probability: ``(degree/prime)^trials``: the chance that a wrong identity passes.
        degree: Total degree of the identity.
        trials: Number of points.
        squares: Number of squares.
        coefficient_sum: A bound on the sum of the absolute values of the difference's coefficients.
        residual: The first difference modulo the prime that is not 0.
    """

    holds: bool
    error_probability: float
    degree: int
    trials: int
    squares: int
    coefficient_sum: int
    residual: int = 0


def net_at(names: Sequence[Names], draw: Callable[[], int]) -> SymbolicNet:
    """Return a network whose symbols are integers: every input, gate and parameter drawn once."""
    widths = (len(names[0][0]), *map(len, names))
    drawn = {n: draw() for layer in names for row in layer for n in row if n is not None}
    return SymbolicNet(
        widths=widths,
        ring=ZZ,
        inputs=tuple(draw() for _ in range(widths[0])),
        names=tuple(names),
        weights=tuple(
            tuple(tuple(0 if n is None else drawn[n] for n in row) for row in layer)
            for layer in names
        ),
        gates=(
            *(tuple(draw() for _ in range(width)) for width in widths[1:-1]),
            (1,) * widths[-1],
        ),
    )


def identity_degree(names: Sequence[Names]) -> int:
    """Return the total degree of ``bound − trace`` for L layers, 4L − 2.

    ``D_p²`` has an input and L − 1 gates, squared; ``w_qj²`` has L − 1 weights, squared.
    """
    return 4 * len(names) - 2


def check_at_random_points(
    names: Sequence[Names],
    bound_name: str,
    *,
    trials: int,
    generator: Random,
    trace: Callable[[SymbolicNet], int] = trace_polynomial,
    bound: Callable[[SymbolicNet, str], int] = bound_polynomial,
    squares: Callable[[SymbolicNet, str], list[int]] = path_squares,
) -> PointResult:
    """Test ``bound − trace == Σ squares²`` at random points modulo a prime.

    Args:
        names: Every layer's parameters, as ``network.mlp_names`` and ``conv_names`` give them.
        bound_name: One of ``bounds.BOUNDS``.
        trials: Number of points.
        generator: Source of the points.
        trace: The trace, by passes.
        bound: The bound, by passes.
        squares: The squares' bases, from lists of paths.

    Returns:
        The outcome. Cost per trial: (paths)² · layers products of integers.
    """
    ones = net_at(names, lambda: 1)
    count = len(squares(ones, bound_name))
    size = abs(int(bound(ones, bound_name))) + abs(int(trace(ones))) + 4 * count  # 2 terms a base
    degree, residual = identity_degree(names), 0
    for _ in range(trials):
        net = net_at(names, lambda: generator.randrange(PRIME))
        total = sum(base * base for base in squares(net, bound_name))
        residual = residual or (bound(net, bound_name) - trace(net) - total) % PRIME
    return PointResult(
        holds=residual == 0 and size < PRIME,
        error_probability=(degree / PRIME) ** trials,
        degree=degree,
        trials=trials,
        squares=count,
        coefficient_sum=size,
        residual=residual,
    )


def check_path_sums(
    names: Sequence[Names],
    bound_name: str,
    *,
    trials: int,
    generator: Random,
    trace: Callable[[SymbolicNet], int] = trace_polynomial,
    bound: Callable[[SymbolicNet, str], int] = bound_polynomial,
) -> PointResult:
    """Test trace and bound against the sums over paths that the two lemmas speak of.

    ``Tr = Σ_{j,c} (Σ_{p∈P_jc} D_p w_pj)²`` and ``bound = Σ_{j,c} (Σ_{p∈X_jc} D_p²)(Σ_{q∈P_jc} w_qj²)``,
    at random points modulo the prime. With ``lemmas.composition`` this proves the bound for networks
    whose squares are too many to list.

    Args:
        names: Every layer's parameters.
        bound_name: One of ``bounds.BOUNDS``.
        trials: Number of points.
        generator: Source of the points.
        trace: The trace, by passes.
        bound: The bound, by passes.

    Returns:
        The outcome; ``squares`` counts those that the lemmas stand for. Cost per trial: paths · layers.
    """
    ones = net_at(names, lambda: 1)
    size = 2 * (int(bound(ones, bound_name)) + int(trace(ones)))
    residual = 0
    for _ in range(trials):
        net = net_at(names, lambda: generator.randrange(PRIME))
        exact_trace, exact_bound = path_sums(net, bound_name)
        gaps = (trace(net) - exact_trace, bound(net, bound_name) - exact_bound)
        residual = residual or next((gap % PRIME for gap in gaps if gap % PRIME), 0)
    degree = identity_degree(names)
    return PointResult(
        holds=residual == 0 and size < PRIME,
        error_probability=2 * (degree / PRIME) ** trials,
        degree=degree,
        trials=trials,
        squares=composition(ones, bound_name).squares,
        coefficient_sum=size,
        residual=residual,
    )


def path_sums(net: SymbolicNet, bound_name: str) -> tuple[int, int]:
    """Return trace and bound of a network of integers as sums over its paths."""
    paths = {path.units: path for path in list_paths(net)}
    admitted = data_sets(list(paths.values()), bound_name)
    data = {units: path.data**2 for units, path in paths.items()}
    mixed: dict[tuple[str, int], int] = {}
    weights: dict[tuple[str, int], int] = {}
    for path in paths.values():
        for j, other in path.others.items():
            key = (j, path.output)
            mixed[key] = mixed.get(key, 0) + path.data * other
            weights[key] = weights.get(key, 0) + other**2
    sums: dict[int, int] = {}  # of a set of paths that several pairs (j, c) share
    total = 0
    for (j, c), weight in weights.items():
        chosen = admitted(j, c)
        if id(chosen) not in sums:
            sums[id(chosen)] = sum(data[units] for units in chosen)
        total += sums[id(chosen)] * weight
    return sum(value**2 for value in mixed.values()), total
