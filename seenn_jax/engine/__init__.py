"""Running a trained network until each sample is sure: full, masked or with slots.

All three give the same predictions and exit times, and differ in the work they do:

- `run_full` runs all T ticks of every sample; exits are chosen from its logits afterwards.
- `run_masked` runs a batch tick by tick until its last sample has exited.
- `early_exit` runs a fixed number of slots tick by tick; a sample that exits gives its slot to the
  next one of the queue at once, so that no slot waits for another.

They are pure functions, to be called inside `jax.jit`; there is no host round trip per tick. A
network of your own needs nothing of this package's models:

    def step(state, x):                       # one tick of any network, batched over slots
        state = 0.9 * state + x @ weights
        return state, jnp.tanh(state)         # (state, logits)

    criterion = above(confidence, 0.9)
    exited = jax.jit(
        lambda inputs: early_exit(step, jnp.zeros(10), inputs, criterion, timesteps=8, slots=256)
    )(inputs)
    exited.logits.argmax(-1), exited.timesteps
"""

from seenn_jax.engine.batches import in_batches, replay, run_full, run_masked
from seenn_jax.engine.common import Exited
from seenn_jax.engine.methods import METHODS, run_network
from seenn_jax.engine.slots import early_exit
from seenn_jax.engine.spread import chunks, in_chunks, over_devices

__all__ = [
    "METHODS",
    "Exited",
    "chunks",
    "early_exit",
    "in_batches",
    "in_chunks",
    "over_devices",
    "replay",
    "run_full",
    "run_masked",
    "run_network",
]
