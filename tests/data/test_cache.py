"""The cache: made once, checked at every use, never half written."""

from pathlib import Path

import numpy as np
import pytest

from ntktheory.data.cache import cache_folder, cached_records

RECORDS = np.arange(60, dtype=np.uint8).reshape(5, 12)


class Decoder:
    """Counts how often it is asked."""

    def __init__(self, records=RECORDS):
        self.calls, self.records = 0, records

    def __call__(self):
        self.calls += 1
        return self.records


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"archive")
    return path


def only_file(folder):
    (file,) = folder.iterdir()
    return file


def test_decoded_once(tmp_path, source):
    decode = Decoder()
    for _ in range(3):
        found = cached_records("x", source, decode, cache_dir=tmp_path / "new/cache")
        assert np.array_equal(found, RECORDS)
        assert found.dtype == np.uint8
    assert decode.calls == 1
    digest = "0eb3e36b"  # sha256sum of "archive"
    assert only_file(tmp_path / "new/cache").name.startswith(f"x-v1-{digest}")


def test_a_changed_source_is_decoded_anew(tmp_path, source):
    cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")
    source.write_bytes(b"Archive")
    other = Decoder(RECORDS + 1)
    assert np.array_equal(cached_records("x", source, other, cache_dir=tmp_path / "c"), RECORDS + 1)
    assert len(list((tmp_path / "c").iterdir())) == 2
    cached_records("y", source, other, cache_dir=tmp_path / "c")
    assert other.calls == 2


def test_every_changed_byte_is_noticed(tmp_path, source):
    cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")
    file = only_file(tmp_path / "c")
    data = file.read_bytes()
    decode = Decoder()
    noticed = 0
    for i in range(len(data)):
        file.write_bytes(data[:i] + bytes([data[i] ^ 0x02]) + data[i + 1 :])
        try:
            found, text = cached_records("x", source, decode, cache_dir=tmp_path / "c"), ""
        except ValueError as error:
            found, text = None, str(error)
            noticed += 1
        if found is None:
            assert text.startswith(f"the cache must be undamaged, got {file} (")
            assert text.endswith("Delete that file; it is made again.")
        else:
            assert np.array_equal(found, RECORDS)
    assert decode.calls == 0
    assert noticed >= len(data) - 8  # spaces that pad the header


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_shortened_cache(tmp_path, source, length):
    cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")
    file = only_file(tmp_path / "c")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match="the cache must be undamaged"):
        cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")


def test_a_cache_of_another_source_under_its_name(tmp_path, source):
    cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")
    first = only_file(tmp_path / "c")
    source.write_bytes(b"other")
    cached_records("x", source, Decoder(RECORDS + 1), cache_dir=tmp_path / "c")
    (second,) = set((tmp_path / "c").iterdir()) - {first}
    first.replace(second)
    with pytest.raises(ValueError, match=r"the cache must be undamaged.*checksums differ"):
        cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")


def test_a_failed_write_leaves_nothing(tmp_path, source, monkeypatch):
    def broken(tensors, path, marks):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.numpy.save_file", broken)
    with pytest.raises(
        ValueError, match=r"cache_dir must be a folder that can be written.*no space"
    ):
        cached_records("x", source, Decoder(), cache_dir=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_cache_that_is_no_folder(tmp_path, source):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache_dir must be a folder .*Pass cache_dir="):
        cached_records("x", source, Decoder(), cache_dir=tmp_path / "file/deeper")


def test_a_failed_decoding_leaves_nothing(tmp_path, source):
    def decode():
        raise ValueError("broken archive")

    with pytest.raises(ValueError, match="broken archive"):
        cached_records("x", source, decode, cache_dir=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ntktheory"
    assert cache_folder("elsewhere") == Path("elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / "home/.cache/ntktheory"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home/.cache/ntktheory"
    assert cache_folder("~/c") == tmp_path / "home/c"
