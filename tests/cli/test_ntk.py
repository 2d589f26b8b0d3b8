"""The command ``ntktheory ntk``: what it prints, writes, and how it complains."""

import json

import numpy as np
import pytest
import torch

from ntktheory import empirical_ntk
from ntktheory.cli import inputs, ntk
from ntktheory.data import DATA, cifar10_jpeg, digits
from ntktheory.models import build_model
from tests.cli.shared import complaint_of, dead, run, shell
from tests.data.made_up import jpegs, write_files

SMALL = ["ntk", "--samples", "4", "--arg", "hidden=5", "--arg", "outputs=3"]


def test_help_in_a_shell(tmp_path):
    done = shell("ntk", "-h", cwd=tmp_path)
    assert done.returncode == 0
    assert "--spectrum" in done.stdout
    assert "channels=8,16" in done.stdout


def test_a_function_of_the_current_folder(tmp_path):
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def small():\n    return nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))\n"
    )
    np.save(tmp_path / "x.npy", np.eye(3))
    done = shell("ntk", "--model", "mynets:small", "--data", "x.npy", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # Θ = (x·x' + 1) δ_cc': trace (1 + 1) · 3 · 2, eigenvalues of 1 + identity.
    summary = json.loads(done.stdout)
    assert summary["trace"] == pytest.approx(12)
    assert summary["largest_eigenvalue"] == pytest.approx(4)
    assert summary["smallest_eigenvalue"] == pytest.approx(1)


def test_an_error_in_a_shell(tmp_path):
    done = shell("ntk", "--data", "none.npy", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: data must be a readable .npy file, got none.npy")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_the_kernel_is_written(output, tmp_path, capsys):
    out = tmp_path / "k.npy"
    options = ["--output", output, "--dtype", "float64", "--seed", "3", "--out", str(out), "--json"]
    status, printed, _ = run(*SMALL, *options, capsys=capsys)
    generator = torch.Generator().manual_seed(3)
    net = build_model(
        "mlp", (1, 8, 8), hidden=5, outputs=3, generator=generator, dtype=torch.float64
    )
    x = digits(4, dtype=torch.float64)[0]
    summary = json.loads(printed)
    assert status == 0
    expected = empirical_ntk(net, x, output=output)
    np.testing.assert_array_equal(np.load(out, allow_pickle=False), expected.numpy())
    assert summary["shape"] == list(expected.shape)
    assert summary["trace"] == pytest.approx(float(empirical_ntk(net, x, output="trace").trace()))
    assert [p.name for p in tmp_path.iterdir()] == ["k.npy"]


def test_the_summary(capsys):
    status, printed, _ = run(*SMALL, "--dtype", "float64", "--json", capsys=capsys)
    summary = json.loads(printed)
    assert status == 0
    assert {"shape", "trace", "seconds", "versions", "effective_rank"} <= set(summary)
    assert {"python", "torch", "ntktheory"} <= set(summary["versions"])
    generator = torch.Generator().manual_seed(0)
    net = build_model(
        "mlp", (1, 8, 8), hidden=5, outputs=3, generator=generator, dtype=torch.float64
    )
    theta = empirical_ntk(net, digits(4, dtype=torch.float64)[0])
    values = torch.linalg.eigvalsh(theta.permute(0, 2, 1, 3).reshape(12, 12))
    assert summary["largest_eigenvalue"] == pytest.approx(float(values[-1]))
    assert summary["smallest_eigenvalue"] == pytest.approx(float(values[0]), abs=1e-10)
    p = values.clamp(min=1e-300) / values.sum()
    assert summary["effective_rank"] == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-6)


def test_a_table_is_printed(capsys):
    status, printed, _ = run(*SMALL, capsys=capsys)
    assert status == 0
    assert "4 × 4 × 3 × 3" in printed
    assert "largest eigenvalue" in printed


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_spectrum_is_plotted(suffix, tmp_path, capsys):
    file = tmp_path / f"s.{suffix}"
    assert run(*SMALL, "--spectrum", str(file), capsys=capsys)[0] == 0
    assert file.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_a_dead_network_has_a_spectrum(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inputs, "build_network", lambda *_: dead())
    file = tmp_path / "s.png"
    status, printed, err = run(*SMALL, "--json", "--spectrum", str(file), capsys=capsys)
    assert status == 0, err
    assert json.loads(printed)["effective_rank"] == 0


def test_large_spectra_are_left_out_unless_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(ntk, "LARGEST_SPECTRUM", 3)
    summary = json.loads(run(*SMALL, "--json", capsys=capsys)[1])
    assert summary["largest_eigenvalue"] is None


def test_a_failed_write_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    out = tmp_path / "k.npy"
    out.write_bytes(b"old")

    def broken(path, theta):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(ntk, "_save", broken)
    assert "no space left" in complaint_of(*SMALL, "--out", str(out), capsys=capsys)
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["k.npy"]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("or module:function, got 'vgg'. Choose one of them.", ["--model", "vgg"]),
        ("ModuleNotFoundError", ["--model", "no_such_module_here:f"]),
        ("AttributeError", ["--model", "math:no_such_function"]),
        ("a function that returns an nn.Module, got platform:node", ["--model", "platform:node"]),
        ("--arg must be left out for module:function", ["--model", "platform:node", "--arg", "a=1"]),
        ("--arg must be KEY=VALUE, got 'hidden'", ["--arg", "hidden"]),
        ("option of the model mlp must be one of", ["--arg", "width=3"]),
        ("hidden must be positive integers, got (-1,)", ["--arg", "hidden=-1"]),
        (f"--data must be one of {', '.join(DATA)}, or a .npy file, got 'mnist'", ["--data", "mnist"]),
        ("between 1 and 1797", ["--samples", "5000"]),
        ("'--samples'", ["--samples", "0"]),
        ("'--output'", ["--output", "sum"]),
        ("--out must be a file ending in .npy", ["--out", "k.txt"]),
        ("--out must be a file in an existing folder", ["--out", "no/such/folder/k.npy"]),
        ("--spectrum must be a file ending in .png or .svg", ["--spectrum", "s.gif"]),
        ("No such option: --layers", ["--layers", "3"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(text, arguments, capsys):
    assert text in complaint_of("ntk", *arguments, capsys=capsys)


def test_a_model_that_does_not_take_the_data(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    arguments = ["ntk", "--model", "convnet", "--data", str(tmp_path / "x.npy")]
    assert "square images" in complaint_of(*arguments, capsys=capsys)


def test_a_wrong_model_is_refused_before_data_are_loaded(capsys, tmp_path):
    missing = ["--data", "cifar10", "--data-dir", str(tmp_path)]
    assert "--model must be one of" in complaint_of("ntk", "--model", "x", *missing, capsys=capsys)


def test_data_of_a_folder(tmp_path, capsys, monkeypatch):
    write_files(tmp_path / "cifar10_jpeg", jpegs(train=1, test=2))
    images = cifar10_jpeg(20, split="test", data_dir=tmp_path)[0]
    arguments = [
        "ntk",
        "--arg",
        "hidden=2",
        "--data",
        "cifar10-jpeg",
        "--output",
        "trace",
        "--json",
    ]
    monkeypatch.setenv("NTKTHEORY_DATA", str(tmp_path))
    trained = json.loads(run(*arguments, "--samples", "3", capsys=capsys)[1])
    assert trained["data"] == "cifar10-jpeg train, 3 samples"
    monkeypatch.delenv("NTKTHEORY_DATA")
    place = ["--data-dir", str(tmp_path), "--split", "test", "--samples", "20"]
    tested = json.loads(run(*arguments, *place, capsys=capsys)[1])
    assert tested["data"] == "cifar10-jpeg test, 20 samples"
    generator = torch.Generator().manual_seed(0)
    net = build_model("mlp", (3, 32, 32), hidden=2, generator=generator)
    expected = empirical_ntk(net, images, output="trace")
    assert tested["trace"] == pytest.approx(float(expected.trace()), rel=1e-6)
    assert trained["trace"] != pytest.approx(tested["trace"], rel=0.1)


def test_parts_of_what_has_none(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    file = ["--data", str(tmp_path / "x.npy"), "--split", "test"]
    assert "--split must be left out for a file" in complaint_of("ntk", *file, capsys=capsys)
    assert "split must be" in complaint_of("ntk", "--split", "test", capsys=capsys)
    folder = ["--data", "cifar10-jpeg", "--data-dir", str(tmp_path), "--split", "dev"]
    assert "split must be one of 'test', 'train'" in complaint_of("ntk", *folder, capsys=capsys)


def test_data_that_are_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NTKTHEORY_DATA", raising=False)
    for name in ("cifar10-jpeg", "cifar10", "fashion_mnist"):
        error = complaint_of("ntk", "--data", name, capsys=capsys)
        assert "data_dir must be a folder that holds" in error
        nowhere = ["--data-dir", str(tmp_path / "none")]
        assert "no folder" in complaint_of("ntk", "--data", name, *nowhere, capsys=capsys)
