"""A small network, and the three ways to run it."""

import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax.engine import early_exit, run_full, run_masked
from seenn_jax.exits import Criterion

CLASSES, FEATURES = 3, 4
WEIGHTS = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype(np.float32)


def step(state, x):
    """A leaky neuron with hard reset: what it says at t depends on all ticks before."""
    v = 0.5 * state + x @ WEIGHTS
    spikes = (v >= 1).astype(v.dtype)
    return v * (1 - spikes), spikes + 0.1 * v


def all_ticks(timesteps):
    def logits(x):
        state, out = jnp.zeros((len(x), CLASSES)), []
        for _ in range(timesteps):
            state, now = step(state, x)
            out.append(now)
        return jnp.stack(out, 1)

    return logits


def three_ways(inputs, criterion, timesteps, slots, **kwargs):
    rest = jnp.zeros(CLASSES)
    return (
        jax.jit(lambda x: run_full(all_ticks(timesteps), x, criterion, slots, **kwargs))(inputs),
        jax.jit(lambda x: run_masked(step, rest, x, criterion, timesteps, slots, **kwargs))(inputs),
        jax.jit(lambda x: early_exit(step, rest, x, criterion, timesteps, slots, **kwargs))(inputs),
    )


def random_inputs(samples, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, FEATURES)).astype(np.float32)


def assert_same(results):
    first = results[0]
    for other in results[1:]:
        np.testing.assert_array_equal(first.timesteps, other.timesteps)
        np.testing.assert_allclose(first.logits, other.logits, rtol=1e-6, atol=1e-6)


def oracle(labels):
    """Exit as soon as the answer is right."""
    return Criterion((), lambda memory, z, t, index: (memory, jnp.argmax(z, -1) == labels[index]))
