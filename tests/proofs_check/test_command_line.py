"""The command line: exit statuses, texts, and that a failed run still writes the whole report."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proofs_check import __main__ as command
from proofs_check import runner
from proofs_check.__main__ import main
from proofs_check.runner import Suite
from tests.proofs_check.made_up import COUNTEREXAMPLE, claim, rich_pairs, row, suite

Use = Callable[[Suite], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Replace the project's suite by a made-up one."""
    monkeypatch.setenv("COLUMNS", "80")

    def replace(made_up: Suite) -> None:
        monkeypatch.setattr(runner, "collect", lambda only=None: made_up)

    return replace


def test_a_passing_run(use: Use, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    use(suite(*rich_pairs()))
    assert main(["--report", str(tmp_path / "out"), "--json", str(tmp_path / "v.json")]) == 0
    printed = capsys.readouterr().out
    assert "PASSED" in printed
    assert "5/5 as expected: 3 holds, 1 refuted, 1 not-covered" in printed
    assert "mutants killed 4/4" in printed
    assert "\x1b" not in printed
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["index.html", "verdicts.json"]
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))["level"] == "quick"


def test_the_table_fits_into_eighty_columns(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    long = row("ladder.certificate", paper="No Free Prune", url="https://a")
    use(suite((long, claim("ladder.certificate", kind="proved-probabilistic"))))
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "ladder.certificate No Free Prune ✓ holds proved (prob.)" in lines[1]


def test_a_failing_run_names_the_claim_and_writes_everything(
    use: Use, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = rich_pairs()
    pairs.append((row("A9"), claim("A9", status="refuted", counterexample=COUNTEREXAMPLE)))
    use(suite(*pairs))
    assert main(["--report", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "expected holds, got refuted" in printed
    assert COUNTEREXAMPLE in printed
    assert "planted error not rejected: planted" not in printed.split("A9:")[0]
    assert "replay: python -m proofs_check --only A9" in printed
    report = json.loads((tmp_path / "verdicts.json").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in report["claims"]] == [r.id for r, _ in pairs]
    assert "Needs attention" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_surviving_mutant_and_a_crash_are_named(
    use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    use(suite((row(), claim(mutant="holds")), (row("A2"), claim("A2", status=OSError("[gone]")))))
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "planted error not rejected: planted (holds)" in printed
    assert "OSError: [gone]" in printed


def test_a_missing_check_is_named(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    use(suite((row(), None)))
    assert main([]) == 1
    assert "no check is registered" in capsys.readouterr().out


def test_a_broken_budget_fails(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    use(suite((row(), claim(false_alarm=1e-3))))
    assert main([]) == 1
    assert "0.001, OVER the budget of 1e-06" in capsys.readouterr().out


def test_wrong_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--level", "slow"]) == 2
    assert "invalid choice: 'slow'" in capsys.readouterr().err
    assert main(["--only", "Q"]) == 2
    assert "only must be the id of a claim, got 'Q'. Choose one of N1" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--report", str(tmp_path / "file")]) == 2
    assert "--report must be a folder" in capsys.readouterr().err
    assert main(["--json", str(tmp_path)]) == 2
    assert "--json must be a file" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--level", "--only", "--report", "--json"))
    assert "exit status" in printed


def test_an_interrupted_run(
    use: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(suite())

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupt)
    assert main([]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_module_runs_as_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proofs_check", "--only", "E6"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not-covered" in done.stdout
    assert "\x1b" not in done.stdout
