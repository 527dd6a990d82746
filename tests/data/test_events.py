"""Events by hand, CIFAR10-DVS files as the camera wrote them, and a camera that is simulated."""

import hashlib
import logging
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.data import events
from seenn_jax.data.events import Events, fire, record, resize, to_frames
from seenn_jax.data.sources import load_dataset
from seenn_jax.errors import UserError


def made(*pixels):
    """Events of (x, y, on)."""
    x, y, on = np.array(pixels, int).reshape(-1, 3).T
    return Events(x, y, on.astype(bool))


# --- Frames ----------------------------------------------------------------------------------


def test_frames_by_hand():
    # Five events in two frames: floor(i 2 / 5) = 0, 0, 0, 1, 1.
    frames = to_frames(made((0, 0, 1), (1, 0, 1), (1, 0, 1), (1, 0, 0), (0, 1, 0)), 2, side=2)
    expected = np.zeros((2, 2, 2, 2), int)  # frame, y, x, (ON, OFF)
    expected[0, 0, 0, 0] = 1
    expected[0, 0, 1, 0] = 2
    expected[1, 0, 1, 1] = 1
    expected[1, 1, 0, 1] = 1
    np.testing.assert_array_equal(frames, expected)


@given(count=st.integers(0, 60), timesteps=st.integers(1, 9), seed=st.integers(0, 99))
def test_frames_hold_every_event_and_equally_many(count, timesteps, seed):
    draw = np.random.default_rng(seed)
    pixels = np.stack([draw.integers(0, 5, count), draw.integers(0, 5, count)])
    frames = to_frames(Events(*pixels, draw.random(count) < 0.5), timesteps, side=5)
    assert frames.shape == (timesteps, 5, 5, 2)
    assert frames.sum() == count
    each = frames.sum((1, 2, 3))
    assert each.max() - each.min() <= 1


def test_resize_by_hand():
    # From 4 pixels to 3 cells: a cell is 4/3 pixels wide, pixel 1 lies from 1 to 2 and is cut at
    # 4/3; a third of it is in the first cell, two thirds in the second.
    frames = np.zeros((1, 4, 4, 1), int)
    frames[0, 0, 1, 0] = 9
    expected = np.zeros((3, 3))
    expected[0, :2] = 3, 6
    np.testing.assert_allclose(resize(frames, 3)[0, ..., 0], expected, atol=1e-12)


def test_resize_keeps_events_and_gives_all_cells_as_many_of_an_even_scene():
    frames = np.ones((2, 128, 128, 2), int)
    np.testing.assert_allclose(resize(frames, 48), (128 / 48) ** 2)
    drawn = np.random.default_rng(0).integers(0, 9, frames.shape)
    np.testing.assert_allclose(resize(drawn, 48).sum((1, 2)), drawn.sum((1, 2)))


# --- CIFAR10-DVS -----------------------------------------------------------------------------


def test_events_of_a_file(tmp_path, aedat):
    pixels = [(3, 0, True), (127, 64, False), (0, 127, True), (3, 0, True)]
    path = tmp_path / "a.aedat"
    # Bit 15 marks a record that is not of a pixel.
    path.write_bytes(aedat(pixels, special=[0x8000, 0x8123]))
    read = events.read_aedat(path)
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


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_with_its_class_folder(tmp_path, aedat, kind):
    content, why = DAMAGED[kind]
    path = tmp_path / "frog" / "cifar10_frog_7.aedat"
    path.parent.mkdir()
    path.write_bytes(content(aedat))
    with pytest.raises(UserError, match=rf"cifar10_frog_7.*'frog'.*is corrupt.*{why}") as caught:
        events.read_aedat(path)
    assert "--config.data.skip_corrupt=true" in str(caught.value)


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
    monkeypatch.setattr(events, "read_aedat", None)
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
    held_out = events.held_out()
    assert list(held_out) == list(events.CIFAR10_DVS)
    for numbers in held_out.values():
        assert len(numbers) == 100
        assert min(numbers) >= 0
        assert max(numbers) < events.RECORDINGS
    # Never to be changed: figures on other divisions can't be compared.
    text = repr([(name, sorted(numbers)) for name, numbers in held_out.items()])
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "268eef96cf24955372f497def4926f5c6a5f618b2a832f96d1bf988daa608976"


# --- The simulated camera --------------------------------------------------------------------


def test_fire_by_hand():
    level = np.array([[100, 250, -70, 0]])
    reference = np.array([[0, 0, 0, 99]])
    thresholds = np.array([[100, 100, 50, 100]])
    changes, after = fire(level, reference, thresholds)
    # As often as a threshold fits; the rest stays to be made up for.
    assert changes.tolist() == [[1, 2, -1, 0]]
    assert after.tolist() == [[100, 200, -50, 99]]


@settings(deadline=None)
@given(st.lists(st.integers(-5000, 5000), min_size=1, max_size=6), st.integers(100, 300))
def test_the_reference_stays_within_a_threshold_of_the_level(levels, threshold):
    reference, events = np.zeros((1, 1), int), 0
    for level in levels:
        changes, reference = fire(np.array([[level]]), reference, np.array([[threshold]]))
        events += changes[0, 0]
        assert abs(level - reference[0, 0]) < threshold
    assert reference[0, 0] == events * threshold


@pytest.fixture(scope="module")
def bars():
    """An upright bar and a level one."""
    images = np.zeros((2, 8, 8), np.uint8)
    images[0, :, 4] = images[1, 4, :] = 255
    return images


def test_a_recording_is_the_same_on_every_machine(bars):
    frames = record(bars, 8)
    assert frames.shape == (2, 8, 28, 28, 2)
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    assert digest == "c3443b1b69ea8a1fc50641251964b82ef755699fa08cf1f558bad1582d9078a3"
    # By count: all frames of an image have equally many events.
    each = frames.sum((2, 3, 4))
    assert np.all(each.max(1) - each.min(1) <= 1)


@pytest.mark.parametrize("along", [0, 1])
def test_a_moving_bar_fires_where_it_moves_sideways(bars, monkeypatch, along):
    monkeypatch.setattr(events, "NOISE", 0)
    path = [(0, step) if along == 0 else (step, 0) for step in range(13)]
    monkeypatch.setattr(events, "_moves", lambda: path)
    frames = record(bars, 2).sum(1, dtype=int)
    middle = slice(11, 17)  # of the bars, far from their ends
    sideways, lengthways = frames[along], frames[1 - along]
    assert sideways[middle, middle].sum((0, 1)).min() > 0  # ON and OFF
    assert lengthways[middle, middle].sum() == 0
    assert lengthways.sum() > 0


def test_while_the_gaze_rests_there_is_noise_alone(bars, monkeypatch):
    moves = events._moves()
    assert moves[: events._REST] == [(0, 0)] * events._REST
    assert len(set(moves)) == 3 * events._LEG
    monkeypatch.setattr(events, "_moves", lambda: moves[: events._REST])
    assert record(bars, 2).sum((1, 2, 3, 4)).tolist() == [events.NOISE] * 2


def test_digits_dvs():
    dataset = load_dataset("digits_dvs", validation=137, timesteps=2)
    still = load_dataset("digits", validation=137)
    for moving, image in zip(dataset[1:4], still[1:4], strict=True):
        assert moving.images.shape == (len(image.labels), 2, 28, 28, 2)
        np.testing.assert_array_equal(moving.labels, image.labels)
    # Where a digit is bright something happens, in every frame; in a dark corner there is noise.
    counts = dataset.train.images.mean((0, 1, 4), dtype=np.float64)
    assert counts[8:20, 8:20].mean() > 2 * counts[:3, :3].mean() > 0
