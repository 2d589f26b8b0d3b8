"""Exact means over random weights: finite enumeration, and quadrature without a remainder.

Between the kinks of a ReLU network the kernel is a polynomial in every weight, so a Gauss rule on
each piece integrates it exactly. The kernel itself is always the definition, ``J Jᵀ`` by autodiff.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ntktheory import functional
from ntktheory.functional import FunctionalModel, Params
from ntktheory.models import mlp
from ntktheory.ntk import reference

Law = Sequence[Sequence[Sequence[float]]]  # [outputs][inputs] -> equally likely values
Rule = tuple[Tensor, Tensor]  # nodes [K, …], weights [K]
CHUNK = 20_000


@cache
def _network(widths: tuple[int, ...]) -> FunctionalModel:
    return functional(mlp(widths, dtype=torch.float64))


def kernels(widths: Sequence[int], weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return the kernel summed over classes of many ReLU MLPs.

    Args:
        widths: Units per layer.
        weights: Per layer, the weights of R networks, [R, outputs, inputs].
        x: Inputs [N, n_0].

    Returns:
        Tensor [R, N, N].
    """
    net = _network(tuple(widths))
    params: Params = dict(zip(net.params, weights, strict=True))

    def one(params: Params) -> Tensor:
        return torch.einsum("nmcc->nm", reference.ntk(net.model_fn, params, None, x))

    return torch.func.vmap(one, chunk_size=CHUNK)(params)


def drawn_kernels(
    widths: Sequence[int], variances: Sequence[float], x: Tensor, count: int, seed: int
) -> Tensor:
    """Return the kernels of ``count`` networks with Gaussian weights, [count, N, N]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))

    def draw(size: int) -> list[Tensor]:
        return [
            s**0.5 * torch.randn(size, *shape, generator=generator, dtype=x.dtype)
            for s, shape in zip(variances, shapes, strict=True)
        ]

    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    return torch.cat([kernels(widths, draw(size), x) for size in sizes])


def enumerated(laws: Sequence[Law]) -> list[Tensor]:
    """Return every network with independent weights from the laws, all equally likely.

    Args:
        laws: Per layer, row and column: the values of a weight.

    Returns:
        Per layer, the weights of all R networks, [R, outputs, inputs].
    """
    entries = [values for law in laws for row in law for values in row]
    nets = torch.tensor(list(itertools.product(*entries)), dtype=torch.float64)
    shapes = [(len(law), len(law[0])) for law in laws]
    parts = nets.split([rows * columns for rows, columns in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def ties(weights: Sequence[Tensor], x: Tensor) -> int:
    """Count the pre-activations that are exactly 0 though the layer's input is not."""
    h, found = x.expand(len(weights[0]), -1), 0
    for w in weights[:-1]:
        z = torch.einsum("roi,ri->ro", w, h)
        found += int(((z == 0) & (h != 0).any(1, keepdim=True)).sum())
        h = z.relu()
    return found


def gauss_rule(moments: Sequence[float], count: int) -> Rule:
    """Return the Gauss rule with ``count`` nodes for a law with the moments m_0, m_1, …."""
    hankel = np.array([[moments[i + j] for j in range(count + 1)] for i in range(count + 1)])
    r = np.linalg.cholesky(hankel).T
    ratio = [r[i, i + 1] / r[i, i] for i in range(count)]
    diagonal = np.array([b - a for a, b in itertools.pairwise([0.0, *ratio])])
    off = np.array([r[i + 1, i + 1] / r[i, i] for i in range(count - 1)])
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return torch.tensor(nodes), torch.tensor(moments[0] * vectors[0] ** 2)


def normal_rule(count: int) -> Rule:
    """Return the Gauss–Hermite rule: exact to degree 2·count − 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


def split_normal_rule(count: int) -> Rule:
    """Return a rule for a normal law that is exact on each half line, to degree 2·count − 1."""
    moments = [2 ** (k / 2) * math.gamma((k + 1) / 2) / math.sqrt(math.pi) for k in range(7)]
    nodes, weights = gauss_rule(moments, count)
    return torch.cat([-nodes, nodes]), torch.cat([weights, weights]) / 2


def planar_rule(x: Tensor) -> Rule:
    """Return a rule for a standard normal w in the plane, exact between the kinks ``w·x_n = 0``.

    Exact for what has degree 0, 2 or 4 in ‖w‖, and to rounding in the angle (a trigonometric
    polynomial of degree ≤ 4 on each arc).
    """
    normals = torch.atan2(x[:, 1], x[:, 0]) + math.pi / 2
    kinks = torch.cat([normals, normals + math.pi]).remainder(2 * math.pi).sort().values
    arcs = zip(kinks, torch.cat([kinks[1:], kinks[:1] + 2 * math.pi]), strict=True)
    nodes, weights = (torch.tensor(t) for t in np.polynomial.legendre.leggauss(14))
    angles = [((q + p) / 2 + (q - p) / 2 * nodes, (q - p) / 2 * weights) for p, q in arcs]
    angle = torch.cat([a for a, _ in angles])
    share = torch.cat([b for _, b in angles]) / (2 * math.pi)
    squares, radial = (torch.tensor(t) for t in np.polynomial.laguerre.laggauss(3))
    radius = (2 * squares).sqrt()
    directions = torch.stack([angle.cos(), angle.sin()], dim=1)
    points = radius[:, None, None] * directions
    return points.flatten(0, 1), (radial[:, None] * share).flatten()


def product_rule(*rules: Rule) -> tuple[list[Tensor], Tensor]:
    """Return the nodes of each factor on the product grid, and the grid's weights."""
    grid = torch.cartesian_prod(*(torch.arange(len(weights)) for _, weights in rules))
    picked = [nodes[i] for (nodes, _), i in zip(rules, grid.T, strict=True)]
    share = torch.stack([w[i] for (_, w), i in zip(rules, grid.T, strict=True)]).prod(0)
    return picked, share


def one_hidden_unit(x: Tensor, variances: Sequence[float], classes: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the kernel of one hidden ReLU unit, Gaussian weights, [N, N].

    Args:
        x: Inputs in the plane, [N, 2].
        variances: σ_1², σ_2².
        classes: C; the kernel is summed over them.

    Returns:
        Exact means and variances. A network of width n is a sum of n independent units.
    """
    picked, share = product_rule(planar_rule(x), *[normal_rule(3)] * classes)
    first = variances[0] ** 0.5 * picked[0].unsqueeze(1)
    last = variances[1] ** 0.5 * torch.stack(picked[1:], dim=1).unsqueeze(2)
    values = kernels([2, 1, classes], [first, last], x)
    mean = torch.einsum("r,rnm->nm", share, values)
    return mean, torch.einsum("r,rnm->nm", share, (values - mean).square())


def scalar_inputs(
    widths: Sequence[int], variances: Sequence[float], x: Tensor, nodes: int
) -> tuple[Tensor, Tensor]:
    """Return mean and variance over Gaussian weights of a 2-hidden-layer kernel, inputs ±1.

    Exact if every kink is where a weight is 0: n_1 = 1, or n_1 = 2 with one input 1 and one −1, off
    the diagonal.

    Args:
        widths: 1, n_1, n_2, C.
        variances: σ_l².
        x: Inputs [N, 1].
        nodes: Nodes per half line: 2 for means, 3 for variances too.

    Returns:
        Means and variances [N, N].
    """
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    sizes = [rows * columns for rows, columns in shapes]
    hidden, last = split_normal_rule(nodes), normal_rule(nodes)
    picked, share = product_rule(*[hidden] * sum(sizes[:-1]), *[last] * sizes[-1])
    parts = torch.stack(picked, dim=1).split(sizes, dim=1)
    weights = [
        s**0.5 * part.unflatten(1, shape)
        for s, part, shape in zip(variances, parts, shapes, strict=True)
    ]
    values = kernels(widths, weights, x)
    mean = torch.einsum("r,rnm->nm", share, values)
    return mean, torch.einsum("r,rnm->nm", share, (values - mean).square())


def opposite_mean(widths: Sequence[int], variances: Sequence[float], squared_norm: float) -> float:
    """Return ``E Σ_c Θ_cc(x, −x)`` exactly, two hidden layers of any widths, Gaussian weights.

    No first-layer unit is active on both x and −x. Given that K ~ Bin(n_1, ½) are active on x, the
    signals h, h' are orthogonal with norms ``σ_1‖x‖χ_K`` and ``σ_1‖x‖χ_{n_1−K}``: the terms of the
    first two layers vanish, and the last is ``C n_2 (σ_2²/2π) ‖h‖‖h'‖``.

    Args:
        widths: n_0, n_1, n_2, C.
        variances: σ_l².
        squared_norm: ‖x‖².

    Returns:
        The mean.
    """
    n1, n2, classes = widths[1:]
    spread = sum(math.comb(n1, k) * chi_mean(k) * chi_mean(n1 - k) for k in range(n1 + 1)) / 2**n1
    return classes * n2 * variances[1] / (2 * math.pi) * variances[0] * squared_norm * spread


def chi_mean(k: int) -> float:
    """Return the mean norm of k independent standard normals."""
    return math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2)) if k else 0.0


def trace_variance(widths: Sequence[int], variances: Sequence[float], squared_norm: float) -> float:
    """Return ``Var Tr Θ(x, x)`` exactly, two hidden layers, Gaussian weights.

    ``Tr = A + B + D``: last layer ``A = C‖h_2‖²``, middle ``B = ‖h_1‖² Σ_k G_k ‖v_k‖²``, first
    ``D = ‖x‖² ‖V G U G‖_F²``. Gates are fair coins, independent of even moments of their rows.

    Args:
        widths: n_0, n_1, n_2, C.
        variances: σ_l².
        squared_norm: ‖x‖².

    Returns:
        The variance.
    """
    n1, n2, c = widths[1:]
    s1, s2, s3 = variances
    alike, apart = n2 / 2, n2 * (n2 - 1) / 4  # E Σ_k G_k and E Σ_{k≠k'} G_k G_k'
    first = s1 * squared_norm
    s_mean, s_square = first * n1 / 2, first**2 * (1.5 * n1 + n1 * (n1 - 1) / 4)  # s = ‖h_1‖²
    sm = first * (n1 / 2 + n1 * (n1 - 1) / 4)  # E s·m, m active units of the first layer
    aa = c**2 * s2**2 * s_square * (3 * alike + apart)
    bb = s3**2 * s_square * (c * (c + 2) * alike + c**2 * apart)
    ab = c**2 * s3 * s2 * s_square * (alike + apart)
    bd = squared_norm * s3**2 * s2 * sm * c * ((c + 2) * alike + c * apart)
    ad = c**2 * s3 * squared_norm * s2**2 * ((sm + 2 * s_mean) * alike + sm * apart)
    dd = squared_norm**2 * s3**2 * s2**2 * _wishart(n1, n2, c)
    mean = c * squared_norm * s3 * (n1 * s1 / 2) * (n2 * s2 / 2) * (1 / s1 + 1 / s2 + 1 / s3)
    return aa + bb + dd + 2 * (ab + bd + ad) - mean**2


def _wishart(n1: int, n2: int, c: int) -> float:
    """Return ``E ‖V G U G'‖_F⁴`` for standard normal V [c, n2], U [n2, n1] and fair coins G, G'."""
    total = 0.0
    for k, m in itertools.product(range(n2 + 1), range(n1 + 1)):
        share = math.comb(n2, k) * math.comb(n1, m) / 2 ** (n1 + n2)
        total += share * (c**2 * (k**2 * m**2 + 2 * k * m) + 2 * c * k * m * (k + m + 1))
    return total
