"""Frames of events, by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data.frames import Events, resize, to_frames


def made(*pixels):
    """Events of (x, y, on)."""
    x, y, on = np.array(pixels, int).reshape(-1, 3).T
    return Events(x, y, on.astype(bool))


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
