"""A training step in bfloat16 on a GPU: BatchNorm and LIF neurons in one kernel each way.

XLA runs a layer's neurons tick by tick, and writes each tick's membranes for the gradient. A
program of the kernel, of Pallas for Triton, holds the membranes of its neurons in registers over
all ticks, and the kernel of the gradient computes them again from what the convolution gave. It is
what the layers do, but for the order of sums in float32.

JAX 0.12 deprecates Pallas for Triton. Where a later one has it no more, the layers stay apart.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, BFloat16, Float

from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import LIF, MAX_UNROLL

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton = None  # type: ignore[assignment]

# Which fire as `x >= 0` does, and whose derivatives a kernel can compute.
SURROGATES = ("dspike", "triangle")
WARPS = 4


class Tile(NamedTuple):
    """What a program of the kernels has in registers."""

    pixels: int
    features: int


TILES = (Tile(8, 128), Tile(8, 64), Tile(4, 64))


class Sizes(NamedTuple):
    """Of what a layer gives, its pixels as one axis."""

    batch: int
    ticks: int
    pixels: int
    features: int


class How(NamedTuple):
    """What is not an array.

    Attributes:
      platform: on which the kernels run; elsewhere the same is computed without them.
      interpret: run them without a GPU, slowly.
    """

    neuron: LIF
    epsilon: float
    platform: str
    interpret: bool = False


def tile_for(sizes: Sizes) -> Tile | None:
    """How a layer is divided; None where no tile divides it."""
    for tile in TILES:
        if sizes.pixels % tile.pixels == 0 and sizes.features % tile.features == 0:
            return tile
    return None


def understands(neuron: Any) -> bool:
    """Whether kernels compute such neurons, here and in `fused`."""
    if not (type(neuron) is LIF and isinstance(neuron.tau, float)):
        return False
    # Only so is the product with a membrane exact, whose rounding a compiler may leave out.
    return math.frexp(neuron.tau)[0] == 0.5 and neuron.surrogate in SURROGATES


def computes(layer: Any, neuron: Any, x: Array, v: Any, residual: Array | None) -> bool:
    """Whether the kernels are for such a layer in training, from membranes at rest.

    Not for several devices: XLA would run a kernel for the whole batch on each.
    """
    if not (type(layer) is ConvBN and understands(neuron) and v is None):
        return False
    bn, size = layer.bn, layer.conv.kernel[...].shape[:2]
    if type(bn) is not nnx.BatchNorm or bn.use_running_average:  # none, once it is frozen
        return False
    if bn.scale is None or bn.bias is None or layer.conv.bias is not None:
        return False
    sides = (-(-side // layer.conv.strides) for side in x.shape[2:4])
    shape = (*x.shape[:2], *sides, layer.conv.out_features)
    if residual is not None and (residual.shape, residual.dtype) != (shape, "bfloat16"):
        return False
    odd, small = all(side % 2 for side in size), 0 < shape[1] <= MAX_UNROLL
    kinds = jnp.dtype(layer.conv.dtype), neuron.spike_dtype
    if kinds != ("bfloat16", None) or not (odd and small and math.prod(shape)):
        return False
    sizes = Sizes(shape[0], shape[1], math.prod(shape[2:4]), shape[-1])
    return jax.device_count() == 1 and tile_for(sizes) is not None


def in_training(
    layer: ConvBN, x: Array, residual: Array | None, how: How
) -> tuple[BFloat16[Array, "B T H W C"], BFloat16[Array, "B H W C"]]:
    """(spikes, membranes) of all ticks of `x`; the layer's running statistics follow.

    Args:
      residual: added to the currents, shaped as they are.
    """
    bn, y = layer.bn, layer.products(x)
    spikes, mean, variance = norm_fire(y, bn.scale[...], bn.bias[...], residual, how)
    for kept, new in ((bn.mean, mean), (bn.var, variance)):
        kept[...] = bn.momentum * kept[...] + (1 - bn.momentum) * new
    # Apart, so that the compiler leaves them out where nobody asks for them; with a gradient.
    mean, variance = _statistics(y)
    factor = lax.rsqrt(variance + bn.epsilon) * bn.scale[...]
    return spikes, how.neuron(_currents(y, residual, mean, factor, bn.bias[...]))[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def norm_fire(
    y: BFloat16[Array, "B T *hw C"],
    scale: Float[Array, "C"],
    bias: Float[Array, "C"],
    residual: BFloat16[Array, "B T *hw C"] | None,
    how: How,
) -> tuple[BFloat16[Array, "B T *hw C"], Float[Array, "C"], Float[Array, "C"]]:
    """(spikes, mean, variance) of BatchNorm and neurons at rest; spikes alone have a gradient.

    Args:
      y: what the convolution gives; BatchNorm's statistics are over all but its last axis.
      scale, bias: of BatchNorm.
      residual: added to the currents.
    """
    return _forward(y, scale, bias, residual, how)[0]


def _statistics(y):
    """(mean, variance), as of nnx.BatchNorm."""
    axes, wide = tuple(range(y.ndim - 1)), y.astype(jnp.float32)
    mean = jnp.mean(wide, axes)
    return mean, jnp.maximum(0.0, jnp.mean(lax.square(wide), axes) - lax.square(mean))


def _forward(y, scale, bias, residual, how):
    mean, variance = _statistics(y)
    factor = lax.rsqrt(variance + how.epsilon) * scale
    [spikes] = _run(_fire, _fire_plainly, how, [y, residual], [mean, factor, bias], 0)
    return (spikes, mean, variance), (y, scale, bias, residual, mean, variance)


def _backward(how, kept, cotangents):
    y, scale, bias, residual, mean, variance = kept
    inverse = lax.rsqrt(variance + how.epsilon)
    arrays, rows = [y, residual, cotangents[0]], [mean, inverse * scale, bias]
    g, *sums = _run(_gradient, _gradient_plainly, how, arrays, rows, 2)
    of_bias, of_centred = (part.sum(0) for part in sums)
    of_scale = of_centred * inverse
    count = y.size // y.shape[-1]
    normal = (y.astype(jnp.float32) - mean) * inverse
    of_y = g.astype(jnp.float32) - of_bias / count - normal * (of_scale / count)
    of_y = (of_y * (scale * inverse)).astype(y.dtype)
    return of_y, of_scale, of_bias, None if residual is None else g


norm_fire.defvjp(_forward, _backward)


def _currents(y, residual, mean, factor, bias):
    """BatchNorm as of `ConvBN`, and what is added."""
    found = ((y.astype(jnp.float32) - mean) * factor + bias).astype(y.dtype)
    return found if residual is None else found + residual


def _spikes(neuron, currents):
    """Of each of the ticks, from membranes at rest."""
    v, found = jnp.zeros_like(currents[0]), []
    for current in currents:
        v, spikes = neuron.tick(v, current)
        found.append(spikes)
    return found


def _gradient_of(neuron, currents, g):
    """Of each tick's currents, by that of its spikes."""
    return jax.vjp(functools.partial(_spikes, neuron), currents)[1](g)[0]


def _fire_plainly(y, residual, *rows, neuron):
    """What `_fire` computes."""
    currents = list(jnp.moveaxis(_currents(y, residual, *rows), 1, 0))
    return [jnp.stack(_spikes(neuron, currents), 1)]


def _gradient_plainly(y, residual, g, *rows, neuron):
    """What `_gradient` computes."""
    currents = list(jnp.moveaxis(_currents(y, residual, *rows), 1, 0))
    g = jnp.stack(_gradient_of(neuron, currents, list(jnp.moveaxis(g, 1, 0))), 1)
    wide, centred = (x.astype(jnp.float32).reshape(-1, y.shape[-1]) for x in (g, y))
    return [g, wide, wide * (centred - rows[0])]


def _run(body, plainly, how, arrays, rows, sums):
    """[an array as `y`, and parts of so many sums over it, [any, C]]."""
    y = arrays[0]
    sizes = Sizes(y.shape[0], y.shape[1], math.prod(y.shape[2:-1]), y.shape[-1])
    tile = tile_for(sizes)
    programs = sizes.batch * sizes.pixels // tile.pixels
    flat = (y.size // sizes.features, sizes.features)
    out = [jax.ShapeDtypeStruct(flat, y.dtype)]
    out += [jax.ShapeDtypeStruct((programs, sizes.features), jnp.float32)] * sums
    kernel = pl.pallas_call(
        functools.partial(
            body, sizes=sizes, tile=tile, neuron=how.neuron, adds=arrays[1] is not None
        ),
        out_shape=out,
        grid=(sizes.features // tile.features, programs),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=how.interpret,
    )

    def fused(*operands):
        given = [x if x.ndim == 1 else x.reshape(flat) for x in operands if x is not None]
        first, *parts = kernel(*given)
        return [first.reshape(y.shape), *parts]

    def plain(*operands):
        first, *parts = plainly(*operands, neuron=how.neuron)
        return [first, *(x.reshape(programs, -1, sizes.features).sum(1) for x in parts)]

    return lax.platform_dependent(*arrays, *rows, **{how.platform: fused, "default": plain})


def _loaded(y_ref, added_ref, row_refs, sizes, tile):
    """Of a program (places in each tick, BatchNorm's rows, what the convolution gave, currents)."""
    columns = pl.ds(pl.program_id(0) * tile.features, tile.features)
    program, each = pl.program_id(1), jnp.int32(sizes.pixels // tile.pixels)
    image, first = lax.div(program, each), lax.rem(program, each) * tile.pixels
    places = [
        (pl.ds((image * sizes.ticks + t) * sizes.pixels + first, tile.pixels), columns)
        for t in range(sizes.ticks)
    ]
    rows = [triton.load(ref.at[columns])[None] for ref in row_refs]
    ys = [triton.load(y_ref.at[place]) for place in places]
    added = [None if added_ref is None else triton.load(added_ref.at[place]) for place in places]
    return places, rows, ys, [_currents(y, more, *rows) for y, more in zip(ys, added, strict=True)]


def _fire(y_ref, *refs, sizes, tile, neuron, adds):
    """The kernel of the spikes."""
    added_ref, refs = (refs[0], refs[1:]) if adds else (None, refs)
    *row_refs, out_ref = refs
    places, _, _, currents = _loaded(y_ref, added_ref, row_refs, sizes, tile)
    for place, spikes in zip(places, _spikes(neuron, currents), strict=True):
        triton.store(out_ref.at[place], spikes)


def _gradient(y_ref, *refs, sizes, tile, neuron, adds):
    """The kernel of the currents' gradient: that, and its sums, plain and by what is centred."""
    added_ref, refs = (refs[0], refs[1:]) if adds else (None, refs)
    g_ref, *row_refs, out_ref, plain_ref, centred_ref = refs
    places, rows, ys, currents = _loaded(y_ref, added_ref, row_refs, sizes, tile)
    g = [triton.load(g_ref.at[place]) for place in places]
    found = _gradient_of(neuron, currents, g)
    for place, of_current in zip(places, found, strict=True):
        triton.store(out_ref.at[place], of_current)
    wide = [of_current.astype(jnp.float32) for of_current in found]
    centred = [x * (y.astype(jnp.float32) - rows[0]) for x, y in zip(wide, ys, strict=True)]
    row = (pl.program_id(1), places[0][1])
    for ref, parts in ((plain_ref, wide), (centred_ref, centred)):
        triton.store(ref.at[row], functools.reduce(jnp.add, parts).sum(0))
