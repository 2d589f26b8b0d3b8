"""Masks in safetensors files, which appear whole or not at all."""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.files import check_folder, replacing

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
        TypeError: If a mask is not a tensor, or JSON does not know a note.
        ValueError: If there are none, an entry is not 0 or 1, or the folder does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_masks(f"{folder}/m.safetensors", {"w": torch.tensor([True, False])}, density=0.5)
        ...     load_masks(f"{folder}/m.safetensors"), mask_notes(f"{folder}/m.safetensors")["density"]
        ({'w': tensor([ True, False])}, 0.5)
    """
    said = {"scorer": scorer, "density": density, **notes, "versions": versions()}
    write_tensors(path, _as_bool(masks), {"format": FORMAT, "notes": _as_json(said)})


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """Read masks from a safetensors file of 0 and 1, whoever wrote it.

    Args:
        path: The file.

    Returns:
        Parameter name -> bool mask, on the CPU.

    Raises:
        ValueError: If the file cannot be read, has no masks, or an entry is not 0 or 1.
    """
    return read_masks(path, "path")


def read_masks(path: str | Path, argument: str) -> dict[str, Tensor]:
    """Read masks as ``load_masks`` does.

    Args:
        path: The file.
        argument: What error messages call it.

    Returns:
        Parameter name -> bool mask, on the CPU.

    Raises:
        ValueError: If the file cannot be read, has no masks, or an entry is not 0 or 1.
    """
    tensors, _ = read_tensors(path, argument)
    if not tensors:
        raise ValueError(
            complaint(argument, "a file of masks", f"{path} without any", "Choose another file.")
        )
    return _as_bool(tensors)


def mask_notes(path: str | Path) -> dict[str, Any]:
    """Return what ``save_masks`` was told: scorer, density, versions and further notes.

    Args:
        path: The file.

    Returns:
        The notes; nothing if another program wrote the file.

    Raises:
        ValueError: If the file cannot be read, or its notes are damaged.
    """
    said = read_tensors(path, "path")[1]
    if said.get("format") != FORMAT:
        return {}
    try:
        return dict(json.loads(said["notes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            complaint(
                "path",
                "a file with the notes of save_masks",
                f"{path} ({type(error).__name__}: {error})",
                "Its masks may still be read with load_masks.",
            )
        ) from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> None:
    """Write a safetensors file beside its place, then rename it.

    Raises:
        ValueError: If the folder does not exist.
    """
    from safetensors.torch import save_file

    path = Path(path)
    check_folder(path)
    own = {
        k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()
    }
    with replacing(path) as draft:
        save_file(own, draft, dict(said))


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


def _as_json(notes: Mapping[str, Any]) -> str:
    for name, note in notes.items():
        try:
            json.dumps(note)
        except (TypeError, ValueError) as error:
            raise TypeError(
                complaint(
                    f"note {name!r}",
                    "made of what JSON knows",
                    f"{type(note).__name__} ({error})",
                    "Convert it to numbers, texts, lists and dictionaries.",
                )
            ) from error
    return json.dumps(notes)
