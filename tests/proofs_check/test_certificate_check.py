"""Certificates as text, and the checker that shares no code with what writes them."""

import ast
import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp

from proofs_check.certificates import check as checker
from proofs_check.certificates import export
from proofs_check.certificates.bounds import BOUNDS, bound_polynomial
from proofs_check.certificates.check import Rejected, check, main, parse
from proofs_check.certificates.export import certificate_text, parse_network, polynomial_text
from proofs_check.certificates.network import symbolic_mlp, with_symbols
from proofs_check.certificates.squares import path_squares
from proofs_check.certificates.trace import trace_polynomial

NETWORKS = ["2-1", "2-2-1", "2-2-2-1", "4-4-2", "conv-4-2-1.1-1", "conv-4-2-1.2-2"]
# One hidden unit, by hand: f = v a (w0 x0 + w1 x1).
BY_HAND = """ntktheory-certificate 1
# a comment
bound edge
input x0
input x1
unit h gate a
output f
edge x0 h w0
edge x1 h w1

edge h f v
upper a^2*x0^2*v^2 + a^2*x1^2*v^2 + a^2*x0^2*w0^2 + a^2*x0^2*w1^2 + a^2*x1^2*w0^2 + a^2*x1^2*w1^2
lower a^2*x0^2*v^2 + a^2*x1^2*v^2 + a^2*w0^2*x0^2 + 2*a^2*w0*x0*w1*x1 + a^2*w1^2*x1^2
squares 1
square a*x0*w1 - a*x1*w0
end
"""


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_exported_certificates_are_accepted(network, name):
    net = parse_network(network)
    count = len(path_squares(net, name))
    assert check(certificate_text(net, name)).startswith(f"{name} - trace is the sum of {count} sq")


def test_a_certificate_by_hand_is_accepted():
    assert check(BY_HAND) == (
        "edge - trace is the sum of 1 squares on a network of 3 parameters and 2 paths, 1 free gates"
    )


def changed(old, new):
    assert old in BY_HAND
    return BY_HAND.replace(old, new, 1)


DAMAGED = {
    "coefficient": (changed("2*a^2*w0", "3*a^2*w0"), "lower is not the trace of this network: 1 t"),
    "sign in a square": (
        changed("w1 - a*x1*w0\n", "w1 + a*x1*w0\n"), "upper - lower is not the sum of the squares: 1"
    ),
    "coefficient in a square": (
        changed("square a*x0*w1", "square 2*a*x0*w1"), "is not the sum of the squares: 2 terms"
    ),
    "missing square": (
        changed("squares 1\nsquare a*x0*w1 - a*x1*w0\n", "squares 0\n"), "not the sum of the squares"
    ),
    "square not counted": (changed("squares 1", "squares 0"), "1 squares, not 0 as it says"),
    "squares not counted": (changed("squares 1\n", ""), "1 squares, not -1 as it says"),
    "both sides raised": (
        changed("upper ", "upper x0^2 + ").replace("lower ", "lower x0^2 + "),
        "upper is not the bound of this network: 1 terms differ",
    ),
    "other bound": (changed("bound edge", "bound px"), "upper is not the bound of this network"),
    "unknown bound": (changed("bound edge", "bound half"), "line 3: 'half' is no bound"),
    "two bounds": (changed("input x0", "bound px\ninput x0"), "line 4: 'bound' for the second time"),
    "two lowers": (changed("squares 1", "lower 0\nsquares 1"), "'lower' for the second time"),
    "no lower": (re.sub(r"lower .*\n", "", BY_HAND), "bound, output, upper or lower is missing"),
    "missing edge": (changed("edge x1 h w1\n", ""), "'w1' is no symbol of the network"),
    "tied weight": (
        changed("edge h f v", "edge h f w0").replace("v^2", "w0^2"), "meets a parameter twice: w0 w0"
    ),
    "shared gate": (
        changed("unit h gate a", "unit h gate a\nunit g gate a"), "line 7: the symbol 'a' is taken"
    ),
    "gate as a weight": (changed("edge h f v", "edge h f a"), "the symbol 'a' is taken"),
    "unit twice": (changed("output f", "output h"), "line 7: the unit 'h' is taken"),
    "no such unit": (changed("edge h f v", "edge g f v"), "line 11: 'g' is no unit"),
    "edge back": (
        changed("output f", "unit g gate b\noutput f").replace("edge h f v", "edge g h v"),
        "an edge back to an earlier unit",
    ),
    "edge from an output": (changed("edge h f v", "edge f h v"), "an edge from an output or into"),
    "edge into an input": (changed("edge h f v", "edge h x0 v"), "an edge from an output or into"),
    "words": (changed("edge h f v", "edge h f"), "line 11: 'edge' with 2 words is not in the format"),
    "unknown word": (changed("edge h f v", "link h f v"), "'link' with 3 words is not in the format"),
    "no gate": (changed("unit h gate a", "unit h gates a"), "'gates' is no word"),
    "odd symbol": (changed("input x0", "input 0x"), "'0x' is no symbol"),
    "count": (changed("squares 1", "squares one"), "'one' is no number"),
    "cut off": (BY_HAND[:-5], "the last line is not 'end': the file is cut off"),
    "other version": (changed("certificate 1", "certificate 2"), "the first line is not"),
    "empty": ("", "the first line is not 'ntktheory-certificate 1'"),
    "text in a polynomial": (changed("lower ", "lower (x0) + "), r"'(x0)"),
    "power": (changed("square a*x0", "square a^x0"), "a power that is no integer"),
    "open end": (changed("- a*x1*w0\n", "-\n"), "a polynomial that ends within a term"),
    "open product": (changed("- a*x1*w0\n", "- a*\n"), "a polynomial that ends within a term"),
    "two terms": (changed("w1 - a*x1*w0\n", "w1 a*x1*w0\n"), "no sign between two terms"),
    "empty square": (changed("square a*x0*w1 - a*x1*w0\n", "square\n"), "an empty polynomial"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_certificate_is_rejected(what):
    text, reason = DAMAGED[what]
    with pytest.raises(Rejected, match=re.escape(reason)):
        check(text)


@pytest.mark.parametrize("network", ["2-2-2-1", "conv-4-2-1.2-1"])
def test_every_single_damage_to_a_square_is_noticed(network):
    lines = certificate_text(parse_network(network), "edge").split("\n")
    squares = [i for i, line in enumerate(lines) if line.startswith("square ")]
    assert squares
    for i in squares:
        turned = lines[i].replace(" - ", " + ") if " - " in lines[i] else lines[i] + " - x0"
        for line in (turned, lines[i].replace("square ", "square 2*", 1), "square 0"):
            with pytest.raises(Rejected, match="is not the sum of the squares"):
                check("\n".join([*lines[:i], line, *lines[i + 1 :]]))


def test_polynomials_are_read():
    assert parse("-2*x^2*y + 3 - y", ["x", "y"]) == {(2, 1): -2, (0, 0): 3, (0, 1): -1}
    assert parse("x*2*x*3 - 6*x^2", ["x"]) == {}
    assert parse("2^3", ["x"]) == {(0,): 8}


def test_polynomials_are_written():
    net = symbolic_mlp((1, 1))
    x, w = net.inputs[0], net.parameters[0]
    texts = {-x: "-x0", 1 - x**2: "-x0^2 + 1", x - 2 * w: "x0 - 2*w1_0_0", net.ring.zero: "0"}
    for polynomial, text in texts.items():
        assert polynomial_text(polynomial) == text
    assert polynomial_text(net.ring.one) == "1"


@pytest.mark.parametrize("name", ["px", "edge"])
def test_another_program_reads_the_text(name):
    """Sympy's own parser makes of the text the identity upper − lower = Σ squares²."""
    lines = certificate_text(symbolic_mlp((2, 2, 1)), name).splitlines()
    read = {word: [sp.sympify(line.split(" ", 1)[1].replace("^", "**")) for line in lines
                   if line.split(" ")[0] == word] for word in ("upper", "lower", "square")}  # fmt: skip
    gap = read["upper"][0] - read["lower"][0] - sum(base**2 for base in read["square"])
    assert sp.expand(gap) == 0
    assert (
        sp.expand(read["upper"][0] - bound_polynomial(symbolic_mlp((2, 2, 1)), name).as_expr()) == 0
    )


def test_the_checker_finds_trace_and_bounds_by_itself():
    net = parse_network("conv-4-2-1.2-2")
    given = checker.read(certificate_text(net, "px"))
    found = checker.Network(given)
    assert polynomial_of(net, found.trace(), given.symbols) == trace_polynomial(net)
    for name in BOUNDS:
        ours = polynomial_of(net, found.bound(name), given.symbols)
        assert ours == bound_polynomial(net, name)


def polynomial_of(net, polynomial, symbols):
    order = [symbols.index(str(symbol)) for symbol in net.ring.symbols]
    return net.ring.from_dict({tuple(m[i] for i in order): c for m, c in polynomial.items()})


def test_the_checker_shares_no_code_with_the_generator():
    tree = ast.parse(Path(checker.__file__).read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names)


def test_command_line(tmp_path):
    path = tmp_path / "edge.txt"
    assert export.main(["2-2-1", "edge", str(path)]) == 0
    run = [sys.executable, "-m", "proofs_check.certificates.check", str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "accepted: edge - trace is the sum of 2 squares on a network of 6"
    )
    path.write_text(path.read_text(encoding="utf-8").replace(" - ", " + ", 1), encoding="utf-8")
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("rejected: upper - lower is not the sum of the squares")


def test_a_missing_file_is_no_proof(tmp_path, capsys):
    assert main([str(tmp_path / "none.txt")]) == 1
    assert capsys.readouterr().out.startswith("rejected: [Errno 2]")
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_wrong_arguments_of_the_export(tmp_path, capsys):
    assert export.main(["2-2-1"]) == 2
    assert "usage" in capsys.readouterr().err
    assert export.main(["2-2-1", "half", str(tmp_path / "x")]) == 2
    assert "name must be one of 'edge'" in capsys.readouterr().err
    assert export.main(["conv-2-3-1.1-1", "edge", str(tmp_path / "x")]) == 2
    assert "network must be widths like 4-4-2, or conv-" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_tied_weight_cannot_be_exported():
    with pytest.raises(ValueError, match="net must be one whose paths meet no parameter twice"):
        certificate_text(with_symbols(((("w",),), (("w",),))), "edge")


def test_examples_run():
    results = doctest.testmod(export)
    assert results.attempted > 0
    assert results.failed == 0
