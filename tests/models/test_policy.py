from flax import nnx

from seenn_jax.energy import layers
from seenn_jax.models.policy import build_policy


def test_the_policy_of_the_paper_takes_12_5_mmac():
    model = build_policy(16, image_shape=(32, 32, 3), candidates=3)
    stem = 27 * 16 * 1024
    stage1 = 2 * 9 * 16 * 16 * 1024
    stage2 = (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 256
    stage3 = (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) * 64
    by_hand = stem + stage1 + stage2 + stage3 + 64 * 3
    assert round(by_hand / 1e6, 1) == 12.5
    model = nnx.view(model, use_running_average=True)
    assert sum(layer.macs for layer in layers(model, (32, 32, 3))) == by_hand
