"""Frames of events, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data.events.frames import Binning, Events, Frames, frame_of, resize, to_frames
from seenn_jax.errors import UserError


def made(*pixels, t=None):
    """Events of (x, y, on)."""
    x, y, on = np.array(pixels, int).reshape(-1, 3).T
    return Events(x, y, on.astype(bool), t if t is None else np.array(t))


def test_frames_by_hand():
    # Five events in two frames: floor(i 2 / 5) = 0, 0, 0, 1, 1.
    events = made((0, 0, 1), (1, 0, 1), (1, 0, 1), (1, 0, 0), (0, 1, 0))
    expected = np.zeros((2, 2, 3, 2), int)  # frame, y, x, (ON, OFF)
    expected[0, 0, 0, 0] = 1
    expected[0, 0, 1, 0] = 2
    expected[1, 0, 1, 1] = 1
    expected[1, 1, 0, 1] = 1
    np.testing.assert_array_equal(to_frames(events, Binning(2), 2, 3), expected)
    np.testing.assert_array_equal(
        to_frames(events, Binning(2), 2, 3, channels=1), expected.sum(-1, keepdims=True)
    )


def test_frames_by_duration_by_hand():
    events = made(*[(0, 0, 1)] * 5, t=[0, 1000, 2999, 3000, 9000])
    # The last is at 9000: frames of 3000.33 microseconds each.
    assert frame_of(events, Binning(3, "duration")).tolist() == [0, 0, 0, 0, 2]
    assert frame_of(events, Binning(3, "duration", 3.0)).tolist() == [0, 0, 0, 1, 3]
    # What comes after three frames of 3 ms is left out.
    assert to_frames(events, Binning(3, "duration", 3.0), 1, 1)[..., 0].ravel().tolist() == [
        3,
        1,
        0,
    ]


@pytest.mark.parametrize("by", ["count", "duration"])
@given(count=st.integers(0, 60), timesteps=st.integers(1, 9), seed=st.integers(0, 99))
def test_frames_hold_every_event(by, count, timesteps, seed):
    draw = np.random.default_rng(seed)
    pixels = np.stack([draw.integers(0, 5, count), draw.integers(0, 5, count)])
    events = Events(*pixels, draw.random(count) < 0.5, np.sort(draw.integers(0, 10**6, count)))
    frames = to_frames(events, Binning(timesteps, by), 5, 5)
    assert frames.shape == (timesteps, 5, 5, 2)
    assert frames.sum() == count
    if by == "count":
        each = frames.sum((1, 2, 3))
        assert each.max() - each.min() <= 1


@pytest.mark.parametrize(
    ("binning", "said"),
    [
        (Binning(2, "time"), r"`config.data.bin_by` 'time'.*count, duration"),
        (Binning(2, bin_ms=3.0), r"`config.data.bin_ms` is 3.0.*'count'"),
        (Binning(2, "duration", -1.0), r"`config.data.bin_ms` is -1.0"),
        (
            Binning(2, "duration", np.nan),
            r"`config.data.bin_ms` is nan: .* to 1,000,000,000",
        ),
        (Binning(2, "duration", np.inf), r"`config.data.bin_ms` is inf"),
        (Binning(2, "duration", 1e300), r"`config.data.bin_ms` is 1e\+300"),
        (Binning(2, side=-1), r"`config.data.event_side` is -1"),
    ],
)
def test_binnings_that_can_not_be(binning, said):
    with pytest.raises(UserError, match=said):
        binning.check()


def test_resize_by_hand():
    # From 4 pixels to 3 cells: a cell is 4/3 pixels wide, pixel 1 lies from 1 to 2 and is cut at
    # 4/3; a third of it is in the first cell, two thirds in the second.
    frames = np.zeros((1, 4, 4, 1), int)
    frames[0, 0, 1, 0] = 9
    expected = np.zeros((3, 3))
    expected[0, :2] = 3, 6
    np.testing.assert_allclose(resize(frames, 3, 3)[0, ..., 0], expected, atol=1e-12)


def test_resize_keeps_events_and_gives_all_cells_as_many_of_an_even_scene():
    frames = np.ones((2, 128, 180, 2), int)
    np.testing.assert_allclose(resize(frames, 48, 60), 128 / 48 * 3)
    drawn = np.random.default_rng(0).integers(0, 9, frames.shape)
    np.testing.assert_allclose(resize(drawn, 48, 60).sum((1, 2)), drawn.sum((1, 2)))


def test_counts_are_kept_in_bytes_while_these_hold_them():
    frames = Frames(3, (1, 1, 2, 1), units=4, saturate=False)
    few, many = np.array([63.75, 0.3]), np.array([63.8, 16383.75])
    frames.add(few.reshape(1, 1, 2, 1))
    assert (frames.array.dtype, frames.array.ravel().tolist()) == (np.uint8, [255, 1])
    frames.add(many.reshape(1, 1, 2, 1))
    assert frames.array.dtype == np.uint16
    assert frames.array.ravel().tolist() == [255, 1, 255, 65535]
    assert frames.loss == ""


def test_what_is_lost_is_said_with_its_size():
    frames = Frames(1, (1, 1, 2, 1), units=4, saturate=True)
    frames.add(np.array([100, 50]).reshape(1, 1, 2, 1))
    assert (frames.array.dtype, frames.array.ravel().tolist()) == (np.uint8, [255, 200])
    # 400 - 255 of 600 quarters.
    assert frames.loss.startswith(
        "24.2% of the events are above the largest count of a cell, 63.75"
    )
    large = Frames(1, (1, 1, 1, 1), units=1, saturate=False)
    large.add(np.full((1, 1, 1, 1), 2 * 65535))
    assert large.loss.startswith("50.0% of the events are above the largest count of a cell, 65535")
