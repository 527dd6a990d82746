"""The policy network of SEENN-II (Li et al., NeurIPS 2023, section 4.2)."""

import jax
import jax.numpy as jnp
from flax import nnx

from seenn_jax.models.resnet import ResNet8


def _relu(currents, v0=None):
    return jax.nn.relu(currents), None


def build_policy(
    width: int,
    *,
    image_shape: tuple[int, int, int],
    candidates: int,
    classes: int = 0,
    dtype: str = "float32",
    seed: int = 0,
) -> nnx.Module:
    """An ordinary ResNet-8 (ReLU, one pass); `prices.split_outputs` reads what it puts out.

    At width 16, as in the paper, it takes 12.5 MMAC for a 32x32 image.

    Args:
      width: channels of its first stage, at least 1; doubled in each of the next two.
      image_shape: (height, width, channels) of one input.
      candidates: how many timesteps there are to choose from.
      classes: how many the network's answer has, which it learns beside (`policy.auxiliary` in
        config.py).
      dtype: of activations; parameters and logits are float32.
      seed: of the initial parameters.
    """
    return ResNet8(
        width,
        image_shape=image_shape,
        num_classes=2 * candidates + classes if classes else candidates,
        neuron=_relu,
        dtype=jnp.dtype(dtype),
        rngs=nnx.Rngs(seed),
    )
