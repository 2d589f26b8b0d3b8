"""Records: where a number was measured, and writing it down whole.

Shared by every script that measures: ``benchmarks/*.py`` write ``benchmarks/results/*.json``,
``experiments/*.py`` write ``experiments/records/*.json``. Figures read them.
"""

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Record = dict[str, Any]


def save(path: Path, record: Record, digits: int | None = None) -> None:
    """Write a record whole, or not at all.

    Args:
        path: The file; its folder is made, the folder above must exist.
        record: What JSON can hold.
        digits: Significant digits that are kept of every float; None keeps all.
    """
    if digits is not None:
        rounded = lambda text: float(f"{float(text):.{digits}g}")  # noqa: E731
        record = json.loads(json.dumps(record), parse_float=rounded)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)


def save_table(path: Path, record: Record, digits: int | None = None) -> None:
    """Write a record whose ``rows`` are many: their keys once, as ``columns``, and a row per line.

    Args:
        path: The file, see ``save``.
        record: What JSON can hold; ``rows`` is a list of objects.
        digits: See ``save``.
    """
    columns = list(dict.fromkeys(key for row in record["rows"] for key in row))
    lines = [[row.get(key) for key in columns] for row in record["rows"]]
    if digits is not None:
        rounded = lambda text: float(f"{float(text):.{digits}g}")  # noqa: E731
        lines = json.loads(json.dumps(lines), parse_float=rounded)
    head = json.dumps({**record, "columns": columns, "rows": None}, ensure_ascii=False)
    body = ",\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(head.replace('"rows": null', f'"rows": [\n{body}\n]') + "\n")
    temporary.replace(path)


def commit() -> str:
    """Return the commit of this checkout, with a mark if files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def hardware() -> Record:
    """Describe the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(names),
        "avx512": "avx512f" in flags,
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": 1,
    }
