"""Fashion-MNIST and the idx format."""

import gzip

import numpy as np
import pytest
import torch

from ntktheory.data import fashion_mnist
from ntktheory.data.idx import read_idx
from ntktheory.data.location import VARIABLE
from tests.data.made_up import idx, write_files

RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8),
    "train-labels-idx1-ubyte": RNG.integers(0, 10, 7, dtype=np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": RNG.integers(0, 10, 4, dtype=np.uint8),
}


def write(folder, arrays=None, *, zipped=True):
    files = {
        f"fashion_mnist/{name}{'.gz' if zipped else ''}": (
            gzip.compress(idx(array)) if zipped else idx(array)
        )
        for name, array in (ARRAYS | (arrays or {})).items()
    }
    return write_files(folder, files)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_pixels_and_labels(tmp_path, zipped, split, prefix):
    data_dir = write(tmp_path, zipped=zipped)
    images, labels = fashion_mnist(split=split, data_dir=data_dir, dtype=torch.float64)
    pixels = torch.from_numpy(ARRAYS[f"{prefix}-images-idx3-ubyte"])
    assert torch.equal(images, pixels.double().unsqueeze(1) / 255)
    assert labels.tolist() == ARRAYS[f"{prefix}-labels-idx1-ubyte"].tolist()
    few, few_labels = fashion_mnist(2, split=split, data_dir=data_dir, dtype=torch.uint8)
    assert torch.equal(few, pixels[:2].unsqueeze(1))
    assert torch.equal(few_labels, labels[:2])
    generator = torch.Generator().manual_seed(0)
    drawn, _ = fashion_mnist(3, split=split, data_dir=data_dir, generator=generator)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:3]
    assert torch.equal(drawn, images[order].float())


@pytest.mark.parametrize(
    ("text", "arrays"),
    [
        (
            r"images of shape \[28, 27\]",
            {"train-images-idx3-ubyte": np.zeros((7, 28, 27), np.uint8)},
        ),
        ("6 labels up to 0 for 7 images", {"train-labels-idx1-ubyte": np.zeros(6, np.uint8)}),
        ("7 labels up to 10 for 7", {"train-labels-idx1-ubyte": np.full(7, 10, np.uint8)}),
        ("it starts with 00 00 08 01", {"train-images-idx3-ubyte": np.zeros(7, np.uint8)}),
        (r"0 bytes for the shape \[0\]", {"train-labels-idx1-ubyte": np.zeros(0, np.uint8)}),
    ],
)
def test_files_of_something_else(tmp_path, text, arrays):
    with pytest.raises(ValueError, match=f"data must be an undamaged file, got .*{text}"):
        fashion_mnist(data_dir=write(tmp_path, arrays))


def test_bad_input(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    data_dir = write(tmp_path)
    with pytest.raises(ValueError, match=r"split must be one of 'test', 'train', got 't10k'"):
        fashion_mnist(split="t10k", data_dir=data_dir)
    with pytest.raises(ValueError, match="count must be an integer between 1 and 7"):
        fashion_mnist(8, data_dir=data_dir)
    text = r"holds fashion_mnist/train-images-idx3-ubyte\.gz or .*download\(\"fashion_mnist\"\)"
    with pytest.raises(ValueError, match=text):
        fashion_mnist()
    (tmp_path / "fashion_mnist/train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"holds fashion_mnist/train-labels.*without it"):
        fashion_mnist(data_dir=data_dir)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (1, 1, 1, 6)])
def test_idx(tmp_path, shape):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "x").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "x", len(shape)), array)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("it starts with , not 00 00 08 02", b""),
        ("it starts with 00 00 08 02", idx(np.zeros((2, 3), np.uint8))[:9]),
        ("it starts with 00 00 0d 02", bytes([0, 0, 13, 2]) + bytes(20)),
        (r"5 bytes for the shape \[2, 3\]", idx(np.zeros((2, 3), np.uint8))[:-1]),
        (r"7 bytes for the shape \[2, 3\]", idx(np.zeros((2, 3), np.uint8)) + b"0"),
        (r"4 bytes for the shape", bytes([0, 0, 8, 2]) + b"\xff" * 8 + bytes(4)),
    ],
)
def test_damaged_idx(tmp_path, text, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=f"undamaged file, got .*{text}"):
        read_idx(tmp_path / "x", 2)


@pytest.mark.parametrize("damage", ["shortened", "changed", "no gzip"])
def test_damaged_gzip(tmp_path, damage):
    data = gzip.compress(idx(RNG.integers(0, 256, (20, 30), dtype=np.uint8)))
    middle = len(data) // 2
    damaged = {
        "shortened": data[:-5],
        "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "no gzip": b"hello",
    }
    (tmp_path / "x.gz").write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"undamaged file, got .*x\.gz"):
        read_idx(tmp_path / "x.gz", 2)
