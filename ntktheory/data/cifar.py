"""CIFAR-10: the original binary version, and the images recompressed as JPEG."""

from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import check_choice, complaint
from ntktheory.data.archive import damaged, read_archive
from ntktheory.data.cache import cached_records
from ntktheory.data.image_folder import Source, class_files, class_names, decode_all
from ntktheory.data.location import find
from ntktheory.data.selection import as_images, choose, in_turn

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SPLITS = ("train", "test")
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue row by row
BATCHES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}


def cifar10(
    count: int | None = None,
    *,
    split: str = "train",
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Load CIFAR-10 from its binary version: 50,000 training and 10,000 test images, in its own order.

    The folder of data sets holds ``cifar-10-binary.tar.gz`` (``download("cifar10")`` puts it there) or
    the unpacked ``cifar-10-batches-bin/``. The archive is unpacked once per split, into the cache.

    Args:
        count: How many images; None means all of the split.
        split: "train" or "test".
        dtype: A floating-point type, for pixels in [0, 1]; or ``torch.uint8``, for 0…255.
            ``standardise`` shifts and scales the channels.
        generator: Draws which images, without replacement; None takes the first ones.
        data_dir: The folder of data sets; None means the one that NTKTHEORY_DATA names.
        cache_dir: The folder of the cache; None means ``$XDG_CACHE_HOME/ntktheory`` or
            ``~/.cache/ntktheory``.
        progress: Not used here: there is nothing to decode.

    Returns:
        Images [count, 3, 32, 32] and labels 0…9 [count], in the order of ``cifar.CLASSES``.

    Raises:
        ValueError: If the data are missing or damaged, the cache is damaged or cannot be written, or an
            argument does not fit.

    Cost: Memory for the split, 154 MB, whatever the count; then the images asked for.

    Source:
        Krizhevsky 2009, *Learning Multiple Layers of Features from Tiny Images*; binary version.
    """
    check_choice("split", split, SPLITS)
    candidates = ("cifar-10-binary.tar.gz", "cifar-10-batches-bin")
    path = find("cifar10", candidates, data_dir, 'download("cifar10") fetches it.')
    if path.is_dir():
        records = _from_batches(path, split)
    else:
        decode = partial(_from_binary_archive, path, split)
        records = cached_records(f"cifar10-{split}", path, decode, cache_dir=cache_dir)
    return _unpacked(records[choose(len(records), count, generator).numpy()], dtype)


def cifar10_jpeg(
    count: int | None = None,
    *,
    split: str = "train",
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Load CIFAR-10 recompressed as JPEG: lossy, so its accuracies are not those of CIFAR-10.

    The folder of data sets holds ``cifar10_jpeg.tar.xz`` or the unpacked ``cifar10_jpeg/``, with
    ``train/<class>/<index>.jpg`` and ``test/<class>/<index>.jpg``. The samples come class by class in
    turn, as for ``image_folder``, so that the first ``count`` are balanced.

    From the archive a whole split is decoded once, into the cache, and comes from there afterwards.
    From the folder only the images asked for are decoded, anew at every call.

    Args:
        count: How many images; None means all of the split.
        split: "train" or "test".
        dtype: A floating-point type, for pixels in [0, 1]; or ``torch.uint8``, for 0…255.
            ``standardise`` shifts and scales the channels.
        generator: Draws which images, without replacement; None takes the first ones.
        data_dir: The folder of data sets; None means the one that NTKTHEORY_DATA names.
        cache_dir: The folder of the cache; None means ``$XDG_CACHE_HOME/ntktheory`` or
            ``~/.cache/ntktheory``.
        progress: Show a progress bar while images are decoded.

    Returns:
        Images [count, 3, 32, 32] and labels 0…9 [count], in the order of ``cifar.CLASSES``.

    Raises:
        ValueError: If the data are missing or damaged, the cache is damaged or cannot be written, or an
            argument does not fit.

    Cost: As for ``cifar10``; the first use of a split also decodes all its images.
    """
    check_choice("split", split, SPLITS)
    candidates = ("cifar10_jpeg.tar.xz", "cifar10_jpeg")
    layout = "It has train/<class>/<index>.jpg and test/<class>/<index>.jpg, 32×32."
    path = find("cifar10-jpeg", candidates, data_dir, layout)
    if path.is_dir():
        members = _in_order(path, _in_folder(path, split))
        chosen = [members[i] for i in choose(len(members), count, generator).tolist()]
        return _unpacked(_decoded(path, chosen, progress), dtype)

    def decode() -> np.ndarray:
        return _decoded(path, _in_order(path, _in_archive(path, split)), progress)

    records = cached_records(f"cifar10-jpeg-{split}", path, decode, cache_dir=cache_dir)
    return _unpacked(records[choose(len(records), count, generator).numpy()], dtype)


def _unpacked(records: np.ndarray, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return images and labels of records [N, 3073]."""
    images = as_images(np.ascontiguousarray(records[:, 1:]), dtype).reshape(-1, *SHAPE)
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


def _in_archive(path: Path, split: str) -> dict[str, list[Source]]:
    """Return the images of a split by class, in alphabetical order."""
    files: dict[str, dict[str, bytes]] = {name: {} for name in CLASSES}
    for member, data in read_archive(path):
        folder, name = PurePosixPath(member).parts[:-1], PurePosixPath(member).name
        known = len(folder) == 2 and folder[0] in SPLITS and folder[1] in files
        if not known or not name.endswith(".jpg"):
            raise ValueError(_unlike(path, repr(member)))
        if folder[0] == split:
            files[folder[1]][member] = data
    return {
        name: [(data, f"{member} in {path}") for member, data in sorted(members.items())]
        for name, members in files.items()
    }


def _in_folder(path: Path, split: str) -> dict[str, list[Source]]:
    """Return the images of a split by class, in alphabetical order."""
    names = class_names(path, split)
    if names != list(CLASSES):
        raise ValueError(_unlike(path, f"the classes {', '.join(names)} in {split}"))
    return {name: [(file, str(file)) for file in class_files(path, split, name)] for name in names}


def _in_order(path: Path, classes: dict[str, list[Source]]) -> list[tuple[Source, int]]:
    """Return images and labels, class by class in turn; the classes must have one size."""
    sizes = [len(files) for files in classes.values()]
    if min(sizes) == 0 or min(sizes) != max(sizes):
        raise ValueError(_unlike(path, f"classes of {min(sizes)} to {max(sizes)} images"))
    return in_turn(list(classes.values()))


def _decoded(path: Path, members: list[tuple[Source, int]], progress: bool) -> np.ndarray:
    """Decode images, to records [N, 3073]."""
    images = decode_all([source for source, _ in members], progress=progress)
    if images.shape[1:] != SHAPE:
        raise ValueError(_unlike(path, f"images of shape {list(images.shape[1:])}"))
    labels = np.array([[label] for _, label in members], np.uint8)
    return np.concatenate([labels, images.reshape(len(images), -1)], axis=1)


def _from_binary_archive(path: Path, split: str) -> np.ndarray:
    """Read one split, to records [N, 3073]."""
    files = {PurePosixPath(member).name: data for member, data in read_archive(path)}
    return _joined(path, split, {name: files.get(name) for name in BATCHES[split]})


def _from_batches(path: Path, split: str) -> np.ndarray:
    files = {name: path / name for name in BATCHES[split]}
    data = {name: file.read_bytes() if file.is_file() else None for name, file in files.items()}
    return _joined(path, split, data)


def _joined(path: Path, split: str, files: dict[str, bytes | None]) -> np.ndarray:
    """Join the batches of a split, which have one length, to records [N, 3073]."""
    missing = [name for name, data in files.items() if data is None]
    if missing:
        raise ValueError(damaged(path, f"no {missing[0]}"))
    batches = [data for data in files.values() if data is not None]
    lengths = sorted({len(data) for data in batches})
    if len(lengths) > 1 or lengths[0] == 0 or lengths[0] % RECORD:
        raise ValueError(
            damaged(path, f"batches of {lengths[0]} to {lengths[-1]} bytes in {split}")
        )
    records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(damaged(path, f"a label {records[:, 0].max()} in {split}"))
    return records


def _unlike(path: Path, found: str) -> str:
    return complaint(
        "data",
        "CIFAR-10 as train|test/<class>/<index>.jpg, 32×32, ten classes of one size",
        f"{path} with {found}",
        "Use image_folder for other images.",
    )
