"""Cumulative logits and scores of them, by hand and at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from seenn_jax import exits
from seenn_jax.errors import UserError
from tests.exits.caches import PROPERTY, cached

LOGITS = jnp.array([[1.0, 0.0], [3.0, -1.0], [2.0, 4.0]])  # [T=3, K=2]


def test_accumulate_sums():
    np.testing.assert_array_equal(exits.accumulate(LOGITS), [[1, 0], [4, -1], [6, 3]])


def test_temperature_divides_each_timestep():
    got = exits.accumulate(LOGITS, np.array([1.0, 2.0, 0.5], np.float32))
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
def test_a_tick_at_a_time_gives_the_same_scores(name):
    steps, temperature = 4, jnp.array([1.0, 0.7, 1.3, 2.0])
    logits = jax.random.normal(jax.random.key(0), (33, steps, 10)) * 4
    score = exits.SCORES[name]
    replayed = score(exits.accumulate(logits, temperature))
    scale = exits.logit_scale(steps, temperature)

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
