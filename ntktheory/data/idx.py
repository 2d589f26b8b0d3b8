"""The idx format of the MNIST family: magic number, sizes, then bytes."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ntktheory.data.archive import damaged

BYTES_TYPE = 0x08  # the format's code for uint8


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read an idx file of uint8, gzipped if its name ends in ``.gz``.

    The format: two zero bytes, the code of the type (8), the number of axes, one big-endian 32-bit
    size per axis, then the entries with the last axis fastest.

    Args:
        path: The file.
        ndim: How many axes it must have.

    Returns:
        Array of uint8 with ``ndim`` axes.

    Raises:
        ValueError: If it is damaged, of another type or number of axes, or shorter or longer than its
            sizes say.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "x.idx"
        >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]))
        >>> read_idx(file, 1).tolist()
        [5, 6, 7]
    """
    try:
        opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
        with cast(BinaryIO, opened) as file:
            magic, sizes = file.read(4), file.read(4 * ndim)
            expected = bytes([0, 0, BYTES_TYPE, ndim])
            if magic != expected or len(sizes) < 4 * ndim:
                raise ValueError(
                    damaged(path, f"it starts with {magic.hex(' ')}, not {expected.hex(' ')}")
                )
            rest = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(damaged(path, str(error))) from error
    shape = [int(n) for n in np.frombuffer(sizes, ">u4")]
    if len(rest) != math.prod(shape) or not rest:
        raise ValueError(damaged(path, f"{len(rest)} bytes for the shape {shape}"))
    return np.frombuffer(rest, np.uint8).reshape(shape)
