"""What an evaluation reports, found by plain NumPy in the logits of all ticks."""

import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax.data import normalize
from seenn_jax.models.network import inference_network
from seenn_jax.run import folder
from seenn_jax.run.checkpoints import load_model


def logits_of(model, facts, images, timesteps):
    """Logits [N, T, K] of each tick."""
    network = inference_network(model, facts.image_shape, timesteps)
    inputs = normalize(jnp.asarray(images), *facts.normalization, dtype="float32")
    return np.asarray(jax.jit(network.logits)(network.params, inputs))


def cumulative_of(workdir, images, timesteps):
    """The sums of a run's logits up to each tick, [N, T, K]."""
    config, facts = folder.load(workdir)
    model, _ = load_model(workdir, config, facts)
    return np.cumsum(logits_of(model, facts, images, timesteps), axis=1)


def streaks_of(predictions):
    """How many equal predictions in a row each [N, T] is the last of."""
    streaks = np.ones(predictions.shape, int)
    for t in range(1, predictions.shape[1]):
        same = predictions[:, t] == predictions[:, t - 1]
        streaks[:, t] = np.where(same, streaks[:, t - 1] + 1, 1)
    return streaks


def at_exit(scores, correct, threshold):
    """(accuracy, exit times) where a sample leaves at the first score above the threshold."""
    exceeds = scores > threshold
    exceeds[:, -1] = True
    times = exceeds.argmax(1) + 1
    return correct[np.arange(len(times)), times - 1].mean(), times
