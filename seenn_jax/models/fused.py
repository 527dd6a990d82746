"""A tick of int8 inference on a GPU: convolution, BatchNorm and neurons in one kernel.

XLA writes the sums of a convolution in 32 bits and reads them again for the neurons: 14 bytes a
neuron, where 6 are needed, or 4 of a fresh sample. The kernel, of Pallas for Triton, is a matrix
product whose rows are pixels and whose depth is the window; the sums stay in registers. It computes
what the layers do, to the bit (sums of int8 are exact); `benchmarks/fused_layer.py` times both.

JAX 0.12 deprecates Pallas for Triton. Where a later one has it no more, the layers stay apart.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, BFloat16, Float, Int8, Num

from seenn_jax.models import fused_training
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import LIF, Renewed, fire

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton = None  # type: ignore[assignment]

# Where the kernel runs: of NVIDIA's GPUs those on which it was measured.
PLATFORM, INTERPRET = "cuda", False
COMPUTE_CAPABILITIES = ("9.0",)


class Block(NamedTuple):
    """What a program of the kernel computes, and with what."""

    pixels: int
    features: int
    depth: int  # input channels at a time
    warps: int
    stages: int


# The largest that gives every processor of a GPU some programs; else the smallest that fits.
BLOCKS = (
    Block(128, 128, 64, 4, 4),
    Block(64, 64, 64, 4, 4),
    Block(32, 64, 64, 4, 4),
    Block(32, 32, 64, 4, 4),
    Block(32, 32, 32, 4, 4),
)
PROGRAMS = 256
LARGEST = 2**31 - 1  # elements of an array, by 32-bit offsets

_enabled = contextvars.ContextVar("fused", default=True)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is traced meanwhile keeps the layers apart, such as a program for other machines.

    A jitted function that has been traced before stays as it is.
    """
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def conv_fire(
    layer: Any,
    neuron: Any,
    x: Num[Array, "B T H W C"],
    v: Any,
    residual: Num[Array, "B T h w N"] | None = None,
) -> tuple[Num[Array, "B T h w N"], Any]:
    """(spikes, membranes) of `neuron` at the currents `layer(x)`, to which `residual` is added.

    In one kernel where that is possible and pays, and else one after the other. Membranes of the
    neurons that it has are zero at rest. What is one kernel has no second derivative and no forward
    mode: trace a program that needs them under `apart`.

    Args:
      layer: such as a `ConvBN`.
      v: as for `neurons.fire`, with the same error.
    """

    def plain(x, v, residual, *_):
        currents = layer(x)
        return fire(neuron, currents if residual is None else currents + residual, v)

    wanted = _enabled.get() and not jax.config.jax_enable_x64 and _gpu()
    if wanted and fused_training.computes(layer, neuron, x, v, residual):
        how = fused_training.How(neuron, layer.bn.epsilon, PLATFORM, INTERPRET)
        return fused_training.in_training(layer, x, residual, how)
    block = _block_for(layer, neuron, x, v) if wanted else None
    if block is None:
        return plain(x, v, residual)
    if not isinstance(v, Renewed):
        v = Renewed(v, jnp.zeros(v.shape[1:], v.dtype), jnp.zeros(len(v), bool))

    def one(x, v, residual, kernel, scale, shift):
        spikes, after = fused(
            x[:, 0],
            kernel,
            scale,
            shift,
            v,
            None if residual is None else residual[:, 0],
            neuron=neuron,
            stride=layer.conv.strides,
            block=block,
            interpret=INTERPRET,
        )
        return spikes[:, None], after

    weights = layer.conv.kernel[...], *layer.running()
    ways = {PLATFORM: one, "default": plain}
    return lax.platform_dependent(x, v, residual, *weights, **ways)


@functools.cache
def _gpu() -> bool:
    """Whether the kernel pays here."""
    if triton is None:
        return False
    try:
        return jax.local_devices(backend="cuda")[0].compute_capability in COMPUTE_CAPABILITIES
    except RuntimeError:  # there is none
        return False


def _block_for(layer: Any, neuron: Any, x: Array, v: Any) -> Block | None:
    """How the kernel is divided; None where it does not compute such a layer."""
    if not (type(layer) is ConvBN and fused_training.understands(neuron) and v is not None):
        return None
    kernel = layer.conv.kernel[...]
    kinds = (x.dtype, kernel.dtype, neuron.spike_dtype, jnp.dtype(layer.conv.dtype))
    if kinds != ("int8", "int8", "int8", "bfloat16") or x.shape[1] != 1:
        return None
    if kernel.shape[:2] != (3, 3):
        return None
    sides = [-(-side // layer.conv.strides) for side in x.shape[2:4]]
    pixels, features = len(x) * sides[0] * sides[1], kernel.shape[-1]
    if not 0 < max(x.size, pixels * features) <= LARGEST:
        return None
    return block_for(pixels, features, x.shape[-1])


def block_for(pixels: int, features: int, channels: int) -> Block | None:
    """How the layer is divided, None where no block divides it.

    Args:
      pixels: of the output, of all images.
      features, channels: of the output and the input.
    """
    fits = [
        block
        for block in BLOCKS
        if not (pixels % block.pixels or features % block.features or channels % block.depth)
    ]
    for block in fits:
        if pixels // block.pixels * (features // block.features) >= PROGRAMS:
            return block
    return fits[-1] if fits else None


def fused(
    x: Int8[Array, "B H W C"],
    kernel: Int8[Array, "3 3 C N"],
    scale: Float[Array, "N"],
    shift: Float[Array, "N"],
    v: Renewed,
    residual: Num[Array, "B h w N"] | None = None,
    *,
    neuron: LIF,
    stride: int = 1,
    block: Block,
    interpret: bool = False,
) -> tuple[Int8[Array, "B h w N"], BFloat16[Array, "B h w N"]]:
    """(spikes, membranes) of a 3x3 layer and one tick of its neurons.

    Args:
      x: spikes.
      scale, shift: of the sums, as of `ConvBN.running`.
      v: membranes, at rest zero.
      residual: added to the currents, in bfloat16.
      block: one of `block_for`.
      interpret: without a GPU, slowly.
    """
    batch, height, width, channels = x.shape
    old, shape = v.old, v.old.shape
    features = shape[-1]
    pixels = batch * shape[1] * shape[2]
    flat = old.reshape(pixels, features)
    operands = [
        x.reshape(-1, channels),
        kernel.transpose(3, 0, 1, 2).reshape(features, -1),
        scale,
        shift,
        v.fresh.astype(jnp.int8),
        flat,
    ]
    if residual is not None:
        operands.append(residual.reshape(pixels, features))
    body = functools.partial(
        _body,
        sides=(height, width, *shape[1:3]),
        channels=channels,
        stride=stride,
        block=block,
        neuron=neuron,
    )
    spikes, after = pl.pallas_call(
        body,
        out_shape=(
            jax.ShapeDtypeStruct(flat.shape, jnp.int8),
            jax.ShapeDtypeStruct(flat.shape, flat.dtype),
        ),
        # Programs of the same pixels are neighbours, so that their spikes are read once.
        grid=(features // block.features, pixels // block.pixels),
        input_output_aliases={5: 1},  # membranes are replaced where they are
        compiler_params=triton.CompilerParams(num_warps=block.warps, num_stages=block.stages),
        interpret=interpret,
    )(*operands)
    return spikes.reshape(shape), after.reshape(shape)


def _body(*refs, sides, channels, stride, block, neuron):
    """The pixels and output channels of a block; Triton's dialect of JAX."""
    x_ref, w_ref, scale_ref, shift_ref, fresh_ref, v_ref, *residual_ref, spikes_ref, after_ref = (
        refs
    )
    height, width, h, w = sides
    first = pl.program_id(0) * block.features
    rows = pl.program_id(1) * block.pixels + jnp.arange(block.pixels, dtype=jnp.int32)
    image, y, x = _div(rows, h * w), _rem(_div(rows, w), h) * stride, _rem(rows, w) * stride
    origin = (image * height + y) * width + x
    each = channels // block.depth  # steps of a tap of the window

    def add(step, sums):
        tap, start = _div(step, each), _rem(step, each) * block.depth
        down, right = _div(tap, 3) - 1, _rem(tap, 3) - 1
        inside = (y + down >= 0) & (y + down < height) & (x + right >= 0) & (x + right < width)
        at = jnp.where(inside, origin + down * width + right, 0)
        within = start + jnp.arange(block.depth, dtype=jnp.int32)
        a = triton.load(x_ref.at[at[:, None], within[None]], mask=inside[:, None], other=0)
        b = triton.load(
            w_ref.at[pl.ds(first, block.features), pl.ds(tap * channels + start, block.depth)]
        )
        return sums + lax.dot_general(
            a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
        )

    sums = jnp.zeros((block.pixels, block.features), jnp.int32)
    sums = lax.fori_loop(0, 9 * each, add, sums)
    columns = pl.ds(first, block.features)
    tile = (pl.ds(pl.program_id(1) * block.pixels, block.pixels), columns)
    scale, shift = triton.load(scale_ref.at[columns]), triton.load(shift_ref.at[columns])
    currents = (sums.astype(jnp.float32) * scale[None] + shift[None]).astype(jnp.bfloat16)
    if residual_ref:
        currents += triton.load(residual_ref[0].at[tile]).astype(jnp.bfloat16)
    kept = triton.load(fresh_ref.at[image]) == 0
    v = triton.load(v_ref.at[tile], mask=jnp.broadcast_to(kept[:, None], sums.shape), other=0)
    after, spikes = neuron.tick(v, currents)
    triton.store(spikes_ref.at[tile], spikes)
    triton.store(after_ref.at[tile], after)


def _div(x, by: int):
    return lax.div(x, jnp.int32(by))  # Triton's dialect does not divide by Python's numbers


def _rem(x, by: int):
    return lax.rem(x, jnp.int32(by))
