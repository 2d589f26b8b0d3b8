"""Files that appear whole or not at all."""

import pytest

from ntktheory.files import check_folder, replacing


def write(path, text):
    with replacing(path) as draft:
        assert draft.parent == path.absolute().parent
        assert draft.name.endswith(path.suffix)
        draft.write_text(text)


def test_a_file_takes_its_place(tmp_path):
    path = tmp_path / "a.json"
    write(path, "first")
    write(path, "second")
    assert path.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write(path, "first")

    def interrupted():
        with replacing(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_permissions_are_those_of_other_files(tmp_path):
    write(tmp_path / "a", "1")
    (tmp_path / "plain").write_text("1")
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1


def test_a_path_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(type(tmp_path)("a.txt"), "here")
    assert (tmp_path / "a.txt").read_text() == "here"


def test_where_no_file_can_be(tmp_path):
    check_folder(tmp_path / "a")
    for path, text in ((tmp_path, "a folder"), (tmp_path / "no" / "a", "does not exist")):
        with pytest.raises(ValueError, match="there must be a file in an existing.*" + text):
            check_folder(path, "there")
