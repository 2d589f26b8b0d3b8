"""Sums of rational multiples of logarithms of rationals, compared exactly.

Entropies of laws with rational weights are such sums. Over the rationals the logarithms of the primes
are linearly independent (unique factorisation), so that a sum is zero if and only if all its
coefficients are, and its sign is that of a difference of two integers.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

Law = Mapping[Any, Fraction]


@dataclass(frozen=True)
class LogSum:
    """``Σ_p c_p log2 p`` over primes p, all c_p rational and not zero.

    Attributes:
        coefficients: Prime -> c_p.
    """

    coefficients: Mapping[int, Fraction]

    def __add__(self, other: "LogSum") -> "LogSum":
        """Return the sum."""
        total: dict[int, Fraction] = defaultdict(Fraction)
        for one in (self, other):
            for prime, c in one.coefficients.items():
                total[prime] += c
        return LogSum({prime: c for prime, c in total.items() if c})

    def __mul__(self, factor: Fraction) -> "LogSum":
        """Return the multiple."""
        return LogSum({prime: c * factor for prime, c in self.coefficients.items() if factor})

    def __sub__(self, other: "LogSum") -> "LogSum":
        """Return the difference."""
        return self + other * Fraction(-1)

    @property
    def sign(self) -> int:
        """−1, 0 or 1, decided in integers."""
        scale = math.lcm(*(c.denominator for c in self.coefficients.values()))
        above = below = 1
        for prime, c in self.coefficients.items():
            power = int(c * scale)
            if power > 0:
                above *= prime**power
            else:
                below *= prime**-power
        return (above > below) - (above < below)

    @property
    def bits(self) -> float:
        """The value, rounded."""
        return math.fsum(float(c) * math.log2(prime) for prime, c in self.coefficients.items())


ZERO = LogSum({})


def log2_of(value: Fraction) -> LogSum:
    """Return ``log2 value`` of a positive rational."""
    total = {prime: Fraction(k) for prime, k in factors(value.numerator)}
    return LogSum(total) - LogSum({p: Fraction(k) for p, k in factors(value.denominator)})


@cache
def factors(n: int) -> tuple[tuple[int, int], ...]:
    """Return the prime factors of a positive integer with their powers, by trial division."""
    found, prime = [], 2
    while prime * prime <= n:
        power = 0
        while n % prime == 0:
            n, power = n // prime, power + 1
        if power:
            found.append((prime, power))
        prime += 1
    return (*found, (n, 1)) if n > 1 else tuple(found)


def entropy(law: Law) -> LogSum:
    """Return ``−Σ p log2 p``."""
    total = ZERO
    for weight in law.values():
        if weight:
            total = total - log2_of(weight) * weight
    return total


def marginal(law: Law, *axes: int) -> dict[tuple[Hashable, ...], Fraction]:
    """Return the law of the coordinates ``axes`` of a law over tuples."""
    total: dict[tuple[Hashable, ...], Fraction] = defaultdict(Fraction)
    for outcome, weight in law.items():
        total[tuple(outcome[axis] for axis in axes)] += weight
    return dict(total)


def information(law: Law, first: tuple[int, ...], second: tuple[int, ...]) -> LogSum:
    """Return the mutual information of two groups of coordinates."""
    joint = entropy(marginal(law, *first, *second))
    return entropy(marginal(law, *first)) + entropy(marginal(law, *second)) - joint
