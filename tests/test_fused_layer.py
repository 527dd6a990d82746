"""A layer in one kernel computes what those of the package do, by interpretation, to the bit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import LIF, fire

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import fused_layer


@pytest.mark.parametrize("block", [(16, 32, 16), (32, 16, 32)])
def test_one_kernel_computes_what_the_layers_do(block):
    spikes, kernel, scale, shift, before = fused_layer.inputs_of(batch=2, channels=32, side=8)
    layer = ConvBN(32, 32, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.quantize()
    layer.conv.kernel, layer.affine = nnx.Param(kernel), (nnx.Param(scale), nnx.Param(shift))
    neuron = LIF().in_int8()
    run = jax.jit(lambda spikes, before: fire(neuron, layer(spikes[:, None]), before))
    fired, after = run(spikes, before)
    wanted = fired[:, 0], after
    flat = kernel.transpose(3, 0, 1, 2).reshape(32, -1)
    rest = scale, shift, before
    plain = jax.jit(fused_layer.layer)(spikes, kernel, *rest)
    one = fused_layer.fused(spikes, flat, *rest, block, 4, 2, interpret=True)
    assert 0.1 < float(fired.mean()) < 0.9
    for found in (plain, one):
        assert all(bool((a == b).all()) for a, b in zip(found, wanted, strict=True))


def test_blocks_that_do_not_divide_a_layer_are_named():
    spikes, kernel, *rest = fused_layer.inputs_of(batch=2, channels=32, side=8)
    flat = kernel.transpose(3, 0, 1, 2).reshape(32, -1)
    with pytest.raises(ValueError, match=r"blocks of \(9, 32, 16\) do not divide \(128, 32, 32\)"):
        fused_layer.fused(spikes, flat, *rest, (9, 32, 16), 4, 2, interpret=True)
