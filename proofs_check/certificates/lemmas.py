"""The two-lemma form of the certificate: two identities, each proved for every number of terms.

With free symbols for every path's data ``D_p`` and weights ``w_q``:

* **Lemma 1** (Cauchy–Schwarz, as Lagrange's identity). For paths 1 … n
  ``(Σ D_p²)(Σ w_q²) = (Σ D_p w_p)² + Σ_{p<q} (D_p w_q − D_q w_p)²``.
* **Lemma 2** (the rest is not negative). For paths 1 … n with data and 1 … m with weights
  ``(Σ D_p²)(Σ w_q²) = Σ_{p,q} (D_p w_q)²``, and any part of the pairs may be left out.

Both are proved by induction on the number of paths. The base is n = 1 (m = 1); the step adds one path
with data d and weight e, and is an identity in the *sums* of the paths before it, which are free
symbols: ``A = Σ D²``, ``B = Σ w²``, ``S = Σ D w``. What a step takes out of a sum over the paths before
is an identity for each of them alone (``term``). So nothing is left open but finite identities in
polynomial rings, and the lemmas hold for every n.

**Composition.** Let ``Tr = Σ_j Σ_c (Σ_{p∈P_jc} D_p w_pj)²`` with the paths P_jc through j to c, and let
the bound pair weights ``w_qj``, q ∈ P_jc', with the data of every path in a set X_j (or X_jc). Lemma 1
on each P_jc and lemma 2 on all other pairs give bound − Tr as squares. All this needs of the network is
combinatorial: P_jc is a part of X_j, no path is listed twice, and none meets a parameter twice
(``composition``). Every gate is a part of ``D_p`` only: it is dropped from the weights before the lemmas
are applied.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sympy import ZZ
from sympy.polys.rings import PolyElement, PolyRing

from proofs_check.certificates.network import SymbolicNet, sum_of
from proofs_check.certificates.squares import Path, list_paths
from proofs_check.certificates.verify import IdentityResult, ring_identity

Base = Callable[[PolyElement, PolyElement, PolyElement, PolyElement], PolyElement]


def lagrange_base(
    d: PolyElement, e: PolyElement, other_d: PolyElement, other_e: PolyElement
) -> PolyElement:
    """Return the base ``D_p w_q − D_q w_p`` of lemma 1's square for p = (d, e) and q."""
    return d * other_e - other_d * e


def rest_base(d: PolyElement, other_e: PolyElement) -> PolyElement:
    """Return the base ``D_p w_q`` of lemma 2's square."""
    return d * other_e


def prove_lagrange(base: Base = lagrange_base) -> dict[str, IdentityResult]:
    """Prove lemma 1 for every n by induction.

    Args:
        base: The square's base for two paths.

    Returns:
        The verdicts ``n = 1``, ``term`` and ``step``; the lemma is proved if all hold.
    """
    A, B, S, D, w, d, e = _ring("A B S D w d e")
    # Adding the path (d, e) adds the squares Σ_p base(p, new)². For one p:
    term = ring_identity(base(D, w, d, e) ** 2, D**2 * e**2 - 2 * d * e * D * w + d**2 * w**2)
    # so that they add up to A e² − 2 d e S + d² B; before it the squares are A B − S².
    before, added = A * B - S**2, A * e**2 - 2 * d * e * S + d**2 * B
    step = ring_identity((A + d**2) * (B + e**2), (S + d * e) ** 2 + before + added)
    first = ring_identity(d**2 * e**2, (d * e) ** 2)
    return {"n = 1": first, "term": term, "step": step}


def prove_rest(
    base: Callable[[PolyElement, PolyElement], PolyElement] = rest_base,
) -> dict[str, IdentityResult]:
    """Prove lemma 2 for every n and m by induction.

    Args:
        base: The square's base for a path's data and a path's weight.

    Returns:
        The verdicts ``n = m = 1``, ``term``, ``data`` (a path more with data) and ``weight``.
    """
    A, B, D, d, e = _ring("A B D d e")
    term = ring_identity(base(D, e) ** 2, D**2 * e**2)
    # One path more with data d: its squares add up to d² B. One more with weight e: to A e².
    return {
        "n = m = 1": ring_identity(d**2 * e**2, base(d, e) ** 2),
        "term": term,
        "data": ring_identity((A + d**2) * B, A * B + d**2 * B),
        "weight": ring_identity(A * (B + e**2), A * B + A * e**2),
    }


def instance(n: int, base: Base = lagrange_base) -> IdentityResult:
    """Expand lemma 1 for n paths: a check of the induction, not a part of it."""
    symbols = _ring(" ".join([f"D{i}" for i in range(n)] + [f"w{i}" for i in range(n)]))
    data, weights = symbols[:n], symbols[n:]
    left = sum_of(d**2 for d in data) * sum_of(w**2 for w in weights)
    right = sum_of(d * w for d, w in zip(data, weights, strict=True)) ** 2
    for p, q in combinations(range(n), 2):
        right += base(data[p], weights[p], data[q], weights[q]) ** 2
    return ring_identity(left, right, squares=n * (n - 1) // 2)


def _ring(names: str) -> tuple[Any, ...]:
    return PolyRing(names.split(), ZZ).gens


# --- composition ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Composition:
    """What the lemmas need of a network, checked on its list of paths.

    Attributes:
        holds: Whether every condition is met.
        paths: Paths of the network.
        instances: Instances of lemma 1: pairs (j, c).
        largest: Paths in the largest of them.
        squares: Squares that the certificate would have.
        broken: The first condition that is not met.
    """

    holds: bool
    paths: int
    instances: int
    largest: int
    squares: int
    broken: str = ""


def data_sets(paths: list[Path], name: str) -> Callable[[str, int], set[tuple[int, ...]]]:
    """Return ``X_jc``: the paths whose data a bound pairs with the weights of j's paths to c."""
    through = _through(paths)
    every = {p.units for p in paths}
    ending = {c: {p.units for p in paths if p.output == c} for c in {p.output for p in paths}}
    outputs = sorted(ending)
    joined = {j: set().union(*(through.get((j, c), set()) for c in outputs)) for j, _ in through}
    return {
        "px": lambda j, c: every,
        "px_per_output": lambda j, c: ending[c],
        "edge": lambda j, c: joined[j],
        "edge_per_output": lambda j, c: through[j, c],
    }[name]


def _through(paths: list[Path]) -> dict[tuple[str, int], set[tuple[int, ...]]]:
    through: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for path in paths:
        for j in path.parameters:
            through.setdefault((j, path.output), set()).add(path.units)
    return through


def composition(
    net: SymbolicNet,
    name: str,
    *,
    paths: Callable[[SymbolicNet], list[Path]] = list_paths,
    sets: Callable[[list[Path], str], Callable[[str, int], set]] = data_sets,
) -> Composition:
    """Check the combinatorial conditions under which the two lemmas prove a bound for a network.

    Args:
        net: The network, of symbols or numbers: its values play no part.
        name: One of ``bounds.BOUNDS``.
        paths: The list of its paths.
        sets: The pairs that the bound admits.

    Returns:
        The verdict. Cost: paths · layers.
    """
    listed = paths(net)
    expected = count_paths(net)
    broken = "" if len(listed) == expected else f"{len(listed)} paths, not {expected}"
    if len({p.units for p in listed}) < len(listed):
        broken = broken or "a path is listed twice"
    through, admitted = _through(listed), sets(listed, name)
    squares = 0
    for (j, c), own in through.items():
        data = admitted(j, c)
        if not own <= data:
            broken = broken or f"a path through {j} to output {c} has no data in the bound"
        squares += len(own) * (len(own) - 1) // 2 + len(own) * (len(data) - len(own))
    largest = max(map(len, through.values()))
    return Composition(not broken, expected, len(through), largest, squares, broken)


def count_paths(net: SymbolicNet) -> int:
    """Return the number of paths by a pass of the all-ones network, without listing them."""
    counts = [1] * net.widths[0]
    for layer in net.names:
        counts = [
            sum(n for name, n in zip(row, counts, strict=True) if name is not None) for row in layer
        ]
    return sum(counts)


def lemmas_proved(results: Mapping[str, IdentityResult]) -> bool:
    """Return whether every finite identity of a proof by induction holds."""
    return all(result.holds for result in results.values())
