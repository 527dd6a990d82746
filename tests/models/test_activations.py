"""QCFS against numbers worked by hand and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.models.activations import QCFS, qcfs

PROPERTY = settings(deadline=None, max_examples=25)
thresholds = st.floats(0.0625, 16, width=32)


def test_qcfs_by_hand():
    # threshold 2, L 4: steps of 1/2, at the odd multiples of 1/4.
    x = jnp.array([-1, 0, 0.24, 0.25, 1.2, 1.74, 1.76, 5], jnp.float32)
    np.testing.assert_array_equal(qcfs(x, 2.0, 4), [0, 0, 0, 0.5, 1, 1.5, 2, 2])


def test_gradients_of_qcfs_by_hand():
    x = jnp.array([-1, 1.2, 5], jnp.float32)
    threshold = jnp.float32(2)
    np.testing.assert_allclose(jax.grad(lambda x: qcfs(x, threshold, 4).sum())(x), [0, 1, 0])
    # To the threshold: 0 below; (1 - 1.2) / 2 inside; 1 above.
    slopes = jax.jacobian(lambda threshold: qcfs(x, threshold, 4))(threshold)
    np.testing.assert_allclose(slopes, [0, -0.1, 1], rtol=1e-6)


@PROPERTY
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=20, max_size=20), thresholds, st.integers(1, 9)
)
def test_clipping_before_and_after_the_floor_is_the_same(x, threshold, levels):
    x, threshold = np.float32(x), np.float32(threshold)
    after = np.clip(np.floor(x / threshold * levels + np.float32(0.5)) / np.float32(levels), 0, 1)
    # The compiler may divide by multiplying with a reciprocal: off the steps both agree.
    steps = np.abs(x / threshold * levels - np.round(x / threshold * levels + 0.5) + 0.5)
    off = steps > 1e-4
    np.testing.assert_allclose(
        np.asarray(qcfs(jnp.asarray(x), jnp.float32(threshold), levels))[off],
        (threshold * after)[off],
        rtol=1e-6,
    )


@PROPERTY
@given(st.floats(-80, 1e6, width=32))
def test_a_threshold_is_positive_whatever_its_parameter(raw):
    activation = QCFS(4)
    activation.raw[...] = jnp.float32(raw)
    assert activation.threshold > 0


@PROPERTY
@given(thresholds)
def test_the_initial_threshold_is_the_one_asked_for(threshold):
    assert float(QCFS(4, threshold).threshold) == pytest.approx(threshold, rel=1e-4)


def test_qcfs_is_computed_in_float32_and_keeps_the_dtype():
    x = jnp.linspace(-1, 4, 50).astype(jnp.bfloat16)
    outputs, v = QCFS(8, 1.7)(x)
    assert (outputs.dtype, v) == (jnp.bfloat16, None)
    wide = QCFS(8, 1.7)(x.astype(jnp.float32))[0]
    np.testing.assert_array_equal(outputs, wide.astype(jnp.bfloat16))


def test_in_training_samples_have_their_levels_in_turn():
    # threshold 2, x 0.6 of it 0.3: L 1 rounds to 0, L 2 to 1/2, L 4 to 1/4, and round again.
    activation = QCFS(8, 2.0, training_levels=(1, 2, 4))
    x = jnp.full((4, 1, 2, 3), 0.6)
    outputs = activation(x)[0]
    np.testing.assert_allclose(outputs[:, 0, 0, 0], [0, 1, 0.5, 0], rtol=1e-6)
    np.testing.assert_array_equal(outputs, jnp.broadcast_to(outputs[:, :1, :1, :1], x.shape))
    # For inference L is 8: 0.3 is nearest to 2/8.
    inference = nnx.view(activation, use_running_average=True)
    np.testing.assert_allclose(inference(x)[0], jnp.full(x.shape, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(activation(x)[0], outputs)
