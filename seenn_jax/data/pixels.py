"""Statistics of pixels and of event counts, and their normalisation.

Event counts are divided by their root mean square and shifted by nothing, so that no event stays
zero. All but the statistics can be jitted.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num, UInt

# Images summed at once by channel_statistics: 250 squares of a byte stay far below 2**32.
_CHUNK = 250


def channel_statistics(
    images: UInt[np.ndarray, "N H W C"],
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
        wide = np.uint16 if rows.dtype == np.uint8 else np.uint32
        squares += np.square(rows, dtype=wide).sum(axis=0, dtype=np.uint64)
    count = len(images) * pixels
    mean = sums.reshape(pixels, channels).sum(axis=0) / count
    variance = np.maximum(squares.reshape(pixels, channels).sum(axis=0) / count - mean**2, 0.0)
    std = np.where(variance > 0, np.sqrt(variance), 255.0)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def count_statistics(
    frames: UInt[np.ndarray, "N T H W C"],
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """What `normalize` takes for event counts: (zeros, root mean square / 255) of each channel.

    A channel without events has 1 for the latter. Otherwise as `channel_statistics`.
    """
    mean, std = channel_statistics(frames.reshape(-1, *frames.shape[2:]))
    return np.zeros_like(mean), np.hypot(mean, std)


def normalize(
    images: Num[Array, "B *T H W C"],
    mean: Float[Array, "C"] | Float[np.ndarray, "C"],
    std: Float[Array, "C"] | Float[np.ndarray, "C"],
    dtype: DTypeLike,
) -> Float[Array, "B *T H W C"]:
    """`(images / 255 - mean) / std` per channel, computed in float32 at least and cast to `dtype`.

    Args:
      images: pixels 0..255, or counts of events.
      mean, std: of each channel, of pixels scaled to 0..1 (see `channel_statistics`).
      dtype: floating type of the result.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    mean, std = jnp.asarray(mean, wide), jnp.asarray(std, wide)
    return ((images.astype(wide) / 255 - mean) / std).astype(dtype)
