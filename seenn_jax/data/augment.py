"""Augmentation of image batches, as pure functions of arrays and keys; `config.augment` chooses.

The order in a training step is that of `AUGMENTATIONS`: on pixels, then, once normalised, on
images, then on whole batches with their targets. What is blanked (the border of a crop, the square
of a cutout) is zero after normalisation, the mean colour, which is the convention of the papers.
Everything is drawn for each image, or sample of event data, whose frames are all treated alike, but
for the one lambda (and box) per batch of mixup and cutmix. All can be jitted, with the options
static.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt
from ml_collections import ConfigDict

from seenn_jax.data.autoaugment import autoaugment
from seenn_jax.data.pixels import normalize
from seenn_jax.errors import UserError, check_choice
from seenn_jax.tables import Table, check_call, check_given, check_kind
from seenn_jax.ticks import over_frames


class Augmentation(NamedTuple):
    """A row of `AUGMENTATIONS`; its name is that of its option in `config.augment`.

    Attributes:
      on: "pixels" (uint8), "images" (normalised) or "batches" (with targets).
      apply: `(key, images [B, H, W, C], option) -> images`; on pixels with a last argument, the
        mean colour [C] in 0..255, on batches `(key, images, targets, option) -> (images, targets)`.
        Called where the option is not 0 or False.
      key: its own part of a step's key, so that leaving one out does not change the others. None
        makes one of the name.
    """

    on: str
    apply: Callable[..., Any]
    key: Callable[[Key[Array, ""]], Key[Array, ""]] | None = None


# Mean and standard deviation of each channel, of pixels scaled to 0..1.
Normalization = tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]


def augmented_images(
    key: Key[Array, ""],
    images: UInt[Array, "B *T H W C"],
    options: Mapping[str, Any] | ConfigDict,
    normalization: Normalization,
    dtype: DTypeLike,
) -> Float[Array, "B *T H W C"]:
    """What `options` make of each image by itself, normalised.

    Raises:
      UserError: an option that is not possible for images of this size.
    """
    for name, draw, apply, option in _chosen("pixels", key, options):
        images = _like(images, name, apply(draw, images, option, 255 * normalization[0]))
    images = normalize(images, *normalization, dtype=dtype)
    for name, draw, apply, option in _chosen("images", key, options):
        found = over_frames(lambda x, f=apply, k=draw, o=option: f(k, x, o), images)
        images = _like(images, name, found)
    return images


def augmented_batch(
    key: Key[Array, ""],
    images: Float[Array, "B *T H W C"],
    targets: Float[Array, "B K"],
    options: Mapping[str, Any] | ConfigDict,
) -> tuple[Float[Array, "B *T H W C"], Float[Array, "B K"]]:
    """(images, targets) of a batch whose samples are mixed as `options` say."""
    for name, draw, apply, option in _chosen("batches", key, options):
        images, targets = _like((images, targets), name, apply(draw, images, targets, option))
    return images, targets


def _like(before: Any, name: str, found: Any) -> Any:
    """What an augmentation gave, which is shaped as what it was given."""
    shape, what = (lambda x: jax.tree.map(jnp.shape, x)), AUGMENTATIONS.words(name)
    check_given(what, found, lambda x: shape(x) == shape(before), f"what it takes, {shape(before)}")
    return found


def _chosen(on, key, options):
    """(name, key, function, option) of each on these that is not turned off, in order."""
    for name, row in AUGMENTATIONS.items():
        option = options.get(name)
        if row.on == on and option:
            own = row.key or (lambda key, name=name: jax.random.fold_in(key, _number(name)))
            yield name, own(key), row.apply, option


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _check_size(what: str, value: int, images: Array) -> None:
    smallest = min(images.shape[1:3])
    if not 0 <= value < smallest:
        height, width = images.shape[1:3]
        raise UserError(
            f"`config.augment.{what}` is {value}, which is not possible for images of {height} x "
            f"{width} pixels: set it to a number from 0 to {smallest - 1}"
        )


# --- Of each image -------------------------------------------------------------------------------


def rotate(
    key: Key[Array, ""], images: Float[Array, "B H W C"], degrees: float
) -> Float[Array, "B H W C"]:
    """Turn around the centre by -degrees to degrees, bilinearly, with zeros from outside."""
    return _rotated(images, jax.random.uniform(key, (len(images),), minval=-1) * degrees)


def _rotated(
    images: Float[Array, "B H W C"], degrees: Float[Array, "B"]
) -> Float[Array, "B H W C"]:
    """Each image turned around its centre, bilinearly; zero is what comes from outside."""
    batch, height, width, _ = images.shape
    angles = jnp.deg2rad(degrees)[:, None, None]
    rows = jnp.arange(height)[:, None] - (height - 1) / 2
    columns = jnp.arange(width) - (width - 1) / 2
    # Where the pixel of the result comes from.
    y = jnp.cos(angles) * rows - jnp.sin(angles) * columns + (height - 1) / 2
    x = jnp.sin(angles) * rows + jnp.cos(angles) * columns + (width - 1) / 2
    top, left = jnp.floor(y), jnp.floor(x)
    turned = jnp.zeros_like(images)
    for row, by_row in ((top, top + 1 - y), (top + 1, y - top)):
        for column, by_column in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = jnp.where(inside, by_row * by_column, 0).astype(images.dtype)
            at = jnp.arange(batch)[:, None, None], row.astype(int), column.astype(int)
            turned += weight[..., None] * images.at[at].get(mode="clip")
    return turned


def roll(
    key: Key[Array, ""], images: Float[Array, "B H W C"], most: int
) -> Float[Array, "B H W C"]:
    """Shift by -most to most pixels along each axis, cyclically, as for event data.

    Source: Li et al., ECCV 2022, arXiv 2203.06145.
    """
    _check_size("roll", most, images)
    shifts = jax.random.randint(key, (len(images), 2), -most, most + 1)
    return jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images, shifts)


def crop(
    key: Key[Array, ""], images: Float[Array, "B H W C"], padding: int
) -> Float[Array, "B H W C"]:
    """Add zero pixels on each side and cut out a window of H x W at a uniformly random place."""
    _check_size("crop", padding, images)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return _windows(key, padded, images.shape, padding)


def crop_edge(
    key: Key[Array, ""], images: Float[Array, "B H W C"], padding: int
) -> Float[Array, "B H W C"]:
    """As `crop`, with the pixels of the border on each side, so that no edge comes of it."""
    _check_size("crop_edge", padding, images)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), "edge")
    return _windows(key, padded, images.shape, padding)


def _windows(
    key: Key[Array, ""], padded: Float[Array, "B h w C"], shape: tuple[int, ...], padding: int
) -> Float[Array, "B H W C"]:
    """A window of `shape` of each padded image, at a uniformly random place."""
    corners = jax.random.randint(key, (shape[0], 2), 0, 2 * padding + 1)

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape[1:])

    return jax.vmap(cut)(padded, corners)


def flip(
    key: Key[Array, ""], images: Float[Array, "B H W C"], _: bool = True
) -> Float[Array, "B H W C"]:
    """Mirror left and right with probability 1/2."""
    flipped = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def cutout(
    key: Key[Array, ""], images: Float[Array, "B H W C"], side: int
) -> Float[Array, "B H W C"]:
    """Set a square to zero whose centre is uniform over the image; what is outside is clipped.

    Source: DeVries & Taylor, arXiv 1708.04552. `side` is in pixels.
    """
    _check_size("cutout", side, images)
    batch, height, width, _ = images.shape
    corners = _random_centres(key, (batch,), height, width) - side // 2
    hidden = _boxes(corners, jnp.array([side, side]), height, width)
    return jnp.where(hidden[..., None], 0, images)


# --- Of a batch ----------------------------------------------------------------------------------


def mixup(
    key: Key[Array, ""],
    images: Float[Array, "B *T H W C"],
    targets: Float[Array, "B K"],
    alpha: float,
) -> tuple[Float[Array, "B *T H W C"], Float[Array, "B K"]]:
    """Blend each image, and its target, with the one before it in the batch (cyclically).

    `lambda * x_i + (1 - lambda) * x_j`, one lambda ~ Beta(alpha, alpha) per batch (Zhang et al.,
    ICLR 2018, arXiv 1710.09412). In a shuffled batch the neighbour is as random a partner as any,
    and it is near where the batch is spread over devices.

    Args:
      key: a `jax.random.key`.
      images: normalised images.
      targets: one distribution over the K classes per image, e.g. one-hot.
      alpha: above 0; the smaller, the closer lambda is to 0 or 1.

    Returns:
      The blended (images, targets).

    Raises:
      UserError: `alpha` is not above 0.
    """
    _check_alpha("mixup", alpha)
    weight = jax.random.beta(key, alpha, alpha)
    return _blend(weight, images), _blend(weight, targets)


def cutmix(
    key: Key[Array, ""],
    images: Float[Array, "B *T H W C"],
    targets: Float[Array, "B K"],
    alpha: float,
) -> tuple[Float[Array, "B *T H W C"], Float[Array, "B K"]]:
    """Replace one box in every image by the same box of the image before it in the batch.

    lambda ~ Beta(alpha, alpha) once per batch; the box has sides sqrt(1 - lambda) times the
    image's, rounded down, a uniformly random centre, and is clipped at the border. Targets are
    blended by the share of pixels that really stayed (Yun et al., ICCV 2019, arXiv 1905.04899). For
    the choice of the partner see `mixup`.

    Args:
      key: a `jax.random.key`.
      images: normalised images.
      targets: one distribution over the K classes per image, e.g. one-hot.
      alpha: above 0; the paper uses 1 (lambda uniform).

    Returns:
      The mixed (images, targets).

    Raises:
      UserError: `alpha` is not above 0.
    """
    _check_alpha("cutmix", alpha)
    height, width = images.shape[-3:-1]
    weight_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.beta(weight_key, alpha, alpha))
    sides = jnp.floor(side * jnp.array([height, width])).astype(jnp.int32)
    corner = _random_centres(centre_key, (), height, width) - sides // 2
    box = _boxes(corner, sides, height, width)
    mixed = jnp.where(box[..., None], jnp.roll(images, 1, axis=0), images)
    return mixed, _blend(1 - box.mean(), targets)


def _check_alpha(what: str, alpha: float) -> None:
    if not alpha > 0:
        raise UserError(
            f"{what} alpha = {alpha} is not above 0: give a positive one, or train without {what}"
        )


def _blend(weight: Float[Array, ""], x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    weight = weight.astype(x.dtype)
    return weight * x + (1 - weight) * jnp.roll(x, 1, axis=0)


def _random_centres(
    key: Key[Array, ""], shape: tuple[int, ...], height: int, width: int
) -> Int[Array, "*batch 2"]:
    """Uniformly random pixels (row, column)."""
    return jax.random.randint(key, (*shape, 2), 0, jnp.array([height, width]))


def _boxes(
    corners: Int[Array, "*batch 2"], sides: Int[Array, "2"], height: int, width: int
) -> Bool[Array, "*batch {height} {width}"]:
    """Mask of the pixels from `corners` (row, column; may lie outside) over `sides`, clipped."""
    rows = jnp.arange(height) - corners[..., 0, None]
    columns = jnp.arange(width) - corners[..., 1, None]
    in_rows = (rows >= 0) & (rows < sides[0])
    in_columns = (columns >= 0) & (columns < sides[1])
    return in_rows[..., :, None] & in_columns[..., None, :]


# Arguments of what is applied, by what it is applied to.
_TAKES = {
    "pixels": ("key", "images", "option", "mean colour"),
    "images": ("key", "images", "option"),
    "batches": ("key", "images", "targets", "option"),
}


def _check(what: str, row: Any) -> None:
    check_kind(what, row, Augmentation)
    check_choice(f"`on` of {what}:", row.on, _TAKES)
    check_call(f"`apply` of {what}", row.apply, *_TAKES[row.on])
    if row.key is not None:
        check_call(f"`key` of {what}", row.key, "key")


# In the order in which they are applied. The first part of a step's key is for images, the second
# for batches; `autoaugment` has the one of its parts that no other uses.
AUGMENTATIONS = Table(
    "AUGMENTATIONS",
    "augmentation",
    {
        "autoaugment": Augmentation(
            "pixels",
            lambda key, images, _, fill: autoaugment(key, images, fill),
            lambda key: jax.random.split(key, 4)[3],
        ),
        "rotate": Augmentation(
            "images", rotate, lambda key: jax.random.split(jax.random.fold_in(key, 4))[0]
        ),
        "roll": Augmentation(
            "images", roll, lambda key: jax.random.split(jax.random.fold_in(key, 4))[1]
        ),
        "crop": Augmentation("images", crop, lambda key: jax.random.split(key, 3)[0]),
        "crop_edge": Augmentation("images", crop_edge),
        "flip": Augmentation("images", flip, lambda key: jax.random.split(key, 3)[1]),
        "cutout": Augmentation("images", cutout, lambda key: jax.random.split(key, 3)[2]),
        "mixup": Augmentation("batches", mixup, lambda key: key),
        "cutmix": Augmentation("batches", cutmix, lambda key: key),
    },
    _check,
)
