"""The objective of SEENN-II against numbers worked by hand, and its two gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import policy
from seenn_jax.errors import UserError

CANDIDATES = (1, 2, 4)
KEY = jax.random.key(0)

# --- By hand -----------------------------------------------------------------------------------


def test_a_policy_that_is_unsure_of_the_class_by_hand():
    # Two candidates, two classes: H of (1/2, 1/2) is ln 2, of (1, 0) nothing.
    outputs = np.array([[1, 2, 3, -4, 0, 0], [1, 2, 3, -4, 200, 0]], np.float32)
    logits, classes = policy.split_outputs(outputs, 2)
    ln2 = np.log(2)
    np.testing.assert_allclose(logits, [[1 + 3 * ln2, 2 - 4 * ln2], [1, 2]], rtol=1e-6)
    np.testing.assert_array_equal(classes, outputs[:, 4:])
    # Without classes there are only the logits of the candidates.
    logits, classes = policy.split_outputs(outputs[:, :3], 3)
    np.testing.assert_array_equal(logits, outputs[:, :3])
    assert classes.shape == (2, 0)


def test_rewards_by_hand():
    correct = jnp.array([[True, True, True], [False, True, False]])
    found = policy.rewards(correct, CANDIDATES, beta=0.75)
    np.testing.assert_array_equal(found, [[1, 0.5, 0.125], [-0.75, 0.5, -0.75]])


def test_weights_by_hand():
    # r = 0.75: the wrong one counts 3, as much as the three others.
    right = jnp.array([True, False, True, True])
    np.testing.assert_array_equal(policy.sample_weights(right, 0.75), [1, 3, 1, 1])
    assert np.isfinite(policy.sample_weights(right, 1.0)).all()


def test_expectation_by_hand():
    # v = (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2).
    logits = jnp.log(jnp.array([[2.0, 1, 1], [1, 1, 2]]))
    rewards = jnp.array([[1, 0.5, 0.125], [-1, 0.5, 0.125]])
    weights = jnp.array([1.0, 3.0])
    # 0.5 + 0.125 + 0.03125 = 0.65625; -0.25 + 0.125 + 0.0625 = -0.0625
    expected = -(0.65625 + 3 * -0.0625) / 2
    assert float(policy.expectation(KEY, logits, rewards, weights)) == pytest.approx(expected)


def test_expectation_is_the_loss_of_the_official_code():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 3))
    correct = rng.random((8, 3)) < 0.5
    weights = rng.random(8)
    beta = 0.3
    v = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    terms = beta * (1 - correct) - 2.0 ** -(np.array(CANDIDATES) - 1) * correct
    official = np.mean(weights * (v * terms).sum(1))
    ours = policy.expectation(
        KEY,
        jnp.asarray(logits, jnp.float32),
        policy.rewards(jnp.asarray(correct), CANDIDATES, beta),
        jnp.asarray(weights, jnp.float32),
    )
    assert float(ours) == pytest.approx(official, rel=1e-5)


# --- Gradients ---------------------------------------------------------------------------------


def test_the_mean_gradient_of_reinforce_is_that_of_the_expectation():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    rewards = policy.rewards(jnp.asarray(rng.random((6, 3)) < 0.5), CANDIDATES, 0.5)
    weights = jnp.asarray(1 + rng.random(6), jnp.float32)

    def gradient(objective, key):
        return jax.grad(objective, argnums=1)(key, logits, rewards, weights)

    exact = np.asarray(gradient(policy.expectation, KEY))
    keys = jax.random.split(jax.random.key(2), 40_000)
    sampled = np.asarray(jax.jit(jax.vmap(lambda k: gradient(policy.reinforce, k)))(keys))
    error = sampled.std(0) / np.sqrt(len(sampled))
    assert (error < np.abs(exact).max() / 20).all()  # or else the test could not fail
    # 18 numbers: all within 4 standard errors but for 1 draw in 900.
    assert (np.abs(sampled.mean(0) - exact) < 4 * error).all()
    # The baseline pays: without it the estimate varies more.
    plain = policy.rewards(jnp.ones((6, 3), bool), (1, 1, 1), 0.0)  # all rewards 1
    quiet = jax.grad(policy.reinforce, argnums=1)(KEY, logits, plain, weights)
    np.testing.assert_array_equal(quiet, np.zeros((6, 3)))


# --- What is chosen ----------------------------------------------------------------------------


def test_exit_times_by_hand():
    logits = jnp.array([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(policy.exit_times(logits, CANDIDATES), [4, 1])
    # 0 - p, 1 - 2p, 3 - 4p: equal at p = 1, so just above it the first wins.
    np.testing.assert_array_equal(policy.exit_times(logits, CANDIDATES, 1.01), [1, 1])
    np.testing.assert_array_equal(policy.exit_times(logits, CANDIDATES, -1.0), [4, 4])


LOGITS = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32)
)


@settings(deadline=None, max_examples=25)
@given(logits=LOGITS, prices=st.lists(st.floats(-5, 5), min_size=2, max_size=2))
def test_a_higher_price_never_lengthens_an_exit(logits, prices):
    low, high = (policy.exit_times(logits, CANDIDATES, p) for p in sorted(prices))
    assert (np.asarray(high) <= np.asarray(low)).all()


compiled_exit_times = jax.jit(policy.exit_times, static_argnums=1)


@settings(deadline=None, max_examples=25)
@given(logits=LOGITS, target=st.floats(1, 4))
def test_the_price_for_a_target_is_the_lowest_that_meets_it(logits, target):
    price = policy.price_for_timesteps(logits, CANDIDATES, target)
    average = float(jnp.mean(policy.exit_times(logits, CANDIDATES, price)))
    assert average <= target + 1e-6
    sweep = policy.sweep_prices(logits, CANDIDATES, 1000)
    averages = [float(jnp.mean(compiled_exit_times(logits, CANDIDATES, p))) for p in sweep]
    assert averages == sorted(averages, reverse=True)
    better = [a for p, a in zip(sweep, averages, strict=True) if a <= target + 1e-6]
    assert average == pytest.approx(max(better))
    assert averages[0] == 4
    assert averages[-1] == 1
    assert 0 in sweep


@pytest.mark.parametrize(
    ("gains", "accuracy", "mean"),
    [
        # The first to run longer is the one that gains, the last the one that loses by it ...
        ([3, 2, 1, 0], [0.75, 1, 1, 1, 0.75], 0.9375),
        ([0, 1, 2, 3], [0.75, 0.5, 0.5, 0.5, 0.75], 0.5625),  # ... or the other way round.
        ([5, 5, 5, 5], [0.75, 0.75], 0.75),  # All change at one price: nothing is known of them.
    ],
)
def test_accuracy_over_timesteps_by_hand(gains, accuracy, mean):
    logits = np.array([[0.0, gain] for gain in gains], np.float32)
    correct = np.array([[0, 1], [1, 1], [1, 1], [1, 0]], bool)
    prices, found, average = policy.sweep(logits, (1, 2), correct, 50)
    curve = sorted(set(zip(average.tolist(), found.tolist(), strict=True)))
    assert curve == list(zip(np.linspace(1, 2, len(accuracy)), accuracy, strict=True))
    assert len(prices) <= 50
    assert policy.mean_accuracy(logits, (1, 2), correct) == pytest.approx(mean)


# --- Mistakes ----------------------------------------------------------------------------------


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
        policy.check_candidates(candidates, 4)


@pytest.mark.parametrize("target", [0.5, 4.5, float("nan")])
def test_a_target_that_cannot_be_met(target):
    with pytest.raises(UserError, match=r"candidates are from 1 to 4; give a target between"):
        policy.price_for_timesteps(np.zeros((3, 3), np.float32), CANDIDATES, target)
