"""Slots: fresh samples start at rest, and no tick is wasted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.engine import early_exit, run_full, run_masked
from seenn_jax.exits import above, prescribed
from tests.engine.ways import CLASSES, all_ticks, assert_same, random_inputs, step


def test_fresh_samples_start_at_rest():
    """A state at rest that is not zero, as a converted network's; leftovers would be seen."""

    def counting(state, x):
        return state + 1, jnp.stack([state, x], -1)

    found = early_exit(
        counting, jnp.float32(10), np.arange(7.0), prescribed(jnp.ones(7, jnp.int32)), 3, 2
    )
    np.testing.assert_array_equal(found.logits, np.stack([np.full(7, 10), np.arange(7)], -1))


def test_slots_do_only_the_work_that_is_needed():
    """A tick costs the same whoever sits in the slots: count the ticks."""
    times = jnp.asarray([4, 1, 1, 1, 1, 2, 2], jnp.int32)

    def counting(state, x):
        return state, jnp.broadcast_to(state[:1, None], (len(x), 2))

    ticks = []

    def spy(state, x):
        jax.debug.callback(lambda: ticks.append(1), ordered=True)
        return counting(state, x)

    arguments = jnp.float32(0), np.zeros(7), prescribed(times), 4, 2
    jax.block_until_ready(early_exit(spy, *arguments))
    jax.effects_barrier()
    assert len(ticks) == 6  # 12 ticks of samples in two slots, none of them ever empty
    ticks.clear()
    jax.block_until_ready(run_masked(spy, *arguments))
    jax.effects_barrier()
    assert len(ticks) == 4 + 1 + 2 + 2  # each pair waits for its last


@pytest.mark.parametrize("slots", [70, 90])
def test_the_last_few_samples_move_together(slots):
    """With 64 slots or more, what is left ends in a quarter of them."""
    inputs, criterion = random_inputs(90), above(exits.confidence, 0.6)
    found = jax.jit(lambda x: early_exit(step, jnp.zeros(CLASSES), x, criterion, 6, slots))(inputs)
    assert len(np.unique(found.timesteps)) > 2
    assert_same([run_full(all_ticks(6), inputs, criterion, 90), found])
