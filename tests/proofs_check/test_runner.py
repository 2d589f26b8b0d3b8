"""The runner: what is a pass, what is a kill, and that nothing is skipped silently."""

import json
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from proofs_check import runner
from proofs_check.claim import CLAIMS, Claim
from proofs_check.ledger import load_ledger
from proofs_check.runner import (
    Suite,
    collect,
    import_claims,
    jsonable,
    run_suite,
    select,
    suite_passed,
    write_json,
)
from tests.proofs_check.made_up import claim, report, rich_pairs, row, suite

CONTRACT = {
    *("id", "paper", "statement", "paper_axis", "kind", "expected", "status", "scope", "evidence"),
    *("mutants_killed", "mutants_total", "seconds"),
}


def only_entry(found: dict[str, Any]) -> dict[str, Any]:
    (entry,) = found["claims"]
    return entry


def test_a_claim_with_its_expected_status_and_a_killed_mutant_passes() -> None:
    found = report((row(), claim()))
    entry = only_entry(found)
    assert suite_passed(found)
    assert (entry["status"], entry["mutants_killed"], entry["mutants_total"]) == ("holds", 1, 1)
    assert entry["mutants"] == [{"name": "planted", "killed": True, "status": "refuted"}]


def test_another_status_than_expected_fails() -> None:
    found = report((row(expected="refuted"), claim(mutant="inconclusive")))
    assert only_entry(found)["mutants_killed"] == 1
    assert not suite_passed(found)


def test_an_expected_refutation_passes() -> None:
    found = report((row(expected="refuted"), claim(status="refuted", mutant="holds")))
    assert suite_passed(found)


def test_a_surviving_mutant_fails_the_suite() -> None:
    found = report((row(), claim(mutant="holds")))
    entry = only_entry(found)
    assert entry["status"] == entry["expected"]
    assert entry["mutants"] == [{"name": "planted", "killed": False, "status": "holds"}]
    assert not suite_passed(found)


def test_a_mutant_that_crashes_is_not_killed() -> None:
    found = report((row(), claim(mutant=RuntimeError("wrong shape"))))
    (mutant,) = only_entry(found)["mutants"]
    assert not mutant["killed"]
    assert mutant["status"] == "crashed: RuntimeError: wrong shape"
    assert not suite_passed(found)


def test_an_exception_in_a_check_is_inconclusive_and_the_suite_goes_on() -> None:
    found = report((row(), claim(status=KeyError("gone"))), (row("A2"), claim("A2")))
    first, second = found["claims"]
    assert first["status"] == "inconclusive"
    assert "KeyError: 'gone'" in first["evidence"]["error"]
    assert second["status"] == "holds"
    assert not suite_passed(found)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "a check's result must be an Outcome, got NoneType"),
        (claim(kind="guess").check("quick", lambda: "holds"), "kind must be one of"),
        (claim().check("quick", lambda: "true"), "status must be one of"),
    ],
)
def test_a_result_outside_the_vocabularies_is_inconclusive(result: Any, text: str) -> None:
    odd = Claim("A1", lambda level, f: result, {"f": int}, {"m": {"f": float}})
    entry = only_entry(report((row(), odd)))
    assert entry["status"] == "inconclusive"
    assert text in entry["evidence"]["error"]
    assert entry["mutants_killed"] == 0


def test_a_covered_row_without_a_check_fails() -> None:
    found = report((row(), None))
    entry = only_entry(found)
    assert entry["status"] == "inconclusive"
    assert entry["evidence"] == {"error": "no check is registered"}
    assert not suite_passed(found)


def test_a_module_that_did_not_load_is_named_where_a_check_is_missing() -> None:
    found = run_suite(Suite({"A1": row()}, {}, {"px": "SyntaxError: odd"}))
    assert only_entry(found)["evidence"]["import_errors"] == {"px": "SyntaxError: odd"}


def test_a_row_that_is_not_covered_stays_visible_and_passes() -> None:
    found = report((row(expected="not-covered", reason="no data"), None))
    entry = only_entry(found)
    assert (entry["status"], entry["kind"], entry["reason"]) == ("not-covered", "none", "no data")
    assert (entry["mutants_killed"], entry["mutants_total"]) == (0, 0)
    assert suite_passed(found)


def test_a_check_for_a_row_that_claims_to_be_uncovered_fails() -> None:
    found = report((row(expected="not-covered", reason="no data"), claim()))
    assert not suite_passed(found)


@pytest.mark.parametrize(("delta", "passed"), [(5e-7, True), (2e-6, False), (float("nan"), False)])
def test_the_false_alarm_budget_is_kept(delta: float, passed: bool) -> None:
    assert suite_passed(report((row(), claim(false_alarm=delta)))) is passed


def test_false_alarms_add_up() -> None:
    pairs = [(row(f"A{k}"), claim(f"A{k}", false_alarm=4e-7)) for k in range(3)]
    found = report(*pairs)
    assert found["total_false_alarm"] == pytest.approx(1.2e-6)
    assert not suite_passed(found)


def test_a_claim_and_its_sub_claims_are_selected() -> None:
    ledger = load_ledger()
    assert list(select(ledger, "N6")) == ["N6", "N6.finite_width"]
    assert list(select(ledger, "F5")) == ["F5.at_one", "F5.limit"]
    assert list(select(ledger, "F4")) == ["F4"]
    assert select(ledger, None) == ledger


def test_an_unknown_id_is_refused_with_the_list_of_ids() -> None:
    with pytest.raises(ValueError, match=r"only must be the id of a claim, got 'Q'\. .* N1, N2"):
        select(load_ledger(), "Q")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level must be one of 'full', 'quick', got 'slow'"):
        run_suite(suite(), "slow")  # type: ignore[arg-type]


def test_claims_two_at_a_time_give_the_same_report() -> None:
    pairs = [(row(f"A{k}"), claim(f"A{k}", false_alarm=k * 1e-9)) for k in range(5)]
    pairs += [(row("A5"), claim("A5", status="refuted", counterexample="x = 1"))]
    shown: list[str] = []
    one = run_suite(suite(*pairs))
    two = run_suite(suite(*pairs), jobs=2, progress=shown.append)
    for found in (one, two):
        for entry in found["claims"]:
            entry["seconds"] = 0.0
    assert one["claims"] == two["claims"]
    assert one["total_false_alarm"] == two["total_false_alarm"] == pytest.approx(1e-8)
    assert shown == [f"A{k}" for k in range(6)]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_a_process_that_dies_is_not_taken_for_a_verdict() -> None:
    dies = Claim("A1", lambda level, f: f(), {"f": lambda: os._exit(3)}, {"m": {"f": float}})
    with pytest.raises(BrokenProcessPool):
        run_suite(suite((row(), dies), (row("A2"), claim("A2"))), jobs=2)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, None])
def test_a_number_of_jobs_that_is_none_is_refused(jobs: Any) -> None:
    with pytest.raises(ValueError, match="jobs must be a positive integer, got"):
        run_suite(suite((row(), claim())), jobs=jobs)


def test_a_check_outside_the_ledger_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLAIMS, "Q7", claim("Q7"))
    with pytest.raises(ValueError, match=r"a check's id must be in ledger.toml, got Q7"):
        collect()


def test_modules_of_checks_that_do_not_load_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "made_up_claims"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "broken.py").write_text("1 / 0")
    (package / "sound.py").write_text("LOADED = True")
    monkeypatch.syspath_prepend(tmp_path)
    errors = import_claims("made_up_claims")
    assert list(errors) == ["broken"]
    assert "ZeroDivisionError" in errors["broken"]


def test_the_report_has_the_agreed_fields(tmp_path: Path) -> None:
    found = report(*rich_pairs())
    write_json(found, tmp_path / "deep" / "verdicts.json")
    text = (tmp_path / "deep" / "verdicts.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(text, parse_constant=refuse)
    assert set(read) == {"level", "commit", "versions", "seconds", "total_false_alarm", "claims"}
    assert all(CONTRACT <= set(entry) for entry in read["claims"])
    assert read["level"] == "quick"
    assert {"python", "torch"} <= set(read["versions"])
    assert read["claims"][0]["evidence"]["bad"] == "NaN"


def test_commit_is_none_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner.commit() is None


def test_commit_is_none_outside_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "__file__", str(tmp_path / "runner.py"))
    assert runner.commit() is None


def test_values_become_json() -> None:
    import numpy as np
    import torch

    value = {1: (torch.tensor([1.0, float("inf")]), np.float64("nan"), {2}), "b": -float("inf")}
    expected = {"1": [[1.0, "Infinity"], "NaN", [2]], "b": "-Infinity"}
    assert jsonable(value) == expected
    assert jsonable(object).startswith("<class")
    assert jsonable(True) is True


def test_nothing_half_written_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verdicts.json").write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json({"a": 1}, tmp_path / "verdicts.json")
    assert [file.name for file in tmp_path.iterdir()] == ["verdicts.json"]
    assert (tmp_path / "verdicts.json").read_text() == "old"
