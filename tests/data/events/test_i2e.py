"""I2E by hand, and the same in all ways in which it is asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from seenn_jax.data.events.i2e import _CHOICES, _MOVES, _PLACES, I2E, TICKS, resized
from seenn_jax.errors import UserError

# 3 x 3 pixels of one channel, none of which is moved or resized.
PIXELS = np.array([[0, 0, 0], [0, 100, 0], [0, 0, 0]], np.uint8)[None, ..., None]
OWN_SIZE = I2E(side=3, ratio=0.07)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_one_bright_pixel_by_hand():
    frames = np.asarray(OWN_SIZE.frames(PIXELS))
    assert frames.shape == (1, 8, 3, 3, 2)
    # Tick 5 moves from the image (5) to the one above it (2): what is above a pixel, less itself.
    # Of the pixel below the bright one that is 100 - 0, ON, and of itself 0 - 100, OFF.
    expected = np.zeros((3, 3, 2))
    expected[2, 1, 0] = expected[1, 1, 1] = 1
    np.testing.assert_array_equal(frames[0, 5], expected)
    # Tick 1 moves from the left (4) to the upper right (3): ON below the left of it, OFF at its
    # right.
    expected = np.zeros((3, 3, 2))
    expected[2, 0, 0] = expected[1, 2, 1] = 1
    np.testing.assert_array_equal(frames[0, 1], expected)
    # No tick has more than one of each.
    assert frames.sum((2, 3)).tolist() == [[[1, 1]] * 8]


def test_the_threshold_is_a_part_of_the_range():
    ramp = np.array([[0, 7, 107, 107]] * 4, np.uint8)[None, ..., None]
    convert = I2E(side=4, ratio=7 / 107)
    # Tick 4 moves from the image to its right: 7 is not above 7, 100 is.
    found = np.asarray(convert.frames(ramp))[0, 4]
    np.testing.assert_array_equal(found[..., 0], [[0, 1, 0, 0]] * 4)
    assert not found[..., 1].any()
    more = np.asarray(convert._replace(ratio=0.06).frames(ramp))[0, 4]
    np.testing.assert_array_equal(more[..., 0], [[1, 1, 0, 0]] * 4)


def test_an_even_image_has_no_events():
    assert not np.asarray(OWN_SIZE.frames(np.full((1, 3, 3, 3), 9, np.uint8))).any()


def test_brightness_is_that_of_the_brightest_channel():
    colours = np.zeros((1, 3, 3, 3), np.uint8)
    colours[..., 1] = PIXELS[..., 0]
    colours[0, 1, 1, 2] = 60
    np.testing.assert_array_equal(OWN_SIZE.frames(colours), OWN_SIZE.frames(PIXELS))


def plainly(image, side, ratio, moves):
    """Algorithm 1 of the paper, one pixel after the other, of an image of the right size."""
    value = image.max(-1).astype(int)
    padded = np.pad(value, 1, mode="edge")
    threshold = np.float32(ratio) * np.float32(value.max() - value.min())
    found = np.zeros((len(moves), side, side, 2))
    for t, (start, end) in enumerate(moves):
        for y in range(side):
            for x in range(side):
                here, there = (
                    padded[y + (place - 1) // 3, x + (place - 1) % 3] for place in (start, end)
                )
                found[t, y, x] = there - here > threshold, here - there > threshold
    return found


def test_random_images_as_in_the_paper():
    images = pixels(2, 5, 5, 3)
    found = I2E(side=5, ratio=0.3).frames(images)
    moves = [[9, 4], [4, 3], [3, 8], [8, 1], [5, 6], [5, 2], [5, 3], [5, 1]]  # algorithm 1, line 2
    assert [[*choices[0]] for choices in _MOVES] == moves
    for image, frames in zip(images, np.asarray(found), strict=True):
        np.testing.assert_array_equal(frames, plainly(image, 5, 0.3, moves))


def test_the_moves_of_a_tick_are_of_one_direction():
    for choices in _MOVES:
        steps = {
            (abs((b - 1) // 3 - (a - 1) // 3), abs((b - 1) % 3 - (a - 1) % 3)) for a, b in choices
        }
        assert len(steps) == 1
    for t in range(TICKS):
        assert (_PLACES[t, _CHOICES[t] :] == _PLACES[t, 0]).all()


def test_random_moves_are_drawn_for_each_image_and_are_allowed_ones():
    image = pixels(1, 6, 6, 1)
    convert = I2E(side=6, ratio=0.2)
    found = np.asarray(convert.frames(np.repeat(image, 64, 0), key=jax.random.key(0)))
    for t, choices in enumerate(_MOVES):
        allowed = {plainly(image[0], 6, 0.2, [move]).tobytes() for move in choices}
        assert {frame.astype(float).tobytes() for frame in found[:, t]} == allowed


def test_ticks_by_themselves_are_those_of_all_at_once():
    images = pixels(5, 8, 8, 3)
    convert = I2E(side=32)
    together = jax.jit(convert.frames)(images)
    assert 0.02 < float(together.mean()) < 0.98
    t = jnp.array([0, 3, 7, 4, 1])
    apart = jax.jit(convert.frame_at)(images, t)
    np.testing.assert_array_equal(apart, together[jnp.arange(5), t])
    fewer = jax.jit(functools.partial(convert.frames, timesteps=3))(images[:2])
    np.testing.assert_array_equal(fewer, together[:2, :3])
    mapped = jax.vmap(lambda image: convert.frames(image[None])[0])(images[:2])
    np.testing.assert_array_equal(mapped, together[:2])


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_images_are_resized_as_by_pillow(name):
    images = pixels(4, 8, 8, 3)
    found = np.asarray(resized(images, 32, name))
    filter = Image.Resampling[name.upper()]
    theirs = np.stack([np.asarray(Image.fromarray(x).resize((32, 32), filter)) for x in images])
    # At the border weights are no sums of powers of two: what lies half way is rounded either way.
    assert np.abs(found - theirs).max() <= 1
    assert np.mean(found != theirs) < 1e-3
    np.testing.assert_array_equal(found[:, 8:-8, 8:-8], theirs[:, 8:-8, 8:-8])


@pytest.mark.parametrize(
    ("convert", "timesteps", "said"),
    [
        (I2E(), 9, r"`config.timesteps` is 9, and I2E makes 8 ticks"),
        (I2E(side=0), 8, r"`config.i2e.side` is 0"),
        (I2E(ratio=1.0), 8, r"`config.i2e.ratio` 1.0"),
        (I2E(interpolation="box"), 8, r"`config.i2e.interpolation` 'box'.*bicubic, bilinear"),
    ],
)
def test_what_can_not_be(convert, timesteps, said):
    with pytest.raises(UserError, match=said):
        convert.check(timesteps)
    with pytest.raises(UserError, match=said):
        convert.frames(np.zeros((1, 8, 8, 3)), timesteps)


def test_one_image_is_no_batch():
    one = np.zeros((8, 8, 3))
    for call in (lambda: I2E(16).frames(one), lambda: I2E(16).frame_at(one, np.zeros(1, int))):
        with pytest.raises(UserError, match=r"the shape \[8, 8, 3\], and must be a batch"):
            call()
