"""S2: the bias of the finite difference under Gaussian noise, term by term in its variance.

``f(θ+Δ) − f(θ) = Σ_{k≥1} f_k(Δ)`` with f_k homogeneous of degree k, and ``E f_j f_k`` for
``Δ ~ N(0, σ²I)`` is a multiple of ``σ^{j+k}``. The coefficient of σ⁴ therefore needs the pairs
(j, k) = (1, 3), (2, 2), (3, 1) only: with no f_0 left in the difference, an f_k of degree 4 or more
has no partner. So the generic cubic jet proves the formula for every smooth f.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, pairwise, product
from math import factorial, prod

from sympy import QQ
from sympy.polys.rings import PolyElement, PolyRing

from proofs_check.certificates.network import (
    SymbolicNet,
    hidden_states,
    square_sum,
    sum_of,
    symbolic_mlp,
)
from proofs_check.certificates.trace import trace_polynomial
from proofs_check.certificates.verify import IdentityResult, ring_identity


@dataclass(frozen=True)
class Jet:
    """The generic Taylor polynomial of a function of d parameters, without its constant.

    Attributes:
        ring: The ring over the rationals that holds every symbol.
        derivatives: The symbol of each partial derivative, by its sorted tuple of indices.
        steps: The steps ``Δ_i``.
        sigma: The noise's standard deviation.
    """

    ring: PolyRing
    derivatives: dict[tuple[int, ...], PolyElement]
    steps: tuple[PolyElement, ...]
    sigma: PolyElement

    def derivative(self, *indices: int) -> PolyElement:
        """Return the partial derivative by these parameters, in any order."""
        return self.derivatives[tuple(sorted(indices))]

    @property
    def increment(self) -> PolyElement:
        """``f(θ+Δ) − f(θ) = Σ_k (1/k!) Σ_{i1…ik} ∂_{i1…ik}f Δ_i1 … Δ_ik``."""
        parameters, order = range(len(self.steps)), max(map(len, self.derivatives))
        terms = (
            self.derivative(*indices)
            * prod((self.steps[i] for i in indices), start=self.ring.one)
            * QQ(1, factorial(degree))
            for degree in range(1, order + 1)
            for indices in product(parameters, repeat=degree)
        )
        return sum_of(terms)


def generic_jet(d: int, order: int) -> Jet:
    """Return the jet of ``order`` in ``d`` parameters with a free symbol for every derivative."""
    indices = [
        index
        for degree in range(1, order + 1)
        for index in combinations_with_replacement(range(d), degree)
    ]
    names = ["f" + "".join(map(str, index)) for index in indices]
    ring = PolyRing(["s", *(f"d{i}" for i in range(d)), *names], QQ)
    sigma, *rest = ring.gens
    return Jet(ring, dict(zip(indices, rest[d:], strict=True)), tuple(rest[:d]), sigma)


def gaussian_mean(
    polynomial: PolyElement, steps: Sequence[PolyElement], sigma: PolyElement
) -> PolyElement:
    """Return ``E_Δ`` of a polynomial for ``Δ ~ N(0, σ²I)`` by Isserlis' theorem.

    ``E Π Δ_i^{n_i} = Π (n_i − 1)!! σ^{n_i}``, 0 if any n_i is odd.

    Args:
        polynomial: The polynomial.
        steps: The generators that are random.
        sigma: The generator σ.

    Returns:
        A polynomial without the steps, in the same ring.
    """
    ring = polynomial.ring
    random = [ring.index(step) for step in steps]
    scale, mean = ring.index(sigma), ring.zero
    for exponents, coefficient in polynomial.terms():
        powers = [exponents[i] for i in random]
        if any(power % 2 for power in powers):
            continue
        kept = [0 if i in random else e for i, e in enumerate(exponents)]
        kept[scale] += sum(powers)
        moment = prod(_double_factorial(power - 1) for power in powers)
        mean += ring.from_dict({tuple(kept): coefficient * moment})
    return mean


def sigma4_formula(jet: Jet) -> PolyElement:
    """Return ``¼(tr H)² + ½‖H‖_F² + J·∇(tr H)``, the claimed coefficient of σ⁴."""
    parameters = range(len(jet.steps))
    trace = sum_of(jet.derivative(i, i) for i in parameters)
    frobenius = sum_of(jet.derivative(i, j) ** 2 for i in parameters for j in parameters)
    gradient = sum_of(
        jet.derivative(i) * jet.derivative(i, j, j) for i in parameters for j in parameters
    )
    return trace**2 * QQ(1, 4) + frobenius * QQ(1, 2) + gradient


def taylor_bias_identity(
    d: int, *, order: int = 3, formula: Callable[[Jet], PolyElement] = sigma4_formula
) -> IdentityResult:
    """Decide ``E‖f(θ+Δ) − f(θ)‖² = σ²Tr + σ⁴ formula + O(σ⁶)`` for the generic jet.

    For one output; several outputs and samples add up.

    Args:
        d: Number of parameters.
        order: Order of the jet, at least 3; a higher one must change nothing.
        formula: The claimed coefficient of σ⁴.

    Returns:
        The verdict over every power of σ up to the fourth.
    """
    jet = generic_jet(d, order)
    mean = gaussian_mean(jet.increment**2, jet.steps, jet.sigma)
    trace = sum_of(jet.derivative(i) ** 2 for i in range(d))
    claimed = jet.sigma**2 * trace + jet.sigma**4 * formula(jet)
    return ring_identity(_up_to_degree(mean, jet.sigma, 4), claimed)


def noisy_network(widths: Sequence[int]) -> SymbolicNet:
    """Return a gated MLP whose ring also holds σ and one step per weight (``extra``)."""
    weights = sum(below * above for below, above in pairwise(widths))
    return symbolic_mlp(widths, extra=["s", *(f"d{j}" for j in range(weights))])


def fixed_gate_bias(net: SymbolicNet) -> PolyElement:
    """Return ``E‖f(θ+Δ) − f(θ)‖² − σ²Tr`` in fixed gates, exactly, by Isserlis' theorem."""
    sigma, *steps = net.extra
    remaining = iter(steps)
    moved = tuple(
        tuple(tuple(w + next(remaining) for w in row) for row in layer) for layer in net.weights
    )
    after = hidden_states(replace(net, weights=moved))[-1]
    before = hidden_states(net)[-1]
    change = square_sum([f1 - f0 for f1, f0 in zip(after, before, strict=True)])
    return gaussian_mean(change, steps, sigma) - sigma**2 * trace_polynomial(net)


def subset_bias(net: SymbolicNet) -> PolyElement:
    """Return ``Σ_{S, |S|≥2} σ^{2|S|} ‖∂_S f‖²`` over the subsets of parameters."""
    return sum_of(
        net.extra[0] ** (2 * size) * derivative**2
        for f in hidden_states(net)[-1]
        for size, derivative in _subset_derivatives(f, net.parameters)
        if size >= 2
    )


def active_unit_bias(net: SymbolicNet) -> PolyElement:
    """Return ``σ⁴ C ‖x‖² Σ_r a_r²``, the bias of one hidden layer with C outputs.

    With gates 0 or 1 the last factor is the number of active hidden units.
    """
    active = square_sum(net.gates[0])
    return net.extra[0] ** 4 * net.widths[-1] * square_sum(net.inputs) * active


def fixed_gate_identity(
    widths: Sequence[int], *, formula: Callable[[SymbolicNet], PolyElement] = subset_bias
) -> IdentityResult:
    """Decide that a formula is the finite difference's bias in fixed gates, exactly in σ.

    Args:
        widths: Units per layer of a bias-free MLP; its gates are symbols.
        formula: ``subset_bias`` at any depth, ``active_unit_bias`` for one hidden layer.

    Returns:
        The verdict.
    """
    net = noisy_network(widths)
    return ring_identity(fixed_gate_bias(net), formula(net))


def _subset_derivatives(
    f: PolyElement, parameters: Sequence[PolyElement], size: int = 0
) -> list[tuple[int, PolyElement]]:
    """Return every non-zero ``∂_S f`` with |S|, by including one parameter after another."""
    found = [(size, f)]
    for j, parameter in enumerate(parameters):
        if derivative := f.diff(parameter):
            found += _subset_derivatives(derivative, parameters[j + 1 :], size + 1)
    return found


def _double_factorial(n: int) -> int:
    return prod(range(n, 0, -2))


def _up_to_degree(polynomial: PolyElement, generator: PolyElement, degree: int) -> PolyElement:
    place = polynomial.ring.index(generator)
    kept = {m: c for m, c in polynomial.terms() if m[place] <= degree}
    return polynomial.ring.from_dict(kept)
