"""N-MNIST and N-Caltech101, from files that are written here."""

import logging

import numpy as np
import pytest
from hypothesis import given

from seenn_jax.data import load_dataset
from seenn_jax.data.events import atis as reader
from seenn_jax.data.events.frames import Binning
from seenn_jax.data.events.recordings import Unreadable
from seenn_jax.errors import UserError
from tests.data.made_events import atis, from_start, npz, read_back, recordings

SOME = [(3, 0, True, 1000), (33, 20, False, 2000), (3, 0, True, 305_000)]


def read(path, content, kind=reader.N_MNIST):
    path.write_bytes(content)
    return reader.read_atis(path, kind)


@given(recordings(34, 34, most_time=2**23 - 1))
def test_events_come_back(tmp_path_factory, events):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    assert read_back(read(path, atis(events))) == from_start(events)


def test_time_that_overflows(tmp_path):
    content = atis([(1, 2, True, 10), (0, 240, False, 0), (1, 2, False, 5)])
    found = read(tmp_path / "a.bin", content)
    assert read_back(found) == [(1, 2, True, 0), (1, 2, False, 2**13 - 5)]


def test_tonic_reads_the_same(tmp_path):
    tonic = pytest.importorskip("tonic.io")
    kind = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
    found = read(tmp_path / "a.bin", atis(SOME))
    theirs = tonic.read_mnist_file(str(tmp_path / "a.bin"), kind)
    ours = [(x, y, t + 1000, on) for x, y, on, t in read_back(found)]
    assert theirs.tolist() == ours


@pytest.mark.parametrize("first", [(37, 32, 1, 0), (31, 139, 1, 0), (80, 75, 0, 0x030401)])
def test_events_may_begin_as_another_format_does(tmp_path, first):
    found = read(tmp_path / "a.bin", atis([first, (1, 2, 1, 0x030500)]), reader.N_CALTECH101)
    assert [(x, y) for x, y, _, _ in read_back(found)] == [first[:2], (1, 2)]


def test_damage_is_named_and_another_camera_is_named_as_that(tmp_path):
    for content, why in [
        (atis(SOME)[:-2], "13 bytes of events of 5 bytes"),
        (b"", "no events"),
        (atis([*SOME * 100, (34, 0, 1, 0)]), "x = 34, y = 0"),
    ]:
        with pytest.raises(Unreadable, match=rf"a\.bin .*is corrupt: .*{why}"):
            read(tmp_path / "a.bin", content)
    for content, what in [
        (atis([(200, 100, 1, 0)] * 3), "is of another camera: .*34 x 34"),
        (b"PK\x03\x04" + bytes(36), "is a ZIP archive, and N-MNIST has"),
        (b"#!AER-DAT3.1\r\n\0", "is an AEDAT file"),
    ]:
        with pytest.raises(UserError, match=rf"a\.bin {what}") as caught:
            read(tmp_path / "a.bin", content)
        assert not isinstance(caught.value, Unreadable)


def write(folder, parts, classes, count, write_file):
    """Of number n of class c, n + 1 events at x = 3 c, y = 2 n."""
    for part in parts:
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                events = [(3 * label, 2 * number, True, 10 * i) for i in range(number + 1)]
                write_file(folder / part / name, number, events)


def to_bin(folder, number, events):
    (folder / f"{number:05}.bin").write_bytes(atis(events))


def to_npz(folder, number, events):
    npz(folder / f"{number:05}.npz", events)


@pytest.mark.parametrize(
    ("parts", "write_file"),
    [(("Train", "Test"), to_bin), (("events_np/train", "events_np/test"), to_npz)],
)
def test_n_mnist(data_dir, parts, write_file):
    write(data_dir / "n_mnist", parts, "0123456789", 3, write_file)
    dataset = load_dataset("n_mnist", validation=10, timesteps=2)
    assert [split.size for split in dataset[1:4]] == [20, 10, 30]
    assert dataset.classes == tuple("0123456789")
    assert dataset.test.images.shape == (30, 2, 34, 34, 2)
    # Number 2 of class 4 has three events, floor(i 2 / 3) = 0, 0, 1.
    found = dataset.test.images[14]
    assert dataset.test.labels[14] == 4
    assert found[:, 4, 12].tolist() == [[2, 0], [1, 0]]
    assert found.sum() == 3


def test_files_that_are_moved_are_read_anew_and_others_are_not(data_dir, caplog):
    caplog.set_level(logging.INFO, logger="seenn_jax")
    folder = data_dir / "n_mnist"
    write(folder, ("Train", "Test"), "0123456789", 2, to_bin)
    for label in range(10):
        path = folder / "Test" / str(label)
        (path / "00000.bin").rename(path / f"of_{label}.bin")

    def load():
        caplog.clear()
        return load_dataset("n_mnist", validation=1)

    load()
    assert "integrating" in caplog.text
    assert load().test.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert caplog.text == ""
    (folder / "Test" / "3").rename(folder / "Test" / "kept")
    (folder / "Test" / "4").rename(folder / "Test" / "3")
    (folder / "Test" / "kept").rename(folder / "Test" / "4")
    test = load().test
    assert test.images[test.labels == 3].sum((0, 1, 2, 4)).argmax() == 3 * 4
    (folder / "Train" / "5" / "00001.bin").rename(folder / "Test" / "5" / "of_train.bin")
    assert load().test.size == 21


def test_n_mnist_that_is_not_whole_is_named(data_dir):
    with pytest.raises(UserError, match=r"n_mnist/Train has 0 of the 10 class folders of N-MNIST"):
        load_dataset("n_mnist", validation=1)
    write(data_dir / "n_mnist", ("Train",), "0123456789", 2, to_bin)
    with pytest.raises(UserError, match=r"n_mnist/Test has 0 of the 10"):
        load_dataset("n_mnist", validation=1)
    write(data_dir / "n_mnist", ("Test",), "0123456789", 1, to_bin)
    (data_dir / "n_mnist" / "Test" / "3" / "00000.bin").unlink()
    with pytest.raises(UserError, match=r"class folder .*Test/3 has no \.bin file"):
        load_dataset("n_mnist", validation=1)


def test_n_caltech101_without_a_division(data_dir):
    folder = data_dir / "n_caltech101" / "Caltech101"
    write(folder, ("",), ("ant", "bass", "camera"), 6, to_bin)
    dataset = load_dataset("n_caltech101", validation=3, binning=Binning(1, side=90))
    assert [split.size for split in dataset[1:4]] == [9, 3, 6]
    assert dataset.classes == ("ant", "bass", "camera")
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    # From 240 x 180 pixels to 90 x 90 cells: row 2 n is in cell n, column 3 c over 3 c 90 / 240.
    rows = {image.sum((0, 2, 3)).argmax().item() for image in dataset.test.images}
    assert rows == {image.sum().item() // 4 - 1 for image in dataset.test.images}
    again = load_dataset("n_caltech101", validation=3, binning=Binning(1, side=90))
    np.testing.assert_array_equal(dataset.test.images, again.test.images)


def test_n_caltech101_in_the_published_division(data_dir):
    folder = data_dir / "n_caltech101"
    write(folder, ("training", "validation"), ("ant", "bass"), 2, to_bin)
    with pytest.raises(UserError, match="has the folder training and not both of training and"):
        load_dataset("n_caltech101", validation=1)
    write(folder, ("testing",), ("ant", "bass"), 1, to_bin)
    dataset = load_dataset("n_caltech101", validation=1)
    assert [split.size for split in dataset[1:4]] == [7, 1, 2]
    assert dataset.train.images.shape[2:] == (48, 48, 2)


@pytest.mark.parametrize("part", ["validation", "testing"])
def test_class_folders_that_training_lacks_are_refused(data_dir, part):
    folder = data_dir / "n_caltech101"
    write(folder, ("training", "validation", "testing"), ("ant", "bass"), 2, to_bin)
    write(folder, (part,), ("zebra",), 2, to_bin)
    with pytest.raises(UserError, match=rf"{part} has the class folder 'zebra' and .*training has"):
        load_dataset("n_caltech101", validation=1)


def test_a_part_of_the_classes_is_said(data_dir, caplog, monkeypatch):
    folder = data_dir / "n_caltech101"
    write(folder, ("",), ("ant", "bass"), 2, to_bin)
    said = "n_caltech101 has 2 class folders of N-Caltech101, and it has 101: these alone are"
    for _ in range(2):  # from the files, from the cache
        caplog.clear()
        load_dataset("n_caltech101", validation=1)
        assert said in caplog.text
    monkeypatch.setattr(reader, "_CLASSES", 2)
    caplog.clear()
    load_dataset("n_caltech101", validation=1)
    assert caplog.text == ""


def test_n_mnist_is_no_n_caltech101(data_dir):
    write(data_dir / "n_mnist", ("Train",), "0123456789", 2, to_bin)
    with pytest.raises(UserError, match=r"Train has the class folders of N-MNIST: set"):
        load_dataset("n_caltech101", data_dir=str(data_dir / "n_mnist" / "Train"), validation=1)


def test_n_caltech101_that_is_not_there(data_dir):
    with pytest.raises(UserError, match="has 0 class folders of N-Caltech101, and it has 101"):
        load_dataset("n_caltech101", validation=1)
