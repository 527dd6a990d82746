"""Is one kernel faster? A 3x3 layer of spikes in int8, its BatchNorm and its neurons, in one.

    python benchmarks/fused_layer.py

`seenn_jax.models.fused` against the package's layers one after the other, which XLA compiles, for
ResNet-19's three kinds of layers, several sizes of blocks, and with a residual or without. Ticks
run in a loop on the device, each on the spikes and membranes of the last one; 85 % of the samples
are fresh in each, as where exits are early. Results are compared bit for bit.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import records
from clock import microseconds
from flax import nnx
from jax import lax

from seenn_jax.models import fused
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import LIF, Renewed, fire

LAYERS = ("128x32", "256x16", "512x8")
BLOCKS = ("128x128x64x4x4", "64x128x128x4x3", "256x128x128x8x3")
FRESH = 0.85
NEURON = LIF().in_int8()


def inputs_of(batch, channels, side, residual):
    """(a layer, (spikes, membranes), (kernel, fresh, residual or None)), random."""
    keys = jax.random.split(jax.random.key(0), 6)
    shape = (batch, side, side, channels)
    layer = ConvBN(channels, channels, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.quantize()
    scale, shift = jax.random.normal(keys[0], (2, channels))
    layer.affine = nnx.data(
        (nnx.Param(scale / jnp.sqrt(9e3 * channels)), nnx.Param(shift))  # about one spike in six
    )
    carry = (
        jax.random.bernoulli(keys[1], 0.15, shape).astype(jnp.int8),
        jax.random.normal(keys[2], shape, jnp.bfloat16),
    )
    fresh = jax.random.bernoulli(keys[3], FRESH, (batch,))
    other = jax.random.bernoulli(keys[4], 0.15, shape).astype(jnp.int8) if residual else None
    kernel = jax.random.randint(keys[5], layer.conv.kernel.shape, -127, 128, jnp.int8)
    return layer, carry, (kernel, fresh, other)


def ticks_of(layer, block=None, interpret=False):
    """`(spikes, membranes, (kernel, fresh, residual), n) -> the first two after n ticks`."""
    affine = layer.running()
    graph, state = nnx.split(layer)

    def apart(spikes, v, kernel, residual):
        one = nnx.merge(graph, state)
        one.conv.kernel = nnx.Param(kernel)
        currents = one(spikes[:, None])
        currents = currents if residual is None else currents + residual[:, None]
        fired, after = fire(NEURON, currents, v)
        return fired[:, 0], after

    def together(spikes, v, kernel, residual):
        how = {"neuron": NEURON, "block": block, "interpret": interpret}
        return fused.fused(spikes, kernel, *affine, v, residual, **how)

    def run(spikes, membranes, given, n):
        kernel, fresh, residual = given

        def tick(_, carry):
            v = Renewed(carry[1], jnp.zeros_like(carry[1][0]), fresh)
            return (apart if block is None else together)(carry[0], v, kernel, residual)

        return lax.fori_loop(0, n, tick, (spikes, membranes))

    return jax.jit(run)


def rows_of(flags, channels, side, residual):
    """A row for the layers apart and one for each size of the blocks, printed as they come."""
    layer, carry, given = inputs_of(flags.batch_size, channels, side, residual)
    operations = 2 * 9 * channels * carry[0].size
    rows, wanted = [], None
    for text in ("apart", *flags.blocks.split(",")):
        row = {"how": text, "channels": channels, "side": side, "residual": residual}
        block = None if text == "apart" else fused.Block(*map(int, text.split("x")))
        run = ticks_of(layer, block, flags.interpret)
        try:
            found = jax.block_until_ready(run(*carry, given, jnp.int32(2)))
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            row["error"] = repr(error)[:200]  # such as too little shared memory
        else:
            wanted = found if block is None else wanted
            row["differ"] = sum(int(jnp.sum(a != b)) for a, b in zip(found, wanted, strict=True))
            took = microseconds(1, run, *carry, given, jnp.int32(flags.ticks))
            row["microseconds"] = took / flags.ticks
            row["tera_operations_per_second"] = operations / row["microseconds"] / 1e6
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure each layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=512, help="images, one tick each")
    parser.add_argument("--ticks", type=int, default=50, help="in each of five timed runs")
    parser.add_argument("--layers", default=",".join(LAYERS), help="channels x side of the map")
    parser.add_argument(
        "--blocks", default=",".join(BLOCKS), help="pixels x channels x depth x warps x stages"
    )
    parser.add_argument("--interpret", action="store_true", help="without an accelerator, slowly")
    parser.add_argument("--json", help="add the record to this file")
    flags = parser.parse_args()
    layers = [tuple(map(int, text.split("x"))) for text in flags.layers.split(",")]
    measure = functools.partial(rows_of, flags)
    rows = [row for sizes in layers for some in (False, True) for row in measure(*sizes, some)]
    if flags.json:
        what = "ResNet-19's kinds of 3x3 layers with their neurons, int8, apart and in one kernel"
        figures = {"batch_size": flags.batch_size, "rows": rows}
        records.add(flags.json, records.record(what, figures))


if __name__ == "__main__":
    main()
