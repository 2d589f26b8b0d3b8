"""The statistics behind F8 and F9, on records small enough to work out by hand."""

import pytest

from proofs_check.claims.capacity import LABELS, differences, fractions
from proofs_check.claims.label_noise import (
    averages,
    drops,
    falls,
    faster,
    missing,
    rises,
    with_base,
)


def memorisation_record():
    def cells(*rows):
        return {str(seed): {"memorised": list(row)} for seed, row in enumerate(rows)}

    return {
        "experiments": {
            LABELS: {
                "samples": 10,
                "densities": [0.1, 0.01],
                "cells": {"imp": cells((10, 4), (8, 2)), "snip": cells((5, 5), (5, 1), (0, 0))},
            }
        }
    }


def noise_record():
    def part(settings, curves, **training):
        return {"settings": settings, "curves": curves, "training": training}

    pruning = part([0.0], {"0": [[0.0, 1.0, 0.5, 2.0]], "1": [[0.25, 1.0, 0.75, 0.75]]})
    rates = part(
        [0.1, 0.2],
        {"0": [[0, 1, 2], [0, 2, 4]], "1": [[0, 1, 3], [0, 4, 4]]},
    )
    noise = part([0.5], {"0": [[0, 1, 0.5]], "1": [[0, 2, 0.25]]}, lr=0.2)
    return {
        "parts": {
            "pruning": pruning | {"epochs": [0, 5, 5, 10], "prunings": [2]},
            "rates": rates | {"epochs": [0, 1, 2], "prunings": []},
            "noise": noise | {"epochs": [0, 1, 2], "prunings": []},
        }
    }


def test_fractions_and_differences_are_paired_by_seed():
    record = memorisation_record()
    assert fractions(record, LABELS, "imp") == {"0": [1.0, 0.4], "1": [0.8, 0.2]}
    found = differences(record, LABELS, (("imp", "snip"),))
    assert set(found) == {(("imp", "snip"), "0.1"), (("imp", "snip"), "0.01")}
    high, low = found.values()
    assert (high.mean, high.n) == (pytest.approx((0.5 + 0.3) / 2), 2)
    assert low.mean == pytest.approx((-0.1 + 0.1) / 2)
    averaged = differences(record, LABELS, (("imp", "snip"),), averaged=True)
    assert [i.mean for i in averaged.values()] == [pytest.approx(((0.5 - 0.1) + (0.3 + 0.1)) / 4)]


def test_rises_and_drops_by_hand():
    record = noise_record()
    assert {key: i.mean for key, i in rises(record).items()} == {
        "epochs 0 to 5": pytest.approx((1.0 + 0.75) / 2),
        "epochs 5 to 10": pytest.approx((1.5 + 0.0) / 2),
    }
    assert {key: i.mean for key, i in drops(record).items()} == {
        "pruning at epoch 5": pytest.approx((0.5 + 0.25) / 2)
    }


def test_rates_and_noise_by_hand():
    record = noise_record()
    assert averages(record, "rates") == {0.1: {"0": 1.5, "1": 2.0}, 0.2: {"0": 3.0, "1": 4.0}}
    assert faster(record)["0.1 to 0.2"].mean == pytest.approx((1.5 + 2.0) / 2)
    assert with_base(record, "noise")[0.0] == {"0": 3.0, "1": 4.0}
    assert falls(record, "noise")["0 to 0.5"].mean == pytest.approx((3 - 0.75 + 4 - 1.125) / 2)
    (left,) = missing(record, "noise").values()
    assert left.mean == pytest.approx((0.1 * 4 - 0.5 + 0.1 * 4 - 0.25) / 2)
