"""Exit times that a policy chose, and the price that moves them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.errors import UserError
from seenn_jax.exits import prices

CANDIDATES = (1, 2, 4)


def test_a_policy_that_is_unsure_of_the_class_by_hand():
    # Two candidates, two classes: H of (1/2, 1/2) is ln 2, of (1, 0) nothing.
    outputs = np.array([[1, 2, 3, -4, 0, 0], [1, 2, 3, -4, 200, 0]], np.float32)
    logits, classes = prices.split_outputs(outputs, 2)
    ln2 = np.log(2)
    np.testing.assert_allclose(logits, [[1 + 3 * ln2, 2 - 4 * ln2], [1, 2]], rtol=1e-6)
    np.testing.assert_array_equal(classes, outputs[:, 4:])
    # Without classes there are only the logits of the candidates.
    logits, classes = prices.split_outputs(outputs[:, :3], 3)
    np.testing.assert_array_equal(logits, outputs[:, :3])
    assert classes.shape == (2, 0)


def test_exit_times_by_hand():
    logits = jnp.array([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(prices.exit_times(logits, CANDIDATES), [4, 1])
    # 0 - p, 1 - 2p, 3 - 4p: equal at p = 1, so just above it the first wins.
    np.testing.assert_array_equal(prices.exit_times(logits, CANDIDATES, 1.01), [1, 1])
    np.testing.assert_array_equal(prices.exit_times(logits, CANDIDATES, -1.0), [4, 4])


LOGITS = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32)
)


@settings(deadline=None, max_examples=25)
@given(logits=LOGITS, two=st.lists(st.floats(-5, 5), min_size=2, max_size=2))
def test_a_higher_price_never_lengthens_an_exit(logits, two):
    low, high = (prices.exit_times(logits, CANDIDATES, p) for p in sorted(two))
    assert (np.asarray(high) <= np.asarray(low)).all()


compiled_exit_times = jax.jit(prices.exit_times, static_argnums=1)


@settings(deadline=None, max_examples=25)
@given(logits=LOGITS, target=st.floats(1, 4))
def test_the_price_for_a_target_is_the_lowest_that_meets_it(logits, target):
    price = prices.price_for_timesteps(logits, CANDIDATES, target)
    average = float(jnp.mean(prices.exit_times(logits, CANDIDATES, price)))
    assert average <= target + 1e-6
    sweep = prices.sweep_prices(logits, CANDIDATES, 1000)
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
    swept, found, average = prices.sweep(logits, (1, 2), correct, 50)
    curve = sorted(set(zip(average.tolist(), found.tolist(), strict=True)))
    assert curve == list(zip(np.linspace(1, 2, len(accuracy)), accuracy, strict=True))
    assert len(swept) <= 50
    assert prices.mean_accuracy(logits, (1, 2), correct) == pytest.approx(mean)


@pytest.mark.parametrize("target", [0.5, 4.5, float("nan")])
def test_a_target_that_cannot_be_met(target):
    with pytest.raises(UserError, match=r"candidates are from 1 to 4; give a target between"):
        prices.price_for_timesteps(np.zeros((3, 3), np.float32), CANDIDATES, target)
