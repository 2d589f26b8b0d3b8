"""Where data sets lie on this machine."""

import os
from collections.abc import Sequence
from pathlib import Path

from ntktheory.checks import complaint

VARIABLE = "NTKTHEORY_DATA"


def data_folder(data_dir: str | Path | None = None) -> Path | None:
    """Return the folder of data sets: ``data_dir``, else what NTKTHEORY_DATA names, else None."""
    chosen = data_dir or os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def find(name: str, candidates: Sequence[str], data_dir: str | Path | None, source: str) -> Path:
    """Find a data set.

    Args:
        name: Its name, for the complaint.
        candidates: Paths of files or folders inside the folder of data sets, the preferred first.
        data_dir: The folder of data sets; None means the one that NTKTHEORY_DATA names.
        source: A sentence that says where the data set comes from.

    Returns:
        The first candidate that exists.

    Raises:
        ValueError: If there is no folder of data sets, or it holds none of the candidates.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "b.gz").touch()
        ...     find("letters", ["a.gz", "b.gz"], folder, "Write it.").name
        'b.gz'
    """
    folder = data_folder(data_dir)
    wanted = " or ".join(candidates)
    if folder is None:
        raise ValueError(
            complaint(
                "data_dir",
                f"a folder that holds {wanted}, for the data set {name}",
                f"None, and {VARIABLE} is not set",
                f"Name the folder by either. {source}",
            )
        )
    for candidate in candidates:
        if (folder / candidate).exists():
            return folder / candidate
    actual = f"{folder} without it" if folder.is_dir() else f"{folder}, which is no folder"
    raise ValueError(
        complaint(
            "data_dir",
            f"a folder that holds {wanted}, for the data set {name}",
            actual,
            f"Put it there. {source}",
        )
    )
