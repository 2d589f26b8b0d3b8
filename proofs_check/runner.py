"""Run the checks and their mutants, and compare every computed status with the ledger."""

import importlib
import json
import math
import multiprocessing
import os
import pkgutil
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ntktheory.checks import check_choice, complaint
from proofs_check.claim import CLAIMS, KINDS, LEVELS, STATUSES, Claim, Level, Outcome
from proofs_check.ledger import Row, load_ledger

FALSE_ALARM_BUDGET = 1e-6
VERSIONED = ("ntktheory", "torch", "numpy", "scipy", "sympy", "hypothesis")

Report = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """What a run works on.

    Attributes:
        rows: The selected rows of the ledger, by id.
        claims: The registered checks, by id.
        import_errors: Name of a module of checks that did not load -> its traceback.
    """

    rows: Mapping[str, Row]
    claims: Mapping[str, Claim]
    import_errors: Mapping[str, str]


def import_claims(package: str = "proofs_check.claims") -> dict[str, str]:
    """Import every module of checks, so that each registers its claims.

    Args:
        package: The package to search.

    Returns:
        Name of a module that did not load -> its traceback. Its claims then have no check, and the
        run names the error.
    """
    errors: dict[str, str] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        try:
            importlib.import_module(f"{package}.{module.name}")
        except Exception:
            errors[module.name] = traceback.format_exc()
    return errors


def select(ledger: Mapping[str, Row], only: str | None) -> dict[str, Row]:
    """Return the rows of one claim and its sub-claims.

    Args:
        ledger: All rows.
        only: ``P2`` selects ``P2`` and ``P2.*``; None selects all.

    Returns:
        The selected rows.

    Raises:
        ValueError: If no row is selected; the message lists the ids.
    """
    if only is None:
        return dict(ledger)
    chosen = {id_: row for id_, row in ledger.items() if id_ == only or id_.startswith(f"{only}.")}
    if not chosen:
        raise ValueError(
            complaint(
                "only", "the id of a claim", repr(only), f"Choose one of {', '.join(ledger)}."
            )
        )
    return chosen


def collect(only: str | None = None) -> Suite:
    """Load the project's ledger and checks.

    Args:
        only: See `select`.

    Returns:
        The suite to run.

    Raises:
        ValueError: If a check is registered for an id that is not in the ledger.
    """
    ledger = load_ledger()
    rows = select(ledger, only)
    import_errors = import_claims()
    stray = sorted(set(CLAIMS) - set(ledger))
    if stray:
        raise ValueError(
            complaint(
                "a check's id", "in ledger.toml", ", ".join(stray), "Add its row to the ledger."
            )
        )
    return Suite(rows, CLAIMS, import_errors)


def run_suite(
    suite: Suite,
    level: Level = "quick",
    *,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda id_: None,
) -> Report:
    """Run every selected claim and its mutants.

    Args:
        suite: What to run.
        level: ``quick`` or ``full``.
        jobs: Claims at a time, each in a process. Verdicts do not depend on it. Outside Linux, where a
            process that holds torch cannot safely be forked, they run one after another.
        progress: Called with each claim's id when it is next in the order of the ledger.

    Returns:
        The report, JSON-able.

    Raises:
        ValueError: If ``level`` is unknown, or ``jobs`` is not a positive whole number.
        BrokenProcessPool: If a process dies, of memory for instance.
    """
    check_choice("level", level, LEVELS)
    check_jobs("jobs", jobs)
    start = time.perf_counter()
    entries, total = [], 0.0
    for entry, false_alarm in _entries(suite, level, jobs, progress):
        entries.append(entry)
        total += false_alarm
    report = {
        "level": level,
        "commit": commit(),
        "versions": versions(),
        "seconds": time.perf_counter() - start,
        "total_false_alarm": total,
        "claims": entries,
    }
    return jsonable(report)


def check_jobs(argument: str, jobs: int) -> None:
    """Check how many claims to run at a time.

    Raises:
        ValueError: If it is not a positive integer.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ValueError(complaint(argument, "a positive integer", jobs, "Use one per core."))


def _entries(
    suite: Suite, level: Level, jobs: int, progress: Callable[[str], None]
) -> Iterator[tuple[dict[str, Any], float]]:
    if jobs == 1 or len(suite.rows) < 2 or sys.platform != "linux":
        for row in suite.rows.values():
            progress(row.id)
            yield run_row(row, suite, level)
        return
    # Checks are closures, which cannot be sent to a process; a forked one has them already.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(jobs, context, _begin_work, (suite, level))
    try:
        futures = {id_: pool.submit(_run_in_process, id_) for id_ in suite.rows}
        for id_, future in futures.items():
            progress(id_)
            yield future.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_work: tuple[Suite, Level] | None = None


def _begin_work(suite: Suite, level: Level) -> None:
    global _work
    _work = suite, level
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes itself


def _run_in_process(id_: str) -> tuple[dict[str, Any], float]:
    suite, level = _work  # type: ignore[misc]
    entry, false_alarm = run_row(suite.rows[id_], suite, level)
    return jsonable(entry), false_alarm


def run_row(row: Row, suite: Suite, level: Level) -> tuple[dict[str, Any], float]:
    """Run one row's check and its mutants.

    Args:
        row: The row.
        suite: Where its check is found.
        level: ``quick`` or ``full``.

    Returns:
        The claim's entry of the report, and the false-alarm probability it spent.
    """
    start = time.perf_counter()
    found = suite.claims.get(row.id)
    if found is not None:
        outcome = run_check(found, level)
        mutants = [run_mutant(found, name, level, row.expected) for name in found.mutants]
    else:
        outcome, mutants = _without_check(row, suite.import_errors), []
    return _entry(row, outcome, mutants, time.perf_counter() - start), outcome.false_alarm


def run_check(found: Claim, level: Level) -> Outcome:
    """Run one check; an exception is an inconclusive outcome, with its traceback as evidence.

    Args:
        found: The claim.
        level: ``quick`` or ``full``.

    Returns:
        The outcome.
    """
    try:
        return _call(found, level, {})
    except Exception:
        evidence = {"error": traceback.format_exc()}
        return Outcome("inconclusive", "none", "The check itself failed.", evidence)


def run_mutant(found: Claim, name: str, level: Level, expected: str) -> dict[str, Any]:
    """Run one check with a planted error.

    Args:
        found: The claim.
        name: The mutant.
        level: ``quick`` or ``full``.
        expected: The status that the claim gets without the error.

    Returns:
        The mutant's name, whether it was killed, and the status. A crash is not a kill: the
        evidence has to reject the error, not stumble over it.
    """
    try:
        status = _call(found, level, found.mutants[name]).status
    except Exception as error:
        status_text = f"crashed: {type(error).__name__}: {error}"
        return {"name": name, "killed": False, "status": status_text}
    return {"name": name, "killed": status != expected, "status": status}


def _call(found: Claim, level: Level, replaced: Mapping[str, Callable[..., Any]]) -> Outcome:
    outcome = found.check(level, **{**found.subjects, **replaced})
    if not isinstance(outcome, Outcome):
        raise TypeError(
            complaint(
                "a check's result", "an Outcome", type(outcome).__name__, "Return an Outcome."
            )
        )
    check_choice("status", outcome.status, STATUSES)
    check_choice("kind", outcome.kind, KINDS)
    return outcome


def _without_check(row: Row, import_errors: Mapping[str, str]) -> Outcome:
    if row.expected == "not-covered":
        return Outcome("not-covered", "none", "")
    evidence: dict[str, Any] = {"error": "no check is registered"}
    if import_errors:
        evidence["import_errors"] = dict(import_errors)
    return Outcome("inconclusive", "none", "Nothing was checked.", evidence)


def _entry(
    row: Row, outcome: Outcome, mutants: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    return {
        "id": row.id,
        "paper": row.paper,
        "statement": row.statement,
        "paper_axis": row.paper_axis,
        "kind": outcome.kind,
        "expected": row.expected,
        "status": outcome.status,
        "scope": outcome.scope,
        "evidence": outcome.evidence,
        "mutants_killed": sum(mutant["killed"] for mutant in mutants),
        "mutants_total": len(mutants),
        "seconds": seconds,
        "source": row.source,
        "url": row.url,
        "formula": row.formula,
        "assumptions": row.assumptions,
        "repair": row.repair,
        "counterexample": outcome.counterexample,
        "false_alarm": outcome.false_alarm,
        "depends": list(row.depends),
        "reason": row.reason,
        "mutants": mutants,
    }


def entry_passed(entry: Mapping[str, Any]) -> bool:
    """Return whether a claim has its expected status and has rejected every planted error."""
    return (
        entry["status"] == entry["expected"] and entry["mutants_killed"] == entry["mutants_total"]
    )


def budget_kept(report: Mapping[str, Any]) -> bool:
    """Return whether the run's false-alarm probability is a number within the budget."""
    total = report["total_false_alarm"]
    return isinstance(total, float | int) and total <= FALSE_ALARM_BUDGET


def suite_passed(report: Mapping[str, Any]) -> bool:
    """Return whether every claim passed and the false-alarm budget was kept."""
    return all(map(entry_passed, report["claims"])) and budget_kept(report)


def commit() -> str | None:
    """Return the commit of the checkout that this package is tracked in.

    Returns:
        The hash; None outside git, without git, or for an installed copy.
    """
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the verdicts rest on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def jsonable(value: Any) -> Any:
    """Turn a value into what strict JSON can hold.

    Args:
        value: Nested containers of numbers, text, arrays and tensors.

    Returns:
        The same with text keys; numbers that are not finite become ``"NaN"``, ``"Infinity"`` and
        ``"-Infinity"``, and whatever JSON does not know becomes its text.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _not_finite(value)
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def write_json(report: Mapping[str, Any], path: str | Path) -> None:
    """Write a report as strict JSON, all of it or nothing.

    Args:
        report: The report.
        path: The file; its folder is created.
    """
    text = json.dumps(jsonable(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file by way of a temporary file in the same folder.

    Args:
        path: The file; its folder is created.
        text: Its contents.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
