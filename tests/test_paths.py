"""Files that are written whole or not at all."""

import shutil
import tempfile

import pytest

from seenn_jax.errors import UserError
from seenn_jax.paths import check_new, put, unfinished


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b""):
        put(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    put(path, b"whole")

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        put(path, b"other")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file(tmp_path):
    check_new("json", tmp_path / "new.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").write_text("mine")
    for path, match in (
        (tmp_path / "old", r"`json`=.*old exists already: give the name of a new file"),
        (tmp_path, "exists already"),
        (tmp_path / "no" / "x", r"`json`=.*x: there is no folder .*no; make it"),
        (tmp_path / "old" / "x", "there is no folder .*old; make it"),
        ("/proc/x.json", r"`json`=/proc/x\.json can't be written \(.*\): use another folder"),
    ):
        with pytest.raises(UserError, match=match):
            check_new("json", type(tmp_path)(path))
    assert (tmp_path / "old").read_text() == "mine"


def test_a_folder_that_another_process_takes_for_left_is_made_anew(tmp_path, monkeypatch):
    make, deleted = tempfile.mkdtemp, []

    def seen_before_it_is_locked(**where):
        made = make(**where)
        if not deleted:
            deleted.append(made)
            shutil.rmtree(made)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", seen_before_it_is_locked)
    with unfinished(tmp_path) as folder:
        (folder / "data").mkdir()
        assert [str(folder)] != deleted
        with unfinished(tmp_path) as another:  # whose maker leaves what is worked in
            assert sorted(tmp_path.iterdir()) == sorted([folder, another])
        assert (folder / "data").is_dir()
    assert list(tmp_path.iterdir()) == []
