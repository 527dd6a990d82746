"""The objective of SEENN-II against numbers worked by hand, and its two gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.errors import UserError
from seenn_jax.training.policy import objective

CANDIDATES = (1, 2, 4)
KEY = jax.random.key(0)


# --- By hand --------------------------------------------------------------------------------------


def test_rewards_by_hand():
    correct = jnp.array([[True, True, True], [False, True, False]])
    found = objective.rewards(correct, CANDIDATES, beta=0.75)
    np.testing.assert_array_equal(found, [[1, 0.5, 0.125], [-0.75, 0.5, -0.75]])


def test_weights_by_hand():
    # r = 0.75: the wrong one counts 3, as much as the three others.
    right = jnp.array([True, False, True, True])
    np.testing.assert_array_equal(objective.sample_weights(right, 0.75), [1, 3, 1, 1])
    assert np.isfinite(objective.sample_weights(right, 1.0)).all()


def test_expectation_by_hand():
    # v = (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2).
    logits = jnp.log(jnp.array([[2.0, 1, 1], [1, 1, 2]]))
    rewards = jnp.array([[1, 0.5, 0.125], [-1, 0.5, 0.125]])
    weights = jnp.array([1.0, 3.0])
    # 0.5 + 0.125 + 0.03125 = 0.65625; -0.25 + 0.125 + 0.0625 = -0.0625
    expected = -(0.65625 + 3 * -0.0625) / 2
    assert float(objective.expectation(KEY, logits, rewards, weights)) == pytest.approx(expected)


def test_expectation_is_the_loss_of_the_official_code():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 3))
    correct = rng.random((8, 3)) < 0.5
    weights = rng.random(8)
    beta = 0.3
    v = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    terms = beta * (1 - correct) - 2.0 ** -(np.array(CANDIDATES) - 1) * correct
    official = np.mean(weights * (v * terms).sum(1))
    ours = objective.expectation(
        KEY,
        jnp.asarray(logits, jnp.float32),
        objective.rewards(jnp.asarray(correct), CANDIDATES, beta),
        jnp.asarray(weights, jnp.float32),
    )
    assert float(ours) == pytest.approx(official, rel=1e-5)


# --- Gradients ------------------------------------------------------------------------------------


def test_the_mean_gradient_of_reinforce_is_that_of_the_expectation():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    rewards = objective.rewards(jnp.asarray(rng.random((6, 3)) < 0.5), CANDIDATES, 0.5)
    weights = jnp.asarray(1 + rng.random(6), jnp.float32)

    def gradient(loss, key):
        return jax.grad(loss, argnums=1)(key, logits, rewards, weights)

    exact = np.asarray(gradient(objective.expectation, KEY))
    keys = jax.random.split(jax.random.key(2), 40_000)
    sampled = np.asarray(jax.jit(jax.vmap(lambda k: gradient(objective.reinforce, k)))(keys))
    error = sampled.std(0) / np.sqrt(len(sampled))
    assert (error < np.abs(exact).max() / 20).all()  # or else the test could not fail
    # 18 numbers: all within 4 standard errors but for 1 draw in 900.
    assert (np.abs(sampled.mean(0) - exact) < 4 * error).all()
    # The baseline pays: without it the estimate varies more.
    plain = objective.rewards(jnp.ones((6, 3), bool), (1, 1, 1), 0.0)  # all rewards 1
    quiet = jax.grad(objective.reinforce, argnums=1)(KEY, logits, plain, weights)
    np.testing.assert_array_equal(quiet, np.zeros((6, 3)))


# --- Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "match"),
    [
        ((0, 2), r"candidate 0 .* outside 1\.\.T = 4"),
        ((1, 5), r"candidate 5 .* outside 1\.\.T = 4: give timesteps from 1 to 4"),
        ((2, 1), r"is \(2, 1\): it must be two or more different timesteps in ascending"),
        ((1, 1, 2), r"is \(1, 1, 2\): it must be"),
        ((2,), r"is \(2\): it must be two or more"),
    ],
    ids=str,
)
def test_candidates_that_cannot_be(candidates, match):
    with pytest.raises(UserError, match=match):
        objective.check_candidates(candidates, 4)
