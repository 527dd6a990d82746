"""What is decoded once is kept, and made anew where it does not fit or is damaged."""

import logging
import os

import pytest

from seenn_jax.data import cache, load_dataset
from tests.data.tiny import contents, equal, expected, numbered, prepare


@pytest.fixture
def pairs(data_dir):
    pairs = numbered(range(7))
    prepare(data_dir, {"train": pairs, "test": pairs[:3]})
    return pairs


def test_says_when_it_decodes_and_where_it_keeps(pairs, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="seenn_jax")
    load_dataset("tiny", validation=2)
    (kept,) = (tmp_path / "cache" / "seenn_jax").iterdir()
    assert "decoding tiny" in caplog.text
    assert str(kept) in caplog.text
    assert (kept / "train_images.npy").exists()
    caplog.clear()
    load_dataset("tiny", validation=2)
    assert caplog.text == ""


def test_a_data_set_prepared_anew_is_decoded_anew(pairs, data_dir):
    load_dataset("tiny", validation=2)
    for file in (data_dir / "tiny" / "1.0.0").iterdir():
        file.unlink()
    (data_dir / "tiny" / "1.0.0").rmdir()
    other = numbered(range(50, 57))
    prepare(data_dir, {"train": other, "test": other[:3]})
    dataset = load_dataset("tiny", validation=2)
    assert contents(dataset.train, dataset.validation) == expected(other)


@pytest.mark.parametrize(
    ("file", "left"),
    [("train_images.npy", 200), ("test_labels.npy", 0), ("info.json", 3), ("info.json", None)],
)
def test_damaged_files_are_replaced(pairs, tmp_path, caplog, file, left):
    first = load_dataset("tiny", validation=2)
    (kept,) = (tmp_path / "cache" / "seenn_jax").iterdir()
    if left is None:
        (kept / file).unlink()
    else:
        os.truncate(kept / file, left)
    second = load_dataset("tiny", validation=2)
    assert "damaged" in caplog.text
    assert equal(first.train, second.train)
    caplog.clear()
    load_dataset("tiny", validation=2)
    assert caplog.text == ""


def test_an_interruption_leaves_nothing(pairs, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("tiny", validation=2)
    assert list((tmp_path / "cache" / "seenn_jax").iterdir()) == []
    dataset = load_dataset("tiny", validation=2)
    assert contents(dataset.train, dataset.validation) == expected(pairs)


def test_goes_on_where_nothing_can_be_kept(pairs, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    dataset = load_dataset("tiny", validation=2)
    assert contents(dataset.train, dataset.validation) == expected(pairs)
    assert "could not keep the decoded images" in caplog.text
