"""Exit times and what they give, by hand and at random."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax import exits
from seenn_jax.errors import UserError
from tests.exits.caches import PROPERTY, cached

# --- Exit times -----------------------------------------------------------------------------------


SCORES = jnp.array([[0.2, 0.9, 0.3], [0.5, 0.6, 0.7], [1.0, 0.0, 0.0]])


def test_exit_times_by_hand():
    np.testing.assert_array_equal(exits.exit_times(SCORES, 0.5), [2, 2, 1])
    np.testing.assert_array_equal(exits.exit_times(SCORES, 0.0), [1, 1, 1])
    np.testing.assert_array_equal(exits.exit_times(SCORES, 0.9), [3, 3, 1])  # 0.9 > 0.9 is false
    np.testing.assert_array_equal(exits.exit_times(SCORES, 1.0), [3, 3, 3])


def test_patience_by_hand():
    predictions = jnp.array([[4, 4, 4, 4], [1, 2, 2, 2], [0, 1, 0, 1], [3, 3, 5, 5]])
    np.testing.assert_array_equal(
        exits.streaks(predictions), [[1, 2, 3, 4], [1, 1, 2, 3], [1, 1, 1, 1], [1, 2, 1, 2]]
    )
    for k, times in {1: [1, 1, 1, 1], 2: [2, 3, 4, 2], 3: [3, 4, 4, 4], 9: [4] * 4}.items():
        np.testing.assert_array_equal(exits.exit_times(exits.streaks(predictions), k - 1), times)


def test_a_fresh_slot_starts_a_streak_whatever_was_there():
    np.testing.assert_array_equal(
        exits.patience_step(jnp.array([7, 3, 7]), jnp.array([0, 0, 2]), jnp.array([7, 7, 7])),
        [1, 1, 3],
    )


def test_oracle_by_hand():
    correct = jnp.array([[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]], bool)
    np.testing.assert_array_equal(exits.oracle_exit_times(correct), [2, 1, 3, 3])
    assert exits.oracle_aet(correct) == 9 / 4


# --- Evaluation -----------------------------------------------------------------------------------


def test_evaluation_by_hand():
    times = jnp.array([1, 3, 1, 2])
    correct = jnp.array([[1, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 1]], bool)
    np.testing.assert_array_equal(exits.at_exit(correct, times), [True, True, False, True])
    np.testing.assert_array_equal(exits.static_accuracy(correct), [0.25, 0.5, 0.75])
    assert exits.average_timesteps(times) == 1.75
    np.testing.assert_array_equal(exits.exit_shares(times, 4), [0.5, 0.25, 0.25, 0])
    # T - A_1 - A_2, and the definition: 1 * 0.25 + 2 * 0.25 + 3 * 0.25 + 3 * (1 - 0.75).
    assert exits.aet(exits.static_accuracy(correct)) == 2.25
    logits = jnp.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_array_equal(
        exits.at_exit(logits, times), [[0, 1], [10, 11], [12, 13], [20, 21]]
    )


def test_sweep_by_hand():
    correct = jnp.array([[0, 1, 1], [0, 0, 1], [1, 0, 0]], bool)
    accuracy, average = exits.sweep(SCORES, correct, np.array([0.0, 0.5, 0.9, 1.0]))
    np.testing.assert_allclose(accuracy, np.array([1, 2, 3, 2]) / 3, rtol=1e-6)
    np.testing.assert_allclose(average, np.array([3, 5, 7, 9]) / 3, rtol=1e-6)


@PROPERTY
@given(cached(), st.sampled_from(sorted(exits.SCORES)), st.sampled_from([1, 8]))
def test_sweep_is_exit_times_one_by_one(cache, name, count):
    logits, labels = cache
    cumulative = exits.accumulate(logits)
    scores = exits.SCORES[name](cumulative)
    correct = jnp.argmax(cumulative, -1) == labels[:, None]
    # Scores themselves as thresholds: equality is where a sweep and the rule could part.
    rng = np.random.default_rng(logits.size)
    thresholds = np.sort(rng.choice(np.append(scores, [0, 0.5, 1]), count)).astype(np.float32)
    accuracy, average = exits.sweep(scores, correct, thresholds)
    for m, threshold in enumerate(thresholds):
        times = exits.exit_times(scores, threshold)
        right = np.mean(exits.at_exit(correct, times))
        np.testing.assert_allclose((accuracy[m], average[m]), (right, np.mean(times)), rtol=1e-6)
    assert np.all(np.diff(average) >= 0)


@PROPERTY
@given(cached())
def test_thresholds_zero_and_one_are_the_first_timestep_and_the_last(cache):
    logits, labels = cache
    cumulative = exits.accumulate(logits)
    correct = jnp.argmax(cumulative, -1) == labels[:, None]
    accuracy, average = exits.sweep(exits.confidence(cumulative), correct, np.array([0.0, 1.0]))
    static = exits.static_accuracy(correct)
    np.testing.assert_allclose(accuracy, static[jnp.array([0, -1])], rtol=1e-6)
    np.testing.assert_array_equal(average, [1, logits.shape[1]])


def after_equal_answers(predictions, k):
    """The first timestep at which the last k predictions are the same, T where there is none."""
    for t in range(k, len(predictions) + 1):
        if len(set(predictions[t - k : t])) == 1:
            return t
    return len(predictions)


@PROPERTY
@given(cached())
def test_streaks_sweep_as_scores(cache):
    predictions = jnp.argmax(exits.accumulate(cache[0]), -1)
    correct = predictions == cache[1][:, None]
    steps = predictions.shape[1]
    _, average = exits.sweep(exits.streaks(predictions), correct, np.arange(steps))
    rows = np.asarray(predictions).tolist()
    expected = [np.mean([after_equal_answers(row, k + 1) for row in rows]) for k in range(steps)]
    np.testing.assert_allclose(average, expected, rtol=1e-6)


@PROPERTY
@given(cached(), st.integers(0, 2**32 - 1))
def test_the_oracle_is_never_beaten(cache, seed):
    logits, labels = cache
    correct = jnp.argmax(logits, -1) == labels[:, None]
    n, steps = correct.shape
    times = np.random.default_rng(seed).integers(1, steps + 1, n)
    oracle = exits.oracle_exit_times(correct)
    right, best = exits.at_exit(correct, times), exits.at_exit(correct, oracle)
    assert jnp.all(best >= right)
    assert jnp.all(jnp.where(right, oracle <= times, True))
    assert exits.oracle_aet(correct) <= exits.aet(exits.static_accuracy(correct)) + 1e-5


def test_sweep_of_no_samples_compiles_and_is_nan():
    accuracy, average = exits.sweep(jnp.zeros((0, 4)), jnp.zeros((0, 4), bool), np.array([0.5]))
    assert jnp.isnan(accuracy[0])
    assert jnp.isnan(average[0])


def test_sweep_of_many_samples_and_thresholds_is_fast():
    scores = np.random.default_rng(0).random((50_000, 32), np.float32)
    correct, thresholds = scores > 0.5, np.linspace(0, 1, 5000)
    jax.block_until_ready(exits.sweep(scores, correct, thresholds))
    start = time.perf_counter()
    jax.block_until_ready(exits.sweep(scores, correct, thresholds))
    assert time.perf_counter() - start < 2  # samples x thresholds one by one: 8e9 comparisons


@pytest.mark.parametrize(
    ("grid", "message"),
    [([], "empty"), ([0.1, 0.9, 0.5], "0.9 comes before 0.5"), ([0.1, np.nan], "not sorted")],
)
def test_bad_grids(grid, message):
    with pytest.raises(UserError, match=message):
        exits.sweep(SCORES, SCORES > 0.5, np.array(grid))
