"""AutoAugment's CIFAR-10 policy on the device, for whole batches: pure JAX, to be jitted.

Cubuk et al., CVPR 2019, arXiv 1805.09501: for each image one of 25 pairs of operations, each with a
probability and a magnitude. Magnitudes are the paper's ranges (table 6) in 10 even steps; the
operations are Pillow's, to the integer. A branch per image would run all of them on all images, so
they share their work instead: one warp serves shear, translations and rotation, the rest are sums
of integers that XLA fuses.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from seenn_jax.errors import UserError

# (operation, probability, magnitude 0..9), twice: table 7 of the paper.
POLICY = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
STEPS = 9  # The largest magnitude.
TRANSLATION = 150 / 331  # Of the image's side, at the largest magnitude; the paper's sides are 331.

Pixels = Int[Array, "B H W C"]


def autoaugment(
    key: Key[Array, ""],
    images: UInt8[Array, "B H W C"],
    fill: Float[Array, "C"] | Float[np.ndarray, "C"],
) -> UInt8[Array, "B H W C"]:
    """Apply to each image one of the 25 sub-policies, drawn uniformly.

    Args:
      key: a `jax.random.key`.
      images: grey or RGB pixels 0..255.
      fill: the colour, 0..255, of what a warp brings in from outside the image.

    Raises:
      UserError: images of neither 1 nor 3 channels.
    """
    pair_key, use_key, sign_key = jax.random.split(key, 3)
    pairs = jax.random.randint(pair_key, images.shape[:1], 0, len(POLICY))
    numbers, chances, magnitudes = (jnp.asarray(column)[pairs] for column in _COLUMNS)
    used = jax.random.uniform(use_key, chances.shape) < chances
    operations = jnp.where(used, numbers, NUMBERS["identity"])
    fill = jnp.asarray(fill)
    signs = jax.random.rademacher(sign_key, chances.shape, jnp.float32)
    first_and_second = (operations.T, magnitudes.T, signs.T)

    # A loop, so that XLA does not compute the first again for each use of its result.
    def both(images, now):
        operation, magnitude, sign = now
        return apply(images, operation, magnitude, sign, fill), None

    return jax.lax.scan(both, images, first_and_second)[0]


def apply(
    images: UInt8[Array, "B H W C"],
    operations: Int[Array, "B"],
    magnitudes: Float[Array, "B"],
    signs: Float[Array, "B"],
    fill: Float[Array, "C"],
) -> UInt8[Array, "B H W C"]:
    """One operation on each image.

    Args:
      images, fill: as for `autoaugment`.
      operations: indices into `OPERATIONS`.
      magnitudes: 0..9; ignored where an operation has none.
      signs: 1 or -1, the direction of a warp; ignored elsewhere.
    """
    if images.shape[-1] not in (1, 3):
        raise UserError(
            f"AutoAugment is for images of 1 or 3 channels, and these have {images.shape[-1]}: set "
            "`config.augment.autoaugment`=False"
        )
    pixels = images.astype(jnp.int32)
    share = magnitudes / STEPS
    warped = _warp(pixels, operations, signs * share, fill)
    share = share[:, None, None, None]
    results = [
        warped if operation is None else operation(pixels, share)
        for operation in OPERATIONS.values()
    ]
    which = jnp.broadcast_to(operations[:, None, None, None], pixels.shape)
    return jax.lax.select_n(which, *results).astype(jnp.uint8)


def _warp(
    pixels: Pixels, operations: Int[Array, "B"], amount: Float[Array, "B"], fill: Float[Array, "C"]
) -> Pixels:
    """Shear, translate or rotate each image by its share of the largest amount; nearest pixel.

    A pixel's centre (x, y) shows what was at (x', y'), affine in (x, y). Shear is about the corner
    and rotation about the middle, as Pillow has them.
    """
    _, height, width, _ = pixels.shape

    def only(name, value, other=0.0):
        return jnp.where(operations == NUMBERS[name], value, other)[:, None, None]

    angle = np.deg2rad(30.0) * amount
    cos, sin = only("rotate", jnp.cos(angle), 1.0), only("rotate", jnp.sin(angle))
    x = jnp.arange(width) + 0.5
    y = (jnp.arange(height) + 0.5)[:, None]
    middle_x, middle_y = width / 2, height / 2
    from_x = cos * (x - middle_x) - sin * (y - middle_y) + middle_x
    from_y = sin * (x - middle_x) + cos * (y - middle_y) + middle_y
    from_x += only("translate_x", TRANSLATION * width * amount)
    from_y += only("translate_y", TRANSLATION * height * amount) + only("shear_y", 0.3 * amount) * x
    column, row = jnp.floor(from_x).astype(jnp.int32), jnp.floor(from_y).astype(jnp.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = jnp.where(inside, row * width + column, 0)

    def take(image, index):
        return image.reshape(height * width, -1)[index]

    return jnp.where(
        inside[..., None], jax.vmap(take)(pixels, index), jnp.round(fill).astype(jnp.int32)
    )


def _invert(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    return 255 - pixels


def _solarize(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    """Invert from a threshold of 256 (none) to 0 (all) on."""
    return jnp.where(pixels < 256 * (1 - share), pixels, 255 - pixels)


def _posterize(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    """Keep 8 to 4 bits."""
    lost = jnp.round(4 * share).astype(jnp.int32)
    return (pixels >> lost) << lost


def _autocontrast(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    """Stretch each channel to 0..255."""
    low = pixels.min((1, 2), keepdims=True)
    span = pixels.max((1, 2), keepdims=True) - low
    return jnp.where(span > 0, (pixels - low) * 255 // jnp.maximum(span, 1), pixels)


def _equalize(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    """Spread each channel's values evenly: each to the share of pixels below it, of 255."""
    batch, height, width, channels = pixels.shape

    def channel(values):
        histogram = jnp.zeros(256, jnp.int32).at[values].add(1)
        below = jnp.cumsum(histogram) - histogram
        # All but those of the largest value, in 255 steps; fewer than 255 stay as they are.
        step = below[values.max()] // 255
        table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, table[values], values)

    rows = jnp.moveaxis(pixels, -1, 1).reshape(batch, channels, height * width)
    equal = jax.vmap(jax.vmap(channel))(rows)
    return jnp.moveaxis(equal.reshape(batch, channels, height, width), 1, -1)


def _contrast(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    grey = _grey(pixels)
    count = grey[0].size
    mean = (2 * grey.sum((1, 2, 3), keepdims=True) + count) // (2 * count)
    return _blend(mean, pixels, share)


def _color(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    return _blend(_grey(pixels), pixels, share)


def _brightness(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    return _blend(0, pixels, share)


def _sharpness(pixels: Pixels, share: Float[Array, "B 1 1 1"]) -> Pixels:
    """Away from the mean of 3 x 3 pixels, the middle one five times; the border stays."""
    _, height, width, _ = pixels.shape
    padded = jnp.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels
    y, x = np.arange(height)[:, None], np.arange(width)
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    smooth = jnp.where(inner[..., None], (2 * total + 13) // 26, pixels)  # Rounded.
    return _blend(smooth, pixels, share)


def _grey(pixels: Pixels) -> Int[Array, "B H W 1"]:
    """Luma of ITU-R BT.601 as Pillow rounds it."""
    if pixels.shape[-1] == 1:
        return pixels
    weights = jnp.array([19595, 38470, 7471])
    return ((pixels * weights).sum(-1, keepdims=True) + 0x8000) >> 16


def _blend(
    plain: Int[Array, "#B #H #W #C"] | int, pixels: Pixels, share: Float[Array, "B 1 1 1"]
) -> Pixels:
    """From 0.1 (nearly `plain`) to 1.9 (beyond `pixels`), as share goes from 0 to 1."""
    # 1.9 and not the number below it, however this is compiled: what should be 5 is cut to 4 else.
    factor = (1 + 18 * share) / 10
    blended = plain + factor * (pixels - plain)
    return jnp.clip(blended, 0, 255).astype(jnp.int32)


# None: the warp.
OPERATIONS: dict[str, Callable | None] = {
    "identity": lambda pixels, share: pixels,
    "shear_y": None,
    "translate_x": None,
    "translate_y": None,
    "rotate": None,
    "invert": _invert,
    "solarize": _solarize,
    "posterize": _posterize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "contrast": _contrast,
    "color": _color,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}
# Of each sub-policy: the numbers of its operations, their probabilities and magnitudes, [25, 2].
_COLUMNS = (
    np.array([[NUMBERS[name] for name, _, _ in pair] for pair in POLICY]),
    np.array([[chance for _, chance, _ in pair] for pair in POLICY], np.float32),
    np.array([[magnitude for _, _, magnitude in pair] for pair in POLICY], np.float32),
)
