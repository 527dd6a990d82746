"""A layer in one kernel computes what those of the package do, by interpretation, to the bit."""

from pathlib import Path

import jax
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import fused_layer


@pytest.mark.parametrize("block", [(16, 32, 16), (32, 16, 32)])
def test_one_kernel_computes_what_the_layers_do(block):
    spikes, kernel, *rest = fused_layer.inputs_of(batch=2, channels=32, side=8)
    wanted, membranes = jax.jit(fused_layer.layer)(spikes, kernel, *rest)
    flat = kernel.transpose(3, 0, 1, 2).reshape(32, -1)
    found, after = fused_layer.fused(spikes, flat, *rest, block, 4, 2, interpret=True)
    assert 0.1 < float(wanted.mean()) < 0.9
    assert bool((found == wanted).all())
    assert bool((after == membranes).all())
