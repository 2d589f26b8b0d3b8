"""Masks in files: round trips, whole files or none, and what is no file of masks."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntktheory.cli.inputs import read_masks
from ntktheory.pruning import load_masks, mask_notes, save_masks
from ntktheory.pruning import mask_files as module

MASKS = {"a.weight": torch.tensor([[True, False], [True, True]]), "b": torch.tensor([False])}


def same(a, b):
    return set(a) == set(b) and all(
        torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a
    )


def test_round_trip(tmp_path):
    path = tmp_path / "m.safetensors"
    save_masks(path, MASKS, scorer="px", density=0.6, seed=3)
    assert same(load_masks(path), MASKS)
    assert same(load_file(path), MASKS)
    assert same(read_masks(path), MASKS)  # what --masks reads
    notes = mask_notes(path)
    assert (notes["scorer"], notes["density"], notes["seed"]) == ("px", 0.6, 3)
    assert notes["versions"]["torch"] == torch.__version__
    assert "ntktheory" in notes["versions"]
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_other_types_become_bool(tmp_path, dtype):
    path = tmp_path / "m.safetensors"
    save_masks(path, {name: mask.to(dtype) for name, mask in MASKS.items()})
    assert same(load_file(path), MASKS)
    save_file({name: mask.to(dtype) for name, mask in MASKS.items()}, path)
    assert same(load_masks(path), MASKS)
    assert mask_notes(path) == {}


def test_views_and_transposed_masks(tmp_path):
    path = tmp_path / "m.safetensors"
    wide = torch.tensor([[True, False, True], [False, False, True]])
    save_masks(path, {"t": wide.T, "row": wide[0], "same": wide})
    assert load_masks(path)["t"].tolist() == wide.T.tolist()
    assert load_masks(path)["row"].tolist() == [True, False, True]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    import safetensors.torch

    path = tmp_path / "m.safetensors"
    save_masks(path, MASKS)
    before = path.read_bytes()

    def broken(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(OSError, match="no space left"):
        save_masks(path, {"other": torch.ones(2)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_permissions_are_those_of_other_files(tmp_path):
    save_masks(tmp_path / "m.safetensors", MASKS)
    (tmp_path / "plain").write_text("")
    modes = {p.stat().st_mode for p in tmp_path.iterdir()}
    assert len(modes) == 1


def test_what_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="masks must be those of at least one tensor"):
        save_masks(path, {})
    with pytest.raises(ValueError, match=r"masks\['a'\] must be made of 0 and 1"):
        save_masks(path, {"a": torch.tensor([0.5])})
    with pytest.raises(TypeError, match=r"masks\['a'\] must be a torch\.Tensor, got list"):
        save_masks(path, {"a": [1, 0]})
    assert list(tmp_path.iterdir()) == []
    for target, text in ((tmp_path, "a folder"), (tmp_path / "no" / "m.st", "does not exist")):
        with pytest.raises(ValueError, match="path must be a file in an existing folder.*" + text):
            save_masks(target, MASKS)
    with pytest.raises(ValueError, match=r"path must be a readable safetensors file.*no such file"):
        load_masks(path)
    path.write_bytes(b"something else")
    for read in (load_masks, mask_notes):
        with pytest.raises(ValueError, match="path must be a readable safetensors file"):
            read(path)
    save_file({"a": torch.tensor([2.0])}, path)
    with pytest.raises(ValueError, match="made of 0 and 1"):
        load_masks(path)
    save_file({}, path)
    with pytest.raises(ValueError, match=r"path must be a file of masks, got .* without any"):
        load_masks(path)


@pytest.mark.parametrize("notes", [{}, {"notes": "not JSON"}, {"notes": "[1]"}])
def test_damaged_notes(tmp_path, notes):
    path = tmp_path / "m.safetensors"
    save_file(MASKS, path, {"format": module.FORMAT, **notes})
    with pytest.raises(ValueError, match="path must be a file with the notes of save_masks"):
        mask_notes(path)
    assert same(load_masks(path), MASKS)


def test_notes_that_json_does_not_know(tmp_path):
    for note in (torch.ones(2), {1, 2}, {"deep": [object()]}):
        with pytest.raises(TypeError, match="note 'foo' must be made of what JSON knows"):
            save_masks(tmp_path / "m.safetensors", MASKS, foo=note)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_reads_masks_like_the_library(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({name: mask.double() for name, mask in MASKS.items()}, path)
    assert same(read_masks(path), MASKS)
    save_file({"a": torch.tensor([0.5])}, path)
    with pytest.raises(ValueError, match=r"masks\['a'\] must be made of 0 and 1"):
        read_masks(path)


def test_notes_of_another_program(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(MASKS, path, {"notes": "not JSON", "format": "pt"})
    assert mask_notes(path) == {}
    assert module.FORMAT == "ntktheory masks"
