"""Early exit for a network that is not of this package: any pure function of one tick.

python examples/any_network.py
"""

import jax
import jax.numpy as jnp

import seenn_jax

FEATURES, CLASSES = 20, 5
weights = jax.random.normal(jax.random.key(0), (FEATURES, CLASSES))


def step(membranes, x):
    """One tick of all slots: (state [S, K], inputs [S, F]) -> (state, logits [S, K])."""
    membranes = 0.9 * membranes + 0.1 * x @ weights
    return membranes, membranes


@jax.jit
def answer(inputs):
    """Each sample runs until it is sure; a slot that is free takes the next sample at once."""
    criterion = seenn_jax.above(seenn_jax.confidence, 0.9)
    at_rest = jnp.zeros(CLASSES)  # of one sample
    return seenn_jax.early_exit(step, at_rest, inputs, criterion, timesteps=8, slots=64)


if __name__ == "__main__":
    exited = answer(jax.random.normal(jax.random.key(1), (1000, FEATURES)))
    shares = [float(jnp.mean(exited.timesteps == t)) for t in range(1, 9)]
    print("classes of the first ten:", exited.logits.argmax(-1)[:10])
    print("share of samples that exit at t = 1 ... 8:", [f"{share:.1%}" for share in shares])
