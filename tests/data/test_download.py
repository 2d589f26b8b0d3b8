"""Downloads, from file addresses and from a server on this machine."""

import hashlib
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from ntktheory.data import cifar10, download
from ntktheory.data.download import REMOTES, Remote, fetch
from ntktheory.data.location import VARIABLE
from tests.data.made_up import batches, write_tar

CONTENT = b"some bytes" * 300_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Short(BaseHTTPRequestHandler):
    """Promises more bytes than it sends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000])

    def log_message(self, *_):
        pass


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "x.bin").write_bytes(CONTENT)
    return folder


@pytest.fixture
def serve(published):
    """Start a server of the published files; returns its address."""
    servers = []

    def start(handler=None):
        handler = handler or partial(Quiet, directory=str(published))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("kind", ["file", "http"])
def test_fetch(tmp_path, published, serve, kind, progress, capsys):
    address = published.as_uri() if kind == "file" else serve()
    target = tmp_path / "deep/er/y.bin"
    fetch(f"{address}/x.bin", target, DIGEST, progress=progress)
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["y.bin"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("y.bin" in captured.err) is progress


def test_what_is_there_is_only_checked(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(CONTENT)
    fetch("http://127.0.0.1:1/x.bin", target, DIGEST)
    target.write_bytes(b"other")
    with pytest.raises(ValueError, match=rf"the file must be of SHA-256 {DIGEST}, got .*Delete it"):
        fetch("http://127.0.0.1:1/x.bin", target, DIGEST)
    assert target.read_bytes() == b"other"


def test_another_checksum_leaves_nothing(tmp_path, published, serve):
    with pytest.raises(ValueError, match=rf"SHA-256 {'0' * 64}, got {DIGEST} for http.*mirror"):
        fetch(f"{serve()}/x.bin", tmp_path / "new/x.bin", "0" * 64)
    assert names(tmp_path / "new") == []


def test_what_cannot_be_fetched_leaves_nothing(tmp_path, published, serve):
    target = tmp_path / "new/x.bin"
    for url in (f"{serve()}/none", (published / "none").as_uri(), "http://127.0.0.1:1/x.bin"):
        with pytest.raises(ConnectionError, match=r"url must be an address that answers, got"):
            fetch(url, target, DIGEST)
        assert names(tmp_path / "new") == []


def test_a_connection_that_breaks_off(tmp_path, serve):
    with pytest.raises((ValueError, ConnectionError), match=r"SHA-256|address that answers"):
        fetch(f"{serve(Short)}/x.bin", tmp_path / "new/x.bin", DIGEST)
    assert names(tmp_path / "new") == []


@pytest.mark.parametrize("url", ["ftp://a/b", "x.bin", "data:,x"])
def test_other_addresses(tmp_path, url):
    with pytest.raises(ValueError, match="url must be an http, https or file address"):
        fetch(url, tmp_path / "x", DIGEST)


def test_a_data_set_from_a_mirror(tmp_path, published, serve, monkeypatch):
    archive = published / "cifar-10-binary.tar.gz"
    files = batches()
    write_tar(archive, {f"cifar-10-batches-bin/{n}": bytes(data) for n, data in files.items()})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    made_up = Remote("http://127.0.0.1:1", "", {archive.name: digest})
    monkeypatch.setitem(REMOTES, "cifar10", made_up)
    data_dir = tmp_path / "data"
    paths = download("cifar10", data_dir, mirror=f"{serve()}/")
    assert paths == [data_dir / archive.name]
    images, labels = cifar10(data_dir=data_dir, cache_dir=tmp_path / "cache", dtype=torch.uint8)
    assert np.array_equal(images[0].flatten().numpy(), files["data_batch_1.bin"][0, 1:])
    assert len(labels) == 10
    assert download("cifar10", data_dir) == paths  # nothing left to fetch


def test_the_files_of_a_folder(tmp_path, published, monkeypatch):
    (published / "y.bin").write_bytes(b"y")
    sums = {"x.bin": DIGEST, "y.bin": hashlib.sha256(b"y").hexdigest()}
    made_up = Remote(published.as_uri(), "fashion_mnist", sums)
    monkeypatch.setitem(REMOTES, "fashion_mnist", made_up)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    paths = download("fashion_mnist")
    assert paths == [tmp_path / "data/fashion_mnist" / name for name in ("x.bin", "y.bin")]
    assert [p.read_bytes() for p in paths] == [CONTENT, b"y"]


def test_another_archive_in_place_of_the_published_one(tmp_path, published):
    (published / "cifar-10-binary.tar.gz").write_bytes(CONTENT)
    with pytest.raises(ValueError, match=rf"SHA-256 c4a38c50.*, got {DIGEST}"):
        download("cifar10", tmp_path / "data", mirror=published.as_uri())
    assert names(tmp_path / "data") == []


def test_bad_input(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ValueError, match=r"data must be one of 'cifar10', 'fashion_mnist', got"):
        download("cifar10-jpeg", tmp_path)
    with pytest.raises(ValueError, match=r"data_dir must be the folder to put the files into"):
        download("cifar10")


def test_checksums_are_whole():
    sums = [digest for remote in REMOTES.values() for digest in remote.sha256.values()]
    assert len(set(sums)) == len(sums) == 5
    assert all(len(bytes.fromhex(digest)) == 32 for digest in sums)
