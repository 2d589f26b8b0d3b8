"""Files that appear whole or not at all: tensors as safetensors, values as JSON."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.files import replacing


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Args:
        path: The file; its folder must exist.
        content: What it holds.
    """
    with replacing(path) as draft:
        draft.write_bytes(content)


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values into one safetensors file, whole or not at all.

    Args:
        path: The file; its folder must exist.
        tensors: Name -> tensor.
        values: What else is to be known on resuming.
    """
    from safetensors.torch import save_file

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with replacing(path) as draft:
        save_file(plain, draft, {"values": json.dumps(values)})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote.

    Args:
        path: The file.

    Returns:
        The tensors and the values.

    Raises:
        ValueError: If the file is no such checkpoint.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder) / "a", {"w": torch.ones(2)}, {"round": 3})
        ...     load_checkpoint(Path(folder) / "a")
        ({'w': tensor([1., 1.])}, {'round': 3})
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            values = json.loads(file.metadata()["values"])
            return {name: file.get_tensor(name) for name in file.keys()}, values
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            complaint(
                "checkpoint", "a file that a killed run left", f"{path} ({error})", "Move it away."
            )
        ) from error


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and values, to know whether two sets of tensors are equal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
