"""A toy network to serve: a leaky neuron with hard reset, whose sums are exact in float32.

So its logits are the same in whatever order a program sums.
"""

import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax import engine, exits
from seenn_jax.errors import UserError
from seenn_jax.serving import Served

T, FEATURES, CLASSES = 6, 4, 3
WEIGHTS = np.random.default_rng(0).integers(-8, 9, (FEATURES, CLASSES)).astype(np.float32) / 8


def step(params, state, x):
    v = 0.5 * state + x @ params
    spikes = (v >= 1).astype(v.dtype)
    return v * (1 - spikes), spikes + 0.125 * v


def criterion(value, params, inputs):
    return exits.above(exits.confidence, value)


def check(value):
    if not 0 <= value <= 1:
        raise UserError(f"threshold {value} is outside [0, 1]")


def toy(**changes):
    served = Served(
        WEIGHTS,
        step,
        jnp.zeros(CLASSES),
        criterion,
        T,
        (FEATURES,),
        np.dtype(np.float32),
        ("ant", "bee", "cow"),
        value=0.6,
        check=check,
    )
    return served._replace(**changes)


def inputs(samples, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(-16, 17, (samples, FEATURES)).astype(np.float32) / 8


@jax.jit
def offline(x, values):
    """What `early_exit` answers, by a threshold for each sample: (logits, timesteps)."""
    criterion = exits.Criterion(
        (), lambda memory, z, t, index: (memory, exits.confidence(z) > values[index])
    )
    return engine.early_exit(
        lambda state, x: step(WEIGHTS, state, x), jnp.zeros(CLASSES), x, criterion, T, 8
    )


@jax.jit
def every_tick(x):
    """Cumulative logits [N, T, K] of every tick; of event data where x is [N, T, features]."""
    x = x if x.ndim == 3 else jnp.broadcast_to(x[:, None], (len(x), T, FEATURES))

    def tick(carry, x):
        state, total = carry
        state, now = step(WEIGHTS, state, x)
        return (state, total + now), total + now

    zeros = jnp.zeros((len(x), CLASSES))
    return jnp.moveaxis(jax.lax.scan(tick, (zeros, zeros), jnp.moveaxis(x, 1, 0))[1], 0, 1)
