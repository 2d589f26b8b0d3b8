"""What the commands print and write: aligned lines and JSON, and files that can be written."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

PLOTS = (".png", ".svg", ".pdf")


def check_target(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuse a file that could not be written before anything is computed.

    Raises:
        ValueError: If its name ends otherwise, it is a folder, or its folder does not exist.
    """
    from ntktheory.checks import complaint
    from ntktheory.files import check_folder

    if path is None:
        return
    if path.suffix not in suffixes:
        expected = f"a file ending in {' or '.join(suffixes)}"
        raise ValueError(complaint(option, expected, str(path), "Rename it."))
    check_folder(path, option)


def working(what: str) -> AbstractContextManager[Any]:
    """Show on a terminal's stderr that something is being computed; nothing elsewhere."""
    from rich.console import Console

    return Console(stderr=True).status(what)


def versions() -> dict[str, str]:
    """Return the versions of Python, ntktheory, torch and NumPy."""
    import platform
    from importlib import metadata

    names = ("ntktheory", "torch", "numpy")
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in names}}


def summary_text(summary: dict[str, Any]) -> str:
    """Return a summary as aligned lines, without what was not asked for."""
    shown = {k: v for k, v in summary.items() if v is not None and k != "versions"}
    width = max(map(len, shown))
    return "\n".join(f"{k.replace('_', ' '):<{width}}  {_text(v)}" for k, v in shown.items())


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of texts as aligned columns: those of numbers (or –) to the right."""
    columns = list(zip(header, *rows, strict=True))
    right = [all(cell[0].isdigit() or cell == "–" for cell in column[1:]) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        for row in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def mean_text(values: Sequence[float]) -> str:
    """Return mean and standard error as text; the mean alone of one value."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.4f}"
    error = (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5
    return f"{mean:.4f} ± {error:.4f}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)
