"""Images in folders, ``<root>/<split>/<class>/<file>``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import check_count, complaint
from ntktheory.data.decode import decode_image
from ntktheory.data.selection import as_images, choose, in_turn

T = TypeVar("T")
Source = tuple[bytes | Path, str]  # an image file's contents or path, and how complaints name it
SUFFIXES = (".jpg", ".jpeg", ".png")


def image_folder(
    root: str | Path,
    split: str = "train",
    count: int | None = None,
    *,
    size: int | None = None,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Load images from ``<root>/<split>/<class>/<file>.jpg``, ``.jpeg`` or ``.png``.

    The classes are the folders in alphabetical order, and the labels their indices. The samples come
    class by class in turn: the first file of each class, then the second of each, …, files in
    alphabetical order, so that the first ``count`` are balanced.

    Only the images asked for are decoded, anew at every call. Names with a leading dot are ignored.

    Args:
        root: The folder of the data set.
        split: The folder inside it.
        count: How many images; None means all.
        size: Side in pixels: the largest centred square of every image is resized to it. None leaves
            the images as they are; they must then have one size.
        dtype: A floating-point type, for pixels in [0, 1]; or ``torch.uint8``, for 0…255.
            ``standardise`` shifts and scales the channels.
        generator: Draws which images, without replacement; None takes the first ones.
        progress: Show a progress bar over the images.

    Returns:
        Images [count, 3, height, width] and labels [count].

    Raises:
        ValueError: If the folder or a class is missing or empty, holds other files, or has fewer than
            ``count`` images; if an image cannot be read or sizes differ; or if size or dtype do not fit.

    Cost: One file read and decoded per image; 3·height·width bytes per image while decoding.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("cat", "dog"):
        ...         folder = Path(root) / "train" / name
        ...         folder.mkdir(parents=True)
        ...         Image.new("RGB", (8, 6)).save(folder / "0.png")
        ...     images, labels = image_folder(root)
        >>> images.shape, labels.tolist()
        (torch.Size([2, 3, 6, 8]), [0, 1])
    """
    check_count("size", size)
    files = in_turn([class_files(root, split, name) for name in class_names(root, split)])
    chosen = [files[i] for i in choose(len(files), count, generator).tolist()]
    images = decode_all([(f, str(f)) for f, _ in chosen], size=size, progress=progress)
    return as_images(images, dtype), torch.tensor([label for _, label in chosen])


def class_names(root: str | Path, split: str = "train") -> list[str]:
    """Return the classes of ``image_folder``: label ``i`` belongs to the ``i``-th name.

    Args:
        root: The folder of the data set.
        split: The folder inside it.

    Returns:
        The names of the folders in ``<root>/<split>``, in alphabetical order.

    Raises:
        ValueError: If that is no folder, or has none in it.
    """
    folder = Path(root) / split
    names = [f.name for f in _visible(folder) if f.is_dir()] if folder.is_dir() else []
    if not names:
        raise ValueError(
            complaint(
                "root and split",
                "a folder with one folder per class",
                folder,
                "Sort the images into <root>/<split>/<class>/.",
            )
        )
    return names


def class_files(root: str | Path, split: str, name: str) -> list[Path]:
    """Return the images of one class, in alphabetical order.

    Raises:
        ValueError: If there are none, or something else is there.
    """
    folder = Path(root) / split / name
    files = _visible(folder)
    others = [f.name for f in files if f.suffix.lower() not in SUFFIXES or not f.is_file()]
    if others or not files:
        raise ValueError(
            complaint(
                "a class",
                f"a folder of {', '.join(SUFFIXES)} files",
                f"{folder} with {others[0] if others else 'nothing in it'}",
                "Move other files away.",
            )
        )
    return files


def decode_all(
    sources: Sequence[Source], *, size: int | None = None, progress: bool = False
) -> np.ndarray:
    """Decode images of one size.

    Args:
        sources: Bytes or path of each image, and how complaints name it; at least one.
        size: As for ``image_folder``.
        progress: Show a progress bar over the images.

    Returns:
        Array [N, 3, height, width] of uint8.

    Raises:
        ValueError: If an image cannot be read, or is of another size than the first.
    """
    images: np.ndarray = np.empty(0)
    for i, (source, where) in enumerate(_track(sources, progress)):
        image = decode_image(source, where, size)
        if i == 0:
            images = np.empty((len(sources), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise ValueError(
                complaint(
                    "images",
                    f"of one size, {_size(images[0])} like {sources[0][1]}",
                    f"{_size(image)} for {where}",
                    "Pass size= to resize them.",
                )
            )
        images[i] = image
    return images


def _size(image: np.ndarray) -> str:
    return f"{image.shape[2]}×{image.shape[1]}"


def _visible(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if not f.name.startswith("."))


def _track(items: Sequence[T], progress: bool) -> Iterable[T]:
    if not progress:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, description="Decoding images", console=Console(stderr=True))
