"""SHD and SSC, from HDF5 files that are written here."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data import load_dataset
from seenn_jax.data.events import shd
from seenn_jax.data.events.frames import Binning
from seenn_jax.errors import UserError

h5py = pytest.importorskip("h5py")


def write(path, spikes, labels, names=None, **changed):
    """An HDF5 file of recordings of (seconds, unit)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [list(zip(*each, strict=True)) or [(), ()] for each in spikes]
    with h5py.File(path, "w") as file:
        parts = {
            "spikes/times": ([np.float32(times) for times, _ in columns], np.float32),
            "spikes/units": ([np.int64(units) for _, units in columns], np.int64),
        }
        for name, (rows, dtype) in parts.items():
            data = file.create_dataset(name, len(rows), dtype=h5py.vlen_dtype(dtype))
            for i, row in enumerate(rows):
                data[i] = row
        file["labels"] = np.array(labels)
        if names:
            file["extra/keys"] = np.array(names, "S")
        for name in changed.get("without", ()):
            del file[name]
    return path


def every(count, classes=20):
    """(recordings, labels): number n of class c has n + 1 spikes of unit 10 c, every 100 ms."""
    spikes = [
        [(0.1 * i, 10 * c) for i in range(n + 1)] for n in range(count) for c in range(classes)
    ]
    return spikes, [c for _ in range(count) for c in range(classes)]


def load(name="shd", **changes):
    asked = {"validation": 20, "binning": Binning(3, "duration", 100.0)}
    return load_dataset(name, **(asked | changes))


@pytest.fixture
def small(data_dir):
    write(data_dir / "shd" / "shd_train.h5", *every(2), [f"word {i}" for i in range(20)])
    write(data_dir / "shd" / "shd_test.h5", *every(3))
    return data_dir / "shd"


def test_recordings_become_rows_of_units(small):
    dataset = load()
    assert [split.size for split in dataset[1:4]] == [20, 20, 60]
    assert dataset.classes[3] == "word 3"
    assert dataset.test.images.shape == (60, 3, 1, 700, 1)
    assert dataset.test.labels.tolist() == [*range(20)] * 3
    # Number 2 of class 4 is number 44: three spikes of unit 40, 0, 0.1 and 0.2 s.
    assert dataset.test.images[44, :, 0, 40, 0].tolist() == [1, 1, 1]
    assert dataset.test.images.sum((1, 2, 3, 4)).tolist() == [1] * 20 + [2] * 20 + [3] * 20


def test_units_that_lie_together_are_counted_together(small):
    found = load(binning=Binning(3, "duration", 100.0, side=140)).test.images
    assert found.shape == (60, 3, 1, 140, 1)
    assert found[44, :, 0, 8, 0].tolist() == [4, 4, 4]  # five units a cell, quarters of a spike
    with pytest.raises(UserError, match=r"event_side` is 701, .*SHD has 700 x 1 .*at most 700"):
        load(binning=Binning(3, "duration", 100.0, side=701))


def test_late_spikes_are_left_out_and_said(small, caplog):
    assert load(binning=Binning(2, "duration", 100.0)).test.images[44].sum() == 2
    # 20 of 20 (1 + 2 + 1 + 2 + 3).
    assert "11.1% of the events come after 2 frames of 100 ms" in caplog.text


def test_ssc_has_a_part_to_validate_among_the_rest(data_dir):
    for part, count in (("train", 2), ("valid", 1), ("test", 1)):
        write(data_dir / "ssc" / f"ssc_{part}.h5", *every(count, 35))
    dataset = load("ssc")
    assert [split.size for split in dataset[1:4]] == [85, 20, 35]
    assert dataset.classes == tuple(map(str, range(35)))


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 699)), min_size=1, max_size=9).map(
        sorted
    )
)
def test_spikes_come_back(tmp_path_factory, spikes):
    path = tmp_path_factory.getbasetemp() / "any.h5"
    write(path, [[(t / 1024, unit) for t, unit in spikes]], [0])  # exact in float32
    with h5py.File(path, "r") as file:
        parts = (file["spikes/times"], file["spikes/units"])
        read = shd._recording(shd.File(path, *parts, np.zeros(1), (), frozenset()), 0)
    assert read.x.tolist() == [unit for _, unit in spikes]
    np.testing.assert_allclose(read.t, [1e6 * t / 1024 for t, _ in spikes], atol=0.5)


def test_what_can_not_be_a_recording_is_named_and_counted(small, caplog):
    good, labels = every(2)
    for spikes, why in [
        ([(0.1, 700)], "the unit 700"),
        ([(0.1, 5), (0.2, -1)], "the unit -1, and there are 700, from 0 on"),
        ([(-0.1, 7)], "a time that is none, -0.1"),
        ([(np.nan, 7)], "a time that is none, nan"),
        ([], "no spikes"),
    ]:
        write(small / "shd_train.h5", [spikes, *good[1:]], labels)
        with pytest.raises(UserError, match=rf"recording 0 of .*shd_train\.h5 is corrupt: .*{why}"):
            load()
        caplog.clear()
        assert load(skip_corrupt=True).train.size == 19
        assert "1 of 100 recordings are corrupt and left out" in caplog.text


def test_files_that_can_not_be_are_named(small):
    train = small / "shd_train.h5"
    whole = train.read_bytes()
    for bad, why in [
        (lambda: write(train, *every(1), without=["spikes/units"]), "has no spikes/units .*spikes"),
        (lambda: write(train, *every(1), without=["spikes"]), r"has no spikes/times \(it has lab"),
        (lambda: write(train, every(1)[0], [0, 1]), "2 labels, and 20 recordings of times"),
        (lambda: write(train, every(1)[0], [20] * 20), "labels from 20 to 20, and there are 20"),
        (lambda: train.write_bytes(whole[: len(whole) // 2]), "can't be read"),
        (lambda: train.write_bytes(b"#!AER-DAT2.0\r\n"), "is an AEDAT file, and here HDF5 is"),
        (lambda: train.write_bytes(gzip.compress(whole)), "is a gzip archive, .*published, unpack"),
        (lambda: train.write_bytes(b"PK\x03\x04"), "is a ZIP archive"),
        (lambda: train.write_bytes(b"GIF89a"), "can't be read"),
    ]:
        bad()
        with pytest.raises(UserError, match=rf"shd_train\.h5 .*{why}"):
            load()
    train.unlink()
    with pytest.raises(UserError, match=r"there is no .*shd_train\.h5: download it from zenkelab"):
        load()
    (small / "shd_train.h5.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"there is no .*shd_train\.h5: unpack .*shd_train\.h5\.gz"):
        load()


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        ("labels", np.eye(20, dtype=int), r"labels has the shape \[20, 20\], and must have one"),
        ("labels", np.zeros((20, 1), int), r"labels has the shape \[20, 1\]"),
        ("labels", 3, r"labels has the shape \[\]"),
        ("labels", np.full(20, 0.5), "labels are float64, and must be the numbers of classes"),
        ("spikes/times", 1.0, r"spikes/times has the shape \[\]"),
        ("spikes/units", np.zeros((20, 5)), r"spikes/units has the shape \[20, 5\]"),
        ("spikes/times/deep", 1.0, "spikes/times is a group"),
    ],
)
def test_parts_of_another_shape_are_named(small, part, value, why):
    with h5py.File(small / "shd_train.h5", "a") as file:
        del file["/".join(part.split("/")[:2])]
        file[part] = value
    with pytest.raises(UserError, match=rf"shd_train\.h5 can't be read: {why}.*was published"):
        load()


@pytest.mark.parametrize("chunks", [None, (7,)])
def test_a_recording_longer_than_its_file_is_named_before_hdf5_takes_the_memory(small, chunks):
    train = small / "shd_train.h5"
    with h5py.File(train, "a") as file:
        if chunks:
            columns = file["spikes/units"][:]
            del file["spikes/units"]
            kind = h5py.vlen_dtype(np.int64)
            file.create_dataset("spikes/units", data=columns, dtype=kind, chunks=chunks)
        stored = file["spikes/units"].id
        at = stored.get_chunk_info(1).byte_offset if chunks else stored.get_offset() + 16 * 7
    content = bytearray(train.read_bytes())
    content[at + 3] = 0x60  # the highest byte of how many units recording 7 has
    train.write_bytes(content)
    with pytest.raises(UserError, match=r"recording 7 of .* is said to be longer than the file"):
        load()
    assert load(skip_corrupt=True).train.size == 19


def test_a_list_without_an_end_is_found_before_hdf5_looks_for_it(small):
    train = small / "shd_train.h5"
    whole = bytearray(train.read_bytes())
    assert not shd._has_broken_heap(train)
    first = whole.index(b"GCOL") + 16  # the first object of the first heap
    whole[first : first + 16] = bytes(16)
    train.write_bytes(whole)
    with pytest.raises(UserError, match=r"shd_train\.h5 can't be read .*recordings is damaged"):
        load()


def test_without_h5py_it_is_said_what_to_install(small, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UserError, match="h5py, which is not installed: pip install h5py"):
        load()
