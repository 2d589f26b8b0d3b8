"""Tiny data sets in the published formats."""

import io
import tarfile

import numpy as np
from PIL import Image

from ntktheory.data.cifar import CLASSES


def jpeg(seed, size=(32, 32), kind="JPEG"):
    """Return the bytes of a noisy image of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decoded(data):
    """Return the pixels [3, height, width] of an image, by way of its pixel list."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        rows = [[image.getpixel((x, y)) for x in range(width)] for y in range(height)]
    return np.array(rows).transpose(2, 0, 1)


def jpegs(train=2, test=1):
    """Return {member: bytes} of a CIFAR-10 of so many images per class."""
    return {
        f"{split}/{name}/{i:04d}.jpg": jpeg([part, label, i])
        for part, (split, count) in enumerate((("train", train), ("test", test)))
        for label, name in enumerate(CLASSES)
        for i in range(count)
    }


def write_tar(path, files, extra=()):
    """Write {name: bytes}, then TarInfos; the suffix .xz or .gz says how it is compressed."""
    with tarfile.open(path, f"w:{path.suffix[1:]}") as tar:
        folders = {name.rsplit("/", 1)[0] for name in files if "/" in name}
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def write_files(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def batches(records=2):
    """Return {file: bytes} of a binary CIFAR-10 of so many records per batch, and its records."""
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    rng = np.random.default_rng(0)
    files = {}
    for name in names:
        array = rng.integers(0, 256, (records, 3073), dtype=np.uint8)
        array[:, 0] = rng.integers(0, 10, records)
        files[name] = array
    return files


def idx(array):
    """Return an array of uint8 in the idx format."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
