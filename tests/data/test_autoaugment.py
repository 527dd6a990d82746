import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from seenn_jax.data.autoaugment import NUMBERS, OPERATIONS, POLICY, apply, autoaugment
from seenn_jax.errors import UserError

FILL = (10, 20, 30)


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(apply)


@pytest.fixture
def one(compiled):
    """`(operation, image [H, W, C], magnitude, sign) -> image`."""

    def call(name, image, magnitude=0.0, sign=1.0):
        image = np.asarray(image, np.uint8)
        fill = jnp.float32(FILL[: image.shape[-1]])
        operation = jnp.int32([NUMBERS[name]])
        ends = jnp.float32([magnitude]), jnp.float32([sign])
        return np.asarray(compiled(image[None], operation, *ends, fill)[0])

    return call


def grey(*rows):
    return np.array(rows, np.uint8)[..., None]


def smooth_picture(seed, height=24, width=31):
    """Colours that change slowly, with a little noise, each channel within its own range."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 30
    waves = [np.sin(rng.uniform(1, 6) * x + rng.uniform(1, 6) * y + i) for i in range(3)]
    image = 110 + 70 * np.stack(waves, -1) + rng.normal(0, 9, (height, width, 3))
    return np.clip(image, [20, 3, 0], [200, 240, 255]).astype(np.uint8)


def enhanced(kind):
    return lambda image, magnitude, sign: kind(image).enhance(0.1 + 1.8 * magnitude / 9)


def warped(matrix):
    """Pillow's `transform` by `(share, width, height) -> matrix`, of the signed share."""

    def call(image, magnitude, sign):
        numbers = matrix(sign * magnitude / 9, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, numbers, fillcolor=FILL)

    return call


PILLOW = {
    "identity": lambda image, magnitude, sign: image,
    "shear_y": warped(lambda share, width, height: (1, 0, 0, 0.3 * share, 1, 0)),
    "translate_x": warped(lambda share, width, height: (1, 0, share * 150 / 331 * width, 0, 1, 0)),
    "translate_y": warped(lambda share, width, height: (1, 0, 0, 0, 1, share * 150 / 331 * height)),
    "rotate": lambda image, magnitude, sign: image.rotate(
        sign * magnitude * 30 / 9, fillcolor=FILL
    ),
    "invert": lambda image, magnitude, sign: ImageOps.invert(image),
    "solarize": lambda image, magnitude, sign: ImageOps.solarize(image, 256 - 256 * magnitude / 9),
    "posterize": lambda image, magnitude, sign: ImageOps.posterize(
        image, 8 - round(4 * magnitude / 9)
    ),
    "autocontrast": lambda image, magnitude, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, magnitude, sign: ImageOps.equalize(image),
    "contrast": enhanced(ImageEnhance.Contrast),
    "color": enhanced(ImageEnhance.Color),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
}
# Where Pillow rounds a float that is nearly an integer to the other side.
OFF_BY_ONE = {"autocontrast", "contrast", "color", "brightness", "sharpness"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_is_pillows(one, name):
    for seed, (magnitude, sign) in enumerate([(0, 1), (1, -1), (3, 1), (5, -1), (7, 1), (9, -1)]):
        image = smooth_picture(seed)
        expected = np.asarray(PILLOW[name](Image.fromarray(image), magnitude, sign))
        found = one(name, image, magnitude, sign)
        if name in OFF_BY_ONE:
            difference = np.abs(found.astype(int) - expected)
            assert difference.max() <= 1
            assert np.mean(difference) < 0.01
        else:
            np.testing.assert_array_equal(found, expected)


class TestByHand:
    def test_invert(self, one):
        assert one("invert", grey([0, 1, 200, 255])).ravel().tolist() == [255, 254, 55, 0]

    def test_solarize(self, one):
        # Magnitude 4.5 of 9: from 128 on.
        solarized = one("solarize", grey([0, 127, 128, 255]), 4.5)
        assert solarized.ravel().tolist() == [0, 127, 127, 0]

    def test_posterize(self, one):
        # 4 * 7 / 9 = 3.1 bits less: multiples of 8.
        assert one("posterize", grey([7, 8, 131, 255]), 7).ravel().tolist() == [0, 8, 128, 248]

    def test_autocontrast(self, one):
        # (v - 100) * 255 / 50, rounded down.
        stretched = one("autocontrast", grey([100, 101, 125, 150]))
        assert stretched.ravel().tolist() == [0, 5, 127, 255]

    def test_autocontrast_of_each_channel_and_of_a_constant_one(self, one):
        image = np.array([[[7, 0, 50], [7, 255, 60]]])
        assert one("autocontrast", image).tolist() == [[[7, 0, 0], [7, 255, 255]]]

    def test_equalize(self, one):
        # 255 pixels of 3, 510 of 9, 5 of 200. All but the last: 765 in steps of 3, half a step
        # (1) in front: 1 // 3 = 0, 256 // 3 = 85, 766 // 3 = 255.
        image = np.repeat([3, 9, 200], [255, 510, 5]).reshape(10, 77, 1)
        equal = one("equalize", image).ravel()
        assert equal[[0, 255, 765]].tolist() == [0, 85, 255]

    def test_equalize_leaves_fewer_than_255_pixels_below_the_largest(self, one):
        image = smooth_picture(0, 9, 9)
        np.testing.assert_array_equal(one("equalize", image), image)

    def test_contrast(self, one):
        # Mean 100; factor 0.1 + 1.8 * 9/9 = 1.9.
        assert one("contrast", grey([50, 100, 150]), 9).ravel().tolist() == [5, 100, 195]

    def test_color(self, one):
        # Luma of pure red (76.2): 76; factor 0.1: 76 + 0.1 * (255 - 76) = 93.9, 76 - 7.6 = 68.4.
        assert one("color", [[[255, 0, 0]]], 0).tolist() == [[[93, 68, 68]]]

    def test_color_leaves_grey_alone(self, one):
        image = smooth_picture(1)[..., :1]
        np.testing.assert_array_equal(one("color", image, 0), image)

    def test_brightness(self, one):
        # Factor 0.1 + 1.8 * 4.5/9 = 1, 0.1 and 1.9.
        image = grey([0, 100, 255])
        assert one("brightness", image, 4.5).ravel().tolist() == [0, 100, 255]
        assert one("brightness", image, 0).ravel().tolist() == [0, 10, 25]
        assert one("brightness", image, 9).ravel().tolist() == [0, 190, 255]

    def test_sharpness(self, one):
        # A mean of (8 * 13 + 5 * 130) / 13 = 58 in the middle, factor 0.1: 58 + 0.1 * 72.
        image = np.full((3, 3, 1), 13)
        image[1, 1] = 130
        blurred = one("sharpness", image, 0)
        assert blurred[1, 1, 0] == 65
        assert np.array_equal(np.delete(blurred.ravel(), 4), np.full(8, 13))

    def test_translate(self, one):
        # 150 / 331 of 4 pixels, at magnitude 5: 1.007, so a pixel shows its right neighbour.
        image = grey([1, 2, 3, 4])
        assert one("translate_x", image, 5).ravel().tolist() == [2, 3, 4, 10]
        assert one("translate_x", image, 5, -1).ravel().tolist() == [10, 1, 2, 3]
        assert one("translate_y", image.swapaxes(0, 1), 5).ravel().tolist() == [2, 3, 4, 10]

    def test_shear(self, one):
        # 0.3 a column: the centres of columns 0 to 3 take from 0.15, 0.45, 0.75, 1.05 further down.
        image = grey([1, 1, 1, 1], [2, 2, 2, 2])
        assert one("shear_y", image, 9)[..., 0].tolist() == [[1, 1, 2, 2], [2, 2, 10, 10]]

    def test_rotate(self, one):
        # By 30 degrees, the centre of a 3 x 3 stays; the middle of the right column, one to the
        # right of it, shows what was at (cos 30, sin 30) = (0.87, 0.5) from it, a row below.
        image = grey([1, 2, 3], [4, 5, 6], [7, 8, 9])
        rotated = one("rotate", image, 9)[..., 0]
        assert rotated[1, 1] == 5
        assert rotated[1, 2] == 9


def test_each_image_has_its_own_operation(compiled):
    images = np.stack([smooth_picture(i) for i in range(len(OPERATIONS))])
    numbers, ones = jnp.arange(len(OPERATIONS)), jnp.ones(len(OPERATIONS))
    fill = jnp.float32(FILL)
    together = compiled(images, numbers, 7 * ones, ones, fill)
    for i in range(len(OPERATIONS)):
        alone = compiled(images[i : i + 1], numbers[i : i + 1], 7 * ones[:1], ones[:1], fill)
        np.testing.assert_array_equal(together[i], alone[0])


class TestPolicy:
    def test_is_the_papers(self):
        # The first and last rows of its table, and how often each operation is in it.
        assert len(POLICY) == 25
        assert POLICY[0] == (("invert", 0.1, 7), ("contrast", 0.2, 6))
        assert POLICY[-1] == (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1))
        names = [name for pair in POLICY for name, _, _ in pair]
        counts = {name: names.count(name) for name in set(names)}
        assert counts == {
            "equalize": 9,
            "autocontrast": 7,
            "sharpness": 5,
            "color": 5,
            "translate_y": 5,
            "brightness": 4,
            "solarize": 4,
            "invert": 3,
            "contrast": 2,
            "translate_x": 2,
            "shear_y": 2,
            "rotate": 1,
            "posterize": 1,
        }

    def test_shares_of_what_is_drawn(self):
        # On one image, what each sub-policy can give is known from Pillow, with its chance.
        draws, image = 6_000, smooth_picture(3, 12, 12)
        chances = {}
        for pair in POLICY:
            for used in np.ndindex(2, 2, 2, 2):
                outcome, chance = Image.fromarray(image), 1 / 25
                for (name, probability, magnitude), use, sign in zip(
                    pair, used[:2], used[2:], strict=True
                ):
                    chance *= (probability if use else 1 - probability) / 2
                    if use:
                        outcome = PILLOW[name](outcome, magnitude, 2 * sign - 1)
                key = np.asarray(outcome).astype(int)
                chances[key.tobytes()] = chances.get(key.tobytes(), 0) + chance
        assert sum(chances.values()) == pytest.approx(1)

        images = np.broadcast_to(image, (draws, *image.shape))
        found = np.asarray(jax.jit(autoaugment)(jax.random.key(0), images, jnp.float32(FILL)))
        outcomes, counts = np.unique(
            found.reshape(draws, -1).astype(int), axis=0, return_counts=True
        )
        expected = np.array([np.frombuffer(key, int) for key in chances])
        shares = np.array(list(chances.values()))
        # To the nearest of Pillow's outcomes, which may differ by one here and there.
        sums = np.zeros(len(expected))
        for outcome, count in zip(outcomes, counts, strict=True):
            distance = np.abs(expected - outcome).max(1)
            assert distance.min() <= 2
            near = np.flatnonzero(distance <= 2)
            sums[near[shares[near].argmax()]] += count
        merged = np.zeros(len(expected))
        for i, row in enumerate(expected):
            near = np.flatnonzero(np.abs(expected - row).max(1) <= 2)
            merged[near[shares[near].argmax()]] += shares[i]
        deviation = np.sqrt(draws * merged * (1 - merged)) + 1e-9
        assert np.all(np.abs(sums - draws * merged) <= 5 * deviation + 1)

    def test_same_key_same_images(self):
        images = np.stack([smooth_picture(i) for i in range(6)])
        drawn = functools.partial(jax.jit(autoaugment), images=images, fill=jnp.float32(FILL))
        first, again, other = (np.asarray(drawn(jax.random.key(seed))) for seed in (0, 0, 1))
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_two_channels(self):
        with pytest.raises(UserError, match="of 1 or 3 channels, and these have 2: set `config"):
            autoaugment(jax.random.key(0), jnp.zeros((1, 8, 8, 2), jnp.uint8), jnp.zeros(2))
