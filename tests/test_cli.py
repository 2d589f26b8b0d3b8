"""The command ``ntktheory``: what it prints, writes, and how it complains."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ntktheory import cli, empirical_ntk
from ntktheory.data import digits
from ntktheory.models import build_model

SMALL = ["ntk", "--samples", "4", "--arg", "hidden=5", "--arg", "outputs=3"]


def run(*arguments, capsys):
    status = cli.main(list(arguments))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def complaint_of(*arguments, capsys):
    status, out, err = run(*arguments, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    return err


def shell(*arguments, cwd):
    command = [sys.executable, "-m", "ntktheory.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


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


def test_the_runner_of_typer_agrees():
    result = CliRunner().invoke(cli.app, [*SMALL, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["shape"] == [4, 4, 3, 3]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_spectrum_is_plotted(suffix, tmp_path, capsys):
    file = tmp_path / f"s.{suffix}"
    assert run(*SMALL, "--spectrum", str(file), capsys=capsys)[0] == 0
    assert file.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_a_dead_network_has_a_spectrum(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_network", lambda *_: _dead())
    file = tmp_path / "s.png"
    status, printed, err = run(*SMALL, "--json", "--spectrum", str(file), capsys=capsys)
    assert status == 0, err
    assert json.loads(printed)["effective_rank"] == 0


def _dead():
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)
    )
    for p in net.parameters():
        nn.init.zeros_(p)
    return net.eval()


def test_large_spectra_are_left_out_unless_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(cli, "LARGEST_SPECTRUM", 3)
    summary = json.loads(run(*SMALL, "--json", capsys=capsys)[1])
    assert summary["largest_eigenvalue"] is None


def test_a_failed_write_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    out = tmp_path / "k.npy"
    out.write_bytes(b"old")

    def broken(path, theta):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(cli, "_save", broken)
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
        ("--data must be one of digits, or a .npy file, got 'mnist'", ["--data", "mnist"]),
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


def test_missing_and_unknown_commands(capsys):
    assert "Missing command" in complaint_of(capsys=capsys)
    assert "No such command" in complaint_of("prune", capsys=capsys)


def test_out_of_memory_is_one_line(capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(cli, "_blocks", fail)
    assert "fewer --samples" in complaint_of(*SMALL, capsys=capsys)


def test_other_errors_are_not_hidden(monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "_blocks", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(SMALL)


def test_interrupting(capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_blocks", stop)
    status, _, err = run(*SMALL, capsys=capsys)
    assert status == 130
    assert "interrupted" in err


def test_help_needs_no_function_transforms_or_plots():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import ntktheory.cli; ntktheory.cli.main(['-h'])\n"
        "new = set(sys.modules) - before\n"
        "print({'sklearn', 'matplotlib', 'scipy'} & new or 'light', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "light"
