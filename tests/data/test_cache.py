"""What is decoded once is kept, and made anew where it does not fit or is damaged."""

import fcntl
import json
import logging
import os
import re
import threading

import numpy as np
import pytest

from seenn_jax.data import Split, cache, load_dataset
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


def test_a_file_in_another_folder_or_of_another_label_is_another(tmp_path):
    for name in ("a/1.bin", "b/2.bin"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"same")
    files = [tmp_path / "a" / "1.bin", tmp_path / "b" / "2.bin"]
    first = cache.cache_folder(tmp_path, files, [0, 1])
    assert cache.cache_folder(tmp_path, reversed(files), [0, 1]) == first
    assert cache.cache_folder(tmp_path, files, [1, 0]) != first
    (tmp_path / "b" / "2.bin").rename(tmp_path / "a" / "2.bin")
    files[1] = tmp_path / "a" / "2.bin"
    assert cache.cache_folder(tmp_path, files, [0, 1]) != first


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


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "file",
    ["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy", "info.json"],
)
def test_a_flipped_bit_is_seen(pairs, tmp_path, caplog, file, place):
    load_dataset("tiny", validation=2)
    (kept,) = (tmp_path / "cache" / "seenn_jax").iterdir()
    data = bytearray((kept / file).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (kept / file).write_bytes(data)
    dataset = load_dataset("tiny", validation=2)
    assert contents(dataset.train, dataset.validation) == expected(pairs)
    assert f"{kept} is damaged" in caplog.text
    assert "decoded again" in caplog.text


IMAGES, LABELS = np.zeros((3, 4, 4, 1), np.uint8), np.arange(3, dtype=np.int32)


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        (IMAGES, LABELS[:2], r"images \[3, 4, 4, 1\] and labels \[2\]"),
        (IMAGES[..., 0], LABELS, r"images \[3, 4, 4\]"),
        (IMAGES, LABELS + 1, "labels that are none of 3 classes"),
        (IMAGES, LABELS - 1, "labels that are none of 3 classes"),
        (IMAGES, LABELS.astype(np.int64), "test_labels is of int64 and not of int32"),
        (IMAGES.astype(np.int8), LABELS, "test_images is of int8 and not of uint8"),
    ],
)
def test_what_is_no_data_set_is_not_believed(tmp_path, caplog, images, labels, why):
    cache.write_cache(tmp_path / "kept", Split(IMAGES, LABELS), Split(IMAGES, LABELS), 3)
    assert cache.read_cache(tmp_path / "kept")[2] == 3
    np.save(tmp_path / "kept" / "test_images.npy", images)
    np.save(tmp_path / "kept" / "test_labels.npy", labels)
    about = {"classes": 3, "checksum": cache._checksum((IMAGES, LABELS, images, labels), 3)}
    (tmp_path / "kept" / "info.json").write_text(json.dumps(about))
    assert cache.read_cache(tmp_path / "kept") is None
    assert re.search(why, caplog.text)


def test_what_killed_processes_left_is_deleted(pairs, tmp_path):
    root = tmp_path / "cache" / "seenn_jax"
    for name in ("seenn_jax-unfinished-dead", "seenn_jax-unfinished-at-work"):
        (root / name / "data").mkdir(parents=True)
        (root / name / "data" / "train_images.npy").write_bytes(b"half")
    at_work = os.open(root / "seenn_jax-unfinished-at-work", os.O_RDONLY)
    fcntl.flock(at_work, fcntl.LOCK_EX)
    (root / "unfinished-mine").mkdir()  # somebody's own
    load_dataset("tiny", validation=2)
    assert (root / "unfinished-mine").is_dir()
    (left,) = root.glob("seenn_jax-unfinished-*")
    assert left.name == "seenn_jax-unfinished-at-work"
    assert (left / "data" / "train_images.npy").read_bytes() == b"half"
    os.close(at_work)


def test_an_interruption_leaves_nothing(pairs, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_put", interrupt)
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


def keep(folder, about, *more):
    folder.mkdir(parents=True)
    for name in ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"):
        (folder / name).write_bytes(b"pixels")
    (folder / "info.json").write_text(json.dumps(about))
    for name in more:
        (folder / name).write_text("mine")


def test_what_older_versions_kept_is_deleted(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="seenn_jax")
    root, key = tmp_path / "seenn_jax", "0123456789abcdef"
    keep(root / f"old-1.0.0-{key}", {"classes": 3})
    keep(root / f"before-{key}", {"format": 3, "classes": 3, "checksum": 1})
    keep(root / f"not-named-{key}", {"classes": 3, "checksum": 1})
    stay = {
        f"now-{key}": {"format": 4, "classes": 3, "checksum": 1},
        f"later-{key}": {"format": 5},
        f"list-{key}": [],
        "no-key": {"classes": 3},
        key: {"classes": 3},
    }
    for name, about in stay.items():
        keep(root / name, about)
    keep(root / f"more-{key}", {"classes": 3}, "notes.txt")
    keep(tmp_path / "elsewhere", {"classes": 3})
    (root / f"link-{key}").symlink_to(tmp_path / "elsewhere")
    cache.write_cache(root / "new", Split(IMAGES, LABELS), Split(IMAGES, LABELS), 3)
    there = {path.name for path in root.iterdir()}
    assert there == {*stay, "new", f"more-{key}", f"link-{key}"}
    gone = ", ".join(f"{name}-{key}" for name in ("before", "not-named", "old-1.0.0"))
    assert f"older version had decoded: {gone}\n" in caplog.text
    caplog.clear()
    cache.write_cache(root / "new", Split(IMAGES, LABELS), Split(IMAGES, LABELS), 3)
    assert "older version" not in caplog.text


def test_one_of_another_process_stays_and_a_damaged_one_goes(tmp_path, caplog):
    made = Split(IMAGES, LABELS)
    cache.write_cache(tmp_path / "kept", made, made, 3)
    theirs = (tmp_path / "kept").stat().st_ino
    cache.write_cache(tmp_path / "kept", made, made, 3)
    assert (tmp_path / "kept").stat().st_ino == theirs
    (tmp_path / "kept" / "info.json").unlink()
    cache.write_cache(tmp_path / "kept", made, made, 3)
    assert cache.read_cache(tmp_path / "kept")[2] == 3
    assert os.listdir(tmp_path) == ["kept"]
    assert caplog.text == ""


@pytest.mark.parametrize("damaged", [False, True])
def test_several_at_once(tmp_path, caplog, damaged):
    made, ready = Split(IMAGES, LABELS), threading.Barrier(8)
    if damaged:
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "info.json").write_text("{")

    def keep():
        ready.wait()
        cache.write_cache(tmp_path / "kept", made, made, 3)

    threads = [threading.Thread(target=keep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["kept"]
    assert cache.read_cache(tmp_path / "kept")[2] == 3
    assert caplog.text == ""
