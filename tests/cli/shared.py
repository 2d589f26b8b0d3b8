"""The command line, run in this process or in a shell."""

import subprocess
import sys

from torch import nn

from ntktheory import cli


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


def dead():
    """Return a network on digits whose weights are 0."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)
    )
    for p in net.parameters():
        nn.init.zeros_(p)
    return net.eval()


def smooth():
    """Return a network without a path rule."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.GELU(), nn.Linear(2, 2))


class Attending(nn.Module):
    """A network whose weights can be pruned, and whose paths nobody can count."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).softmax(1))


def attending():
    """Return a network without paths, smooth or not."""
    return Attending()
