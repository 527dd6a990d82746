"""Event data has a frame for each tick, [N, T, H, W, C]; a still image, [N, H, W, C], has none.

A still image is shown at every tick (direct encoding). This is the only module that knows which
of the two an array is.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from seenn_jax.errors import UserError
from seenn_jax.tables import check_given


def frames(inputs: Shaped[ArrayLike, "B ..."]) -> int:
    """How many frames each sample has: T of event data, 0 of still images."""
    return inputs.shape[1] if inputs.ndim == 5 else 0


def first_ticks(inputs: Shaped[ArrayLike, "B ..."], timesteps: int) -> Shaped[ArrayLike, "B ..."]:
    """The inputs of the first `timesteps` ticks: fewer frames of event data, still images as is."""
    return inputs[:, :timesteps] if frames(inputs) else inputs


def seen(inputs: Shaped[ArrayLike, "B ..."]) -> Shaped[ArrayLike, "B H W C"]:
    """What a policy is shown: a still image itself, of event data the first tick's frame.

    It is all that a live recording has to show when the policy has to choose.
    """
    return inputs[:, 0] if frames(inputs) else inputs


def summed(inputs: Shaped[np.ndarray, "B ..."]) -> Shaped[np.ndarray, "B H W C"]:
    """A picture of each sample: a still image itself, of event data the sum of its frames."""
    return inputs.sum(1, dtype=np.uint32) if frames(inputs) else inputs


def input_at(inputs: Shaped[ArrayLike, "N ..."], timesteps: int) -> Callable | None:
    """`(inputs, index [S], t [S] from 0) -> input [S, H, W, C]` of event data, else None.

    Raises:
      UserError: event data of another number of frames than `timesteps`.
    """
    count = frames(inputs)
    _check(count, timesteps)
    return (lambda x, index, t: x[index, t]) if count else None


def currents(
    model: nnx.Module, inputs: Float[Array, "..."], timesteps: int
) -> Float[Array, "B T h w D"]:
    """What the first spiking layer receives at each of `timesteps` ticks."""
    count = frames(inputs)
    _check(count, timesteps)
    first = model.encode(inputs if count else inputs[:, None])
    ticks = (len(inputs), count or 1)
    check_given(
        "the method `encode` of the network",
        first,
        lambda x: x.shape[:2] == ticks and x.ndim > 2,
        f"currents [B, T, H, W, D], of B and T = {ticks}",
    )
    shape = (first.shape[0], timesteps, *first.shape[2:])
    return first if count else jnp.broadcast_to(first, shape)


def over_frames(
    function: Callable[[Array], Array], images: Shaped[Array, "B ..."]
) -> Shaped[Array, "B ..."]:
    """`function` of images [B, H, W, C]; event data's frames are channels to it, treated alike."""
    if not frames(images):
        return function(images)
    flat = jnp.moveaxis(images, 1, 3)
    flat = function(flat.reshape(*flat.shape[:3], -1))
    return jnp.moveaxis(flat.reshape(*flat.shape[:3], *images.shape[1::3]), 3, 1)


def image_shape(images: Any) -> tuple[int, int, int]:
    """(height, width, channels) of one image, or of one frame of event data."""
    return tuple(images.shape[-3:])


def _check(count: int, timesteps: int) -> None:
    if count and count != timesteps:
        raise UserError(f"the inputs have {count} timesteps and T is {timesteps}: give as many")
