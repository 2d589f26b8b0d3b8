"""The certificate by two lemmas, and at random points modulo a prime."""

import math
from random import Random

import pytest

from proofs_check.certificates import lemmas
from proofs_check.certificates.bounds import BOUNDS, bound_polynomial
from proofs_check.certificates.lemmas import composition, count_paths, data_sets, lemmas_proved
from proofs_check.certificates.modular import (
    PRIME,
    check_at_random_points,
    check_path_sums,
    identity_degree,
    net_at,
    path_sums,
)
from proofs_check.certificates.network import (
    conv_names,
    mlp_names,
    symbolic_conv,
    symbolic_mlp,
    with_symbols,
)
from proofs_check.certificates.squares import list_paths, path_squares
from proofs_check.certificates.trace import trace_polynomial

SMALL = [
    mlp_names((2, 2, 1)), mlp_names((2, 3, 2, 2)), mlp_names((3, 2)), conv_names(4, 2, (1, 2), 2)
]  # fmt: skip
TIED = ((("w",),), (("w",),))


def ones(names):
    return net_at(names, lambda: 1)


def test_both_lemmas_are_proved():
    assert lemmas_proved(lemmas.prove_lagrange())
    assert lemmas_proved(lemmas.prove_rest())


@pytest.mark.parametrize(
    "base",
    [
        lambda d, e, data, w: d * w + data * e,
        lambda d, e, data, w: d * w,
        lambda d, e, data, w: d * e - data * w,
    ],
)
def test_a_wrong_lemma_1_is_not_proved(base):
    assert not lemmas_proved(lemmas.prove_lagrange(base))
    assert not lemmas.instance(3, base).holds


@pytest.mark.parametrize("n", range(1, 7))
def test_lemma_1_expanded(n):
    result = lemmas.instance(n)
    assert result.holds
    assert result.squares == math.comb(n, 2)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("names", SMALL)
def test_the_lemmas_stand_for_as_many_squares_as_are_listed(names, name):
    found = composition(ones(names), name)
    assert found.holds
    assert found.squares == len(path_squares(ones(names), name))
    assert found.paths == len(list_paths(ones(names)))


def test_number_of_paths_without_a_list():
    assert count_paths(ones(mlp_names((16, 16, 8, 4)))) == 16 * 16 * 8 * 4
    assert count_paths(ones(conv_names(5, 2, (1, 3), 2))) == 4 * 2 * 3 * 2


def test_a_short_list_of_paths_is_noticed():
    found = composition(ones(SMALL[0]), "px", paths=lambda net: list_paths(net)[1:])
    assert (found.holds, found.broken) == (False, "3 paths, not 4")


def test_missing_data_is_noticed():
    def sets(paths, name):
        full = data_sets(paths, name)
        return lambda j, c: full(j, c) - {paths[0].units}

    found = composition(ones(SMALL[0]), "edge", sets=sets)
    assert found.broken == "a path through w1_0_0 to output 0 has no data in the bound"


@pytest.mark.parametrize("net", [with_symbols(TIED), ones(TIED)])
def test_a_weight_tied_inside_a_path_is_refused(net):
    text = "net must be one whose paths meet no parameter twice, got .*'w', 'w'"
    with pytest.raises(ValueError, match=text):
        list_paths(net)


@pytest.mark.parametrize("net", [symbolic_mlp((2, 2, 1)), symbolic_mlp((2, 2, 2, 1)),
                                 symbolic_conv(4, 2, (1, 2), 2)])  # fmt: skip
def test_degree_of_the_identity(net):
    for polynomial in (trace_polynomial(net), *(bound_polynomial(net, name) for name in BOUNDS)):
        assert max(map(sum, polynomial.itermonoms())) == identity_degree(net.names)


def test_a_network_of_numbers_is_the_symbolic_one_at_those_numbers():
    names, draw = mlp_names((2, 3, 2)), Random(1)
    net, symbols = net_at(names, lambda: draw.randint(-3, 3)), symbolic_mlp((2, 3, 2))
    values = [*zip(symbols.inputs, net.inputs, strict=True)]
    values += zip(symbols.parameters, net.parameters, strict=True)
    values += zip(symbols.gates[0], net.gates[0], strict=True)
    assert trace_polynomial(symbols).evaluate(values) == trace_polynomial(net)
    for name in BOUNDS:
        assert bound_polynomial(symbols, name).evaluate(values) == bound_polynomial(net, name)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("names", SMALL)
def test_sums_over_paths_are_the_passes(names, name):
    draw = Random(2)
    net = net_at(names, lambda: draw.randint(-3, 3))
    assert path_sums(net, name) == (trace_polynomial(net), bound_polynomial(net, name))


@pytest.mark.parametrize("name", BOUNDS)
def test_identities_hold_at_random_points(name):
    names = mlp_names((4, 3, 2, 2))
    listed = check_at_random_points(names, name, trials=2, generator=Random(0))
    summed = check_path_sums(names, name, trials=2, generator=Random(0))
    assert listed.holds
    assert summed.holds
    assert listed.squares == summed.squares == len(path_squares(ones(names), name))
    assert listed.error_probability == (10 / PRIME) ** 2
    assert summed.error_probability == 2 * (10 / PRIME) ** 2
    assert 0 < listed.coefficient_sum < PRIME


def test_a_small_error_is_seen_at_one_point():
    names = mlp_names((3, 2, 2))

    def off(net, name):
        x0 = net.inputs[0]
        return bound_polynomial(net, name) + x0**3 - x0

    options = {"trials": 1, "generator": Random(0)}
    assert not check_at_random_points(names, "edge", bound=off, **options).holds
    assert not check_path_sums(names, "edge", bound=off, **options).holds


def test_large_coefficients_are_not_taken_for_an_identity():
    def more(net, name):
        return bound_polynomial(net, name) + PRIME

    found = check_at_random_points(
        mlp_names((2, 2, 1)), "edge", trials=1, generator=Random(0), bound=more
    )
    assert (found.residual, found.holds) == (0, False)
