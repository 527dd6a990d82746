"""Is one kernel faster? A 3x3 layer of spikes in int8, its BatchNorm and its neurons, in one.

    python benchmarks/fused_layer.py

Between ticks XLA writes the sums of a convolution in 32 bits and reads them again for the neurons:
14 bytes a neuron are moved, where 6 are needed (a spike in and out, a membrane of 2 read and
written). The kernel is a Pallas one for Triton, a matrix product whose rows are pixels and whose
depth is the window; the sums stay in registers. It is compared bit for bit with the layers of the
package, and timed beside them, for ResNet-19's three kinds of layers and several sizes of blocks.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import records
from clock import microseconds
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from seenn_jax.models.layers import convolve
from seenn_jax.models.neurons import LIF

LAYERS = ("128x32", "256x16", "512x8")
BLOCKS = (
    *("128x128x128x8x3", "128x128x128x4x4", "128x256x128x8x3", "256x128x128x8x3"),
    "128x128x64x8x4",
)
_int = jnp.int32  # Triton's dialect does not divide by Python's numbers


def layer(spikes, kernel, scale, shift, membranes):
    """As the package computes it: (spikes int8, membranes bfloat16), [B, H, W, N] both.

    Args:
      spikes: int8 [B, H, W, C].
      kernel: int8 [3, 3, C, N].
      scale, shift: float32 [N].
      membranes: bfloat16 [B, H, W, N].
    """
    same = ((1, 1), (1, 1))
    sums = convolve(spikes, kernel, (1, 1), same, preferred_element_type=jnp.int32)
    currents = (sums.astype(jnp.float32) * scale + shift).astype(jnp.bfloat16)
    fired, after = LIF(spike_dtype="int8")(currents[:, None], membranes)
    return fired[:, 0], after


def _body(x_ref, w_ref, scale_ref, shift_ref, v_ref, s_ref, after_ref, *, side, channels, block):
    """`block` pixels times `block` output channels; Triton's dialect of JAX."""
    pixels, features, depth = block
    first = pl.program_id(0) * features
    rows = pl.program_id(1) * pixels + jnp.arange(pixels, dtype=jnp.int32)
    y, x = lax.rem(lax.div(rows, _int(side)), _int(side)), lax.rem(rows, _int(side))
    each = channels // depth  # steps of a tap of the window

    def add(step, sums):
        tap, start = lax.div(step, _int(each)), lax.rem(step, _int(each)) * depth
        down, right = lax.div(tap, _int(3)) - 1, lax.rem(tap, _int(3)) - 1
        inside = (y + down >= 0) & (y + down < side) & (x + right >= 0) & (x + right < side)
        at = jnp.where(inside, rows + down * side + right, 0)
        within = start + jnp.arange(depth, dtype=jnp.int32)
        a = triton.load(x_ref.at[at[:, None], within[None]], mask=inside[:, None], other=0)
        b = triton.load(w_ref.at[pl.ds(first, features), pl.ds(tap * channels + start, depth)])
        return sums + lax.dot_general(
            a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
        )

    sums = lax.fori_loop(0, 9 * each, add, jnp.zeros((pixels, features), jnp.int32))
    columns = pl.ds(first, features)
    tile = (pl.ds(pl.program_id(1) * pixels, pixels), columns)
    scale, shift = triton.load(scale_ref.at[columns]), triton.load(shift_ref.at[columns])
    currents = (sums.astype(jnp.float32) * scale[None] + shift[None]).astype(jnp.bfloat16)
    # As `neurons.lif_step` with the decay 0.5, which is exact, and the threshold 1.
    v = triton.load(v_ref.at[tile]).astype(jnp.float32) * 0.5 + currents.astype(jnp.float32)
    v = v.astype(jnp.bfloat16)
    fires = v >= 1
    triton.store(s_ref.at[tile], fires.astype(jnp.int8))
    triton.store(after_ref.at[tile], jnp.where(fires, 0, v).astype(jnp.bfloat16))


def fused(spikes, kernel, scale, shift, membranes, block, warps, stages, interpret=False):
    """`layer` in one kernel; `kernel` is [N, 9 C], with the taps of the window one after the other.

    Args:
      block: (pixels, output channels, depth) of a program.

    Raises:
      ValueError: a block that does not divide the layer.
    """
    batch, side, _, channels = spikes.shape
    features, pixels = len(kernel), batch * side * side
    if any(of % part for of, part in zip((pixels, features, channels), block, strict=True)):
        raise ValueError(f"blocks of {block} do not divide {pixels, features, channels}")
    flat = membranes.reshape(pixels, features)
    fired, after = pl.pallas_call(
        functools.partial(_body, side=side, channels=channels, block=block),
        out_shape=(
            jax.ShapeDtypeStruct(flat.shape, jnp.int8),
            jax.ShapeDtypeStruct(flat.shape, jnp.bfloat16),
        ),
        # Programs of the same pixels are neighbours, so that their spikes are read once.
        grid=(features // block[1], pixels // block[0]),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=interpret,
    )(spikes.reshape(pixels, channels), kernel, scale, shift, flat)
    return fired.reshape(membranes.shape), after.reshape(membranes.shape)


def inputs_of(batch, channels, side):
    """Random (spikes, kernel, scale, shift, membranes) of a layer."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (batch, side, side, channels)
    spikes = jax.random.bernoulli(keys[0], 0.15, shape).astype(jnp.int8)
    kernel = jax.random.randint(keys[1], (3, 3, channels, channels), -127, 128, jnp.int8)
    scale, shift = jax.random.normal(keys[2], (2, channels))
    membranes = jax.random.normal(keys[3], shape, jnp.bfloat16)
    return spikes, kernel, scale / jnp.sqrt(9e3 * channels), shift, membranes


def rows_of(flags, channels, side):
    """A row for XLA and one for each size of the blocks, printed as they come."""
    spikes, kernel, *rest = inputs_of(flags.batch_size, channels, side)
    plain, timed = jax.jit(layer), functools.partial(microseconds, flags.repeats)
    wanted, operations = plain(spikes, kernel, *rest), 2 * 9 * channels * spikes.size
    rows = [{"how": "XLA", "microseconds": timed(plain, spikes, kernel, *rest)}]
    flat = kernel.transpose(3, 0, 1, 2).reshape(channels, -1)
    for text in flags.blocks.split(","):
        *block, warps, stages = map(int, text.split("x"))
        options = {"warps": warps, "stages": stages, "interpret": flags.interpret}
        one = jax.jit(functools.partial(fused, block=tuple(block), **options))
        row = {"how": text}
        try:
            found = one(spikes, flat, *rest)
            differ = sum(int(jnp.sum(a != b)) for a, b in zip(found, wanted, strict=True))
            row |= {"differ": differ, "microseconds": timed(one, spikes, flat, *rest)}
        except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
            row["error"] = repr(error)[:200]  # such as too little shared memory
        rows.append(row)
    for row in rows:
        row |= {"channels": channels, "side": side}
        if "microseconds" in row:
            row["tera_operations_per_second"] = operations / row["microseconds"] / 1e6
        print(row, flush=True)
    return rows


def main() -> None:
    """Measure each layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=512, help="images, one tick each")
    parser.add_argument("--repeats", type=int, default=20, help="calls in each of five timed runs")
    parser.add_argument("--layers", default=",".join(LAYERS), help="channels x side of the map")
    parser.add_argument(
        "--blocks", default=",".join(BLOCKS), help="pixels x channels x depth x warps x stages"
    )
    parser.add_argument("--interpret", action="store_true", help="without an accelerator, slowly")
    parser.add_argument("--json", help="add the record to this file")
    flags = parser.parse_args()
    layers = (map(int, text.split("x")) for text in flags.layers.split(","))
    rows = [row for sizes in layers for row in rows_of(flags, *sizes)]
    if flags.json:
        what = "ResNet-19's kinds of 3x3 layers with their neurons, int8, by XLA and in one kernel"
        figures = {"batch_size": flags.batch_size, "rows": rows}
        records.add(flags.json, records.record(what, figures))


if __name__ == "__main__":
    main()
