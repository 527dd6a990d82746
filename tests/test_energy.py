import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax.energy import macs
from seenn_jax.layers import convolve
from seenn_jax.models import inference_network
from seenn_jax.models.policy import build_policy


def test_a_matrix_product_and_a_convolution_by_hand():
    x, w = jnp.zeros((5, 7)), jnp.zeros((7, 3))
    assert macs(jnp.matmul, x, w) == 5 * 7 * 3
    image, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 6))
    padding = ((1, 1), (1, 1))
    # Stride 2: a map of 4 x 4.
    assert macs(lambda x, k: convolve(x, k, (2, 2), padding), image, kernel) == (
        2 * 4 * 4 * 6 * 3 * 3 * 4
    )


def test_what_is_called_inside_counts_and_nothing_is_computed():
    def nested(x):
        return jax.jit(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=1)[0])(x)

    assert macs(nested, jax.ShapeDtypeStruct((10_000, 10_000), np.float32)) == 10**12


def test_the_policy_of_the_paper_takes_12_5_mmac():
    model = build_policy(16, image_shape=(32, 32, 3), candidates=3)
    policy = inference_network(model, (32, 32, 3), 1)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    stem = 27 * 16 * 1024
    stage1 = 2 * 9 * 16 * 16 * 1024
    stage2 = (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 256
    stage3 = (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) * 64
    by_hand = stem + stage1 + stage2 + stage3 + 64 * 3
    assert round(by_hand / 1e6, 1) == 12.5
    # The stem's 27 inputs a pixel are filled up with zeros to 32.
    assert macs(policy.logits, policy.params, image) == by_hand + 5 * 16 * 1024
