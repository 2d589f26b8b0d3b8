"""Data sets from where their authors published them, checked before they get their name."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

from ntktheory.checks import check_choice, complaint
from ntktheory.data.location import VARIABLE, data_folder

CHUNK_BYTES = 2**20
TIMEOUT_S = 60


@dataclass(frozen=True)
class Remote:
    """Files that can be fetched.

    Attributes:
        address: Where they are, without the last "/".
        folder: Where they go, inside the folder of data sets.
        sha256: Name of each file -> its SHA-256, in hexadecimal digits.
    """

    address: str
    folder: str
    sha256: Mapping[str, str]


REMOTES: dict[str, Remote] = {
    "cifar10": Remote(
        "https://www.cs.toronto.edu/~kriz",
        "",
        {
            "cifar-10-binary.tar.gz": (
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            )
        },
    ),
    "fashion_mnist": Remote(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "fashion_mnist",
        {
            "train-images-idx3-ubyte.gz": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            "train-labels-idx1-ubyte.gz": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
    ),
}


def download(
    name: str,
    data_dir: str | Path | None = None,
    *,
    mirror: str | None = None,
    progress: bool = False,
) -> list[Path]:
    """Fetch a data set into the folder of data sets; files that are there already are only checked.

    Args:
        name: A key of ``REMOTES``: "cifar10" (the binary version, 170 MB) or "fashion_mnist" (31 MB).
        data_dir: The folder of data sets, created where needed; None means the one that
            NTKTHEORY_DATA names.
        mirror: Another address (http, https or file) that has the same files.
        progress: Show a progress bar over the bytes of each file.

    Returns:
        The files.

    Raises:
        ValueError: If the name is unknown, there is no folder, or a file differs from the published one.
        ConnectionError: If a file cannot be fetched.
    """
    check_choice("data", name, REMOTES)
    folder = data_folder(data_dir)
    if folder is None:
        raise ValueError(
            complaint(
                "data_dir",
                "the folder to put the files into",
                f"None, and {VARIABLE} is not set",
                "Name the folder by either.",
            )
        )
    remote = REMOTES[name]
    address = (mirror or remote.address).rstrip("/")
    targets = {file: folder / remote.folder / file for file in remote.sha256}
    for file, target in targets.items():
        fetch(f"{address}/{file}", target, remote.sha256[file], progress=progress)
    return list(targets.values())


def fetch(url: str, target: Path, sha256: str, *, progress: bool = False) -> None:
    """Fetch one file, unless it is there; it gets its name once its checksum is right.

    Args:
        url: Its address: http, https or file.
        target: Where to put it; folders are created.
        sha256: Its SHA-256, in hexadecimal digits.
        progress: Show a progress bar over its bytes.

    Raises:
        ValueError: If the address is of another kind, or the file (fetched, or found in its place) has
            another checksum. What was found stays; what was fetched is deleted.
        ConnectionError: If it cannot be fetched.
    """
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ValueError(
            complaint("url", "an http, https or file address", repr(url), "Write it in full.")
        )
    if target.exists():
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        _check_digest(str(target), found, sha256, "Delete it to fetch it again.")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with draft.open("xb") as file:
            found = _copy(url, file, target.name, progress)
        _check_digest(url, found, sha256, "Try again later, or another mirror.")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _copy(url: str, file: IO[bytes], name: str, progress: bool) -> str:
    """Copy the file and return its SHA-256."""
    digest = hashlib.sha256()
    with _bar(progress) as bar:
        task = bar and bar.add_task(name, total=None)
        for chunk, size in _chunks(url, name):
            file.write(chunk)
            digest.update(chunk)
            if bar:
                bar.update(task, advance=len(chunk), total=size)
    return digest.hexdigest()


def _chunks(url: str, name: str) -> Iterator[tuple[bytes, int | None]]:
    """Yield the file in pieces, each with the size of the whole where that is known."""
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:
            size = response.headers.get("Content-Length")
            while chunk := response.read(CHUNK_BYTES):
                yield chunk, int(size) if size else None
    except (OSError, HTTPException) as error:
        raise ConnectionError(
            complaint(
                "url",
                "an address that answers",
                f"{url} ({error})",
                f"Check the connection, name a mirror, or put {name} there by hand.",
            )
        ) from error


def _check_digest(where: str, found: str, expected: str, remedy: str) -> None:
    """Check that the checksums are the same."""
    if found != expected:
        raise ValueError(
            complaint("the file", f"of SHA-256 {expected}", f"{found} for {where}", remedy)
        )


def _bar(progress: bool) -> Any:
    if not progress:
        return nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    return Progress(*columns, console=Console(stderr=True))
