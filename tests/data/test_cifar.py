"""CIFAR-10 in both forms, each from an archive and from a folder; and once from the real archive."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ntktheory.data import cifar10, cifar10_jpeg
from ntktheory.data.cifar import CLASSES
from ntktheory.data.location import VARIABLE
from tests.data.made_up import batches, decoded, jpeg, jpegs, write_files, write_tar


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the cache, and the data sets of this machine, out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "xdg/ntktheory"


def jpeg_archive(folder, files):
    folder.mkdir(exist_ok=True)
    write_tar(folder / "cifar10_jpeg.tar.xz", files)
    return folder


def jpeg_folder(folder, files):
    write_files(folder / "cifar10_jpeg", files)
    return folder


def binary_archive(folder, files):
    folder.mkdir(exist_ok=True)
    members = {f"cifar-10-batches-bin/{name}": bytes(data) for name, data in files.items()}
    write_tar(folder / "cifar-10-binary.tar.gz", members | {"cifar-10-batches-bin/readme": b"?"})
    return folder


def binary_folder(folder, files):
    write_files(folder / "cifar-10-batches-bin", {n: bytes(data) for n, data in files.items()})
    return folder


JPEG = pytest.mark.parametrize("write", [jpeg_archive, jpeg_folder])
BINARY = pytest.mark.parametrize("write", [binary_archive, binary_folder])


# --- JPEG ----------------------------------------------------------------------------------------


@JPEG
@pytest.mark.parametrize(("split", "per_class"), [("train", 2), ("test", 1)])
def test_jpeg_pixels_and_order(tmp_path, write, split, per_class):
    files = jpegs()
    data_dir = write(tmp_path / "data", files)
    images, labels = cifar10_jpeg(split=split, data_dir=data_dir, dtype=torch.uint8)
    assert labels.tolist() == list(range(10)) * per_class
    assert images.shape == (10 * per_class, 3, 32, 32)
    for i, image in enumerate(images):
        name = f"{split}/{CLASSES[i % 10]}/{i // 10:04d}.jpg"
        assert np.array_equal(image.numpy(), decoded(files[name]))


def test_jpeg_order_is_that_of_names_not_of_the_archive(tmp_path):
    files = jpegs()
    backwards = dict(reversed(files.items()))
    one = cifar10_jpeg(data_dir=jpeg_archive(tmp_path / "a", files))
    two = cifar10_jpeg(data_dir=jpeg_archive(tmp_path / "b", backwards))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


@JPEG
def test_jpeg_parts_and_types(tmp_path, write):
    data_dir = write(tmp_path / "data", jpegs())
    images, labels = cifar10_jpeg(data_dir=data_dir, dtype=torch.float64)
    raw, _ = cifar10_jpeg(data_dir=data_dir, dtype=torch.uint8)
    assert torch.equal(images, raw.double() / 255)
    few = cifar10_jpeg(1, data_dir=data_dir, dtype=torch.float64)
    assert torch.equal(few[0], images[:1])
    drawn, drawn_labels = cifar10_jpeg(
        7, data_dir=data_dir, generator=seeded(), dtype=torch.float64
    )
    order = torch.randperm(20, generator=seeded())[:7]
    assert torch.equal(drawn, images[order])
    assert torch.equal(drawn_labels, labels[order])


def test_jpeg_archive_is_decoded_once_per_split(tmp_path, cache, monkeypatch):
    data_dir = jpeg_archive(tmp_path / "data", jpegs())
    first = cifar10_jpeg(3, data_dir=data_dir)
    assert [f.name[:22] for f in cache.iterdir()] == ["cifar10-jpeg-train-v1-"]
    cifar10_jpeg(3, split="test", data_dir=data_dir)
    assert len(list(cache.iterdir())) == 2

    def never(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("ntktheory.data.cifar.decode_all", never)
    again = cifar10_jpeg(20, data_dir=data_dir)
    assert torch.equal(again[0][:3], first[0])
    monkeypatch.undo()
    elsewhere = cifar10_jpeg(3, data_dir=data_dir, cache_dir=tmp_path / "mine")
    assert torch.equal(elsewhere[0], first[0])
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_jpeg_folder_decodes_only_what_is_asked_for(tmp_path, cache):
    data_dir = jpeg_folder(tmp_path / "data", jpegs())
    (data_dir / "cifar10_jpeg/train/truck/0001.jpg").write_bytes(b"broken")
    assert len(cifar10_jpeg(19, data_dir=data_dir)[0]) == 19
    with pytest.raises(ValueError, match=r"readable JPEG or PNG.*truck/0001\.jpg"):
        cifar10_jpeg(data_dir=data_dir)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (r"readable JPEG.*got train/cat/0001\.jpg in .*tar\.xz", {"train/cat/0001.jpg": b"no"}),
        (r"32×32, ten classes.*images of shape \[3, 6, 8\]", "all small"),
        (r"images must be of one size", {"train/dog/0000.jpg": jpeg(0, (8, 6))}),
        (r"classes of 2 to 3 images", {"train/cat/0002.jpg": jpeg(0)}),
        (r"with 'train/cow/0000\.jpg'", {"train/cow/0000.jpg": jpeg(0)}),
        (r"with 'train/cat/0000\.txt'", {"train/cat/0000.txt": b""}),
        (r"with 'val/cat/0000\.jpg'", {"val/cat/0000.jpg": jpeg(0)}),
        (r"with 'readme'", {"readme": b""}),
        (r"classes of 0 to 2 images", "no cats"),
    ],
)
def test_jpeg_archives_of_something_else(tmp_path, cache, text, change):
    files = jpegs()
    if change == "all small":
        files = {name: jpeg(0, (8, 6)) for name in files}
    elif change == "no cats":
        files = {name: data for name, data in files.items() if "cat" not in name}
    else:
        files |= change
    data_dir = jpeg_archive(tmp_path / "data", files)
    with pytest.raises(ValueError, match=text):
        cifar10_jpeg(data_dir=data_dir)
    assert not cache.exists()


def test_jpeg_archive_with_a_link(tmp_path, cache):
    link = tarfile.TarInfo("train/cat/0002.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../outside"
    write_tar(tmp_path / "cifar10_jpeg.tar.xz", jpegs(), [link])
    with pytest.raises(ValueError, match="neither file nor folder"):
        cifar10_jpeg(data_dir=tmp_path)
    assert not cache.exists()


def test_a_damaged_jpeg_archive_is_named(tmp_path, cache):
    data_dir = jpeg_archive(tmp_path / "data", jpegs())
    file = data_dir / "cifar10_jpeg.tar.xz"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"undamaged file, got .*cifar10_jpeg\.tar\.xz"):
        cifar10_jpeg(data_dir=data_dir)
    assert not cache.exists()


def test_a_damaged_cache_is_named(tmp_path, cache):
    data_dir = jpeg_archive(tmp_path / "data", jpegs())
    before, _ = cifar10_jpeg(data_dir=data_dir)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"the cache must be undamaged, got .*{file.name}"):
        cifar10_jpeg(1, data_dir=data_dir)
    file.unlink()
    assert torch.equal(cifar10_jpeg(data_dir=data_dir)[0], before)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (r"classes cat, dog in train", {"train/cat/0.jpg": jpeg(0), "train/dog/0.jpg": jpeg(0)}),
        (r"classes of 2 to 3 images", jpegs() | {"train/cat/0002.jpg": jpeg(0)}),
        (r"shape \[3, 6, 8\]", {name: jpeg(0, (8, 6)) for name in jpegs()}),
        (r"one folder per class, got .*train", {"test/cat/0.jpg": jpeg(0)}),
    ],
)
def test_jpeg_folders_of_something_else(tmp_path, text, files):
    with pytest.raises(ValueError, match=text):
        cifar10_jpeg(data_dir=jpeg_folder(tmp_path, files))


# --- binary --------------------------------------------------------------------------------------


@BINARY
def test_binary_pixels_and_order(tmp_path, write):
    files = batches(3)
    data_dir = write(tmp_path / "data", files)
    for split, names in (("train", list(files)[:5]), ("test", ["test_batch.bin"])):
        records = np.concatenate([files[name] for name in names])
        images, labels = cifar10(split=split, data_dir=data_dir, dtype=torch.uint8)
        assert labels.tolist() == records[:, 0].tolist()
        assert np.array_equal(images.numpy().reshape(len(records), -1), records[:, 1:])
        assert images.shape[1:] == (3, 32, 32)
        few, few_labels = cifar10(2, split=split, data_dir=data_dir, dtype=torch.float64)
        assert torch.equal(few, images[:2].double() / 255)
        assert torch.equal(few_labels, labels[:2])
    drawn, _ = cifar10(4, data_dir=data_dir, generator=seeded(), dtype=torch.uint8)
    everything, _ = cifar10(data_dir=data_dir, dtype=torch.uint8)
    assert torch.equal(drawn, everything[torch.randperm(15, generator=seeded())[:4]])


def test_binary_archive_is_cached_and_the_folder_is_not(tmp_path, cache):
    cifar10(1, data_dir=binary_folder(tmp_path / "folder", batches()))
    assert not cache.exists()
    data_dir = binary_archive(tmp_path / "archive", batches())
    for _ in range(2):
        cifar10(1, data_dir=data_dir)
    assert [f.name[:17] for f in cache.iterdir()] == ["cifar10-train-v1-"]


@BINARY
@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("no data_batch_3.bin", {"data_batch_3.bin": None}),
        ("batches of 6145 to 6146 bytes in train", {"data_batch_5.bin": bytes(6145)}),
        ("batches of 3073 to 6146 bytes", {"data_batch_1.bin": bytes(3073)}),
        ("a label 10 in train", {"data_batch_2.bin": bytes([10]) + bytes(6145)}),
    ],
)
def test_damaged_batches(tmp_path, write, cache, text, change):
    files = {name: data for name, data in (batches() | change).items() if data is not None}
    with pytest.raises(ValueError, match=f"data must be an undamaged file, got .*{text}"):
        cifar10(data_dir=write(tmp_path / "data", files))
    assert not cache.exists()


@BINARY
@pytest.mark.parametrize("length", [0, 100, 3074])
def test_a_damaged_test_batch(tmp_path, write, length):
    files = batches() | {"test_batch.bin": bytes(length)}
    with pytest.raises(ValueError, match=f"batches of {length} to {length} bytes in test"):
        cifar10(split="test", data_dir=write(tmp_path / "data", files))


# --- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [cifar10, cifar10_jpeg])
def test_bad_input(tmp_path, load):
    jpeg_archive(tmp_path, jpegs())
    binary_archive(tmp_path, batches())
    with pytest.raises(ValueError, match=r"split must be one of 'test', 'train', got 'val'"):
        load(split="val", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"count must be an integer between 1 and [12]0"):
        load(30, data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"dtype must be a floating-point type"):
        load(data_dir=tmp_path, dtype=torch.int64)


@pytest.mark.parametrize(
    ("load", "name"), [(cifar10, "cifar-10-binary.tar.gz"), (cifar10_jpeg, "cifar10_jpeg.tar.xz")]
)
def test_missing_data(tmp_path, load, name, monkeypatch):
    text = (
        rf"data_dir must be a folder that holds {name} or .*, got None, and NTKTHEORY_DATA is not"
    )
    with pytest.raises(ValueError, match=text):
        load()
    with pytest.raises(
        ValueError, match=rf"holds {name}.*got {tmp_path} without it\. Put it there"
    ):
        load(data_dir=tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"none, which is no folder"):
        load()


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    one = jpeg_archive(tmp_path / "one", jpegs())
    two = jpeg_archive(tmp_path / "two", jpegs(train=3))
    monkeypatch.setenv(VARIABLE, str(one))
    assert len(cifar10_jpeg()[0]) == 20
    assert len(cifar10_jpeg(data_dir=two)[0]) == 30


REAL = os.environ.get(VARIABLE)


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL or not (Path(REAL) / "cifar10_jpeg.tar.xz").exists(),
    reason="NTKTHEORY_DATA does not name a folder that holds cifar10_jpeg.tar.xz",
)
@pytest.mark.parametrize(("split", "per_class"), [("train", 5000), ("test", 1000)])
def test_the_real_archive(tmp_path, split, per_class):
    archive = Path(str(REAL)) / "cifar10_jpeg.tar.xz"
    images, labels = cifar10_jpeg(split=split, data_dir=REAL, dtype=torch.uint8)
    assert images.shape == (10 * per_class, 3, 32, 32)
    assert labels.tolist() == list(range(10)) * per_class
    last = CLASSES.index("truck")
    with tarfile.open(archive) as tar:
        for member in tar:  # from the front: the first airplane, and the last of the split's trucks
            if member.name == f"{split}/airplane/0000.jpg":
                assert np.array_equal(images[0].numpy(), decoded(tar.extractfile(member).read()))
            elif member.name == f"{split}/truck/{per_class - 1:04d}.jpg":
                found = images[10 * (per_class - 1) + last]
                assert np.array_equal(found.numpy(), decoded(tar.extractfile(member).read()))
                break
        else:
            pytest.fail("the last truck is missing")
    again, _ = cifar10_jpeg(100, split=split, data_dir=REAL, dtype=torch.uint8)
    assert torch.equal(again, images[:100])
