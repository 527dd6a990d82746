"""CIFAR10-DVS files as the camera wrote them."""

import hashlib
import logging
import os
import sys

import numpy as np
import pytest

from seenn_jax.data import cifar10_dvs, load_dataset
from seenn_jax.errors import UserError


def test_events_of_a_file(tmp_path, aedat):
    pixels = [(3, 0, True), (127, 64, False), (0, 127, True), (3, 0, True)]
    path = tmp_path / "a.aedat"
    # Bit 15 marks a record that is not of a pixel.
    path.write_bytes(aedat(pixels, special=[0x8000, 0x8123]))
    read = cifar10_dvs.read_aedat(path)
    assert list(zip(*(part.tolist() for part in read), strict=True)) == pixels


DAMAGED = {
    "cut short": (lambda make: make([(1, 2, 1), (3, 4, 0)])[:-3], "13 bytes of .* 8 bytes each"),
    "empty": (lambda make: b"", r"#!AER-DAT2\.0"),
    "of another kind": (lambda make: b"PK\x03\x04" + bytes(40), r"#!AER-DAT2\.0"),
    "of version 3": (lambda make: b"#!AER-DAT3.1\r\n" + bytes(16), r"#!AER-DAT2\.0"),
    "cut in its header": (lambda make: make([])[:60], "no events"),
    "only a header": (lambda make: make([]), "no events"),
    "nothing of a pixel": (lambda make: make([], special=[0x8001]), "no events"),
    "of a larger sensor": (lambda make: make([], special=[0x10000]), "address 65536"),
}


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
    with pytest.raises(UserError, match=rf"cifar10_frog_7.*'frog'.*is corrupt.*{why}") as caught:
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


def test_corrupt_files_are_skipped_when_asked_and_counted(small, caplog):
    for path in ("cat/cifar10_cat_0.aedat", "dog/cifar10_dog_2.aedat"):
        whole = (small / path).read_bytes()
        (small / path).write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"cifar10_cat_0\.aedat.*'cat'"):
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


def test_without_tonic_it_is_said_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.io", None)
    with pytest.raises(UserError, match=r"tonic.*pip install .*\[events\]"):
        load(small)


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
