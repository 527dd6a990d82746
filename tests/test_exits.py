import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import exits
from seenn_jax.errors import UserError

PROPERTY = settings(deadline=None, max_examples=25)


# Few shapes, since each compiles anew: N, T, K.
SHAPES = [(1, 1, 2), (7, 5, 3), (40, 4, 10)]


@st.composite
def cached(draw):
    """Logits [N, T, K] and labels [N]; few distinct values, so that ties abound."""
    n, steps, classes = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.integers(-2, 3, (n, steps, classes)) * draw(st.sampled_from([0.5, 10.0]))
    return logits.astype(np.float32), rng.integers(0, classes, n)


# --- Cumulative logits and scores ---------------------------------------------------------------

LOGITS = jnp.array([[1.0, 0.0], [3.0, -1.0], [2.0, 4.0]])  # [T=3, K=2]


def test_accumulate_sums_or_means():
    np.testing.assert_array_equal(exits.accumulate(LOGITS), [[1, 0], [4, -1], [6, 3]])
    np.testing.assert_allclose(exits.accumulate(LOGITS, "mean"), [[1, 0], [2, -0.5], [2, 1]])


def test_temperature_divides_each_timestep():
    got = exits.accumulate(LOGITS, "sum", np.array([1.0, 2.0, 0.5], np.float32))
    np.testing.assert_array_equal(got, [[1, 0], [2, -0.5], [12, 6]])


def test_accumulate_of_bfloat16_is_float32():
    got = exits.accumulate(jnp.full((300, 2), 1, jnp.bfloat16))
    assert got.dtype == jnp.float32
    assert got[-1, 0] == 300  # bfloat16 stops counting at 256


def test_accumulate_rounds_like_a_running_sum():
    logits = np.random.default_rng(0).normal(size=(50, 9, 3)).astype(np.float32)
    total = np.zeros((50, 3), np.float32)
    for t, cumulative in enumerate(np.moveaxis(exits.accumulate(logits), 1, 0)):
        total = total + logits[:, t]
        np.testing.assert_array_equal(cumulative, total)


def test_unknown_accumulation():
    with pytest.raises(UserError, match=r"'max'.*mean, sum"):
        exits.accumulate(LOGITS, "max")


def test_scores_by_hand():
    z = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    assert exits.confidence(z) == pytest.approx(0.5, rel=1e-6)
    assert exits.margin(z) == pytest.approx(0.25, rel=1e-6)
    assert exits.entropy(z) == pytest.approx(1 - 1.5 * np.log(2) / np.log(3), rel=1e-6)


@pytest.mark.parametrize("name", exits.SCORES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_of_doubt_and_of_certainty(name, classes):
    score = exits.SCORES[name]
    doubt = {"confidence": 1 / classes, "entropy": 0, "margin": 0}[name]
    assert score(jnp.full((classes,), 7.0)) == pytest.approx(doubt, abs=1e-6)
    assert score(1000.0 * jnp.eye(classes)[0]) == 1
    assert score(jnp.eye(classes, dtype=jnp.bfloat16)).dtype == jnp.float32


@PROPERTY
@given(cached())
def test_scores_lie_in_the_unit_interval(cache):
    for score in exits.SCORES.values():
        values = score(exits.accumulate(cache[0]))
        assert values.shape == cache[0].shape[:2]
        assert jnp.all((values >= 0) & (values <= 1))


@pytest.mark.parametrize("name", exits.SCORES)
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_a_tick_at_a_time_gives_the_same_scores(name, mode):
    steps, temperature = 4, jnp.array([1.0, 0.7, 1.3, 2.0])
    logits = jax.random.normal(jax.random.key(0), (33, steps, 10)) * 4
    score = exits.SCORES[name]
    replayed = score(exits.accumulate(logits, mode, temperature))
    scale = exits.logit_scale(steps, mode, temperature)

    def tick(total, inputs):
        t, logit = inputs
        total = total + logit
        at = jnp.full(total.shape[0], t)  # each slot of an engine has its own t
        return total, score(total * scale[at - 1, None])

    ticks = (jnp.arange(1, steps + 1), jnp.moveaxis(logits, 1, 0))
    _, scores = jax.jit(lambda x: jax.lax.scan(tick, jnp.zeros((33, 10)), x))(ticks)
    np.testing.assert_allclose(scores.T, replayed, rtol=3e-6, atol=1e-6)


def test_one_class_has_no_score():
    with pytest.raises(UserError, match=r"1 class.*at least 2"):
        exits.entropy(jnp.zeros((5, 1)))


# --- Exit times ---------------------------------------------------------------------------------

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
        np.testing.assert_array_equal(exits.patience_exit_times(predictions, k), times)


def test_a_fresh_slot_starts_a_streak_whatever_was_there():
    np.testing.assert_array_equal(
        exits.patience_step(jnp.array([7, 3, 7]), jnp.array([0, 0, 2]), jnp.array([7, 7, 7])),
        [1, 1, 3],
    )


def test_patience_below_one():
    with pytest.raises(UserError, match="patience 0"):
        exits.patience_exit_times(jnp.zeros((2, 2), int), 0)


def test_oracle_by_hand():
    correct = jnp.array([[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]], bool)
    np.testing.assert_array_equal(exits.oracle_exit_times(correct), [2, 1, 3, 3])
    assert exits.oracle_aet(correct) == 9 / 4


# --- Evaluation ---------------------------------------------------------------------------------


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


@PROPERTY
@given(cached())
def test_streaks_sweep_as_scores(cache):
    predictions = jnp.argmax(exits.accumulate(cache[0]), -1)
    correct = predictions == cache[1][:, None]
    steps = predictions.shape[1]
    _, average = exits.sweep(exits.streaks(predictions), correct, np.arange(steps))
    expected = [np.mean(exits.patience_exit_times(predictions, k + 1)) for k in range(steps)]
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


# --- Checks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, 1.0001, 90, float("nan")])
def test_threshold_outside_the_unit_interval(value):
    with pytest.raises(UserError, match=rf"threshold {value} .*\[0, 1\]"):
        exits.check_threshold(value)


def test_thresholds_of_the_unit_interval_pass():
    for value in (0, 0.5, np.float64(0.9), 1.0):
        exits.check_threshold(value)


@pytest.mark.parametrize(
    ("grid", "message"),
    [([], "empty"), ([0.1, 0.9, 0.5], "0.9 comes before 0.5"), ([0.1, np.nan], "not sorted")],
)
def test_bad_grids(grid, message):
    with pytest.raises(UserError, match=message):
        exits.sweep(SCORES, SCORES > 0.5, np.array(grid))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_sample_that_is_not_finite_is_named(bad):
    logits = np.zeros((9, 4, 3), np.float32)
    exits.check_finite(logits)
    logits[[5, 7], 2, 1] = bad
    with pytest.raises(UserError, match=r"sample 5 .* 2 of 9"):
        exits.check_finite(logits)
    exits.check_finite(logits[:0])


def test_missing_labels():
    exits.check_labels(np.array([0, 3]), "accuracy")
    with pytest.raises(UserError, match=r"accuracy needs labels .*None"):
        exits.check_labels(None, "accuracy")
    with pytest.raises(UserError, match=r"sample 1 .* has -1"):
        exits.check_labels(np.array([0, -1]), "accuracy")
