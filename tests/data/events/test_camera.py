"""A camera that is simulated."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.data.events import camera
from seenn_jax.data.events.camera import fire, record


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
    # By count: all frames of an image have equally many camera.
    each = frames.sum((2, 3, 4))
    assert np.all(each.max(1) - each.min(1) <= 1)


@pytest.mark.parametrize("along", [0, 1])
def test_a_moving_bar_fires_where_it_moves_sideways(bars, monkeypatch, along):
    monkeypatch.setattr(camera, "NOISE", 0)
    path = [(0, step) if along == 0 else (step, 0) for step in range(13)]
    monkeypatch.setattr(camera, "_moves", lambda: path)
    frames = record(bars, 2).sum(1, dtype=int)
    middle = slice(11, 17)  # of the bars, far from their ends
    sideways, lengthways = frames[along], frames[1 - along]
    assert sideways[middle, middle].sum((0, 1)).min() > 0  # ON and OFF
    assert lengthways[middle, middle].sum() == 0
    assert lengthways.sum() > 0


def test_while_the_gaze_rests_there_is_noise_alone(bars, monkeypatch):
    moves = camera._moves()
    assert moves[: camera._REST] == [(0, 0)] * camera._REST
    assert len(set(moves)) == 3 * camera._LEG
    monkeypatch.setattr(camera, "_moves", lambda: moves[: camera._REST])
    assert record(bars, 2).sum((1, 2, 3, 4)).tolist() == [camera.NOISE] * 2
