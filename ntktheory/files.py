"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it takes the file's place if all goes well.

    Args:
        path: The file; its folder must exist. The new one has the permissions of any new file.

    Yields:
        Where to write.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as draft:
        ...         _ = draft.write_text("whole")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    folder = path.absolute().parent
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=folder)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())  # mkstemp's are the owner's alone
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def check_folder(path: Path, argument: str = "path") -> None:
    """Check that a file can be put at a path.

    Args:
        path: The file.
        argument: What error messages call it.

    Raises:
        ValueError: If its folder does not exist, or it is a folder itself.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        from ntktheory.checks import (
            complaint,
        )  # it imports torch, which the command's help does not

        actual = "a folder" if path.is_dir() else "one in a folder that does not exist"
        raise ValueError(
            complaint(argument, "a file in an existing folder", f"{path}, {actual}", "Create it.")
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
