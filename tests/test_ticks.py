"""Still images and event data: what a network is shown, tick by tick."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.models import MODELS
from seenn_jax.models.network import rest, run_all
from seenn_jax.ticks import currents, first_ticks, seen, summed
from tests.models.networks import BATCH, DEEP, TIMESTEPS, exact, images, prepared


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEEP)) for n in MODELS]
)
def test_still_images_are_the_same_at_each_tick(name):
    model, integrate = prepared(name)
    still = images(name, BATCH)
    repeated = jnp.repeat(still[:, None], TIMESTEPS, 1)
    shown = currents(model, still, TIMESTEPS)
    np.testing.assert_array_equal(shown, currents(model, repeated, TIMESTEPS))
    assert shown.shape[:2] == (BATCH, TIMESTEPS)
    assert np.any(shown[0] != shown[1])
    if name == "resnet8":
        logits, _, _ = integrate(shown, rest(model, shown))
        for inputs in (still, repeated):
            run = jax.jit(lambda inputs: run_all(model, inputs, TIMESTEPS))
            np.testing.assert_array_equal(run(inputs), logits)


def test_a_picture_of_a_recording_is_the_sum_of_its_frames():
    frames = np.full((2, 3, 4, 4, 2), 200, np.uint8)
    np.testing.assert_array_equal(summed(frames), np.full((2, 4, 4, 2), 600))
    still = np.full((2, 4, 4, 3), 200, np.uint8)
    assert summed(still) is still


def test_the_first_ticks_and_what_a_policy_sees():
    frames, still = jnp.arange(48).reshape(2, 3, 2, 2, 2), jnp.arange(16).reshape(2, 2, 2, 2)
    np.testing.assert_array_equal(first_ticks(frames, 2), frames[:, :2])
    np.testing.assert_array_equal(seen(frames), frames[:, 0])
    for look in (seen, lambda x: first_ticks(x, 2)):
        np.testing.assert_array_equal(look(still), still)


def test_statistics_of_still_images_are_those_of_the_same_at_each_tick():
    once, repeated = exact("resnet8"), exact("resnet8")
    still = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)
    a = currents(once, still, TIMESTEPS)
    b = currents(repeated, jnp.repeat(still[:, None], TIMESTEPS, 1), TIMESTEPS)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(once.stem.bn.var[...], repeated.stem.bn.var[...], rtol=1e-5)
    assert np.all(once.stem.bn.var[...] != exact("resnet8").stem.bn.var[...])
