import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data.pixels import channel_statistics, count_statistics, normalize

seeds = st.integers(0, 2**31 - 1)


class TestStatistics:
    def test_by_hand(self):
        # First channel 0, 0, 255, 255: mean 1/2, std 1/2. Second always 51 = 255/5.
        images = np.array([[[[0, 51], [0, 51]]], [[[255, 51], [255, 51]]]], np.uint8)
        mean, std = channel_statistics(images)
        np.testing.assert_allclose(mean, [0.5, 0.2], rtol=1e-6)
        np.testing.assert_allclose(std, [0.5, 1.0], rtol=1e-6)
        assert mean.dtype == std.dtype == np.float32

    @given(seed=seeds, n=st.sampled_from([1, 2, 249, 250, 251, 500, 501]))  # Summed by 250.
    def test_equals_numpy(self, seed, n):
        images = np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 2), dtype=np.uint8)
        mean, std = channel_statistics(images)
        scaled = images.astype(np.float64) / 255
        np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-6)

    def test_the_largest_sums_do_not_overflow(self):
        images = np.full((600, 2, 2, 1), 255, np.uint8)
        images[:300] = 254
        mean, std = channel_statistics(images)
        np.testing.assert_allclose(mean, 254.5 / 255, rtol=1e-6)
        np.testing.assert_allclose(std, 0.5 / 255, rtol=1e-6)


class TestNormalize:
    def test_by_hand(self):
        images = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
        out = normalize(images, jnp.array([0.2]), jnp.array([0.4]), jnp.float32)
        np.testing.assert_allclose(out.ravel(), [-0.5, 0.0, 2.0], atol=1e-6)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
    def test_gives_mean_0_and_std_1_in_the_dtype_asked_for(self, dtype):
        images = np.random.default_rng(0).integers(0, 200, (50, 8, 8, 3), dtype=np.uint8)
        out = jax.jit(normalize, static_argnums=3)(images, *channel_statistics(images), dtype)
        assert out.dtype == dtype
        np.testing.assert_allclose(out.astype(np.float32).mean((0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(out.astype(np.float32).std((0, 1, 2)), 1, atol=1e-3)

    def test_bfloat16_is_the_rounded_float32(self):
        images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        mean, std = np.array([0.4914], np.float32), np.array([0.247], np.float32)
        wide = normalize(jnp.asarray(images), mean, std, jnp.float32)
        narrow = normalize(jnp.asarray(images), mean, std, jnp.bfloat16)
        assert jnp.array_equal(wide.astype(jnp.bfloat16), narrow)


def test_counts_keep_their_zero():
    # Channel 0: 0, 0, 3, 3; root mean square sqrt(18 / 4). Channel 1 is empty.
    frames = np.zeros((1, 2, 1, 2, 2), np.uint8)
    frames[0, 1, :, :, 0] = 3
    mean, std = count_statistics(frames)
    np.testing.assert_array_equal(mean, [0, 0])
    np.testing.assert_allclose(255 * std, [4.5**0.5, 255], rtol=1e-6)
    out = normalize(jnp.asarray(frames), mean, std, jnp.float32)
    np.testing.assert_allclose(np.square(out[..., 0]).mean(), 1, rtol=1e-6)
    assert not out[0, 0].any()
