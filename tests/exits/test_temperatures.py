"""Temperatures: those that logits were made with, and those that SciPy finds."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from seenn_jax import exits
from seenn_jax.errors import UserError
from seenn_jax.exits import temperatures
from seenn_jax.exits.temperatures import fit_temperatures


def sampled(temperatures, n=40_000, classes=5, seed=0):
    """Logits [N, T, K], of which the label is a draw from the softmax at each temperature."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(n, int)
    logits = []
    for temperature in temperatures:
        # Any logits z with a label y ~ softmax(z): shift them so that every t has label 0's draw.
        z = rng.normal(size=(n, classes)) * 2
        y = np.argmax(z + rng.gumbel(size=z.shape), axis=-1)
        z = (z[np.arange(n)[:, None], (np.arange(classes) + y[:, None]) % classes]) * temperature
        logits.append(z)
    return np.stack(logits, axis=1).astype(np.float32), labels


def test_recovers_known_temperatures():
    known = [0.3, 1.0, 2.5, 40.0]
    np.testing.assert_allclose(fit_temperatures(*sampled(known)), known, rtol=0.03)


def test_temperatures_minimise_the_likelihood_that_scipy_minimises():
    logits, labels = sampled([1.7, 0.6], n=300, seed=1)

    def nll(temperature, z):
        z = z.astype(float) / temperature
        return np.mean(scipy.special.logsumexp(z, axis=-1) - z[np.arange(len(z)), labels])

    for t, temperature in enumerate(fit_temperatures(logits, labels)):
        best = scipy.optimize.minimize_scalar(
            nll, bounds=(0.1, 10), args=(logits[:, t],), method="bounded", options={"xatol": 1e-9}
        )
        assert temperature == pytest.approx(best.x, rel=1e-4)


def test_temperatures_do_not_change_predictions_and_scale_with_logits():
    logits, labels = sampled([1.0], n=500, seed=2)
    one = fit_temperatures(logits, labels)
    np.testing.assert_allclose(fit_temperatures(logits * 7, labels), 7 * one, rtol=1e-4)
    np.testing.assert_array_equal(
        jnp.argmax(exits.accumulate(logits, temperature=one), -1), np.argmax(logits, -1)
    )


def test_temperatures_of_a_split_all_right_and_of_one_all_wrong_end_at_the_bounds():
    labels = np.array([0, 1, 2])
    right = 3 * np.eye(3, dtype=np.float32)
    logits = np.stack([right, -right], axis=1)
    np.testing.assert_allclose(
        fit_temperatures(logits, labels),
        [temperatures.MIN_TEMPERATURE, temperatures.MAX_TEMPERATURE],
        rtol=1e-5,
    )


def test_bad_input_for_temperatures():
    logits, labels = sampled([1.0], n=10)
    with pytest.raises(UserError, match="temperatures needs labels"):
        fit_temperatures(logits, None)
    with pytest.raises(UserError, match="0 samples"):
        fit_temperatures(logits[:0], labels[:0])
    logits[4, 0, 2] = np.inf
    with pytest.raises(UserError, match="sample 4 "):
        fit_temperatures(logits, labels)
