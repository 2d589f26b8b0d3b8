"""Records are written whole, and tables come back as they were."""

import json

from benchmarks.record import save, save_table
from proofs_check.record_claims import rows_of

ROWS = [{"seed": 0, "loss": 0.123456}, {"seed": 1, "name": "a", "shares": [0.5, 1.0]}]


def test_save(tmp_path):
    path = tmp_path / "records" / "a.json"
    save(path, {"rows": ROWS}, digits=3)
    assert json.loads(path.read_text())["rows"][0] == {"seed": 0, "loss": 0.123}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_save_table(tmp_path):
    path = tmp_path / "records" / "a.json"
    save_table(path, {"command": "run", "rows": ROWS})
    record = json.loads(path.read_text())
    assert record["command"] == "run"
    assert record["columns"] == ["seed", "loss", "name", "shares"]
    assert rows_of(record) == ROWS
    assert len(path.read_text().splitlines()) == 4
    save_table(path, {"rows": ROWS}, digits=2)
    assert rows_of(json.loads(path.read_text()))[0]["loss"] == 0.12


def test_an_empty_table(tmp_path):
    save_table(tmp_path / "a.json", {"rows": []})
    assert rows_of(json.loads((tmp_path / "a.json").read_text())) == []
