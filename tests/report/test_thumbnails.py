"""Small pictures: what goes in comes out, as far as a screen can show it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from seenn_jax.report.thumbnails import EVENTS, SIDE, data_uri, visible


def decoded(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_is_as_it_was(channels):
    image = np.random.default_rng(0).integers(0, 256, (8, 5, channels), dtype=np.uint8)
    shown = np.asarray(decoded(data_uri(image)))
    np.testing.assert_array_equal(shown, image[..., 0] if channels == 1 else image)


def test_a_large_image_becomes_small(picture):
    assert decoded(data_uri(picture(3, 224, 112))).size == (SIDE // 2, SIDE)


def test_events_have_two_colours():
    counts = np.zeros((2, 2, 2), np.uint32)
    counts[0, 0, 0], counts[1, 1, 1] = 600, 300
    shown = visible(counts)
    assert shown[0, 0].tolist() == EVENTS[0].tolist()
    # Half of the largest is 127.5, rounded to the even 128.
    assert shown[1, 1].tolist() == np.rint(EVENTS[1] * 128 / 255).tolist()
    assert shown[0, 1].tolist() == [0, 0, 0]
    assert visible(np.full((1, 1, 2), 9, np.uint32)).tolist() == [[[255, 255, 255]]]


def test_no_events_and_other_channels():
    assert not visible(np.zeros((2, 2, 2), np.uint32)).any()
    four = np.uint8([[[0, 100, 100, 200]]])
    assert visible(four).tolist() == [[100]]
