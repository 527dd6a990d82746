"""Slots, masked and full: same predictions and exit times, whatever the sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import exits
from seenn_jax.engine import early_exit, run_masked
from seenn_jax.exits import above, never, patience, prescribed
from tests.engine.ways import (
    CLASSES,
    FEATURES,
    all_ticks,
    assert_same,
    oracle,
    random_inputs,
    step,
    three_ways,
)


@settings(deadline=None, max_examples=15)
@given(
    samples=st.integers(0, 12),
    timesteps=st.integers(1, 5),
    slots=st.integers(1, 14),
    seed=st.integers(0, 2**16),
)
def test_prescribed_times(samples, timesteps, slots, seed):
    times = np.random.default_rng(seed).integers(1, timesteps + 1, samples).astype(np.int32)
    inputs = random_inputs(samples, seed)
    results = three_ways(inputs, prescribed(jnp.asarray(times)), timesteps, slots)
    assert_same(results)
    np.testing.assert_array_equal(results[0].timesteps, times)
    # By hand: the sum of the sample's own logits up to its time.
    if samples:
        logits = np.asarray(all_ticks(timesteps)(jnp.asarray(inputs)))
        expected = [logits[i, : times[i]].sum(0) for i in range(samples)]
        np.testing.assert_allclose(results[2].logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "criterion",
    [
        above(exits.confidence, 0.6),
        above(exits.entropy, 0.2),
        above(exits.margin, 0.3),
        patience(2),
        oracle(jnp.arange(50) % CLASSES),
        never(),
    ],
    ids=["confidence", "entropy", "margin", "patience", "oracle", "never"],
)
@pytest.mark.parametrize("slots", [1, 7, 64])
def test_criteria(criterion, slots):
    results = three_ways(random_inputs(50), criterion, 6, slots)
    assert_same(results)


def test_scale_is_a_factor_at_each_timestep():
    scale = jnp.asarray([1.0, 0.5, 4.0])
    times = jnp.asarray([1, 2, 3, 2], jnp.int32)
    inputs = random_inputs(4)
    plain = three_ways(inputs, prescribed(times), 3, 2)[0]
    for scaled in three_ways(inputs, prescribed(times), 3, 2, scale=scale):
        np.testing.assert_allclose(
            scaled.logits, plain.logits * scale[times - 1][:, None], rtol=1e-6
        )


def test_input_of_each_tick():
    inputs = np.random.default_rng(0).normal(size=(9, 4, FEATURES)).astype(np.float32)
    times = jnp.asarray([1, 2, 3, 4, 4, 3, 2, 1, 2], jnp.int32)
    found, masked = (
        run(
            step,
            jnp.zeros(CLASSES),
            inputs,
            prescribed(times),
            4,
            3,
            input_at=lambda x, index, t: x[index, t],
        )
        for run in (early_exit, run_masked)
    )
    for i, time in enumerate(times.tolist()):
        state, total = jnp.zeros((1, CLASSES)), 0
        for t in range(time):
            state, now = step(state, inputs[i : i + 1, t])
            total = total + now
        np.testing.assert_allclose(found.logits[i], total[0], rtol=1e-5, atol=1e-6)
    assert_same([found, masked])
