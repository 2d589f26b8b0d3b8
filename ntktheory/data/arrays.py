"""Inputs from a NumPy file."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import check_batch, complaint


def load_array(
    path: str | Path,
    count: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    at_most: int | None = None,
) -> Tensor:
    """Load inputs from a ``.npy`` file, the first ``count`` of them; nothing is unpickled.

    Args:
        path: The file: real numbers [N, …], sample axis first.
        count: How many; None means all. Only these are read from disk.
        dtype: Type of the inputs.
        at_most: Where ``count`` is None: the first so many, or all if there are fewer.

    Returns:
        Tensor [count, …].

    Raises:
        ValueError: If the file does not exist, is not a ``.npy`` file of real numbers, or has fewer
            than ``count`` samples.
        NumericalError: If an input is NaN or Inf.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(file, np.ones((4, 3)))
        >>> load_array(file, 2).shape
        torch.Size([2, 3])
    """
    path = Path(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = "no such file" if not path.exists() else str(error).splitlines()[0]
        raise ValueError(
            complaint(
                "data", "a readable .npy file", f"{path} ({reason})", "Write it with np.save."
            )
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.ndim < 1:
        found = (
            f"shape {list(array.shape)} of {array.dtype}"
            if isinstance(array, np.ndarray)
            else "an archive of arrays"
        )
        raise ValueError(
            complaint("data", "one array [N, …] of real numbers", found, "Convert it first.")
        )
    if count is not None and not 1 <= count <= len(array):
        raise ValueError(
            complaint("count", f"between 1 and {len(array)}", count, "Ask for what there is.")
        )
    x = torch.from_numpy(np.array(array[: count or at_most], dtype=np.float64)).to(dtype)
    check_batch("data", x)
    return x
