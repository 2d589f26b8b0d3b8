"""Images in folders: order, labels, sizes, modes, and what is refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ntktheory.data import class_names, image_folder
from ntktheory.data.decode import decode_image
from tests.data.made_up import decoded, jpeg, write_files

FILES = {
    "train/dog/b.png": jpeg(1, (8, 6), "PNG"),
    "train/dog/a.JPG": jpeg(2, (8, 6)),
    "train/cat/1.jpeg": jpeg(3, (8, 6)),
    "train/ant/z.png": jpeg(4, (8, 6), "PNG"),
    "train/ant/y.png": jpeg(5, (8, 6), "PNG"),
    "train/ant/x.png": jpeg(6, (8, 6), "PNG"),
    "val/cat/0.png": jpeg(7, (8, 6), "PNG"),
}
ORDER = ["ant/x.png", "cat/1.jpeg", "dog/a.JPG", "ant/y.png", "dog/b.png", "ant/z.png"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/.hidden").write_text("not a class")
    return write_files(tmp_path, FILES | {"train/ant/.thumbs": b"not an image"})


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_classes_come_in_turn(root):
    images, labels = image_folder(root, dtype=torch.uint8)
    assert class_names(root) == ["ant", "cat", "dog"]
    assert labels.tolist() == [0, 1, 2, 0, 2, 0]
    assert labels.dtype == torch.int64
    for image, name in zip(images, ORDER, strict=True):
        assert np.array_equal(image.numpy(), decoded(FILES[f"train/{name}"]))


def test_splits_and_types(root):
    images, labels = image_folder(root, "val", dtype=torch.float64)
    assert images.shape == (1, 3, 6, 8)
    assert labels.tolist() == [0]
    expected = torch.from_numpy(decoded(FILES["val/cat/0.png"])).double() / 255
    assert torch.equal(images[0], expected)
    assert image_folder(root, "val")[0].dtype == torch.float32


def test_only_what_is_asked_for_is_decoded(root):
    (root / "train/dog/b.png").write_bytes(b"broken")
    _, labels = image_folder(root, count=4)
    assert labels.tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match=r"images must be readable .*b\.png"):
        image_folder(root, count=5)


def test_a_generator_draws(root):
    images, labels = image_folder(root)
    drawn = [
        image_folder(root, count=n, generator=torch.Generator().manual_seed(3)) for n in (6, 4)
    ]
    rows = [
        torch.cat([x.flatten(1), y[:, None]], 1).tolist() for x, y in [(images, labels), *drawn]
    ]
    assert sorted(rows[0]) == sorted(rows[1])
    assert rows[0] != rows[1]
    assert rows[2] == rows[1][:4]


def test_images_of_several_sizes(root):
    write_files(root, {"train/dog/a.JPG": jpeg(0, (5, 9))})
    text = r"images must be of one size, 8×6 like .*x\.png, got 5×9 for .*a\.JPG"
    with pytest.raises(ValueError, match=text):
        image_folder(root)
    images, _ = image_folder(root, size=4)
    assert images.shape == (6, 3, 4, 4)


def test_the_centred_square_is_kept():
    """Red at both ends of the longer side is cut away; a square of its own size stays as it is."""
    inner = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (6, 3, 3))
    wide = np.concatenate([red, inner, red], axis=1)
    for array in (wide, wide.transpose(1, 0, 2), inner):
        found = decode_image(png(np.ascontiguousarray(array)), "x", 6)
        expected = inner.transpose(1, 0, 2) if array.shape[0] == 12 else inner
        assert np.array_equal(found, expected.transpose(2, 0, 1))


def test_constant_images_stay_constant_when_resized():
    found = decode_image(png(np.full((9, 5, 3), 77, np.uint8)), "x", 12)
    assert found.shape == (3, 12, 12)
    assert np.all(found == 77)


def test_grey_and_transparent_images():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(decode_image(png(grey), "x"), np.stack([grey] * 3))
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    assert np.array_equal(decode_image(png(colours), "x"), colours[..., :3].transpose(2, 0, 1))


def test_progress_goes_to_stderr(root, capsys):
    quiet = image_folder(root)
    assert capsys.readouterr() == ("", "")
    shown = image_folder(root, progress=True)
    assert torch.equal(quiet[0], shown[0])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Decoding images" in captured.err


def truncated():
    return jpeg(0, (64, 64))[:-200]


def other_format():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "GIF")
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("truncated", truncated()),
        ("cannot identify image file", other_format()),
        ("cannot identify image file", b""),
        ("mode I;16", png(np.zeros((3, 3), np.uint16))),
        ("x.png", jpeg(0, (64, 64), "PNG")[:-300]),
    ],
)
def test_unreadable_images(text, data):
    with pytest.raises(ValueError, match=f"images must be readable JPEG or PNG .*{text}"):
        decode_image(data, "x.png")


@pytest.mark.parametrize(
    ("text", "files", "arguments"),
    [
        ("a folder with one folder per class, got .*test", {}, {"split": "test"}),
        ("a folder with one folder per class", {"empty/file": b""}, {"split": "empty"}),
        (
            r"a class must be a folder of \.jpg.*, got .*notes\.txt",
            {"train/ant/notes.txt": b""},
            {},
        ),
        (r"got .*ant with deeper", {"train/ant/deeper/0.png": b""}, {}),
        (r"got .*bee with nothing in it", {"train/bee/.keep": b""}, {}),
        ("count must be an integer between 1 and 6", {}, {"count": 7}),
        ("size must be a positive integer or None", {}, {"size": 0}),
        ("dtype must be a floating-point type", {}, {"dtype": torch.int32}),
    ],
)
def test_bad_input(root, text, files, arguments):
    write_files(root, files)
    with pytest.raises(ValueError, match=text):
        image_folder(root, **arguments)
