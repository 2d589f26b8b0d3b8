"""Masks in safetensors files, which appear whole or not at all."""

import json
import os
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import complaint

FORMAT = "ntktheory masks"


def save_masks(
    path: str | Path,
    masks: Mapping[str, Tensor],
    *,
    scorer: str | None = None,
    density: float | None = None,
    **notes: Any,
) -> None:
    """Write masks to a safetensors file, one bool tensor per name.

    The file's metadata hold what is said about them, and the versions of ntktheory and torch. The file
    is written beside its place and then renamed.

    Args:
        path: The file; an old one is replaced.
        masks: Parameter name -> mask of 0 and 1.
        scorer: What they were made with.
        density: The fraction that they keep.
        **notes: More to remember, made of what JSON knows.

    Raises:
        TypeError: If a mask is not a tensor.
        ValueError: If there are none, an entry is not 0 or 1, or the folder does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_masks(f"{folder}/m.safetensors", {"w": torch.tensor([True, False])}, density=0.5)
        ...     load_masks(f"{folder}/m.safetensors"), mask_notes(f"{folder}/m.safetensors")["density"]
        ({'w': tensor([ True, False])}, 0.5)
    """
    said = {"scorer": scorer, "density": density, **notes, "versions": versions()}
    write_tensors(path, _as_bool(masks), {"format": FORMAT, "notes": json.dumps(said)})


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """Read masks from a safetensors file of 0 and 1, whoever wrote it.

    Args:
        path: The file.

    Returns:
        Parameter name -> bool mask, on the CPU.

    Raises:
        ValueError: If the file cannot be read, has no masks, or an entry is not 0 or 1.
    """
    return _as_bool(read_tensors(path, "path")[0])


def mask_notes(path: str | Path) -> dict[str, Any]:
    """Return what ``save_masks`` was told: scorer, density, versions and further notes.

    Args:
        path: The file.

    Returns:
        The notes; nothing if another program wrote the file.

    Raises:
        ValueError: If the file cannot be read.
    """
    said = read_tensors(path, "path")[1]
    return json.loads(said["notes"]) if said.get("format") == FORMAT else {}


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> None:
    """Write a safetensors file beside its place, then rename it.

    Raises:
        ValueError: If the folder does not exist.
    """
    from safetensors.torch import save_file

    path = Path(path)
    check_folder(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        own = {
            k: t.detach().cpu().clone(memory_format=torch.contiguous_format)
            for k, t in tensors.items()
        }
        save_file(own, draft, dict(said))
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def check_folder(path: Path, argument: str = "path") -> None:
    """Check that a file can be put at a path.

    Raises:
        ValueError: If its folder does not exist, or it is a folder itself.
    """
    if path.is_dir() or not path.parent.is_dir():
        actual = "a folder" if path.is_dir() else "one in a folder that does not exist"
        raise ValueError(
            complaint(argument, "a file in an existing folder", f"{path}, {actual}", "Create it.")
        )


def read_tensors(path: str | Path, argument: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, and its metadata.

    Raises:
        ValueError: If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        reason = "no such file" if not path.exists() else str(error)
        raise ValueError(
            complaint(
                argument,
                "a readable safetensors file",
                f"{path} ({reason})",
                "Check the path, or write the file again.",
            )
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of ntktheory and torch."""
    return {name: metadata.version(name) for name in ("ntktheory", "torch")}


def _as_bool(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks as bool tensors, checked."""
    if not masks:
        raise ValueError(complaint("masks", "those of at least one tensor", "none", "Add one."))
    for name, mask in masks.items():
        if not isinstance(mask, Tensor):
            raise TypeError(
                complaint(
                    f"masks[{name!r}]",
                    "a torch.Tensor",
                    type(mask).__name__,
                    "Convert it with torch.as_tensor.",
                )
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(
                complaint(
                    f"masks[{name!r}]",
                    "made of 0 and 1",
                    "other entries",
                    "A weight is kept or not: threshold the mask first.",
                )
            )
    return {name: mask.detach().to(torch.bool) for name, mask in masks.items()}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
