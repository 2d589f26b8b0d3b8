"""A checker for exported certificates that shares no code with what writes them.

``python -m proofs_check.certificates.check FILE`` reads a certificate (format: ``export.py``), rebuilds
everything from the network's edges with its own polynomial arithmetic, and exits with status 0 if

1. ``lower`` is the trace ``Σ_c Σ_j (∂f_c/∂θ_j)²`` of that network, by differentiating its outputs;
2. ``upper`` is the named bound, by listing its paths;
3. ``upper − lower`` is the sum of the squares, coefficient by coefficient.

Then trace ≤ bound for every real input, weight and gate. Otherwise it says what is wrong and exits with
status 1. A polynomial is a dictionary from exponents (one per symbol, in the order of the file) to
integer coefficients. Only the standard library is used.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

HEADER = "ntktheory-certificate 1"
BOUNDS = ("px", "px_per_output", "edge", "edge_per_output")
WORDS = {"bound": 1, "input": 1, "unit": 3, "output": 1, "edge": 3, "squares": 1, "end": 0}
POLYNOMIALS = ("upper", "lower", "square")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TOKEN = re.compile(r"\s*(?:(?P<int>[0-9]+)|(?P<name>[A-Za-z][A-Za-z0-9_]*)|(?P<sign>[-+*^]))")

Polynomial = dict[tuple[int, ...], int]


class Rejected(Exception):
    """A certificate that proves nothing, with the reason."""


@dataclass
class Certificate:
    """What a file says; polynomials still as text.

    Attributes:
        bound: Name of the bound.
        symbols: Every symbol, in order: inputs, gates, parameters.
        gate: The gate's symbol of every unit; None for inputs and outputs.
        inputs: The input units.
        outputs: The output units.
        edges: (source, target, parameter).
        upper: The bound.
        lower: The trace.
        squares: The squares' bases.
        count: How many squares the file says it has.
    """

    bound: str = ""
    symbols: list[str] = field(default_factory=list)
    gate: dict[str, str | None] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    upper: str = ""
    lower: str = ""
    squares: list[str] = field(default_factory=list)
    count: int = -1


# --- reading --------------------------------------------------------------------------------------


def read(text: str) -> Certificate:
    """Read a certificate's lines.

    Args:
        text: The file's contents.

    Returns:
        What it says, with its network checked for form.

    Raises:
        Rejected: If a line is malformed, out of place, or missing.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), start=1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
    if not lines or lines[0][1] != HEADER:
        raise Rejected(f"the first line is not {HEADER!r}")
    if lines[-1][1] != "end":
        raise Rejected("the last line is not 'end': the file is cut off")
    certificate = Certificate()
    for number, line in lines[1:-1]:
        word, _, rest = line.partition(" ")
        try:
            _take(certificate, word, rest.strip())
        except Rejected as reason:
            raise Rejected(f"line {number}: {reason}") from None
    if not (certificate.upper and certificate.lower and certificate.bound and certificate.outputs):
        raise Rejected("bound, output, upper or lower is missing")
    if certificate.count != len(certificate.squares):
        raise Rejected(f"{len(certificate.squares)} squares, not {certificate.count} as it says")
    return certificate


def _take(certificate: Certificate, word: str, rest: str) -> None:
    if word in POLYNOMIALS:
        if word == "square":
            certificate.squares.append(rest)
        elif getattr(certificate, word):
            raise Rejected(f"{word!r} for the second time")
        else:
            setattr(certificate, word, rest)
        return
    parts = rest.split()
    if word not in WORDS or word == "end" or len(parts) != WORDS[word]:
        raise Rejected(f"{word!r} with {len(parts)} words is not in the format")
    if (word == "bound" and certificate.bound) or (word == "squares" and certificate.count >= 0):
        raise Rejected(f"{word!r} for the second time")
    if word == "bound":
        certificate.bound = _one_of(parts[0], BOUNDS, "bound")
    elif word == "squares":
        certificate.count = int(_matching(parts[0], re.compile(r"[0-9]+"), "number"))
    elif word == "edge":
        _take_edge(certificate, *parts)
    elif word == "output":
        _new_unit(certificate, parts[0], None)
        certificate.outputs.append(parts[0])
    elif word == "input":
        _new_symbol(certificate, parts[0])
        _new_unit(certificate, parts[0], None)
        certificate.inputs.append(parts[0])
    else:
        _one_of(parts[1], ("gate",), "word")
        _new_symbol(certificate, parts[2])
        _new_unit(certificate, parts[0], parts[2])


def _take_edge(certificate: Certificate, source: str, target: str, parameter: str) -> None:
    for unit in (source, target):
        if unit not in certificate.gate:
            raise Rejected(f"{unit!r} is no unit")
    order = list(certificate.gate)
    if source in certificate.outputs or target in certificate.inputs:
        raise Rejected("an edge from an output or into an input")
    if order.index(source) >= order.index(target):
        raise Rejected("an edge back to an earlier unit")
    if parameter not in {p for _, _, p in certificate.edges}:
        _new_symbol(certificate, parameter)
    certificate.edges.append((source, target, parameter))


def _new_symbol(certificate: Certificate, symbol: str) -> None:
    _matching(symbol, NAME, "symbol")
    if symbol in certificate.symbols:
        raise Rejected(f"the symbol {symbol!r} is taken")
    certificate.symbols.append(symbol)


def _new_unit(certificate: Certificate, unit: str, gate: str | None) -> None:
    _matching(unit, NAME, "unit")
    if unit in certificate.gate:
        raise Rejected(f"the unit {unit!r} is taken")
    certificate.gate[unit] = gate


def _matching(text: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(text):
        raise Rejected(f"{text!r} is no {what}")
    return text


def _one_of(text: str, choices: Sequence[str], what: str) -> str:
    if text not in choices:
        raise Rejected(f"{text!r} is no {what}")
    return text


# --- polynomials ----------------------------------------------------------------------------------


def parse(text: str, symbols: Sequence[str]) -> Polynomial:
    """Read a sum of terms such as ``-2*x0^2*w1 + 3``.

    Args:
        text: The sum.
        symbols: The symbols that it may name, in the order of the exponents.

    Returns:
        The polynomial.

    Raises:
        Rejected: If the text is not such a sum, or names an unknown symbol.
    """
    place = {symbol: i for i, symbol in enumerate(symbols)}
    tokens = list(_tokens(text))
    result: Polynomial = {}
    position = 0
    while position < len(tokens):
        sign = 1
        if tokens[position] in ("+", "-"):
            sign = -1 if tokens[position] == "-" else 1
            position += 1
        elif position:
            raise Rejected(f"no sign between two terms in {text[:60]!r}")
        exponents, coefficient, position = _term(tokens, position, place)
        key = tuple(exponents)
        result[key] = result.get(key, 0) + sign * coefficient
    if not tokens:
        raise Rejected("an empty polynomial")
    return _clean(result)


def _term(tokens: list[str], position: int, place: dict[str, int]) -> tuple[list[int], int, int]:
    exponents, coefficient = [0] * len(place), 1
    while True:
        if position >= len(tokens):
            raise Rejected("a polynomial that ends within a term")
        token, power = tokens[position], 1
        position += 1
        if tokens[position : position + 1] == ["^"]:
            if not tokens[position + 1 : position + 2] or not tokens[position + 1].isdigit():
                raise Rejected("a power that is no integer")
            power = int(tokens[position + 1])
            position += 2
        if token.isdigit():
            coefficient *= int(token) ** power
        elif token in place:
            exponents[place[token]] += power
        else:
            raise Rejected(f"{token!r} is no symbol of the network")
        if tokens[position : position + 1] != ["*"]:
            return exponents, coefficient, position
        position += 1


def _tokens(text: str) -> Iterator[str]:
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise Rejected(f"{text[position : position + 20]!r} is no part of a polynomial")
        yield match.group(match.lastgroup or 0)
        position = match.end()


def _clean(polynomial: Polynomial) -> Polynomial:
    return {monomial: c for monomial, c in polynomial.items() if c}


def plus(left: Polynomial, right: Polynomial, factor: int = 1) -> Polynomial:
    """Return ``left + factor · right``."""
    total = dict(left)
    for monomial, c in right.items():
        total[monomial] = total.get(monomial, 0) + factor * c
    return _clean(total)


def times(left: Polynomial, right: Polynomial) -> Polynomial:
    """Return the product."""
    total: Polynomial = {}
    for (m, a), (n, b) in product(left.items(), right.items()):
        key = tuple(i + j for i, j in zip(m, n, strict=True))
        total[key] = total.get(key, 0) + a * b
    return _clean(total)


def derivative(polynomial: Polynomial, place: int) -> Polynomial:
    """Return the partial derivative by the symbol at this place."""
    result: Polynomial = {}
    for monomial, c in polynomial.items():
        if monomial[place]:
            lower = (*monomial[:place], monomial[place] - 1, *monomial[place + 1 :])
            result[lower] = result.get(lower, 0) + c * monomial[place]
    return _clean(result)


# --- the network ----------------------------------------------------------------------------------


class Network:
    """The polynomials of a certificate's network."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.symbols = certificate.symbols
        self.parameters = list(dict.fromkeys(p for _, _, p in certificate.edges))

    def monomial(self, names: Sequence[str], power: int = 1) -> Polynomial:
        """Return the product of these symbols, each to a power."""
        count = Counter(names)
        return {tuple(power * count[s] for s in self.symbols): 1}

    def trace(self) -> Polynomial:
        """Return ``Σ_c Σ_j (∂f_c/∂θ_j)²``, by running the network and differentiating."""
        values: dict[str, Polynomial] = {}
        for unit, gate in self.certificate.gate.items():
            if unit in self.certificate.inputs:
                values[unit] = self.monomial([unit])
                continue
            values[unit] = {}
            for source, target, parameter in self.certificate.edges:
                if target == unit:
                    factor = self.monomial([parameter] if gate is None else [parameter, gate])
                    values[unit] = plus(values[unit], times(values[source], factor))
        total: Polynomial = {}
        for output, parameter in product(self.certificate.outputs, self.parameters):
            slope = derivative(values[output], self.symbols.index(parameter))
            total = plus(total, times(slope, slope))
        return total

    def bound(self, name: str) -> Polynomial:
        """Return a bound by its definition as sums over paths."""
        if name.endswith("_per_output"):
            groups = [[p for p in self.paths() if p[-1] == c] for c in self.certificate.outputs]
        else:
            groups = [list(self.paths())]
        total: Polynomial = {}
        for group in groups:
            data = [self._data(path) for path in group]
            for j in self.parameters:
                weights: Polynomial = {}
                through: Polynomial = {}
                for path, square in zip(group, data, strict=True):
                    if j in path[1]:
                        others = [p for p in path[1] if p != j]
                        weights = plus(weights, self.monomial(others, 2))
                    if j in path[1] or name.startswith("px"):
                        through = plus(through, square)
                total = plus(total, times(through, weights))
        return total

    def _data(self, path: tuple[str, tuple[str, ...], tuple[str, ...], str]) -> Polynomial:
        start, _, gates, _ = path
        return self.monomial([start, *gates], 2)

    def paths(self) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], str]]:
        """Yield (input, parameters, gates, output) of every path."""
        stack: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]
        stack = [(unit, unit, (), ()) for unit in self.certificate.inputs]
        while stack:
            start, unit, parameters, gates = stack.pop()
            if unit in self.certificate.outputs:
                if len(set(parameters)) < len(parameters):
                    raise Rejected(f"a path meets a parameter twice: {' '.join(parameters)}")
                yield start, parameters, gates, unit
                continue
            for source, target, parameter in self.certificate.edges:
                if source == unit:
                    gate = self.certificate.gate[target]
                    on = gates if gate is None else (*gates, gate)
                    stack.append((start, target, (*parameters, parameter), on))


# --- the verdict ----------------------------------------------------------------------------------


def check(text: str) -> str:
    """Check a certificate.

    Args:
        text: The file's contents.

    Returns:
        What it proves, in one sentence.

    Raises:
        Rejected: If it does not prove what it says.
    """
    certificate = read(text)
    network = Network(certificate)
    symbols = certificate.symbols
    upper, lower = parse(certificate.upper, symbols), parse(certificate.lower, symbols)
    _compare("upper is not the bound of this network", upper, network.bound(certificate.bound))
    _compare("lower is not the trace of this network", lower, network.trace())
    total: Polynomial = {}
    for square in certificate.squares:
        base = parse(square, symbols)
        for monomial, c in times(base, base).items():
            total[monomial] = total.get(monomial, 0) + c
    _compare("upper - lower is not the sum of the squares", plus(upper, lower, -1), _clean(total))
    return (
        f"{certificate.bound} - trace is the sum of {certificate.count} squares on a network of "
        f"{len(network.parameters)} parameters and {len(list(network.paths()))} paths, "
        f"{len(certificate.gate) - len(certificate.inputs) - len(certificate.outputs)} free gates"
    )


def _compare(complaint: str, stated: Polynomial, found: Polynomial) -> None:
    difference = plus(stated, found, -1)
    if difference:
        raise Rejected(f"{complaint}: {len(difference)} terms differ")


def main(arguments: Sequence[str]) -> int:
    """Check one file; print the verdict and return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m proofs_check.certificates.check FILE", file=sys.stderr)
        return 2
    try:
        print(f"accepted: {check(Path(arguments[0]).read_text(encoding='utf-8'))}")
    except (Rejected, OSError, UnicodeDecodeError) as reason:
        print(f"rejected: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
