"""Loading records, intervals over seeds, Holm's correction, and the verdict on an order."""

import json
import math

import pytest
from scipy.stats import ttest_1samp

from proofs_check.record_claims import (
    Interval,
    holm,
    load_record,
    ordering_status,
    paired_interval,
)

RECORD = {"command": "python x.py", "seeds": [0], "versions": {}, "values": [1.5]}


def test_a_record_comes_back(tmp_path):
    (tmp_path / "F7.json").write_text(json.dumps(RECORD))
    assert load_record("F7", tmp_path) == RECORD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"record F7.json must be strict JSON, got .*\. Run"),
        (json.dumps({**RECORD, "values": [math.nan]}), "got NaN is not a finite number"),
        (json.dumps([RECORD]), "must be an object with command, seeds, versions"),
        (json.dumps({"command": "x", "seeds": []}), "got none of versions"),
    ],
)
def test_a_bad_record_is_refused(tmp_path, text, message):
    (tmp_path / "F7.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_record("F7", tmp_path)


def test_a_record_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="id_ must be that of a claim with a record, got 'F7'"):
        load_record("F7", tmp_path)
    with pytest.raises(ValueError, match=r"id_ must be a claim's id, got '\.\./F7'"):
        load_record("../F7", tmp_path)


class TestPairedInterval:
    @pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
    def test_is_student_s(self, level):
        values = [0.3, -0.1, 0.4, 1.2, 0.05, -0.6, 0.9]
        wanted = ttest_1samp(values, 0)
        found = paired_interval(values, level)
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-12)
        ends = wanted.confidence_interval(level)
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-12)
        assert found.n == 7

    def test_equal_values_are_no_proof_of_certainty(self):
        found = paired_interval([0.5] * 5)
        assert (found.mean, found.low, found.high, found.p) == (0.5, 0.5, 0.5, 1 / 16)
        assert paired_interval([0.0] * 5).p == 1.0

    def test_bad_values_are_refused(self):
        with pytest.raises(ValueError, match="values must be two or more finite numbers"):
            paired_interval([1.0])
        with pytest.raises(ValueError, match="values must be two or more finite numbers"):
            paired_interval([1.0, math.inf])
        with pytest.raises(ValueError, match=r"level must be inside \(0, 1\), got 95"):
            paired_interval([1.0, 2.0], 95)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\], got 2"):
        holm([0.1, 2])


@pytest.mark.parametrize(
    ("means", "p", "status"),
    [
        ((1, 1), (0.001, 0.04), "supported"),
        ((-1, -1), (0.001, 0.04), "opposite"),
        ((1, -1), (0.001, 0.04), "not-supported"),
        ((1, 1), (0.001, 0.06), "inconclusive"),
        ((1, -1), (0.001, 0.06), "inconclusive"),
        ((1, 1), (0.03, 0.03), "inconclusive"),  # each alone would do, both together not
    ],
)
def test_the_verdict_on_an_order(means, p, status):
    family = {i: Interval(m, m, m, q, 9) for i, (m, q) in enumerate(zip(means, p, strict=True))}
    assert ordering_status(family) == status


def test_an_empty_family_is_refused():
    with pytest.raises(ValueError, match="intervals must be a family of at least one, got none"):
        ordering_status({})
