"""The ledger: the committed file is sound, and every malformed one is refused with a clear text."""

from pathlib import Path
from typing import Any

import pytest
from latex2mathml.converter import convert

from proofs_check.ledger import PAPERS, load_ledger, parse_row

ENTRY: dict[str, Any] = {
    "id": "A1",
    "paper": "PX",
    "source": "PX Eq. 1",
    "url": "https://arxiv.org/abs/2406.01820",
    "statement": "a ≤ b",
    "assumptions": "none",
    "expected": "holds",
}


def test_the_committed_ledger_covers_every_claim_of_the_theory() -> None:
    ledger = load_ledger()
    parents = {id_.split(".")[0] for id_ in ledger}
    expected = {f"N{k}" for k in range(1, 9)} | {f"P{k}" for k in range(1, 6)}
    expected |= {"ladder", "code", "trace"}
    expected |= {f"S{k}" for k in range(1, 8)} | {f"E{k}" for k in range(1, 10)}
    expected |= {f"F{k}" for k in range(1, 12)}
    assert parents == expected
    assert {row.paper for row in ledger.values()} == set(PAPERS)


@pytest.mark.parametrize("id_", ["F1", "F10"])
def test_disputed_claims_say_how_they_are_repaired(id_: str) -> None:
    row = load_ledger()[id_]
    assert row.paper_axis == "disputed"
    assert row.repair


@pytest.mark.parametrize("row", load_ledger().values(), ids=lambda row: row.id)
def test_every_formula_converts(row: Any) -> None:
    if row.formula:
        assert "\\" not in convert(row.formula)


def test_a_row_keeps_its_values() -> None:
    row = parse_row({**ENTRY, "depends": ["A0"], "formula": r"a \le b"})
    assert (row.id, row.depends, row.paper_axis) == ("A1", ("A0",), "transcribed")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"paper": "PY"}, r"claim A1: paper must be one of 'NTK-SAP', .*, got 'PY'\. Choose"),
        ({"expected": "true"}, r"claim A1: expected must be one of 'holds', .*, got 'true'"),
        ({"paper_axis": "wrong"}, r"claim A1: paper_axis must be one of .*, got 'wrong'"),
        ({"colour": "red"}, r"claim A1: keys must be among id, paper, .*, got colour\. Rename"),
        ({"statement": ""}, r"claim A1: statement must be a non-empty text, got nothing\. Write"),
        ({"source": 3}, r"claim A1: source must be a text, got 3\. Quote it"),
        ({"depends": "P1"}, r"claim A1: depends must be a list of ids, got 'P1'"),
        ({"depends": [1]}, r"claim A1: depends must be a list of ids, got \[1\]"),
        ({"url": "arxiv.org"}, r"claim A1: url must be an https link, got 'arxiv.org'"),
        ({"url": ""}, r"claim A1: url must be an https link, got ''\. Link"),
        ({"formula": "$a$"}, r"claim A1: formula must be LaTeX without \$, got '\$a\$'"),
        ({"paper_axis": "disputed"}, r"claim A1: repair must be given if and only if .* nothing"),
        ({"repair": "x"}, r"claim A1: repair must be given if and only if .*, got 'x'\. Remove"),
        ({"expected": "not-covered"}, r"claim A1: reason must be given if and only if .* nothing"),
        ({"reason": "x"}, r"claim A1: reason must be given if and only if .*, got 'x'\. Remove"),
    ],
)
def test_a_malformed_row_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_row({**ENTRY, **changes})


def test_a_row_without_an_id_is_named_by_its_place() -> None:
    entry = {key: value for key, value in ENTRY.items() if key != "id"}
    with pytest.raises(ValueError, match="claim number 7: id must be a non-empty text"):
        parse_row(entry, 7)


def written(folder: Path, *entries: dict[str, Any]) -> Path:
    lines = []
    for entry in entries:
        lines.append("[[claim]]")
        lines += [f"{key} = {value!r}" for key, value in entry.items()]
    path = folder / "ledger.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_ledger_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, {**ENTRY, "id": "B"}, {**ENTRY, "id": "A", "depends": ["B"]})
    assert list(load_ledger(path)) == ["B", "A"]


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ledger: id must be unique, got 'A1' twice\. Rename"):
        load_ledger(written(tmp_path, ENTRY, ENTRY))


def test_an_unknown_dependency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"claim A1: depends must be ids of the ledger, got 'Z9'"):
        load_ledger(written(tmp_path, {**ENTRY, "depends": ["Z9"]}))


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    first, second = {**ENTRY, "depends": ["A2"]}, {**ENTRY, "id": "A2", "depends": ["A1"]}
    with pytest.raises(ValueError, match=r"ledger: depends must be without cycles, got A\d → A\d"):
        load_ledger(written(tmp_path, first, second))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", r"ledger must be valid TOML, got ledger.toml: .*\. Correct the file"),
        ("", r"ledger must be a list of \[\[claim\]\] tables, got nothing"),
        ("claim = 3", r"ledger must be a list of \[\[claim\]\] tables, got 'claim'"),
        ("[[claims]]\nid = 'A'", r"ledger must be a list of \[\[claim\]\] tables, got 'claims'"),
        ("claim = [3]", r"ledger must be a list of \[\[claim\]\] tables"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_ledger(path)
