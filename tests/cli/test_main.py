"""The command ``ntktheory`` as a whole: help, errors that every command shares, interruptions."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ntktheory import cli
from ntktheory.cli import ntk
from ntktheory.data import DATA
from ntktheory.data.download import REMOTES
from ntktheory.models import MODELS
from tests.cli.shared import complaint_of, run

SMALL = ["ntk", "--samples", "4", "--arg", "hidden=5", "--arg", "outputs=3"]
COMMANDS = [
    [], ["ntk"], ["bounds"], ["score"], ["prune"], ["scorers"], ["models"], ["data"],
    ["data", "list"], ["data", "download"],
]  # fmt: skip
HEAVY = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "safetensors", "rich.progress")
SLOW = """
import pathlib, time
from torch import nn
class Slow(nn.Linear):
    def forward(self, x):
        pathlib.Path("started").touch()
        time.sleep(100)
def net():
    return Slow(64, 2)
"""


def test_the_runner_of_typer_agrees():
    result = CliRunner().invoke(cli.app, [*SMALL, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["shape"] == [4, 4, 3, 3]


def test_missing_and_unknown_commands(capsys):
    assert "Missing command" in complaint_of(capsys=capsys)
    assert "No such command" in complaint_of("grow", capsys=capsys)


def test_out_of_memory_is_one_line(capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(ntk, "_blocks", fail)
    assert "fewer --samples" in complaint_of(*SMALL, capsys=capsys)


def test_other_errors_are_not_hidden(monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(ntk, "_blocks", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(SMALL)


def test_interrupting(capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ntk, "_blocks", stop)
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


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_loads_nothing_heavy(command):
    # The package itself imports torch; a bare package of its name shows what the commands add.
    code = (
        "import sys, types\n"
        "package = types.ModuleType('ntktheory')\n"
        f"package.__path__ = [{str(Path(cli.__file__).parents[1])!r}]\n"
        "sys.modules['ntktheory'] = package\n"
        "from ntktheory.cli import main\n"
        f"main({[*command, '-h']!r})\n"
        f"print({{*{HEAVY!r}}} & set(sys.modules) or 'light', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "light"
    assert done.stdout.startswith("Usage: ")


def test_help_names_every_model_data_set_and_option(capsys):
    for command in ("ntk", "bounds", "score", "prune"):
        text = " ".join(run(command, "-h", capsys=capsys)[1].split())
        assert all(name in text for name in DATA)
        found = re.findall(r"(mlp|convnet|resnet|vgg)((?:\d+, )*\d*): ([^.]*)\.", text)
        options = {
            f"{family}{number}": {"outputs", *re.findall(r"(\w+)=", keys)}
            for family, numbers, keys in found
            for number in numbers.split(", ")
        }
        assert options == {name: set(entry.options) for name, entry in MODELS.items()}
    text = run("data", "download", "-h", capsys=capsys)[1]
    assert all(name in text for name in REMOTES)


def test_help_ends_with_examples_on_lines_of_their_own(capsys):
    for command in ("ntk", "bounds"):
        lines = run(command, "-h", capsys=capsys)[1].splitlines()
        assert [line.startswith(f"  ntktheory {command} --model") for line in lines[-2:]] == [
            True
        ] * 2


def test_a_wrong_option_names_its_command(capsys):
    for command in ("ntk", "bounds", "score px", "prune px", "data download"):
        error = complaint_of(*command.split(), "--layers", "3", capsys=capsys)
        assert error.startswith("error: No such option: --layers ")
        name = command.removesuffix(" px")
        assert error.endswith(f"(See ntktheory {name} -h.)\n")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
@pytest.mark.parametrize("arguments", [["ntk", "--out", "k.npy"], ["bounds", "--plot", "b.svg"]])
def test_stopped_runs_leave_nothing(arguments, sent, status, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / arguments[2]).write_bytes(b"old")
    command = [sys.executable, "-B", "-m", "ntktheory.cli", *arguments, "--model", "slow:net"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == status, error
    assert sent != signal.SIGINT or error.startswith("error: interrupted")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["slow.py", "started", arguments[2]]
    )
    assert (tmp_path / arguments[2]).read_bytes() == b"old"
