"""A certificate as a text file that another program can check.

The format, line by line; ``#`` starts a comment, blank lines do not count:

    ntktheory-certificate 1       first line
    bound NAME                    px, px_per_output, edge or edge_per_output
    input SYMBOL                  an input coordinate, and its unit
    unit UNIT gate SYMBOL         a hidden unit: gate · Σ parameter · source; each gate once
    output UNIT                   an output: Σ parameter · source
    edge UNIT UNIT PARAMETER      from, to (declared later), parameter; a shared one on several edges
    upper POLYNOMIAL              the bound at one sample
    lower POLYNOMIAL              the trace at one sample
    squares COUNT
    square POLYNOMIAL             COUNT lines: upper − lower is the sum of their squares
    end                           last line

A POLYNOMIAL is a sum of terms, expanded: ``-2*x0^2*w1_0_0 + x1``; coefficients and powers are decimal
integers. With paths p, gates a_p, input x_p, ``A_jc = Σ_{p∋j→c} a_p² x_p²`` and
``B_jc = Σ_{p∋j→c} w_pj²`` (w_pj = product of p's other parameters): ``edge = Σ_j (Σ_c A_jc)(Σ_c B_jc)``,
``px = (Σ_p a_p² x_p²) Σ_{j,c} B_jc``, and ``_per_output`` the same for every output alone, summed.
``lower = Σ_{j,c} (∂f_c/∂θ_j)²``. ``check.py`` is a checker of its own.

``python -m proofs_check.certificates.export 4-4-2 edge FILE`` writes an MLP's;
``conv-4-2-1.2-1`` in place of the widths means length 4, kernel 2, channels 1 and 2, one output.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sympy.polys.rings import PolyElement

from ntktheory.checks import check_choice, complaint
from proofs_check.certificates.bounds import BOUNDS, bound_polynomial
from proofs_check.certificates.network import SymbolicNet, symbolic_conv, symbolic_mlp
from proofs_check.certificates.squares import path_squares
from proofs_check.certificates.trace import trace_polynomial


def certificate_text(net: SymbolicNet, name: str) -> str:
    """Return the certificate of one bound in the format above.

    Args:
        net: The symbols; every hidden unit must have a gate.
        name: One of ``bounds.BOUNDS``.

    Returns:
        The text.

    Raises:
        ValueError: If the bound is unknown.

    Example:
        >>> print(certificate_text(symbolic_mlp((2, 1)), "edge"))
        ntktheory-certificate 1
        # one sample: trace <= edge for every real input, gate and parameter
        bound edge
        input x0
        input x1
        output h1_0
        edge x0 h1_0 w1_0_0
        edge x1 h1_0 w1_0_1
        upper x0^2 + x1^2
        lower x0^2 + x1^2
        squares 0
        end
    """
    check_choice("name", name, BOUNDS)
    squares = path_squares(net, name)
    lines = [
        "ntktheory-certificate 1",
        f"# one sample: trace <= {name} for every real input, gate and parameter",
        f"bound {name}",
        *_network_lines(net),
        f"upper {polynomial_text(bound_polynomial(net, name))}",
        f"lower {polynomial_text(trace_polynomial(net))}",
        f"squares {len(squares)}",
        *(f"square {polynomial_text(base)}" for base in squares),
        "end",
    ]
    return "\n".join(lines)


def _network_lines(net: SymbolicNet) -> list[str]:
    last = len(net.names)
    units = [[str(x) for x in net.inputs]]
    units += [[f"h{k}_{r}" for r in range(net.widths[k])] for k in range(1, last + 1)]
    gates = zip(units[1:-1], net.gates[:-1], strict=True)
    return [
        *(f"input {unit}" for unit in units[0]),
        *(f"unit {u} gate {a}" for row, gate in gates for u, a in zip(row, gate, strict=True)),
        *(f"output {unit}" for unit in units[-1]),
        *(
            f"edge {units[k][i]} {units[k + 1][o]} {name}"
            for k, layer in enumerate(net.names)
            for o, row in enumerate(layer)
            for i, name in enumerate(row)
            if name is not None
        ),
    ]


def polynomial_text(polynomial: PolyElement) -> str:
    """Return a polynomial as a sum of terms with integer coefficients."""
    names = [str(symbol) for symbol in polynomial.ring.symbols]
    text = ""
    for monomial, coefficient in polynomial.terms():
        powers = zip(names, monomial, strict=True)
        factors = [name if e == 1 else f"{name}^{e}" for name, e in powers if e]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(int(coefficient))))
        text += (" - " if coefficient < 0 else " + ") + "*".join(factors)
    return text.removeprefix(" + ").replace(" - ", "-", 1 if text.startswith(" - ") else 0) or "0"


def parse_network(text: str) -> SymbolicNet:
    """Return the network of a name such as ``4-4-2`` or ``conv-4-2-1.2-1``.

    Raises:
        ValueError: If it is no such name.
    """
    try:
        if not text.startswith("conv-"):
            return symbolic_mlp([int(width) for width in text.split("-")])
        length, kernel, channels, outputs = text.removeprefix("conv-").split("-")
        sizes = [int(size) for size in channels.split(".")]
        return symbolic_conv(int(length), int(kernel), sizes, int(outputs))
    except ValueError as error:
        raise ValueError(
            complaint("network", "widths like 4-4-2, or conv-LENGTH-KERNEL-CHANNELS-OUTPUTS",
                      f"{text!r} ({error})", "For example conv-4-2-1.2-1.")
        ) from error  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Write one certificate; return the exit status."""
    if len(arguments) != 3:
        print(
            "usage: python -m proofs_check.certificates.export NETWORK BOUND FILE", file=sys.stderr
        )
        return 2
    network, name, path = arguments
    try:
        text = certificate_text(parse_network(network), name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    Path(path).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
