"""DVS128 Gesture as it was published, and as SpikingJelly prepares it."""

import logging

import numpy as np
import pytest

from seenn_jax.data import load_dataset
from seenn_jax.data.events import dvs128_gesture
from seenn_jax.data.events.frames import Binning
from seenn_jax.errors import UserError
from tests.data.made_events import aedat3, npz, packet

LISTS = {"trials_to_train.txt": ("user01_led", "user02_lab"), "trials_to_test.txt": ("user24_led",)}
SECOND = 1_000_000


def gesture(label):
    """Its events in its second: number + 1 at x = 8 label, y = 16, a millisecond apart."""
    start = (label + 1) * SECOND
    return [(8 * label, 16, label % 2, start + 1000 * i) for i in range(label + 1)]


def write(folder, lists=LISTS):
    """Each file has all eleven gestures, and noise between them."""
    folder.mkdir(parents=True)
    for name, users in lists.items():
        (folder / name).write_text("".join(f"{user}.aedat\n" for user in users))
        for user in users:
            packets = [packet(gesture(label)) for label in range(11)]
            noise = packet([(127, 127, 1, 13 * SECOND)])
            (folder / f"{user}.aedat").write_bytes(aedat3(*packets, noise))
            rows = [f"{n},{n * SECOND},{n * SECOND + 500_000}" for n in range(1, 12)]
            table = "\n".join(["class,startTime_usec,endTime_usec", *rows])
            (folder / f"{user}_labels.csv").write_text(table + "\n")
    return folder


def load(**changes):
    asked = {"validation": 11, "timesteps": 2, "binning": Binning(2, side=128)}
    return load_dataset("dvs128_gesture", **(asked | changes))


def check(dataset):
    assert [split.size for split in dataset[1:4]] == [11, 11, 11]
    assert dataset.classes[1] == "right hand wave"
    assert dataset.test.labels.tolist() == list(range(11))
    # The fourth has events at x = 24, OFF where the number is even: floor(i 2 / 4) = 0, 0, 1, 1.
    assert dataset.test.images[3].shape == (2, 128, 128, 2)
    assert dataset.test.images[3, :, 16, 24].tolist() == [[2, 0], [2, 0]]
    assert dataset.test.images[2, :, 16, 16].tolist() == [[0, 2], [0, 1]]
    assert dataset.test.images.sum((1, 2, 3, 4)).tolist() == list(range(1, 12))


@pytest.mark.parametrize("place", ["dvs128_gesture", "dvs128_gesture/DvsGesture"])
def test_the_published_files(data_dir, place):
    write(data_dir / place)
    check(load())
    check(load())  # from the cache


def test_what_spikingjelly_prepares(data_dir):
    for part, users in (("train", 2), ("test", 1)):
        for label in range(11):
            for user in range(users):
                path = data_dir / "dvs128_gesture" / "events_np" / part / str(label)
                npz(path / f"user{user}_0.npz", gesture(label))
    check(load())
    path.joinpath("user0_0.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"user0_0\.npz .*is corrupt: it is no \.npz of arrays t"):
        load()
    np.savez(path / "user0_0.npz", t=[1], x=[1, 2], y=[1, 2], p=[0, 1])
    with pytest.raises(UserError, match="arrays t, x, y and p are not of one length"):
        load()


def test_lists_that_change_are_followed(data_dir, caplog):
    caplog.set_level(logging.INFO, logger="seenn_jax")
    folder = write(data_dir / "dvs128_gesture")
    assert load(validation=1).train.size == 21
    caplog.clear()
    load(validation=1)
    assert caplog.text == ""  # from the cache
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user02_lab.aedat\nuser24_led.aedat\n")
    assert [split.size for split in load(validation=1)[1:4]] == [10, 1, 22]


def test_by_duration_a_gesture_starts_with_its_label(data_dir):
    write(data_dir / "dvs128_gesture")
    found = load(binning=Binning(2, "duration", 4.0, side=128)).test.images
    # Ten events of the tenth, one a millisecond: four in each frame, and two too late.
    assert found[9, :, 16, 72].tolist() == [[4, 0], [4, 0]]


def test_by_default_its_frames_are_48_pixels_wide(data_dir):
    write(data_dir / "dvs128_gesture")
    assert load(binning=None).test.images.shape == (11, 2, 48, 48, 2)


def test_what_is_missing_is_named(data_dir):
    with pytest.raises(UserError, match=r"dvs128_gesture has no trials_to_train\.txt: extract"):
        load()
    folder = write(data_dir / "dvs128_gesture")
    (folder / "user02_lab_labels.csv").unlink()
    for _ in range(2):  # it is not there, it is a folder
        said = r"names user02_lab\.aedat, and there is no file .*user02_lab_labels\.csv"
        with pytest.raises(UserError, match=said):
            load()
        (folder / "user02_lab_labels.csv").mkdir(exist_ok=True)
    (folder / "trials_to_train.txt").write_text("")
    with pytest.raises(UserError, match=r"trials_to_train\.txt is empty"):
        load()


@pytest.mark.parametrize(
    ("name", "other"),
    [("trials_to_test.txt", "trials_to_train.txt"), ("trials_to_train.txt", "trials_to_train.txt")],
)
def test_a_file_that_is_named_twice_is_refused(data_dir, name, other):
    folder = write(data_dir / "dvs128_gesture")
    with (folder / name).open("a") as file:
        file.write("./user01_led.aedat\n")
    why = rf"{name} names \./user01_led\.aedat, which {other} names already"
    with pytest.raises(UserError, match=why):
        load()


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("class,start\n1,2\n", "no table of labels .*startTime_usec"),
        ("class,startTime_usec,endTime_usec\n1,2\n", "no table of labels"),
        ("class,startTime_usec,endTime_usec\n", "has no labels"),
        ("class,startTime_usec,endTime_usec\n12,2,3\n", "the gesture 12 from 2 to 3"),
        ("class,startTime_usec,endTime_usec\n1,3,3\n", "the gesture 1 from 3 to 3"),
        ("class,startTime_usec,endTime_usec\n" + "1,2,3\n" * 2, "from 2 to 3 .*would count twice"),
    ],
)
def test_labels_that_can_not_be(tmp_path, table, why):
    (tmp_path / "a_labels.csv").write_text(table)
    with pytest.raises(UserError, match=rf"a_labels\.csv .*{why}"):
        dvs128_gesture.read_labels(tmp_path / "a_labels.csv")


def test_gestures_that_overlap_are_said(tmp_path, caplog):
    path = tmp_path / "a_labels.csv"
    path.write_text("class,startTime_usec,endTime_usec\n2,9,12\n1,2,10\n")
    assert [trial.label for trial in dvs128_gesture.read_labels(path)] == [1, 0]
    assert "gesture 2 begins at 9 microseconds, before gesture 1 ends, at 10" in caplog.text


def test_labels_of_another_file_and_a_cut_file_are_named_and_counted(data_dir, caplog):
    folder = write(data_dir / "dvs128_gesture")
    file = folder / "user02_lab.aedat"
    whole = file.read_bytes()
    file.write_bytes(aedat3(*(packet(gesture(label)) for label in range(9))))
    said = (
        r"user02_lab_labels\.csv has 'air guitar' from 10000000 to 10500000 microseconds, and "
        r"user02_lab\.aedat has events from 1000000 to 9008000, none of them then"
    )
    with pytest.raises(UserError, match=said):
        load()
    found = load(skip_corrupt=True)
    assert [split.size for split in found[1:4]] == [9, 11, 11]
    assert "2 of 33 recordings are corrupt and left out" in caplog.text
    file.write_bytes(whole[:-3])
    with pytest.raises(UserError, match=r"user02_lab\.aedat .*ends in a packet of 1 events"):
        load()
    caplog.clear()
    assert load(skip_corrupt=True, validation=1).train.size == 10
    assert "11 of 33 recordings are corrupt and left out" in caplog.text
