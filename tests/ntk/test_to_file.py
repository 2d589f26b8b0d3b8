"""Kernels on disk: the same bytes as in memory, also after a kill."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ntktheory import empirical_ntk
from ntktheory.ntk import to_file
from ntktheory.ntk.to_file import ntk_to_file
from proofs_check import cases


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_same_numbers_as_in_memory(tmp_path, output):
    net = cases.network("CNN")
    for x2 in (None, net.x[:3]):
        path = tmp_path / f"{output}{x2 is None}.npy"
        stored = ntk_to_file(net.model, net.x, x2, path=path, output=output, chunk_size=2)
        expected = empirical_ntk(net.model, net.x, x2, output=output, chunk_size=2)
        assert np.array_equal(stored, expected.numpy())
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".npy"]


def killed_after(count, monkeypatch):
    """Let ``ntk_to_file`` die after ``count`` tiles; return what undoes it."""
    real, calls = to_file._write, []

    def dying(*args):
        calls.append(args)
        if len(calls) > count + 1:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(to_file, "_write", dying)
    return lambda: monkeypatch.setattr(to_file, "_write", real)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_killed_run_resumes_to_the_same_bytes(tmp_path, monkeypatch, count):
    net = cases.network("MLP")
    whole, path = tmp_path / "whole.npy", tmp_path / "killed.npy"
    ntk_to_file(net.model, net.x, path=whole, chunk_size=2)
    revive = killed_after(count, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ntk_to_file(net.model, net.x, path=path, chunk_size=2)
    assert not path.exists()
    assert len(json.loads((tmp_path / "killed.npy.tiles").read_text())["done"]) == count
    revive()
    computed = []
    real = to_file.tiles

    def counted(*args, **options):
        for tile in real(*args, **options):
            computed.append(tile[:2])
            yield tile

    monkeypatch.setattr(to_file, "tiles", counted)
    ntk_to_file(net.model, net.x, path=path, chunk_size=2)
    assert path.read_bytes() == whole.read_bytes()
    assert len(computed) == 6 - count


def test_other_parameters_do_not_resume(tmp_path, monkeypatch):
    net = cases.network("MLP")
    path = tmp_path / "ntk.npy"
    revive = killed_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ntk_to_file(net.model, net.x, path=path, chunk_size=2)
    revive()
    with pytest.raises(ValueError, match="begun with the same parameters, data and options"):
        ntk_to_file(net.model, 2 * net.x, path=path, chunk_size=2)


def test_bad_paths(tmp_path):
    model, x = nn.Linear(2, 1), torch.ones(2, 2)
    with pytest.raises(ValueError, match="path must be in a folder that exists"):
        ntk_to_file(model, x, path=tmp_path / "none" / "ntk.npy")
    (tmp_path / "ntk.npy").touch()
    with pytest.raises(ValueError, match="path must be a new file"):
        ntk_to_file(model, x, path=tmp_path / "ntk.npy")


def test_budget(tmp_path):
    net = cases.network("CNN")
    with pytest.raises(ValueError, match=r"budget_bytes must be at least \d+ for one row"):
        empirical_ntk(net.model, net.x, budget_bytes=10)
    small = empirical_ntk(net.model, net.x, budget_bytes=60_000)
    torch.testing.assert_close(small, empirical_ntk(net.model, net.x), rtol=1e-12, atol=1e-12)
