"""Decoded data sets on disk, checked at every use."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np

from ntktheory.checks import complaint

LAYOUT = "v1"  # part of the name: changes whenever order or layout of the records do


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return ``cache_dir``, else ``$XDG_CACHE_HOME/ntktheory``, else ``~/.cache/ntktheory``.

    As the XDG rules ask, a relative XDG_CACHE_HOME is ignored.
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "ntktheory"


def cached_records(
    name: str,
    source: Path,
    decode: Callable[[], np.ndarray],
    *,
    cache_dir: str | Path | None = None,
) -> np.ndarray:
    """Return what ``decode`` returns, from the cache if it was decoded before.

    The cache is one file, ``<name>-v1-<first 16 digits of the source's SHA-256>.safetensors``: a changed
    source is decoded anew. It is written beside its place and then renamed; it holds the SHA-256 of the
    source and of the records, and both are checked. Nothing is ever deleted from the cache.

    Args:
        name: Names data set and split.
        source: The file that is decoded.
        decode: Decodes it, to an array of uint8.
        cache_dir: The folder of the cache; None means ``cache_folder()``.

    Returns:
        The records.

    Raises:
        ValueError: If the cached file is damaged, or the cache cannot be written.

    Cost: One pass over source and records for their checksums.
    """
    digest = _file_digest(source)
    path = cache_folder(cache_dir) / f"{name}-{LAYOUT}-{digest[:16]}.safetensors"
    if path.exists():
        return _read(path, digest)
    records = decode()
    _write(path, records, digest)
    return records


def _read(path: Path, digest: str) -> np.ndarray:
    """Return the records of a cached file, checked."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            found, records = file.metadata() or {}, file.get_tensor("records")
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(_damaged(path, str(error))) from error
    if found != _marks(records, digest):
        raise ValueError(_damaged(path, "its checksums differ"))
    return records


def _write(path: Path, records: np.ndarray, digest: str) -> None:
    """Write the records beside their place, then rename."""
    from safetensors.numpy import save_file

    draft = path.with_name(f".{path.stem}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"records": records}, draft, _marks(records, digest))
        draft.replace(path)
    except Exception as error:  # safetensors has its own error for a full disk
        raise ValueError(
            complaint(
                "cache_dir",
                "a folder that can be written",
                f"{path.parent} ({error})",
                "Pass cache_dir=, or set XDG_CACHE_HOME.",
            )
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _marks(records: np.ndarray, digest: str) -> dict[str, str]:
    content = hashlib.sha256(np.ascontiguousarray(records).data).hexdigest()
    return {"source_sha256": digest, "records_sha256": content}


def _damaged(path: Path, reason: str) -> str:
    remedy = "Delete that file; it is made again."
    return complaint("the cache", "undamaged", f"{path} ({reason})", remedy)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
