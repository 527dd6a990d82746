"""What the network says of augmented copies of the training images, once for all epochs."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, UInt8
from ml_collections import ConfigDict

from seenn_jax import devices
from seenn_jax.data import Split
from seenn_jax.data.augment import augmented_images
from seenn_jax.engine import in_batches, over_devices
from seenn_jax.engine.common import BATCH
from seenn_jax.exits import accumulate
from seenn_jax.models.network import inference_network
from seenn_jax.run import folder
from seenn_jax.ticks import first_ticks


class Answers(NamedTuple):
    """A network's on augmented copies of its training images.

    Attributes:
      correct: whether it is right at each candidate.
      classes: its softmax over the classes at t_1.
    """

    correct: Bool[Array, "N copies C"]
    classes: Float[Array, "N copies K"]


def view(
    images: UInt8[Array, "B *T H W channels"],
    index: Int[Array, "B"],
    copy: Int[Array, ""],
    key: Key[Array, ""],
    config: ConfigDict,
    facts: folder.DataFacts,
) -> Float[Array, "B *T H W channels"]:
    """The augmented copy number `copy` of training images number `index`: always the same.

    `key` is that of the run's seed.
    """
    key = jax.random.fold_in(jax.random.split(key)[1], copy)

    def augmented_one(index, image):
        of_image = jax.random.fold_in(key, index)
        options, dtype = config.augment, config.model.dtype
        return augmented_images(of_image, image[None], options, facts.normalization, dtype)[0]

    return jax.vmap(augmented_one)(index, images)


def no_answers(split: Split, config: ConfigDict, facts: folder.DataFacts) -> Answers:
    """What joint epochs are given, which ask the network as it is then."""
    images = len(split.labels)
    return Answers(
        np.zeros((images, 1, len(config.policy.candidates)), bool),
        np.zeros((images, 1, facts.num_classes), np.float16),
    )


def network_answers(
    model: nnx.Module, config: ConfigDict, facts: folder.DataFacts, split: Split
) -> Answers:
    """What a network says of each copy of each training image."""
    timesteps = max(config.policy.candidates)
    network = inference_network(model, facts.image_shape, timesteps)
    at = np.asarray(config.policy.candidates) - 1
    key = jax.random.key(config.seed)

    @functools.partial(
        jax.jit,
        out_shardings=devices.everywhere(),
        compiler_options=devices.compiler_options(config.deterministic),
    )
    def of_copy(params, images, labels, copy):
        def logits(params, batch):
            params, copy = params
            images, index = batch
            inputs = view(images, index, copy, key, config, facts)
            return network.logits(params, first_ticks(inputs, timesteps))

        def share(params, batch, count):
            return in_batches(functools.partial(logits, params), batch, min(BATCH, len(labels)))

        index = jnp.arange(len(labels), dtype=jnp.int32)
        cumulative = accumulate(over_devices(share)((params, copy), (images, index)))
        correct = cumulative.argmax(-1)[:, at] == labels[:, None]
        return Answers(correct, jax.nn.softmax(cumulative[:, at[0]]).astype(jnp.float16))

    params, images, labels = devices.replicate((network.params, *split))
    copies = [
        of_copy(params, images, labels, jnp.int32(copy)) for copy in range(config.policy.copies)
    ]
    return jax.tree.map(lambda *of_copies: np.stack(of_copies, axis=1), *jax.device_get(copies))
