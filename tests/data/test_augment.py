"""What each augmentation makes of images, what several make together, and of a whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.data.augment import (
    AUGMENTATIONS,
    _rotated,
    augmented_images,
    crop,
    crop_edge,
    cutmix,
    cutout,
    flip,
    mixup,
    roll,
    rotate,
)
from seenn_jax.data.pixels import normalize
from seenn_jax.errors import UserError

seeds = st.integers(0, 2**31 - 1)


def distinct(batch, height=8, width=10, channels=3, dtype=jnp.float32):
    """Images in which no two values are alike and none is 0, exact in `dtype`."""
    count = batch * height * width * channels
    return jnp.arange(1, count + 1, dtype=dtype).reshape(batch, height, width, channels)


def pixels(*shape):
    """Stored images, none of whose pixels is 0."""
    return np.random.default_rng(0).integers(1, 256, shape, np.uint8)


def augmented(key, images, dtype=jnp.float32, **options):
    """`augmented_images` of one normalisation, which leaves 0 where it is, as one program."""
    channels = images.shape[-1]
    scale = np.zeros(channels, np.float32), np.full(channels, 0.25, np.float32)
    return jax.jit(lambda key, x: augmented_images(key, x, options, scale, dtype))(key, images)


def soft_partner(batch):
    """The matrix that puts in an image's place the one before it."""
    return jnp.roll(jnp.eye(batch), 1, axis=0)


class TestAugment:
    def test_nothing_asked_nothing_done(self):
        images = pixels(2, 8, 10, 3)
        scale = np.float32([0.1, 0.2, 0.3]), np.float32([0.4, 0.5, 0.6])
        off = {"crop": 0, "flip": False, "autoaugment": False}
        out = augmented_images(jax.random.key(0), jnp.asarray(images), off, scale, "float32")
        assert jnp.array_equal(out, normalize(jnp.asarray(images), *scale, dtype="float32"))

    @settings(deadline=None, max_examples=20)
    @given(seed=seeds, padding=st.integers(1, 4))
    def test_crop_is_a_window_of_the_padded_image(self, seed, padding):
        images = np.asarray(distinct(4))
        out = np.asarray(crop(jax.random.key(seed), jnp.asarray(images), padding))
        padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        _, height, width, _ = images.shape
        for i in range(4):
            windows = [
                padded[i, y : y + height, x : x + width]
                for y in range(2 * padding + 1)
                for x in range(2 * padding + 1)
            ]
            assert sum(np.array_equal(out[i], window) for window in windows) == 1

    def test_every_place_of_the_crop_is_as_likely(self):
        # One lit pixel in the middle of 9,000 images: where it ends up is the window's place.
        images = jnp.zeros((9000, 5, 5, 1)).at[:, 2, 2, 0].set(1)
        hits = crop(jax.random.key(1), images, 1).sum(axis=(0, 3))
        assert hits.sum() == 9000
        # 1,000 expected at each of nine places; standard deviation sqrt(9000/9 * 8/9) = 29.8.
        np.testing.assert_allclose(hits[1:4, 1:4], 1000, atol=5 * 29.8)

    def test_half_of_the_images_are_flipped(self):
        images = distinct(2000, 2, 3, 1)
        out = flip(jax.random.key(2), images)
        mirrored = jnp.all(out == images[:, :, ::-1], axis=(1, 2, 3))
        unchanged = jnp.all(out == images, axis=(1, 2, 3))
        assert jnp.all(mirrored ^ unchanged)
        # Standard deviation sqrt(2000)/2 = 22.4.
        assert abs(int(mirrored.sum()) - 1000) < 5 * 22.4

    @pytest.mark.parametrize("side", [2, 3])
    def test_cutout_hides_a_clipped_square_around_a_uniform_centre(self, side):
        height, width, batch = 6, 5, 6000
        images = distinct(batch, height, width, 2)
        out = cutout(jax.random.key(3), images, side)
        hidden = np.asarray(out == 0)
        assert np.array_equal(hidden[..., 0], hidden[..., 1])
        assert jnp.array_equal(jnp.where(hidden, 0, images), out)
        squares = {}
        for y in range(height):
            for x in range(width):
                mask = np.zeros((height, width), bool)
                top, left = y - side // 2, x - side // 2
                mask[max(top, 0) : top + side, max(left, 0) : left + side] = True
                squares.setdefault(mask.tobytes(), []).append((y, x))
        found = [squares[mask.tobytes()] for mask in hidden[..., 0]]
        for centres in squares.values():
            share = len(centres) / (height * width)
            deviation = np.sqrt(batch * share * (1 - share))
            assert abs(found.count(centres) - batch * share) < 5 * deviation

    def test_leaving_one_out_leaves_the_others_as_they_were(self):
        key, images = jax.random.key(4), pixels(8, 8, 10, 3)
        cropped = augmented(key, images, crop=2)
        flipped = augmented(key, images, flip=True)
        both = augmented(key, images, crop=2, flip=True)
        mirrored = jnp.any(flipped != augmented(key, images), axis=(1, 2, 3), keepdims=True)
        assert 0 < mirrored.sum() < 8
        assert jnp.array_equal(both, jnp.where(mirrored, cropped[:, :, ::-1], cropped))

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
    def test_jit_and_dtype(self, dtype):
        images = jax.random.normal(jax.random.key(5), (16, 8, 8, 3), dtype)
        options = {"crop": 2, "flip": True, "cutout": 3}

        def drawn(key, images):
            for name, option in options.items():
                row = AUGMENTATIONS[name]
                images = row.apply(row.key(key), images, option)
            return images

        jitted = jax.jit(drawn)
        out = jitted(jax.random.key(6), images)
        assert out.dtype == dtype
        assert jnp.array_equal(out, drawn(jax.random.key(6), images))
        assert not jnp.array_equal(out, jitted(jax.random.key(7), images))
        assert augmented(jax.random.key(6), pixels(2, 8, 8, 3), dtype, **options).dtype == dtype

    @pytest.mark.parametrize("options", [{"crop": -1}, {"crop": 8}, {"cutout": -1}, {"cutout": 8}])
    def test_out_of_range(self, options):
        ((what, value),) = options.items()
        with pytest.raises(UserError, match=f"{what}` is {value}, .* 8 x 10 pixels: .* 0 to 7"):
            augmented(jax.random.key(0), pixels(1, 8, 10, 3), **options)


def test_crop_with_the_colours_of_the_border():
    images = jnp.arange(9.0).reshape(1, 3, 3, 1).repeat(32, 0)
    found = np.asarray(crop_edge(jax.random.key(0), images, 1))[..., 0]
    padded = np.pad(np.arange(9.0).reshape(3, 3), 1, mode="edge")
    windows = {padded[y : y + 3, x : x + 3].tobytes() for y in range(3) for x in range(3)}
    assert {window.astype(float).tobytes() for window in found} == windows


class TestEvents:
    """Roll, rotation, and frames that are treated alike."""

    @settings(deadline=None, max_examples=20)
    @given(seed=seeds, most=st.integers(1, 3))
    def test_roll_is_a_cyclic_shift(self, seed, most):
        images = np.asarray(distinct(4))
        out = np.asarray(roll(jax.random.key(seed), jnp.asarray(images), most))
        shifts = range(-most, most + 1)
        for i in range(4):
            shifted = [np.roll(images[i], (y, x), (0, 1)) for y in shifts for x in shifts]
            assert sum(np.array_equal(out[i], other) for other in shifted) == 1

    def test_every_shift_is_as_likely(self):
        images = jnp.zeros((9000, 5, 5, 1)).at[:, 2, 2, 0].set(1)
        hits = roll(jax.random.key(1), images, 1).sum(axis=(0, 3))
        np.testing.assert_allclose(hits[1:4, 1:4], 1000, atol=5 * 29.8)

    def test_rotation_by_hand(self):
        image = jnp.arange(1.0, 10).reshape(1, 3, 3, 1)
        quarter, half, none = (
            _rotated(image, jnp.array([d]))[0, ..., 0] for d in (90.0, 180.0, 0.0)
        )
        np.testing.assert_allclose(quarter, [[7, 4, 1], [8, 5, 2], [9, 6, 3]], atol=1e-4)
        np.testing.assert_allclose(half, [[9, 8, 7], [6, 5, 4], [3, 2, 1]], atol=1e-4)
        np.testing.assert_array_equal(none, image[0, ..., 0])
        # By 45 degrees the corners come from outside, (1 - sqrt(2)) beyond the border: what is left
        # of the middle of an edge, 2, is (2 - sqrt(2)) of it.
        eighth = _rotated(jnp.zeros((1, 3, 3, 1)).at[0, 0, 1].set(1), jnp.array([45.0]))
        np.testing.assert_allclose(eighth[0, 0, 2, 0], 2 - 2**0.5, atol=1e-5)

    def test_turns_are_random_and_at_most_so_large(self):
        # A pixel 10 to the right of the centre: how far it turns is where it ends up.
        images = jnp.zeros((2000, 21, 21, 1)).at[:, 10, 20, 0].set(1)
        out = np.asarray(rotate(jax.random.key(0), images, 20.0))[..., 0]
        mass = out.sum((1, 2))
        y = (out.sum(2) * (np.arange(21) - 10)).sum(1) / mass
        angles = np.degrees(np.arcsin(np.clip(y / 10, -1, 1)))
        assert np.abs(angles).max() < 20 + 3  # as well as a pixel's centre can be told
        assert abs(angles.mean()) < 1
        # Uniform: a standard deviation of 20 / sqrt(3) = 11.5.
        assert abs(angles.std() - 11.5) < 1

    @pytest.mark.parametrize(
        "options",
        [{"crop": 2}, {"flip": True}, {"cutout": 3}, {"roll": 3}, {"rotate": 30.0}],
        ids=lambda options: next(iter(options)),
    )
    def test_all_frames_of_a_sample_are_treated_alike_and_as_an_image_is(self, options):
        frames, key = pixels(6, 3, 7, 7, 2), jax.random.key(5)
        out = augmented(key, frames, **options)
        assert out.shape == frames.shape
        assert not jnp.array_equal(out, augmented(key, frames))
        for t in range(3):
            expected = augmented(key, frames[:, t], **options)
            np.testing.assert_allclose(out[:, t], expected, rtol=1e-6)

    def test_mixup_and_cutmix_of_frames(self):
        frames, targets = distinct(4 * 3, 6, 6, 2).reshape(4, 3, 6, 6, 2), soft_partner(4)
        for mix in (mixup, cutmix):
            out, blended = mix(jax.random.key(1), frames, targets, 1.0)
            flat = jnp.moveaxis(frames, 1, 3).reshape(4, 6, 6, 6)
            expected, same = mix(jax.random.key(1), flat, targets, 1.0)
            found = jnp.moveaxis(out, 1, 3).reshape(4, 6, 6, 6)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(blended, same)


class TestMixup:
    @settings(deadline=None, max_examples=20)
    @given(seed=seeds, alpha=st.floats(0.1, 5))
    def test_images_and_targets_share_one_lambda_and_one_partner(self, seed, alpha):
        images, targets = distinct(4, 2, 2, 1), jnp.eye(4)
        mixed, soft = mixup(jax.random.key(seed), images, targets, alpha)
        # One-hot targets show the matrix that mixes them: the images must be mixed by the same.
        expected = jnp.einsum("ij,jhwc->ihwc", soft, images, precision="highest")
        np.testing.assert_allclose(mixed, expected, rtol=1e-5)
        np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
        weight = float(soft[0, 0])
        assert 0 <= weight <= 1
        np.testing.assert_allclose(soft, weight * jnp.eye(4) + (1 - weight) * soft_partner(4))

    def test_lambda_has_the_moments_of_a_beta(self):
        def weight(key):
            return mixup(key, jnp.zeros((2, 1, 1, 1)), jnp.eye(2), 0.5)[1][0, 0]

        weights = jax.jit(jax.vmap(weight))(jax.random.split(jax.random.key(0), 4000))
        # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)) = 1/8; sqrt(1/8 / 4,000) = 0.0056.
        assert abs(weights.mean() - 1 / 2) < 5 * 0.0056
        assert abs(weights.var() - 1 / 8) < 0.01


class TestCutmix:
    @settings(deadline=None, max_examples=40)
    @given(seed=seeds, alpha=st.floats(0.1, 5))
    def test_targets_are_the_shares_of_pixels(self, seed, alpha):
        batch, height, width = 3, 8, 10
        images = jnp.broadcast_to(
            jnp.arange(batch, dtype=jnp.float32)[:, None, None, None], (batch, height, width, 2)
        )
        mixed, soft = cutmix(jax.random.key(seed), images, jnp.eye(batch), alpha)
        shares = [[jnp.mean(mixed[i] == j) for j in range(batch)] for i in range(batch)]
        np.testing.assert_allclose(soft, shares, atol=1e-6)

    @settings(deadline=None, max_examples=40)
    @given(seed=seeds)
    def test_one_box_is_taken_from_the_same_place_of_the_partner(self, seed):
        images = distinct(3)
        mixed, _ = cutmix(jax.random.key(seed), images, jnp.eye(3), 1.0)
        partners = jnp.einsum("ij,jhwc->ihwc", soft_partner(3), images, precision="highest")
        box = np.asarray(mixed == partners)
        assert jnp.array_equal(mixed, jnp.where(box, partners, images))
        assert np.all(box == box[:1, ..., :1])
        rows, columns = box[0, ..., 0].any(axis=1), box[0, ..., 0].any(axis=0)
        assert np.array_equal(box[0, ..., 0], np.outer(rows, columns))
        for line in (rows, columns):  # One run, without a gap.
            assert np.abs(np.diff(np.pad(line, 1).astype(int))).sum() in (0, 2)

    def test_share_kept_by_hand(self):
        # With lambda uniform, the side s = sqrt(1 - lambda) of a box in a unit square has
        # E[s^2] = 1/2, E[s^3] = 2/5, E[s^4] = 1/3. A uniform centre leaves s - s^2/4 of it on
        # average after the clip, along each axis, so that E[(s - s^2/4)^2] = 1/2 - 1/5 + 1/48
        # = 0.3208 of an image is cut.
        images, targets = jnp.zeros((2, 100, 100, 1)), jnp.eye(2)

        def kept(key):
            return cutmix(key, images, targets, 1.0)[1][0, 0]

        shares = jax.jit(jax.vmap(kept))(jax.random.split(jax.random.key(0), 1000))
        assert abs((1 - shares).mean() - 0.3208) < 5 * shares.std() / np.sqrt(1000)


@pytest.mark.parametrize("mix", [mixup, cutmix])
class TestBoth:
    @pytest.mark.parametrize("alpha", [0.0, -1.0])
    def test_alpha_out_of_range(self, mix, alpha):
        with pytest.raises(UserError, match=f"{mix.__name__} alpha = {alpha} is not above 0"):
            mix(jax.random.key(0), distinct(2), jnp.eye(2), alpha)

    def test_jit_keeps_the_dtypes(self, mix):
        images = distinct(4, 2, 2, 1, jnp.bfloat16)
        jitted = jax.jit(mix, static_argnums=3)
        mixed, soft = jitted(jax.random.key(0), images, jnp.eye(4), 0.2)
        assert (mixed.dtype, soft.dtype) == (jnp.bfloat16, jnp.float32)
