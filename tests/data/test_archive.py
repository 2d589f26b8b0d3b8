"""Archives read in memory: names, kinds of members, damage."""

import gzip
import lzma
import tarfile

import pytest

from ntktheory.data.archive import read_archive
from tests.data.made_up import write_tar

FILES = {"a/0.bin": b"zero" * 300, "a/1.bin": b"", "b/0.bin": bytes(range(256))}
SUFFIXES = pytest.mark.parametrize("suffix", [".xz", ".gz"])


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@SUFFIXES
def test_files_in_order(tmp_path, suffix):
    path = write_tar(tmp_path / f"x.tar{suffix}", FILES)
    assert list(read_archive(path)) == list(FILES.items())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "extra"),
    [
        ("'/etc/x' leads outside", member("/etc/x")),
        ("'a/../../x' leads outside", member("a/../../x")),
        (r"leads outside", member("a\\..\\x")),
        ("'l' is neither file nor folder", member("l", tarfile.SYMTYPE, "/etc/passwd")),
        ("'l' is neither file nor folder", member("l", tarfile.LNKTYPE, "a/0.bin")),
        ("'p' is neither file nor folder", member("p", tarfile.FIFOTYPE)),
        ("'d' is neither file nor folder", member("d", tarfile.CHRTYPE)),
        ("'a/1.bin' comes twice", member("a/1.bin")),
        ("'./a/1.bin' comes twice", member("./a/1.bin")),
    ],
)
def test_members_that_are_refused(tmp_path, text, extra):
    path = write_tar(tmp_path / "x.tar.gz", FILES, [extra])
    with pytest.raises(ValueError, match=text):
        list(read_archive(path))


@SUFFIXES
@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_shortened_archive(tmp_path, suffix, part):
    path = write_tar(tmp_path / f"x.tar{suffix}", FILES)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match=r"data must be an undamaged file, got .*x\.tar"):
        list(read_archive(path))


def outcome(path):
    """Return what is read and no text, or None and the text of the error."""
    try:
        return list(read_archive(path)), ""
    except ValueError as error:
        return None, str(error)


@SUFFIXES
def test_every_changed_byte_is_noticed_or_harmless(tmp_path, suffix):
    """What is read is what was written, or an error; a gzip header has bytes without meaning."""
    path = write_tar(tmp_path / f"x.tar{suffix}", FILES)
    data = path.read_bytes()
    noticed = 0
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :])
        found, error = outcome(path)
        assert found == list(FILES.items()) or "undamaged" in error
        noticed += found is None
    assert noticed >= len(data) - 25


@pytest.mark.parametrize("cut", [512, 1024, 3000, 4096])
def test_a_shortened_archive_inside_sound_compression(tmp_path, cut):
    """Cut at a block, inside a file or inside a header: the tar reader alone would just stop."""
    path = write_tar(tmp_path / "x.tar.gz", FILES)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:cut]))
    with pytest.raises(ValueError, match="undamaged"):
        list(read_archive(path))


def test_a_broken_header_inside_sound_compression(tmp_path):
    path = write_tar(tmp_path / "x.tar.xz", FILES)
    whole = bytearray(lzma.decompress(path.read_bytes()))
    position = whole.index(b"b/0.bin")
    whole[position] ^= 1
    path.write_bytes(lzma.compress(bytes(whole)))
    with pytest.raises(ValueError, match="no end after 2 files"):
        list(read_archive(path))


def test_something_else(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="undamaged"):
        list(read_archive(path))
    path.write_bytes(gzip.compress(b"hello"))
    with pytest.raises(ValueError, match="undamaged"):
        list(read_archive(path))


def test_a_small_archive_of_much(tmp_path):
    path = write_tar(tmp_path / "x.tar.xz", {"zeros": bytes(10**6)})
    assert path.stat().st_size < 2000
    with pytest.raises(ValueError, match="at most 100000 bytes unpacked"):
        list(read_archive(path, largest_bytes=10**5))
