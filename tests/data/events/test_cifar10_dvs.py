"""CIFAR10-DVS files as the camera wrote them."""

import hashlib
import logging
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data import load_dataset
from seenn_jax.data.events import aedat as aedat_files
from seenn_jax.data.events import cifar10_dvs
from seenn_jax.data.events.frames import Binning
from seenn_jax.data.events.recordings import Unreadable
from seenn_jax.errors import UserError


def test_events_of_a_file(tmp_path, aedat):
    pixels = [(3, 0, True), (127, 64, False), (0, 127, True), (3, 0, True)]
    path = tmp_path / "a.aedat"
    # Bit 15 marks a record that is not of a pixel.
    path.write_bytes(aedat(pixels, special=[0x8000, 0x8123]))
    read = cifar10_dvs.read_aedat(path)
    assert list(zip(*(part.tolist() for part in read[:3]), strict=True)) == pixels
    assert read.t.tolist() == [0, 1000, 2000, 3000]


@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 127), st.booleans()), min_size=1))
def test_events_come_back(aedat, tmp_path_factory, pixels):
    path = tmp_path_factory.getbasetemp() / "any.aedat"
    path.write_bytes(aedat(pixels))
    read = cifar10_dvs.read_aedat(path)
    assert list(zip(*(part.tolist() for part in read[:3]), strict=True)) == pixels


def test_tonic_reads_the_same_words(tmp_path, aedat):
    tonic = pytest.importorskip("tonic.io")
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat([(3, 0, True), (127, 64, False)]))
    start = path.read_bytes().rindex(b"\n") + 1
    theirs = tonic.get_aer_events_from_file(path, 2.0, start)
    ours = aedat_files.addresses(path)
    np.testing.assert_array_equal(ours[:, 0], theirs["address"])
    np.testing.assert_array_equal(ours[:, 1], theirs["timeStamp"])


DAMAGED = {
    "cut short": (lambda make: make([(1, 2, 1), (3, 4, 0)])[:-3], "13 bytes of .* 8 bytes each"),
    "empty": (lambda make: b"", r"#!AER-DAT2\.0"),
    "of another kind": (lambda make: b"GIF89a" + bytes(40), r"#!AER-DAT2\.0"),
    "cut in its header": (lambda make: make([])[:60], "no events"),
    "only a header": (lambda make: make([]), "no events"),
    "nothing of a pixel": (lambda make: make([], special=[0x8001]), "no events"),
    "a bit is wrong": (lambda make: make([(1, 2, 1)] * 200, special=[0x10000]), "address 65536"),
}
OTHERS = {
    "an archive": (lambda make: b"PK\x03\x04" + bytes(40), "is a ZIP archive"),
    "of version 3": (lambda make: b"#!AER-DAT3.1\r\n" + bytes(16), r"is AEDAT 3\.1.*AEDAT 2\.0 is"),
    "of a larger sensor": (lambda make: make([], special=[0x10000]), "of another camera.* 65536"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_of_another_format_or_camera_is_not_called_corrupt(tmp_path, aedat, kind):
    content, why = OTHERS[kind]
    (tmp_path / "cifar10_frog_7.aedat").write_bytes(content(aedat))
    with pytest.raises(UserError, match=rf"cifar10_frog_7.* {why}") as caught:
        cifar10_dvs.read_aedat(tmp_path / "cifar10_frog_7.aedat")
    assert not isinstance(caught.value, Unreadable)
    assert "corrupt" not in str(caught.value)


def test_a_pipe_is_no_recording(tmp_path):
    os.mkfifo(tmp_path / "cifar10_frog_7.aedat")
    with pytest.raises(UserError, match=r"cifar10_frog_7.*is corrupt: it is no regular file"):
        cifar10_dvs.read_aedat(tmp_path / "cifar10_frog_7.aedat")


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_with_its_class_folder(tmp_path, aedat, kind):
    content, why = DAMAGED[kind]
    path = tmp_path / "frog" / "cifar10_frog_7.aedat"
    path.parent.mkdir()
    path.write_bytes(content(aedat))
    with pytest.raises(UserError, match=rf"frog/cifar10_frog_7.*is corrupt.*{why}") as caught:
        cifar10_dvs.read_aedat(path)
    assert "`config.data.skip_corrupt`=true" in str(caught.value)


@pytest.fixture
def small(make_cifar10_dvs, monkeypatch, tmp_path):
    return make_cifar10_dvs(tmp_path / "dvs", monkeypatch)


def load(folder, **changes):
    return load_dataset(
        "cifar10_dvs",
        **{"data_dir": str(folder), "validation": 5, "timesteps": 4, **changes},
    )


def test_files_come_back_as_the_right_frames(small):
    dataset = load(small)
    assert [len(split.labels) for split in dataset[1:4]] == [25, 5, 10]
    assert dataset.num_classes == 10
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.test.images.shape == (10, 4, 48, 48, 2)
    assert dataset.test.images.dtype == np.uint8
    # A pixel is 3/8 of a cell wide. Number 2 of class 3 is at x = 36, from 108/8 to 111/8 (cell 13)
    # and y = 20, from 60/8 to 63/8 (cell 7): ten events in each of four frames, in quarters.
    expected = np.zeros((4, 48, 48, 2), int)
    expected[:2, 7, 13, 0] = expected[2:, 7, 13, 1] = 40
    np.testing.assert_array_equal(dataset.test.images[3], expected)
    # Number 1, for training, is at y = 10, from 30/8 to 33/8: two thirds of it in cell 3.
    is_first = dataset.train.images[:, 0, 3, :, 0].any(1)
    assert 0 < is_first.sum() <= 10
    for images, label in zip(*(x[is_first] for x in dataset.train), strict=True):
        column = 36 * label // 8
        np.testing.assert_array_equal(images[0, :, column, 0].nonzero()[0], [3, 4])
        np.testing.assert_array_equal(images[0, 3:5, column, 0], [27, 13])
    # No test image is among them.
    assert not dataset.train.images[:, :, 7].any()
    assert not dataset.validation.images[:, :, 7].any()


def test_the_second_time_frames_come_from_the_cache(small, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="seenn_jax")
    first = load(small)
    assert "integrating" in caplog.text
    caplog.clear()
    monkeypatch.setattr(cifar10_dvs, "read_aedat", None)
    second = load(small)
    assert caplog.text == ""
    for a, b in zip(first[1:4], second[1:4], strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_other_timesteps_are_integrated_anew(small):
    assert load(small).test.images.shape[1] == 4
    assert load(small, timesteps=2).test.images.shape[1] == 2


def busy(folder, aedat):
    """The small data set, one of whose pixels for testing has 1,000 events."""
    (folder / "cat" / "cifar10_cat_2.aedat").write_bytes(aedat([(36, 20, True)] * 1000))


def test_counts_that_a_byte_does_not_hold(small, aedat, caplog):
    busy(small, aedat)
    dataset = load(small)
    assert dataset.train.images.dtype == dataset.test.images.dtype == np.uint16
    assert dataset.test.images[3, :, 7, 13, 0].tolist() == [1000] * 4  # quarters of 250 events
    assert not caplog.text
    assert load(small).test.images.dtype == np.uint16  # from the cache
    caplog.clear()
    for _ in range(2):  # from the files, from the cache
        caplog.clear()
        cut = load(small, binning=Binning(4, saturate=True))
        assert cut.test.images.dtype == np.uint8
        assert cut.test.images[3, :, 7, 13, 0].tolist() == [255] * 4
        # 4 x 745 of the 1000 + 39 x 40 events' quarters.
        assert "29.1% of the events are above the largest count of a cell, 63.75" in caplog.text


def test_by_duration_on_a_finer_grid(small, aedat):
    (small / "cat" / "cifar10_cat_2.aedat").write_bytes(aedat([(3, 2, True)] * 5 + [(3, 2, False)]))
    found = load(small, binning=Binning(2, "duration", 4.0, side=128), timesteps=2).test.images[3]
    assert found.shape == (2, 128, 128, 2)
    assert found[:, 2, 3].tolist() == [[4, 0], [1, 1]]
    with pytest.raises(UserError, match=r"`config.data.event_side` is 129.* at most 128"):
        load(small, binning=Binning(4, side=129))


def test_late_and_unordered_events_are_said(small, aedat, caplog):
    load(small, binning=Binning(2, "duration", 10.0))  # of 40 ms
    assert "50.0% of the events come after 2 frames of 10 ms" in caplog.text
    path = small / "cat" / "cifar10_cat_2.aedat"
    whole = path.read_bytes()
    path.write_bytes(whole[:-16] + whole[-8:] + whole[-16:-8])
    caplog.clear()
    load(small)
    assert "1 of 40 recordings have events that are not in the order of time" in caplog.text
    assert "cat/cifar10_cat_2.aedat" in caplog.text


def test_corrupt_files_are_skipped_when_asked_and_counted(small, caplog):
    for path in ("cat/cifar10_cat_0.aedat", "dog/cifar10_dog_2.aedat"):
        whole = (small / path).read_bytes()
        (small / path).write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"cat/cifar10_cat_0\.aedat is corrupt"):
        load(small)
    # No dog is left to test on.
    with pytest.raises(UserError, match="class 'dog'"):
        load(small, skip_corrupt=True)
    (small / "dog/cifar10_dog_2.aedat").write_bytes(whole)
    caplog.clear()
    dataset = load(small, skip_corrupt=True)
    assert [len(split.labels) for split in dataset[1:4]] == [24, 5, 10]
    assert "1 of 40 recordings" in caplog.text
    assert "cifar10_cat_0.aedat" in caplog.text
    # From the cache they are counted too, and still no longer accepted unasked.
    caplog.clear()
    load(small, skip_corrupt=True)
    assert "1 of 40 recordings" in caplog.text
    with pytest.raises(UserError, match="cifar10_cat_0"):
        load(small)


def test_what_is_missing_is_named(small, tmp_path):
    for file in (small / "bird").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"class folder .*bird holds 0 of its 4 \.aedat files"):
        load(small)
    (small / "airplane" / "cifar10_airplane_1.aedat").unlink()
    with pytest.raises(UserError, match=r"holds 3 of its 4.*not cifar10_airplane_1\.aedat"):
        load(small)
    (tmp_path / "one" / "ship").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has 1 of the 10 class folders.*lacks airplane"):
        load(tmp_path / "one")
    with pytest.raises(UserError, match="nowhere has 0 of the 10 class folders"):
        load(tmp_path / "nowhere")


def test_the_published_division():
    held_out = cifar10_dvs.held_out()
    assert list(held_out) == list(cifar10_dvs.CIFAR10_DVS)
    for numbers in held_out.values():
        assert len(numbers) == 100
        assert min(numbers) >= 0
        assert max(numbers) < cifar10_dvs.RECORDINGS
    # Never to be changed: figures on other divisions can't be compared.
    text = repr([(name, sorted(numbers)) for name, numbers in held_out.items()])
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "268eef96cf24955372f497def4926f5c6a5f618b2a832f96d1bf988daa608976"
