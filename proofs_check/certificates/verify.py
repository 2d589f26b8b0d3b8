"""Deciding an identity in the ring."""

from collections.abc import Sequence
from dataclasses import dataclass

from sympy.polys.rings import PolyElement

SHOWN_TERMS = 3


@dataclass(frozen=True)
class IdentityResult:
    """Whether two polynomials are the same.

    Attributes:
        holds: Whether the difference is the zero polynomial.
        terms: Monomials of the left-hand side.
        squares: Number of squares, where the identity is a certificate.
        residual: The first few terms of the difference, empty when there is none.
    """

    holds: bool
    terms: int
    squares: int = 0
    residual: str = ""


def ring_identity(left: PolyElement, right: PolyElement, *, squares: int = 0) -> IdentityResult:
    """Return whether ``left == right`` in their polynomial ring, coefficient by coefficient."""
    difference = left - right
    return IdentityResult(difference == 0, len(left), squares, _first_terms(difference))


def verify_certificate(
    bound: PolyElement, trace: PolyElement, squares: Sequence[PolyElement]
) -> IdentityResult:
    """Decide ``bound − trace == Σ squares²``.

    Where it holds, ``trace ≤ bound`` at every real value of inputs, gates and weights.

    Args:
        bound: The bound's polynomial.
        trace: The trace's polynomial.
        squares: The squares' bases.

    Returns:
        The verdict; ``terms`` counts the monomials of bound − trace.
    """
    total = sum((base**2 for base in squares), start=bound.ring.zero)
    return ring_identity(bound - trace, total, squares=len(squares))


def _first_terms(polynomial: PolyElement) -> str:
    terms = [polynomial.ring.from_dict({m: c}) for m, c in polynomial.terms()]
    shown = " + ".join(str(term) for term in terms[:SHOWN_TERMS])
    return shown + (f" + … ({len(terms)} terms)" if len(terms) > SHOWN_TERMS else "")
