"""Data sets by name, and inputs from files."""

import numpy as np
import pytest
import torch

from ntktheory import NumericalError
from ntktheory.data import DATA, digits, load_array, load_data
from tests.data.made_up import batches, idx, jpegs, write_files, write_tar

FILES = [name for name, entry in DATA.items() if entry.splits]


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Make a tiny version of every data set that comes from files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NTKTHEORY_DATA", raising=False)
    folder = tmp_path / "data"
    folder.mkdir()
    write_tar(folder / "cifar10_jpeg.tar.xz", jpegs(train=2, test=1))
    write_files(folder / "cifar-10-batches-bin", {n: bytes(a) for n, a in batches(2).items()})
    for prefix, count in (("train", 6), ("t10k", 5)):
        pixels, labels = np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.uint8)
        files = {f"{prefix}-images-idx3-ubyte": pixels, f"{prefix}-labels-idx1-ubyte": labels}
        write_files(folder / "fashion_mnist", {name: idx(a) for name, a in files.items()})
    return folder


@pytest.mark.parametrize("name", DATA)
def test_inputs_and_labels(name, data_dir):
    x, y = load_data(name, 4, dtype=torch.float64, data_dir=data_dir)
    assert x.dtype == torch.float64
    assert len(x) == len(y) == 4
    assert y.dtype == torch.int64
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    one, two = (load_data(name, 3, generator=g, data_dir=data_dir)[0] for g in generators)
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [
        ("cifar10-jpeg", 20, 10, (3, 32, 32)),
        ("cifar10", 10, 2, (3, 32, 32)),
        ("fashion_mnist", 6, 5, (1, 28, 28)),
    ],
)
def test_splits(name, train, test, shape, data_dir, monkeypatch):
    monkeypatch.setenv("NTKTHEORY_DATA", str(data_dir))
    for split, total in (("train", train), ("test", test), (None, train)):
        x, y = load_data(name, split=split)
        assert x.shape == (total, *shape)
        assert y.shape == (total,)
    with pytest.raises(ValueError, match="split must be one of 'test', 'train', got 'val'"):
        load_data(name, split="val")


@pytest.mark.parametrize("name", FILES)
def test_missing_data(name, tmp_path, monkeypatch):
    monkeypatch.delenv("NTKTHEORY_DATA", raising=False)
    with pytest.raises(ValueError, match=f"for the data set {name}, got None, and NTKTHEORY_DATA"):
        load_data(name)
    with pytest.raises(ValueError, match=f"for the data set {name}, got {tmp_path} without it"):
        load_data(name, data_dir=tmp_path)


def test_progress(data_dir, capsys):
    load_data("cifar10-jpeg", 1, data_dir=data_dir, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Decoding images" in captured.err


def test_digits_are_undivided():
    with pytest.raises(ValueError, match=r"split must be None for digits, which is undivided"):
        load_data("digits", split="test")


def test_digits_by_name():
    drawn = [torch.Generator().manual_seed(1) for _ in range(2)]
    x, y = load_data("digits", 5, generator=drawn[0])
    other, labels = digits(5, generator=drawn[1])
    assert torch.equal(x, other)
    assert torch.equal(y, labels)


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"data must be one of 'cifar10', .*, got 'mnist'"):
        load_data("mnist")


def test_a_file(tmp_path):
    array = np.arange(12).reshape(4, 3)
    np.save(tmp_path / "x.npy", array)
    x = load_array(tmp_path / "x.npy", dtype=torch.float64)
    assert torch.equal(x, torch.from_numpy(array).double())
    assert load_array(tmp_path / "x.npy", 2).shape == (2, 3)
    assert load_array(tmp_path / "x.npy", at_most=3).shape == (3, 3)
    assert load_array(tmp_path / "x.npy", at_most=9).shape == (4, 3)


@pytest.mark.parametrize(
    ("text", "array"),
    [
        (r"real numbers, got shape \[2\] of complex128", np.ones(2, dtype=complex)),
        (r"real numbers, got shape \[2\] of <U1", np.array(["a", "b"])),
        (r"real numbers, got shape \[\] of float64", np.array(1.0)),
        (r"readable .npy file, got .*Python objects", np.array([{}, None])),
    ],
)
def test_a_file_of_something_else(tmp_path, text, array):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=text):
        load_array(tmp_path / "x.npy")


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"readable .npy file, got .*no such file"):
        load_array(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"data must be a readable .npy file"):
        load_array(tmp_path / "text.npy")
    (tmp_path / "empty.npy").write_text("")
    with pytest.raises(ValueError, match=r"data must be a readable .npy file"):
        load_array(tmp_path / "empty.npy")
    np.savez(tmp_path / "two.npz", a=np.ones(2))
    (tmp_path / "two.npz").rename(tmp_path / "two.npy")
    with pytest.raises(ValueError, match=r"got an archive of arrays"):
        load_array(tmp_path / "two.npy")
    np.save(tmp_path / "x.npy", np.array([1.0, np.nan]))
    with pytest.raises(NumericalError, match=r"data must be finite"):
        load_array(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"count must be between 1 and 2, got 3"):
        load_array(tmp_path / "x.npy", 3)
