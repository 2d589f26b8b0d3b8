"""``ntktheory data``."""

import hashlib

from ntktheory.data import DATA
from ntktheory.data.download import REMOTES, Remote
from tests.cli.shared import complaint_of, run


def test_list(capsys):
    status, printed, _ = run("data", "list", capsys=capsys)
    assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[1:]}
    assert list(rows) == list(DATA)
    assert rows["digits"][:2] == ["–", "embedded"]
    assert rows["cifar10-jpeg"][:3] == ["train|test", "by", "hand"]
    assert {name for name, row in rows.items() if row[1] == "download"} == set(REMOTES)


def published(folder, monkeypatch):
    """Publish two made-up files in place of CIFAR-10; return their folder's address."""
    folder.mkdir()
    contents = {"x.bin": b"x" * 1000, "y.bin": b"y"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setitem(REMOTES, "cifar10", Remote("http://127.0.0.1:1", "deep", sums))
    return folder.as_uri()


def test_download(tmp_path, capsys, monkeypatch):
    address = published(tmp_path / "published", monkeypatch)
    arguments = ["data", "download", "cifar10", "--mirror", address]
    status, printed, err = run(*arguments, "--data-dir", str(tmp_path / "data"), capsys=capsys)
    files = [tmp_path / "data/deep" / name for name in ("x.bin", "y.bin")]
    assert (status, err) == (0, "")
    assert printed.splitlines() == [str(f) for f in files]
    assert [f.read_bytes() for f in files] == [b"x" * 1000, b"y"]
    monkeypatch.setenv("NTKTHEORY_DATA", str(tmp_path / "data"))
    assert run("data", "download", "cifar10", capsys=capsys)[0] == 0  # there already


def test_a_download_that_fails_leaves_nothing(tmp_path, capsys, monkeypatch):
    address = published(tmp_path / "published", monkeypatch)
    (tmp_path / "published/x.bin").write_bytes(b"other")
    place = ["--data-dir", str(tmp_path / "data")]
    arguments = ["data", "download", "cifar10", *place]
    assert "of SHA-256" in complaint_of(*arguments, "--mirror", address, capsys=capsys)
    assert "an address that answers" in complaint_of(*arguments, capsys=capsys)
    assert list((tmp_path / "data/deep").iterdir()) == []


def test_bad_input(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NTKTHEORY_DATA", raising=False)
    place = ["--data-dir", str(tmp_path)]
    error = complaint_of("data", "download", "digits", *place, capsys=capsys)
    assert "data must be one of 'cifar10', 'fashion_mnist', got 'digits'" in error
    assert "NTKTHEORY_DATA" in complaint_of("data", "download", "cifar10", capsys=capsys)
    assert "Missing argument" in complaint_of("data", "download", capsys=capsys)
    assert "No such command" in complaint_of("data", "upload", capsys=capsys)
