"""Data sets by name, and inputs from files."""

import numpy as np
import pytest
import torch

from ntktheory import NumericalError
from ntktheory.data import DATA, digits, load_array, load_data


@pytest.mark.parametrize("name", DATA)
def test_inputs_and_labels(name):
    x, y = load_data(name, 4, dtype=torch.float64)
    assert x.dtype == torch.float64
    assert len(x) == len(y) == 4


def test_digits_by_name():
    drawn = [torch.Generator().manual_seed(1) for _ in range(2)]
    x, y = load_data("digits", 5, generator=drawn[0])
    other, labels = digits(5, generator=drawn[1])
    assert torch.equal(x, other)
    assert torch.equal(y, labels)


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"data must be one of 'digits', got 'mnist'"):
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
