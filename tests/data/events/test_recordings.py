"""Files as SpikingJelly prepares them, and what can't be in any recording."""

import numpy as np
import pytest

from seenn_jax.data.events.frames import Events
from seenn_jax.data.events.recordings import Kind, Unreadable, check_place, prepared, read_npz
from seenn_jax.errors import UserError
from tests.data.made_events import npz, read_back

KIND = Kind("a camera's", (8, 8), ("a", "b"))
SOME = [(3, 0, True, 1000), (7, 5, False, 2000), (3, 0, True, 305_000)]


def test_whole_numbers_of_any_kind_are_read(tmp_path):
    times = np.array([1000, 2000, 305_000])
    for t in (times, times.astype(np.float64), times.astype(np.uint32), times + 1_700_000 * 10**9):
        npz(tmp_path / "a.npz", SOME, t=t, p=np.array([True, False, True]))
        events = [(3, 0, True, 0), (7, 5, False, 1000), (3, 0, True, 304_000)]
        assert read_back(read_npz(tmp_path / "a.npz", KIND)) == events


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"t": [0, 1, 2**62]}, r"t has 4611686018427387904, .* whole microseconds up to 2\^53"),
        ({"t": np.array([0, 1, 2**63 + 5], np.uint64)}, "t has 9223372036854775813"),
        ({"t": [0, np.nan, 2]}, "t has nan"),
        ({"t": [0, 1, np.inf]}, "t has inf"),
        ({"t": [0, 0.25, 0.3]}, "t has 0.25, and takes whole microseconds"),
        ({"t": np.array([0, 1, 2], "m8[ms]")}, r"t is of timedelta64\[ms\]"),
        ({"t": [0, 1, 10**12 + 1]}, "times span 1,000,000,000,001 microseconds"),
        ({"x": [0.7, 1.7, 2.7]}, "x has 0.7, and takes whole columns"),
        ({"y": [0, 1, np.nan]}, "y has nan, and takes whole rows"),
        ({"p": [0, 1, 0.5]}, "p has 0.5"),
    ],
)
def test_numbers_that_can_not_be_are_named(tmp_path, changed, why):
    npz(tmp_path / "a.npz", SOME, **changed)
    with pytest.raises(Unreadable, match=rf"a\.npz .*is corrupt: its (array )?{why}.*skip_corrupt"):
        read_npz(tmp_path / "a.npz", KIND)


def test_another_format_is_named_and_never_skipped(tmp_path):
    for start, what in [
        (b"\x93NUMPY", "a NumPy file"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"<!DOCTYPE html>", "a page of the web"),
    ]:
        (tmp_path / "a.npz").write_bytes(start + bytes(40))
        with pytest.raises(UserError, match=rf"a\.npz is {what}, and here .npz of") as caught:
            read_npz(tmp_path / "a.npz", KIND)
        assert not isinstance(caught.value, Unreadable)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + bytes(40))  # as an .npz is, and it is cut
    with pytest.raises(Unreadable, match=r"is corrupt: it is no \.npz"):
        read_npz(tmp_path / "a.npz", KIND)


def test_frames_beside_events_are_no_events(tmp_path):
    frames = tmp_path / "frames_number_4_split_by_number" / "a"
    frames.mkdir(parents=True)
    (frames / "0.npz").touch()
    assert prepared(tmp_path) is None
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.npz").touch()
    assert prepared(tmp_path) == tmp_path


def test_times_too_far_apart_are_damage_in_any_format(tmp_path):
    ones = np.ones(2, int)
    check_place(tmp_path, Events(ones, ones, ones > 0, np.array([5, 5 + 10**12])), KIND)
    with pytest.raises(Unreadable, match="times span 1,000,000,000,001"):
        check_place(tmp_path, Events(ones, ones, ones > 0, np.array([4, 5 + 10**12])), KIND)
