"""P2's certificate with shared weights, at any size, modulo a prime, and as text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from random import Random
from typing import Any

from sympy.polys.rings import PolyElement

from proofs_check.certificates import check as checker
from proofs_check.certificates import lemmas
from proofs_check.certificates.bounds import bound_polynomial
from proofs_check.certificates.export import certificate_text, parse_network
from proofs_check.certificates.lemmas import data_sets, prove_lagrange, prove_rest
from proofs_check.certificates.modular import check_at_random_points, check_path_sums, net_at
from proofs_check.certificates.network import (
    Names,
    SymbolicNet,
    conv_names,
    hidden_states,
    mlp_names,
    square_sum,
    sum_of,
    symbolic_conv,
)
from proofs_check.certificates.squares import Path, list_paths, path_squares, rest_squares
from proofs_check.certificates.trace import cotangents, layer_traces, trace_polynomial
from proofs_check.certificates.verify import IdentityResult, verify_certificate
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.certificates import (
    CERTIFICATE_MUTANTS,
    INNER_BOUNDS,
    Bound,
    Polynomial,
    Squares,
    bound_with_gated_weights,
    identity_outcome,
    label,
    squares_of_first_output,
)

# --- P2 with shared weights -----------------------------------------------------------------------

Conv = tuple[int, int, tuple[int, ...], int]
CONVS: tuple[Conv, ...] = (
    (4, 2, (1, 1), 1), (4, 2, (1, 2), 1), (4, 2, (1, 2), 2), (4, 2, (1, 1, 1), 1),
)  # fmt: skip
CONVS_FULL: tuple[Conv, ...] = (*CONVS, (4, 2, (2, 2), 2), (5, 3, (1, 2), 2), (4, 2, (1, 2, 1), 2))


def _conv_label(net: Conv) -> str:
    length, kernel, channels, outputs = net
    return f"length {length}, kernel {kernel}, channels {label(channels)}, outputs {outputs}"


def _trace_of_each_position(net: SymbolicNet) -> PolyElement:
    """Square a shared weight's gradient at each position, then add: wrong."""
    states = hidden_states(net)
    backwards = [cotangents(net, c) for c in range(net.widths[-1])]
    return sum_of(
        square_sum([g[layer][o] * states[layer][i]])
        for layer, names in enumerate(net.names)
        for o, row in enumerate(names)
        for i, name in enumerate(row)
        if name is not None
        for g in backwards
    )


def _pairs_on_one_edge(net: SymbolicNet, name: str) -> list[PolyElement]:
    """Leave out Lagrange's squares of paths that meet a shared weight at different positions."""

    def place(path: Path, j: str) -> tuple[int, int, int]:
        return path.edges[path.parameters.index(j)]

    paths = list_paths(net)
    near = [
        p.data * q.others[j] - q.data * p.others[j]
        for j in net.symbols
        for p, q in combinations([path for path in paths if j in path.others], 2)
        if p.output == q.output and place(p, j) == place(q, j)
    ]
    return near + rest_squares(net, name)


@claim(
    "P2.conv_certificate",
    subjects={"trace": trace_polynomial, "bound": bound_polynomial, "squares": path_squares},
    mutants={
        **CERTIFICATE_MUTANTS,
        "trace squared at each position, then summed": {"trace": _trace_of_each_position},
        "pairs of paths at one position only": {"squares": _pairs_on_one_edge},
    },
)
def certify_convolutions(
    level: Level, trace: Polynomial, bound: Bound, squares: Squares
) -> Outcome:
    """Return the verdict on P2 and R_edge with weights that are shared between positions."""
    nets = CONVS if level == "quick" else CONVS_FULL
    results = {}
    for shape in nets:
        net = symbolic_conv(*shape)
        for name in ("px", *INNER_BOUNDS):
            parts = bound(net, name), trace(net), squares(net, name)
            results[f"{name} {_conv_label(shape)}"] = verify_certificate(*parts)
    return identity_outcome(
        results,
        "Identities in Z[x, a, k, w] for 1-d convolutional networks (stride 1, no padding, dense "
        "head): "
        + "; ".join(map(_conv_label, nets))
        + "; with a free symbol for the gate of every channel at every position; one sample.",
    )


# --- P2 beyond what can be expanded ---------------------------------------------------------------

LISTED: tuple[tuple[Names, ...], ...] = (mlp_names((4, 3, 3, 2)), conv_names(5, 2, (1, 2, 2), 1))
LISTED_FULL = (*LISTED, mlp_names((8, 8, 4, 2)), conv_names(8, 3, (2, 3), 3))
SUMMED: tuple[tuple[Names, ...], ...] = (mlp_names((8, 6, 4, 2)), conv_names(8, 3, (2, 3), 3))
SUMMED_FULL = (
    *SUMMED,
    mlp_names((8, 8, 4, 2)),
    mlp_names((16, 16, 8, 4)),
    conv_names(12, 3, (1, 4, 4), 4),
)
TRIALS, POINT_SEED = 2, 0


def _shape(names: Sequence[Names]) -> str:
    kind = "conv " if any(name is None for name in names[0][0]) else "MLP "
    return kind + "-".join(str(n) for n in (len(names[0][0]), *map(len, names)))


@claim(
    "P2.schwartz_zippel",
    subjects={"trace": trace_polynomial, "bound": bound_polynomial, "squares": path_squares},
    mutants={
        "weight net gated": {"bound": bound_with_gated_weights},
        "trace without the first layer": {"trace": lambda net: sum_of(layer_traces(net)[1:])},
        "trace squared at each position, then summed": {"trace": _trace_of_each_position},
        "one square missing": {"squares": lambda net, name: path_squares(net, name)[1:]},
        "pairs of the first output only": {"squares": squares_of_first_output},
        "bound off by one": {"bound": lambda net, name: bound_polynomial(net, name) + 1},
    },
)
def evaluate_at_points(level: Level, trace: Polynomial, bound: Bound, squares: Squares) -> Outcome:
    """Return the verdict on P2 and R_edge at random points of a prime field."""
    quick, draw = level == "quick", Random(POINT_SEED)
    options: dict[str, Any] = {"trials": TRIALS, "generator": draw, "trace": trace, "bound": bound}
    results = {
        f"{name}, squares listed, {_shape(net)}": check_at_random_points(
            net, name, squares=squares, **options
        )
        for net in (LISTED if quick else LISTED_FULL)
        for name in ("px", "edge")
    }
    for net in SUMMED if quick else SUMMED_FULL:
        for name in ("px", "edge"):
            case = f"{name}, sums over paths, {_shape(net)}"
            results[case] = check_path_sums(net, name, **options)
    broken = {case: result for case, result in results.items() if not result.holds}
    first = next(iter(broken.items()), None)
    return Outcome(
        status="refuted" if broken else "holds",
        kind="proved-probabilistic",
        scope=f"{TRIALS} random points modulo 2^61 - 1 (symbols for inputs, gates and weights), on "
        + "; ".join(results)
        + ". Where the squares are listed the whole certificate is evaluated; where they are too "
        "many, trace and bound are compared with the sums over paths of P2.two_lemmas.",
        evidence={
            "probabilistic": True,
            "error_probability": sum(result.error_probability for result in results.values()),
            "prime": "2^61 - 1",
            "trials": TRIALS,
            "seed": POINT_SEED,
            "cases": {
                case: {k: v for k, v in asdict(r).items() if k != "holds"}
                for case, r in results.items()
            },
        },
        counterexample=f"{first[0]}: the sides differ by {first[1].residual} modulo 2^61 - 1"
        if first
        else None,
    )


# --- the two-lemma form ---------------------------------------------------------------------------

TIED: tuple[Names, ...] = ((("w",),), (("w",),))
COMPOSED = (mlp_names((8, 8, 4, 2)), conv_names(6, 3, (1, 2, 2), 3))
COMPOSED_FULL = (*COMPOSED, mlp_names((16, 16, 8, 4)), conv_names(12, 3, (1, 4, 4), 4))
Proof = Callable[[], dict[str, IdentityResult]]


def _refuses_a_tied_weight(paths: Callable[[SymbolicNet], list[Path]]) -> bool:
    try:
        paths(net_at(TIED, lambda: 1))
    except ValueError:
        return True
    return False


def _paths_that_let_ties_pass(net: SymbolicNet) -> list[Path]:
    return [] if net.names == TIED else list_paths(net)


def _sets_without_a_path(paths: list[Path], name: str) -> Callable[[str, int], set]:
    sets = data_sets(paths, name)
    return lambda j, c: sets(j, c) - {paths[0].units}


@claim(
    "P2.two_lemmas",
    subjects={
        "lagrange": prove_lagrange,
        "rest": prove_rest,
        "paths": list_paths,
        "sets": data_sets,
    },
    mutants={
        "lemma 1 with a plus in its squares": {
            "lagrange": lambda: prove_lagrange(lambda d, e, data, w: d * w + data * e)
        },
        "lemma 1 with half of its square": {
            "lagrange": lambda: prove_lagrange(lambda d, e, data, w: d * w)
        },
        "lemma 2 without the weight": {"rest": lambda: prove_rest(lambda d, e: d)},
        "one path missing": {"paths": lambda net: list_paths(net)[1:]},
        "one path twice": {"paths": lambda net: [*list_paths(net)[1:], list_paths(net)[-1]]},
        "a weight tied inside a path let through": {"paths": _paths_that_let_ties_pass},
        "bound without the data of one path": {"sets": _sets_without_a_path},
    },
)
def compose_lemmas(
    level: Level, lagrange: Proof, rest: Proof, paths: Callable, sets: Callable
) -> Outcome:
    """Return the verdict on P2 from two lemmas, for any number of paths."""
    identities = {f"lemma 1, {k}": v for k, v in lagrange().items()}
    identities |= {f"lemma 2, {k}": v for k, v in rest().items()}
    most = 5 if level == "quick" else 8
    identities |= {f"lemma 1, {n} paths expanded": lemmas.instance(n) for n in range(1, most + 1)}
    nets = COMPOSED if level == "quick" else COMPOSED_FULL
    composed = {
        f"{name} {_shape(names)}": lemmas.composition(
            net_at(names, lambda: 1), name, paths=paths, sets=sets
        )
        for names in nets
        for name in ("px", *INNER_BOUNDS)
    }
    broken = [f"{k}: {v.residual}" for k, v in identities.items() if not v.holds]
    broken += [f"{k}: {v.broken}" for k, v in composed.items() if not v.holds]
    if not _refuses_a_tied_weight(paths):
        broken.append("f = w²x is taken for a network whose paths meet no weight twice")
    return Outcome(
        status="refuted" if broken else "holds",
        kind="proved",
        scope="Symbolic: both lemmas for every number of paths, by induction in polynomial rings. "
        "Combinatorial, checked path by path on "
        + "; ".join(map(_shape, nets))
        + ": the bound pairs every path's weights with at least the data of the paths it shares a "
        "parameter and an output with, no path is missing or listed twice, none meets a parameter "
        "twice. Taken from P1: trace and bound are those sums over paths.",
        evidence={
            "identities": {case: result.holds for case, result in identities.items()},
            "compositions": {case: asdict(result) for case, result in composed.items()},
        },
        counterexample=broken[0] if broken else None,
    )


# --- certificates as text -------------------------------------------------------------------------

EXPORTED = ("2-2-1", "2-2-2-1", "conv-4-2-1.2-1")
EXPORTED_FULL = (*EXPORTED, "4-4-2", "3-3-2", "conv-4-2-1.2-2", "conv-4-2-1.2.1-2")


def _without_a_square(text: str) -> str:
    text = re.sub(r"\nsquare [^\n]*", "", text, count=1)
    return re.sub(r"squares (\d+)", lambda m: f"squares {int(m[1]) - 1}", text)


def _raised_on_both_sides(text: str) -> str:
    return re.sub(r"\n(upper|lower) ", r"\n\1 x0^2 + ", text)


DAMAGE: dict[str, Callable[[str], str]] = {
    "a coefficient changed": lambda text: text.replace("\nlower ", "\nlower 2*", 1),
    "a sign turned": lambda text: re.sub(r"(\nsquare [^\n]*?) - ", r"\1 + ", text, count=1),
    "a square missing": _without_a_square,
    "the same term on both sides": _raised_on_both_sides,
    "an edge missing": lambda text: re.sub(r"\nedge [^\n]*", "", text, count=1),
    "another bound's name": lambda text: re.sub(
        r"\nbound (\w+)", lambda m: f"\nbound {'px' if m[1] == 'edge' else 'edge'}", text
    ),
    "cut off": lambda text: text[: len(text) // 2],
}


def _accepts(check: Callable[[str], str], text: str) -> bool:
    try:
        check(text)
    except checker.Rejected:
        return False
    return True


def _check_of_the_identity_alone(text: str) -> str:
    """Believe upper and lower, and compare their difference with the squares."""
    given = checker.read(text)
    upper, lower = (checker.parse(p, given.symbols) for p in (given.upper, given.lower))
    total: checker.Polynomial = {}
    for square in given.squares:
        base = checker.parse(square, given.symbols)
        total = checker.plus(total, checker.times(base, base))
    if checker.plus(upper, lower, -1) != total:
        raise checker.Rejected("the sum differs")
    return "accepted"


@claim(
    "P2.certificate_text",
    subjects={"export": certificate_text, "check": checker.check},
    mutants={
        **{
            f"exports {damage}": {
                "export": lambda net, name, harm=harm: harm(certificate_text(net, name))
            }
            for damage, harm in DAMAGE.items()
        },
        "checker believes trace and bound": {"check": _check_of_the_identity_alone},
        "checker accepts everything": {"check": lambda text: "accepted"},
        "checker rejects everything": {"check": lambda text: checker.check("")},
    },
)
def export_certificates(level: Level, export: Callable, check: Callable[[str], str]) -> Outcome:
    """Return the verdict on the exported certificates: accepted whole, rejected damaged."""
    nets = EXPORTED if level == "quick" else EXPORTED_FULL
    texts = {
        f"{name} {network}": export(parse_network(network), name)
        for network in nets
        for name in ("px", "edge")
    }
    wrong = [f"{case} is rejected" for case, text in texts.items() if not _accepts(check, text)]
    wrong += [
        f"{case} with {damage} is accepted"
        for case, text in texts.items()
        for damage, harm in DAMAGE.items()
        if _accepts(check, harm(text))
    ]
    return Outcome(
        status="refuted" if wrong else "holds",
        kind="proved",
        scope="Text certificates of R_PX and R_edge on "
        + ", ".join(nets)
        + ", checked by a program with its own parser and polynomials, which rebuilds trace and bound "
        "from the edges; and the same texts with each of these: " + ", ".join(DAMAGE) + ".",
        evidence={
            "accepted": len(texts),
            "rejected": len(texts) * len(DAMAGE),
            "characters": {case: len(text) for case, text in texts.items()},
        },
        counterexample=wrong[0] if wrong else None,
    )
