"""The ledger: what each claim says, where it is printed, and the status it is expected to get.

The expected status is the only opinion in the project. The run computes the actual one, and a
difference between the two fails the suite.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeGuard

from ntktheory.checks import complaint
from proofs_check.claim import PAPER_AXES, STATUSES, PaperAxis, Status

PAPERS: tuple[str, ...] = ("NTK-SAP", "PX", "No Free Prune", "beyond")
LEDGER_FILE = Path(__file__).with_name("ledger.toml")


@dataclass(frozen=True)
class Row:
    """One claim of the ledger.

    Attributes:
        id: Short name; a sub-claim is its parent's id, a dot, and a word.
        paper: Where it comes from, one of ``PAPERS``; ``beyond`` = in none of the three papers.
        source: Section, equation or figure.
        statement: The claim in plain words and Unicode mathematics.
        assumptions: Under what conditions it is claimed.
        expected: The status that the run is expected to compute.
        url: An https link to the paper; empty only for ``beyond``.
        formula: LaTeX without dollar signs; empty where words are enough.
        paper_axis: ``disputed`` if a step of the published proof fails as printed.
        repair: How a disputed step is repaired; empty for a transcribed claim.
        depends: The ids of the claims whose statement or quantities this one builds on.
        reason: Why the claim is not covered; empty for a covered claim.
    """

    id: str
    paper: str
    source: str
    statement: str
    assumptions: str
    expected: Status
    url: str = ""
    formula: str = ""
    paper_axis: PaperAxis = "transcribed"
    repair: str = ""
    depends: tuple[str, ...] = ()
    reason: str = ""


KEYS: tuple[str, ...] = tuple(f.name for f in fields(Row))
REQUIRED: tuple[str, ...] = tuple(f.name for f in fields(Row) if f.default is MISSING)


def load_ledger(path: str | Path | None = None) -> dict[str, Row]:
    """Read and check a ledger.

    Args:
        path: A TOML file with one ``[[claim]]`` table per claim; None = the project's own.

    Returns:
        The rows by id, in the file's order.

    Raises:
        ValueError: If the file is not such a TOML file, a row is malformed, an id occurs twice, or
            the dependencies name an unknown claim or form a cycle.
    """
    path = LEDGER_FILE if path is None else Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            complaint("ledger", "valid TOML", f"{path.name}: {error}", "Correct the file.")
        ) from error
    tables = table.get("claim")
    if set(table) != {"claim"} or not _is_list_of_tables(tables):
        found = ", ".join(map(repr, table)) or "nothing"
        raise ValueError(
            complaint("ledger", "a list of [[claim]] tables", found, "Write one per claim.")
        )
    rows = [parse_row(entry, position) for position, entry in enumerate(tables, start=1)]
    _check_unique(row.id for row in rows)
    ledger = {row.id: row for row in rows}
    _check_depends(ledger)
    return ledger


def _is_list_of_tables(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def parse_row(entry: Mapping[str, Any], position: int = 1) -> Row:
    """Turn one table of the ledger into a checked row.

    Args:
        entry: The table.
        position: Its place in the file, for the error text of a row without an id.

    Returns:
        The row.

    Raises:
        ValueError: If a key is unknown, missing or of the wrong type, a value is outside its
            vocabulary, or ``url``, ``repair`` or ``reason`` do not fit the rest of the row.
    """
    name = f"claim {entry.get('id', f'number {position}')}"
    _check_keys(name, entry)
    row = Row(**{**entry, "depends": tuple(entry.get("depends", ()))})
    for key, choices in (("paper", PAPERS), ("paper_axis", PAPER_AXES), ("expected", STATUSES)):
        if getattr(row, key) not in choices:
            expected = "one of " + ", ".join(map(repr, choices))
            raise ValueError(
                complaint(
                    f"{name}: {key}", expected, repr(getattr(row, key)), "Choose one of them."
                )
            )
    _check_companions(name, row)
    return row


def _check_keys(name: str, entry: Mapping[str, Any]) -> None:
    unknown = sorted(set(entry) - set(KEYS))
    if unknown:
        expected = "among " + ", ".join(KEYS)
        raise ValueError(complaint(f"{name}: keys", expected, ", ".join(unknown), "Rename them."))
    missing = [key for key in REQUIRED if not entry.get(key)]
    if missing:
        raise ValueError(
            complaint(f"{name}: {missing[0]}", "a non-empty text", "nothing", "Write it.")
        )
    for key, value in entry.items():
        items = value if key == "depends" and isinstance(value, list) else [value]
        if (key == "depends" and items is not value) or not all(isinstance(v, str) for v in items):
            expected = "a list of ids" if key == "depends" else "a text"
            raise ValueError(complaint(f"{name}: {key}", expected, repr(value), "Quote it."))


def _check_companions(name: str, row: Row) -> None:
    """Check the keys that are required by, and only allowed with, another key's value.

    Raises:
        ValueError: If one is missing, or given where it has no meaning.
    """
    if not row.url.startswith("https://") and (row.url or row.paper != "beyond"):
        raise ValueError(
            complaint(f"{name}: url", "an https link", repr(row.url), "Link to the paper.")
        )
    if "$" in row.formula:
        raise ValueError(
            complaint(f"{name}: formula", "LaTeX without $", repr(row.formula), "Remove the $.")
        )
    for key, needed, condition in (
        ("repair", row.paper_axis == "disputed", 'paper_axis = "disputed"'),
        ("reason", row.expected == "not-covered", 'expected = "not-covered"'),
    ):
        if bool(getattr(row, key)) != needed:
            expected = f"given if and only if {condition}"
            actual = repr(getattr(row, key)) if not needed else "nothing"
            raise ValueError(
                complaint(
                    f"{name}: {key}", expected, actual, "Remove it." if not needed else "Write it."
                )
            )


def _check_unique(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise ValueError(
                complaint("ledger: id", "unique", f"{id_!r} twice", "Rename one of them.")
            )
        seen.add(id_)


def _check_depends(ledger: Mapping[str, Row]) -> None:
    for row in ledger.values():
        unknown = [id_ for id_ in row.depends if id_ not in ledger]
        if unknown:
            raise ValueError(
                complaint(
                    f"claim {row.id}: depends",
                    "ids of the ledger",
                    repr(unknown[0]),
                    "Correct the id.",
                )
            )
    try:
        TopologicalSorter({row.id: row.depends for row in ledger.values()}).prepare()
    except CycleError as error:
        raise ValueError(
            complaint(
                "ledger: depends",
                "without cycles",
                " → ".join(error.args[1]),
                "Cut one of the links.",
            )
        ) from error
