"""Normalisation and augmentation of image batches, as pure functions of arrays and keys.

Event data, [B, T, H, W, C] or one frame of it [B, H, W, C], is treated as images are: its values
are counts, which `normalize` divides by their root mean square and shifts by nothing, so that no
event stays zero; and `augment` treats all frames of a sample alike.

The order in a training step is `normalize`, `augment`, then `mixup` or `cutmix`: what `augment`
blanks (the border of a crop, the square of a cutout) is zero after normalisation, the mean colour,
which is the convention of the papers. Everything is sampled per image, but for the one lambda (and
box) per batch of mixup and cutmix. All but `channel_statistics` can be jitted, with options such as
`crop` static.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from seenn_jax.errors import UserError

# Images summed at once by channel_statistics: 250 squares of a byte stay far below 2**32.
_CHUNK = 250


def channel_statistics(
    images: UInt8[np.ndarray, "N H W C"],
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Mean and standard deviation of each channel over all pixels, of pixels scaled to 0..1.

    Summed in integers, hence exact and independent of the order of the images.

    Args:
      images: the training images (N > 0), on the host.

    Returns:
      (mean, std) as float32. A constant channel has std 1, so that normalising maps it to 0.
    """
    pixels = images.shape[1] * images.shape[2]
    channels = images.shape[3]
    sums = np.zeros(pixels * channels, np.uint64)
    squares = np.zeros(pixels * channels, np.uint64)
    for start in range(0, len(images), _CHUNK):
        rows = images[start : start + _CHUNK].reshape(-1, pixels * channels)
        sums += rows.sum(axis=0, dtype=np.uint32)
        squares += np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    count = len(images) * pixels
    mean = sums.reshape(pixels, channels).sum(axis=0) / count
    variance = np.maximum(squares.reshape(pixels, channels).sum(axis=0) / count - mean**2, 0.0)
    std = np.where(variance > 0, np.sqrt(variance), 255.0)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def count_statistics(
    frames: UInt8[np.ndarray, "N T H W C"],
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """What `normalize` takes for event counts: (zeros, root mean square / 255) of each channel.

    A channel without events has 1 for the latter. Otherwise as `channel_statistics`.
    """
    mean, std = channel_statistics(frames.reshape(-1, *frames.shape[2:]))
    return np.zeros_like(mean), np.hypot(mean, std)


def normalize(
    images: UInt8[Array, "B *T H W C"],
    mean: Float[Array, "C"] | Float[np.ndarray, "C"],
    std: Float[Array, "C"] | Float[np.ndarray, "C"],
    dtype: DTypeLike,
) -> Float[Array, "B *T H W C"]:
    """`(images / 255 - mean) / std` per channel, computed in float32 at least and cast to `dtype`.

    Args:
      images: pixels 0..255.
      mean, std: of each channel, of pixels scaled to 0..1 (see `channel_statistics`).
      dtype: floating type of the result.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    mean, std = jnp.asarray(mean, wide), jnp.asarray(std, wide)
    return ((images.astype(wide) / 255 - mean) / std).astype(dtype)


def augment(
    key: Key[Array, ""],
    images: Float[Array, "B *T H W C"],
    *,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
    roll: int = 0,
    rotate: float = 0.0,
) -> Float[Array, "B *T H W C"]:
    """Random rotation, roll, crop, horizontal flip and cutout of normalised images, in this order.

    All are drawn for each image, or sample of event data: its frames are all treated alike. Each
    draws from its own part of `key`: leaving one out does not change the others.

    Args:
      key: a `jax.random.key`.
      images: normalised images, so that 0 is the mean colour, or no event.
      crop: zero pixels added on each side before a window of H x W is cut out at a uniformly random
        place; 0 leaves the images where they are.
      flip: mirror left and right with probability 1/2.
      cutout: side, in pixels, of a square set to zero whose centre is uniform over the image; the
        part outside the image is clipped (DeVries & Taylor, arXiv 1708.04552); 0 for none.
      roll: shift by -roll to roll pixels along each axis, cyclically, as for event data (Li et al.,
        ECCV 2022, arXiv 2203.06145); 0 for none.
      rotate: turn around the centre by -rotate to rotate degrees, interpolating between pixels,
        with zeros from outside; 0 for none.

    Raises:
      UserError: `crop`, `cutout` or `roll` is negative or not smaller than the images' sides.
    """
    if images.ndim == 5:
        # Ticks as channels.
        flat = jnp.moveaxis(images, 1, 3)
        flat = flat.reshape(*flat.shape[:3], -1)
        kinds = {"crop": crop, "flip": flip, "cutout": cutout, "roll": roll, "rotate": rotate}
        flat = augment(key, flat, **kinds).reshape(*flat.shape[:3], *images.shape[1::3])
        return jnp.moveaxis(flat, 3, 1)
    batch, height, width, channels = images.shape
    for what, value in (("crop", crop), ("cutout", cutout), ("roll", roll)):
        if not 0 <= value < min(height, width):
            raise UserError(
                f"{what} = {value} is not possible for images of {height} x {width} pixels: "
                f"set {what} to 0 to {min(height, width) - 1}"
            )
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    rotate_key, roll_key = jax.random.split(jax.random.fold_in(key, 4))
    if rotate:
        images = _rotated(images, jax.random.uniform(rotate_key, (batch,), minval=-1) * rotate)
    if roll:
        shifts = jax.random.randint(roll_key, (batch, 2), -roll, roll + 1)
        images = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images, shifts)
    if crop:
        padded = jnp.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
        corners = jax.random.randint(crop_key, (batch, 2), 0, 2 * crop + 1)
        images = jax.vmap(
            lambda image, corner: jax.lax.dynamic_slice(
                image, (corner[0], corner[1], 0), (height, width, channels)
            )
        )(padded, corners)
    if flip:
        flipped = jax.random.bernoulli(flip_key, 0.5, (batch, 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    if cutout:
        corners = _random_centres(cutout_key, (batch,), height, width) - cutout // 2
        hidden = _boxes(corners, jnp.array([cutout, cutout]), height, width)
        images = jnp.where(hidden[..., None], 0, images)
    return images


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
