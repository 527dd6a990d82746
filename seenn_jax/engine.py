"""Running a trained network over many samples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from seenn_jax.data.augment import normalize
from seenn_jax.models import run_all


def make_predict(
    graph: nnx.GraphDef, mean: Float[np.ndarray, "C"], std: Float[np.ndarray, "C"], *,
    timesteps: int, dtype: str,
) -> Callable[[Any, Any, UInt8[Array, "B H W C"]], Float[Array, "B T K"]]:
    """`(params, stats, images) -> logits` of all T ticks with fixed BatchNorm statistics, pure.

    Args:
      graph: structure of the network, from `nnx.split`.
      mean, std: of each channel, of pixels scaled to 0..1.
      timesteps: T.
      dtype: of the network's activations.
    """

    def predict(params, stats, images):
        model = nnx.view(nnx.merge(graph, params, stats), use_running_average=True)
        return run_all(model, normalize(images, mean, std, dtype), timesteps)

    return predict


def all_logits(
    predict: Callable[[UInt8[Array, "B H W C"]], Float[Array, "B T K"]],
    images: UInt8[np.ndarray, "N H W C"] | UInt8[Array, "N H W C"],
    batch_size: int,
) -> Float[np.ndarray, "N T K"]:
    """Logits of every image at every tick, in batches of one size; the last one is filled up.

    Args:
      predict: compiled, for batches of `batch_size`.
      images: on the host or the device.
    """
    batches = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch)
        if missing:
            batch = jnp.concatenate([batch, jnp.zeros((missing, *batch.shape[1:]), batch.dtype)])
        batches.append(predict(jnp.asarray(batch)))
    return np.concatenate(jax.device_get(batches))[: len(images)]
