"""Members of a tar archive, read in memory: nothing is unpacked to disk."""

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ntktheory.checks import complaint

LARGEST_BYTES = 2**30  # of the unpacked archive
OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}


def read_archive(path: Path, largest_bytes: int = LARGEST_BYTES) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a ``.tar.xz`` or ``.tar.gz`` archive, in its order.

    The archive is unpacked in memory as a whole before the first file, which checks its own
    checksums. A name that leads outside, a link, a device or a second file of the same name is refused.

    Args:
        path: The archive.
        largest_bytes: How large it may be unpacked.

    Yields:
        Name and contents of each file; folders are left out.

    Raises:
        ValueError: If the archive is damaged, too large, or has a member that is refused.

    Cost: Memory for the unpacked archive.
    """
    data = _unpacked(path, largest_bytes)
    seen = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                kinds = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
                if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                    raise ValueError(_refused(path, member.name, "leads outside"))
                if member.type not in kinds:
                    raise ValueError(_refused(path, member.name, "is neither file nor folder"))
                if member.isdir():
                    continue
                if str(name) in seen:
                    raise ValueError(_refused(path, member.name, "comes twice"))
                seen.add(str(name))
                file = tar.extractfile(member)
                yield str(name), b"" if file is None else file.read()
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(damaged(path, str(error))) from error
    # The reader stops in silence at the first header that is none; a whole archive ends with zeros.
    if len(data) < end + tarfile.BLOCKSIZE or data[end:].strip(b"\0"):
        raise ValueError(damaged(path, f"no end after {len(seen)} files"))


def damaged(path: Path, reason: str) -> str:
    """Return the complaint about a file that cannot be what it was."""
    return complaint("data", "an undamaged file", f"{path} ({reason})", "Fetch or copy it again.")


def _refused(path: Path, name: str, why: str) -> str:
    return complaint(
        "data",
        "an archive of files in folders below its root",
        f"{path}, where {name!r} {why}",
        "Do not use this archive.",
    )


def _unpacked(path: Path, largest_bytes: int) -> bytes:
    """Return the archive without its compression."""
    try:
        with OPENERS[path.suffix](path, "rb") as file:
            data = file.read(largest_bytes + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(damaged(path, str(error))) from error
    if len(data) > largest_bytes:
        raise ValueError(
            complaint(
                "data",
                f"an archive of at most {largest_bytes} bytes unpacked",
                f"{path} with more",
                "Do not use this archive.",
            )
        )
    return data
