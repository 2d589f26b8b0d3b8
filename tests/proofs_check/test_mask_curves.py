"""Curves, differences and decisions from a made-up record of mask information."""

import pytest

from proofs_check.mask_curves import by_sign, curves, decided, differences
from proofs_check.record_claims import status_of

PAIR = ("imp", "snip")


def group(method, bits, *, steps=None, replacement=True, **more):
    trained = method in ("imp", "magnitude_after")
    return {
        "loss": "mse", "method": method, "steps": (200 if trained else 0) if steps is None else steps,
        "lr": 0.1, "init": "kaiming_normal", "replacement": replacement,
        "seed": list(range(len(bits))), "bits": bits, **more,
    }  # fmt: skip


def record(*, near=0.0, shift=1.0):
    learned = [[0.0, 2.0 + shift + 0.01 * seed, 3.0 - shift, 1.0] for seed in range(10)]
    more = {}
    if near:
        more["low_bits"] = [[b - near for b in bits] for bits in learned]
        more["high_bits"] = [[b + near for b in bits] for bits in learned[:-1]] + [None]
    apart = [[0, 1, 1, 1]] * 10
    return {
        "curves": [
            group("imp", learned, **more),
            group("snip", [[0.0, 2.0, 3.0, 1.0]] * 10, bits_without_replacement=apart),
            group("imp", [[9.0] * 4] * 10, steps=1000, replacement=False),
            group("imp", [[7.0] * 4] * 10, steps=1000),
        ]
    }


def test_curves_are_those_asked_for():
    found = curves(record(), "mse", "imp")
    assert list(found) == list(range(10))
    assert found[3]["bits"] == [0.0, 3.03, 2.0, 1.0]
    assert curves(record(), "mse", "imp", steps=1000)[0]["bits"] == [7.0] * 4
    assert curves(record(), "mse", "imp", steps=1000, replacement=False)[0]["bits"] == [9.0] * 4
    assert curves(record(), "mse", "snip", steps=1000)[0]["bits"] == [0.0, 2.0, 3.0, 1.0]
    assert curves(record(), "mse", "snip", replacement=False)[0]["bits"] == [0, 1, 1, 1]
    assert curves(record(), "cross_entropy", "snip") == {}


def test_differences_by_hand():
    found = differences(record(), "mse", (PAIR,))
    assert list(found) == [(PAIR, 1), (PAIR, 2), (PAIR, 3)]  # nothing is pruned at k = 0
    assert found[PAIR, 1].mean == pytest.approx(1.045)
    assert (found[PAIR, 2].mean, found[PAIR, 3].mean) == (-1.0, 0.0)
    assert found[PAIR, 1].n == 10


def test_decisions_by_hand():
    signs = decided(record(), "mse", (PAIR,))
    assert signs == {(PAIR, 1): 1, (PAIR, 2): -1, (PAIR, 3): 0}
    assert status_of(signs.values()) == "not-supported"
    assert by_sign(signs) == {
        "imp − snip": {"first_larger": [1], "second_larger": [2], "undecided": [3]}
    }


def test_near_ties_are_resolved_against_every_decision():
    wide = record(near=2.0)
    first, last = curves(wide, "mse", "imp")[0], curves(wide, "mse", "imp")[9]
    assert first["low_bits"] == [-2.0, 1.0, 0.0, -1.0]
    assert (first["high_bits"], last["high_bits"]) == ([2.0, 5.0, 4.0, 3.0], last["bits"])
    assert differences(wide, "mse", (PAIR,), "low")[PAIR, 1].mean == pytest.approx(-0.955)
    assert differences(wide, "mse", (PAIR,), "high")[PAIR, 2].mean == pytest.approx(0.8)
    assert set(decided(wide, "mse", (PAIR,)).values()) == {0}
    narrow = record(near=0.5)
    assert decided(narrow, "mse", (PAIR,)) == {(PAIR, 1): 1, (PAIR, 2): -1, (PAIR, 3): 0}
