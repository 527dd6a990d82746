"""BatchNorm's statistics, estimated anew before a network is evaluated."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt
from ml_collections import ConfigDict

from seenn_jax import devices
from seenn_jax.data import Split, Stream
from seenn_jax.data.batches import Batches
from seenn_jax.models import training_timesteps
from seenn_jax.run import folder
from seenn_jax.ticks import first_ticks
from seenn_jax.training.gradients import GRADIENTS
from seenn_jax.training.loop import unchanged
from seenn_jax.training.step import TrainState, augmented, evaluated

BATCHES = 10


def chosen(split: Split | Stream, size: int) -> UInt[np.ndarray, "n size *T H W C"]:
    """`BATCHES` batches of images of a split, or as many as it has; always the same.

    Of a streamed one they are the parts that training sees, too.
    """
    count = min(BATCHES, max(1, split.size // size))
    if isinstance(split, Stream):
        batches = Batches(split, size, seed=0, stop=count, workers=0)
        with contextlib.closing(batches):
            return np.stack([images for images, _ in batches])
    # Of a split that is sorted by class no stretch would be like the whole.
    order = np.random.default_rng(0).permutation(split.size)
    order = np.resize(order, (count, size))
    return split.images[order.ravel()].reshape(count, size, *split.images.shape[1:])


def make_estimate(
    graph: nnx.GraphDef, facts: folder.DataFacts, config: ConfigDict, split: Split | Stream
) -> Callable[[TrainState], TrainState]:
    """`state -> state`; where timesteps are drawn, with other statistics to evaluate it with.

    They are plain means over a few batches of training images, augmented as in training, at all
    timesteps, of the parameters that are evaluated. What they were before counts for nothing, so
    that a run that is resumed here finds the same.
    """
    if not config.random_timesteps:
        return unchanged
    timesteps = training_timesteps(config)
    gradient = GRADIENTS[config.gradient]
    size = config.batch_size // config.accumulate

    @functools.cache
    def images():
        return chosen(split, size)

    @functools.partial(
        jax.jit,
        in_shardings=devices.everywhere(),
        out_shardings=devices.everywhere(),
        compiler_options=devices.compiler_options(config.deterministic),
    )
    def estimate(params, stats, images):
        keys = jax.random.split(jax.random.key(config.seed), len(images))
        nobody = jnp.zeros(size, jnp.int32)  # whose label no statistics depend on
        stats = jax.tree.map(jnp.zeros_like, stats)  # not even a last bit depends on them
        alone = of_last_batch(graph, params, stats)
        run = gradient(alone, lambda _: lambda logits, _: jnp.mean(logits), timesteps, False)

        def of_batch(batch):
            key, images = batch
            images = jax.lax.with_sharding_constraint(images, devices.divided())
            images = first_ticks(images, timesteps)
            described = facts.normalization, facts.num_classes, timesteps
            inputs, _ = augmented(key, images, nobody, config, *described)
            # Of what a step computes the statistics alone are used, and so computed.
            (_, (_, after)), _ = run(params, stats, inputs, None, nobody)
            return after

        return jax.tree.map(lambda x: x.mean(0), jax.lax.map(of_batch, (keys, images)))

    def anew(state):
        stats = estimate(*evaluated(state), devices.replicate(images()))
        if state.average is None:
            return state._replace(stats=stats)
        return state._replace(average=(state.average[0], stats))

    return anew


def of_last_batch(graph: nnx.GraphDef, params: Any, stats: Any) -> nnx.GraphDef:
    """The structure of a network whose running statistics become those of each batch."""
    model = nnx.merge(graph, params, stats, copy=True)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
    return nnx.split(model, nnx.Param, nnx.BatchStat)[0]
