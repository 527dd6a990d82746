"""I2E: still images as the events of a camera that trembles, on the device. Pure JAX.

Ma et al., "I2E: Real-Time Image-to-Event Conversion for High-Performance Spiking Neural Networks",
AAAI 2026, arXiv 2511.08065, algorithm 1; the sets of moves and their order are those of the
authors' code (Ruichen0424/I2E). They publish that 5.86 % of all pixels have an event in a tick of
CIFAR-10, and 5.76 % of CIFAR-100: so they have with bicubic resizing, and 5.2 % and 5.1 % with
bilinear.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num

from seenn_jax.errors import UserError, check_choice

TICKS = 8
INTERPOLATIONS = {"bilinear": "linear", "bicubic": "cubic"}  # as jax calls them
# For each tick the moves that it may be of: from one to another of nine places, which are the image
# where it is (5) and moved by a pixel, as the keys of a telephone lie. The first is the one to
# evaluate with. The longest moves, which cause most events, come first.
_MOVES = (
    ((9, 4), (6, 1)),
    ((4, 3), (7, 6)),
    ((3, 8), (2, 7)),
    ((8, 1), (9, 2)),
    ((5, 6), (1, 2), (2, 3), (4, 5), (7, 8), (8, 9)),
    ((5, 2), (4, 1), (6, 3), (7, 4), (8, 5), (9, 6)),
    ((5, 3), (4, 2), (7, 5), (8, 6)),
    ((5, 1), (6, 2), (8, 4), (9, 5)),
)
_CHOICES = np.array([len(moves) for moves in _MOVES])
# (row, column) of both places of each move, those of a tick filled up with its first.
_PLACES = np.array(
    [
        [
            [divmod(place - 1, 3) for place in moves[choice if choice < len(moves) else 0]]
            for choice in range(_CHOICES.max())
        ]
        for moves in _MOVES
    ]
)


class I2E(NamedTuple):
    """How images are converted.

    Attributes:
      side: pixels to which they are brought.
      ratio: of an image's range of brightness, above which a change is an event; 0.07 for CIFAR,
        0.12 for ImageNet.
      interpolation: of `INTERPOLATIONS`.
    """

    side: int = 128
    ratio: float = 0.07
    interpolation: str = "bicubic"

    def check(self, timesteps: int) -> None:
        """Raise a UserError for what can't be."""
        check_choice("`config.i2e.interpolation`", self.interpolation, INTERPOLATIONS)
        if self.side < 1 or not 0 <= self.ratio < 1:
            raise UserError(
                f"`config.i2e.side` is {self.side} and `config.i2e.ratio` {self.ratio}: set the "
                "one to at least 1 and the other to a number from 0, and below 1"
            )
        if timesteps > TICKS:
            raise UserError(
                f"`config.timesteps` is {timesteps}, and I2E makes {TICKS} ticks of an image: set "
                "it to at most that"
            )

    def _check_images(self, images: ArrayLike, timesteps: int) -> None:
        self.check(timesteps)
        shape = jnp.shape(images)
        if len(shape) != 4:
            raise UserError(
                f"images have the shape {list(shape)}, and must be a batch [B, H, W, C]: of one "
                "image give images[None]"
            )

    def frames(
        self,
        images: Num[ArrayLike, "..."],
        timesteps: int = TICKS,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T side side 2"]:
        """ON and OFF events, 0 or 1, of the first ticks of each image.

        Args:
          images: [B, H, W, C], pixels from 0 to 255.
          timesteps: T, up to `TICKS`.
          key: draws the move of each tick, for each image; None takes the first of each.

        Raises:
          UserError: as `check`; images that are not a batch.
        """
        self._check_images(images, timesteps)
        choices = jnp.zeros((len(images), timesteps), int)
        if key is not None:
            choices = jax.random.randint(key, choices.shape, 0, _CHOICES[:timesteps])
        places = jnp.asarray(_PLACES)[jnp.arange(timesteps), choices]
        return self._events(images, places)

    def frame_at(
        self, images: Num[ArrayLike, "..."], t: Int[ArrayLike, "B"]
    ) -> Float[Array, "B side side 2"]:
        """The frame of tick t, from 0, of each image, as in `frames` without a key."""
        self._check_images(images, 1)
        return self._events(images, jnp.asarray(_PLACES)[t, 0][:, None])[:, 0]

    def _events(
        self, images: Num[ArrayLike, "B H W C"], places: Int[Array, "B T 2 2"]
    ) -> Float[Array, "B T side side 2"]:
        """Events of moves, of brightness in whole numbers."""
        value = resized(images, self.side, self.interpolation).max(-1)
        threshold = self.ratio * (value.max((1, 2)) - value.min((1, 2)))
        padded = jnp.pad(value, ((0, 0), (1, 1), (1, 1)), mode="edge")

        def seen(padded, corner):
            return jax.lax.dynamic_slice(padded, corner, value.shape[1:])

        def of_image(padded, places, threshold):
            before, after = (jax.vmap(seen, (None, 0))(padded, places[:, i]) for i in (0, 1))
            change = after - before
            return jnp.stack([change > threshold, -change > threshold], -1)

        return jax.vmap(of_image)(padded, places, threshold).astype(jnp.float32)


def resized(
    images: Num[ArrayLike, "B H W C"], side: int, interpolation: str
) -> Float[Array, "B side side C"]:
    """Images at another size, in whole numbers from 0 to 255, as Pillow makes them.

    It rounds once the columns are there, and again: no sum needs more bits than a float32 has, so
    that every program gives the same.
    """
    method, found = INTERPOLATIONS[interpolation], jnp.asarray(images, jnp.float32)
    for axis in (2, 1):
        shape = (*found.shape[:axis], side, *found.shape[axis + 1 :])
        found = jax.image.resize(found, shape, method)
        found = jnp.clip(jnp.floor(found + 0.5), 0, 255)
    return found
