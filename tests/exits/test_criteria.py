"""Criteria decide at each tick what exit times of cached logits say."""

import jax.numpy as jnp
import numpy as np

from seenn_jax import exits
from tests.engine.ways import CLASSES, all_ticks, oracle, random_inputs, three_ways


def test_criteria_agree_with_exits():
    inputs, timesteps = random_inputs(50), 6
    logits = np.asarray(all_ticks(timesteps)(jnp.asarray(inputs)))
    cumulative = exits.accumulate(logits)
    labels = np.arange(50) % CLASSES
    predictions = cumulative.argmax(-1)
    expected = {
        "confidence": exits.exit_times(exits.confidence(cumulative), 0.6),
        "patience": exits.exit_times(exits.streaks(predictions), 2),
        "oracle": exits.oracle_exit_times(predictions == labels[:, None]),
    }
    criteria = {
        "confidence": exits.above(exits.confidence, 0.6),
        "patience": exits.patience(3),
        "oracle": oracle(jnp.asarray(labels)),
    }
    for name, criterion in criteria.items():
        found = three_ways(inputs, criterion, timesteps, 8)[2]
        assert len(set(np.asarray(found.timesteps).tolist())) > 1
        np.testing.assert_array_equal(found.timesteps, expected[name], name)
        np.testing.assert_allclose(
            found.logits, exits.at_exit(cumulative, expected[name]), rtol=1e-5, atol=1e-6
        )
