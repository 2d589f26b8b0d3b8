"""The command line: ``python -m proofs_check [--level quick|full] [--only ID] …``."""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from proofs_check.runner import Suite

EXIT_PASSED, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
SHORT_KINDS = {"proved-probabilistic": "proved (prob.)", "none": "–"}
STYLES = {
    "holds": "green",
    "refuted": "magenta",
    "supported": "green",
    "not-supported": "yellow",
    "opposite": "magenta",
    "inconclusive": "yellow",
    "not-covered": "dim",
}

DESCRIPTION = """\
Check every claim of the ledger by machine and compare each verdict with the
expected one. Every check must also reject its planted errors (mutants)."""
EPILOG = """\
exit status:
  0  every verdict is as expected and every planted error was rejected
  1  some are not; the table and the reports are still written in full
  2  the arguments are wrong

examples:
  python -m proofs_check
  python -m proofs_check --only P2
  python -m proofs_check --level full --report report"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m proofs_check",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--level",
        choices=("quick", "full"),
        default="quick",
        help="quick: about a minute with two jobs (default); full: more cases",
    )
    result.add_argument(
        "--only", metavar="ID", help="check one claim and its sub-claims: P2 is P2 and P2.*"
    )
    result.add_argument(
        "--jobs", metavar="N", type=int, default=1, help="claims at a time (default 1)"
    )
    result.add_argument(
        "--report", metavar="DIR", type=Path, help="write index.html and verdicts.json into DIR"
    )
    result.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts as JSON")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None = those of the process.

    Returns:
        The exit status: 0 passed, 1 failed, 2 wrong arguments, 130 interrupted.
    """
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    errors = Console(stderr=True)
    try:
        return _checked_run(arguments, errors)
    except KeyboardInterrupt:
        errors.print("interrupted; no report was written", style="red")
        return EXIT_INTERRUPTED


def _checked_run(arguments: argparse.Namespace, errors: Console) -> int:
    # Imported here because they load torch, which --help does not need.
    import torch

    from proofs_check.runner import check_jobs, collect

    torch.set_num_threads(1)  # the checks are many and small
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    try:
        check_jobs("--jobs", arguments.jobs)
        _check_targets(arguments)
        suite = collect(arguments.only)
    except ValueError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False)
        return EXIT_USAGE
    return run(suite, arguments, Console(highlight=False))


def run(suite: "Suite", arguments: argparse.Namespace, console: Console) -> int:
    """Run a suite, print its table and write its reports.

    Args:
        suite: The claims to check.
        arguments: The parsed command line.
        console: Where to print.

    Returns:
        The exit status, 0 or 1.
    """
    from proofs_check.runner import suite_passed, write_json

    report = _run_with_progress(suite, arguments, console)
    print_report(report, console)
    if arguments.json is not None:
        write_json(report, arguments.json)
    if arguments.report is not None:
        from proofs_check.report.html import write_html

        write_json(report, arguments.report / "verdicts.json")
        write_html(report, arguments.report / "index.html")
        console.print(f"Report: {arguments.report / 'index.html'}", markup=False, soft_wrap=True)
    return EXIT_PASSED if suite_passed(report) else EXIT_FAILED


def _check_targets(arguments: argparse.Namespace) -> None:
    """Find out before the run, not after it, that a file cannot be written."""
    from ntktheory.checks import complaint

    report, json = arguments.report, arguments.json
    if report is not None and report.exists() and not report.is_dir():
        raise ValueError(complaint("--report", "a folder", f"the file {report}", "Name a folder."))
    if json is not None and json.is_dir():
        raise ValueError(complaint("--json", "a file", f"the folder {json}", "Name a file in it."))
    for option, target in (("--report", report), ("--json", json and json.absolute().parent)):
        if target is None:
            continue
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=target):
                continue
        except OSError as error:
            raise ValueError(
                complaint(
                    option,
                    "a place that can be written",
                    f"{target} ({error.strerror})",
                    "Choose another one.",
                )
            ) from error


def _run_with_progress(
    suite: "Suite", arguments: argparse.Namespace, console: Console
) -> dict[str, Any]:
    from proofs_check.runner import run_suite

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("checking", total=len(suite.rows))
        started = iter(range(len(suite.rows)))

        def show(id_: str) -> None:
            bar.update(task, description=f"checking {id_:<18}", completed=next(started))

        return run_suite(suite, arguments.level, jobs=arguments.jobs, progress=show)


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print the table of verdicts, the totals, and every failure in full.

    Args:
        report: The report of `run_suite`.
        console: Where to print.
    """
    from proofs_check.runner import suite_passed

    console.print(verdict_table(report))
    for line in totals(report):
        console.print(line, markup=False)
    for entry in report["claims"]:
        _print_failure(entry, console)
    word, style = ("PASSED", "bold green") if suite_passed(report) else ("FAILED", "bold red")
    console.print(word, style=style)


def verdict_table(report: Mapping[str, Any]) -> Table:
    """Return the table of verdicts; it fits into 80 columns.

    Args:
        report: The report of `run_suite`.

    Returns:
        One row per claim.
    """
    from proofs_check.report.words import ICONS
    from proofs_check.runner import entry_passed

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for name in ("claim", "paper", "verdict", "evidence"):
        table.add_column(name, no_wrap=True)
    table.add_column("mutants", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    for entry in report["claims"]:
        status, killed, total = entry["status"], entry["mutants_killed"], entry["mutants_total"]
        table.add_row(
            escape(entry["id"]),
            entry["paper"],
            f"[{STYLES[status]}]{ICONS[status]} {status}[/]",
            SHORT_KINDS.get(entry["kind"], entry["kind"]),
            f"{killed}/{total}" if total else "–",
            f"{entry['seconds']:.1f}" if total or not entry_passed(entry) else "–",
            style=None if entry_passed(entry) else "bold red",
        )
    return table


def totals(report: Mapping[str, Any]) -> list[str]:
    """Return the lines under the table.

    Args:
        report: The report of `run_suite`.

    Returns:
        Counts of verdicts, mutants, time and the false-alarm probability against its budget.
    """
    from proofs_check.report.words import count_statuses
    from proofs_check.runner import FALSE_ALARM_BUDGET, budget_kept, entry_passed

    claims = report["claims"]
    counts = ", ".join(f"{number} {status}" for status, number in count_statuses(claims).items())
    killed = sum(entry["mutants_killed"] for entry in claims)
    planted = sum(entry["mutants_total"] for entry in claims)
    passed = sum(map(entry_passed, claims))
    spent = report["total_false_alarm"]
    spent_text = f"{spent:.2g}" if isinstance(spent, float | int) else spent
    kept = "within" if budget_kept(report) else "OVER"
    return [
        "",
        f"{passed}/{len(claims)} as expected: {counts}",
        f"mutants killed {killed}/{planted}",
        f"false-alarm probability {spent_text}, {kept} the budget of {FALSE_ALARM_BUDGET:g}",
        f"{report['seconds']:.1f} s, level {report['level']}",
    ]


def _print_failure(entry: Mapping[str, Any], console: Console) -> None:
    from proofs_check.runner import entry_passed

    if entry_passed(entry):
        return
    console.print(f"\n{entry['id']}: {entry['statement']}", style="bold", markup=False)
    expected, actual = entry["expected"], entry["status"]
    console.print(f"  expected {expected}, got {actual}", style="red" if expected != actual else "")
    for mutant in entry["mutants"]:
        if not mutant["killed"]:
            line = f"  planted error not rejected: {mutant['name']} ({mutant['status']})"
            console.print(line, style="red", markup=False)
    if entry["counterexample"]:
        console.print("  counterexample:", style="bold")
        console.print(entry["counterexample"], markup=False, soft_wrap=True)
    for key in ("error", "import_errors"):
        if key in entry["evidence"]:
            value = entry["evidence"][key]
            texts = value.values() if isinstance(value, dict) else [value]
            for text in texts:
                console.print(f"  {text}", markup=False, soft_wrap=True)
    console.print(f"  replay: python -m proofs_check --only {entry['id']}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
