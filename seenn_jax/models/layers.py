"""Layers without state in time: they see all ticks of a [B, T, H, W, C] tensor at once."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Format, Layout
from jaxtyping import Array, Float, Num

from seenn_jax.models.neurons import fire, own

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
FEW_CHANNELS = 4
FEW_PIXELS = 4  # of a map, for which XLA's convolution on a CPU is slow
# On a CPU more images than these, ticks counted, are trained faster by sums of another order. For
# as few as in a batch of digits it stays, so that the networks do that were trained before.
MANY_IMAGES = 512
CONVOLUTION = "convolution"  # the name of their results, for `jax.checkpoint`


def convolve(x, kernel, strides, padding, precision=None, **options):
    """2-D convolution, channels last; see `_kernel_gradient` for why it has its own derivative."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=CHANNELS_LAST,
        precision=precision,
        **options,
    )


def _kernel_gradient(x, kernel, strides, padding, precision, g):
    """The kernel's cotangent, as one matrix product per kernel position.

    XLA's CPU backend runs this convolution about 16 times slower than the forward one; as nine
    shifted matrix products a 3x3 convolution trains about four times faster there.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = g.shape[1:3]

    def at(i, j):
        limits = (x.shape[0], i + (height - 1) * strides[0] + 1, j + (width - 1) * strides[1] + 1)
        window = lax.slice(x, (0, i, j, 0), (*limits, x.shape[3]), (1, *strides, 1))
        if len(x) <= MANY_IMAGES:
            return jnp.einsum("nhwi,nhwo->io", window, g, precision=precision)
        # Without the barrier XLA transposes each window, which takes longer than the product.
        pixels = lax.optimization_barrier(window.reshape(-1, x.shape[3]))
        return jnp.matmul(pixels.T, g.reshape(-1, g.shape[3]), precision=precision)

    rows, columns = kernel.shape[:2]
    return jnp.stack([jnp.stack([at(i, j) for j in range(columns)]) for i in range(rows)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, padding, precision):
    on_cpu, elsewhere = _ways(x, kernel, strides, padding, precision)
    return _by_platform(on_cpu, elsewhere, x, kernel)


def _convolve_forward(x, kernel, strides, padding, precision):
    return _convolve(x, kernel, strides, padding, precision), (x, kernel)


def _convolve_backward(strides, padding, precision, residuals, g):
    x, kernel = residuals
    on_cpu, elsewhere = _ways(x, kernel, strides, padding, precision)

    def of_input(way):
        return lambda x, kernel, g: jax.linear_transpose(lambda x: way(x, kernel), x)(g)[0]

    def transposed(x, kernel, g):
        return jax.linear_transpose(lambda kernel: elsewhere(x, kernel), kernel)(g)[0]

    def shifted(x, kernel, g):
        return _kernel_gradient(x, kernel, strides, padding, precision, g)

    of_x = [of_input(way) for way in dict.fromkeys((on_cpu, elsewhere))]
    dx = _by_platform(of_x[0], of_x[-1], x, kernel, g)
    return dx, _by_platform(shifted, transposed, x, kernel, g)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _ways(x, kernel, strides, padding, precision):
    """(how training convolves on a CPU, how elsewhere), each `(x, kernel) -> sums`."""
    how = {"strides": strides, "padding": padding, "precision": precision}
    elsewhere = functools.partial(convolve, **how)
    if len(x) <= MANY_IMAGES or not _gives_few_pixels(x, kernel, strides):
        return elsewhere, elsewhere
    return functools.partial(_convolve_few, **how), elsewhere


def _by_platform(on_cpu, elsewhere, *operands):
    if on_cpu is elsewhere:
        return elsewhere(*operands)
    return lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


def _gives_few_pixels(x, kernel, strides):
    """Whether a convolution, not one of single pixels, gives a small map."""
    sides = (-(-side // stride) for side, stride in zip(x.shape[1:3], strides, strict=True))
    return kernel.shape[0] > 1 and math.prod(sides) <= FEW_PIXELS


def _convolve_few(x, kernel, strides, padding, precision):
    """A convolution as one matrix product of the pixels under its window.

    The libraries' convolutions waste most of their work on 2 or 3 channels, and XLA's on a CPU on
    maps of 2x2.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns, features, out_features = kernel.shape
    height = (x.shape[1] - rows) // strides[0] + 1
    width = (x.shape[2] - columns) // strides[1] + 1
    windows = [
        x[:, i : i + height * strides[0] : strides[0], j : j + width * strides[1] : strides[1]]
        for i in range(rows)
        for j in range(columns)
    ]
    depth = rows * columns * features
    missing = -depth % 8  # matrix units want multiples of 8
    windows.append(jnp.zeros((len(x), height, width, missing), x.dtype))
    flat = jnp.pad(kernel.reshape(depth, out_features), ((0, missing), (0, 0)))
    return jnp.matmul(jnp.concatenate(windows, -1), flat, precision=precision)


def _laid_out(kernel: Num[Array, "h w C D"]) -> Num[Array, "h w C D"]:
    """The same numbers in the order in which a GPU's convolutions read them.

    Else each call of a program would transpose them first. Not for several devices: an array that
    goes from one to another keeps the name of its order alone (jax 0.10).
    """
    alone = jax.default_backend() == "gpu" and jax.device_count() == 1
    if isinstance(kernel, jax.core.Tracer) or not alone:
        return kernel
    kernel = jnp.asarray(kernel)
    return jax.device_put(kernel, Format(Layout((3, 0, 1, 2)), kernel.sharding))


class ConvBN(nnx.Module):
    """Convolution and BatchNorm with statistics shared over batch and time (tdBN, no scaling).

    Maps Float[Array, "B T H W C"] to Float[Array, "B T H' W' C'"]; padding is symmetric, k // 2,
    as in PyTorch, and unlike "SAME" at stride 2.

    The convolution's result is rounded to the activations' dtype; the bias and BatchNorm follow in
    float32, in training and in inference alike. Folded into the kernel they would be rounded with
    it, before or after the bias is added, as the compiler likes: in bfloat16 an answer would then
    depend on the program and on the size of its batch.
    """

    def __init__(
        self, in_features, out_features, kernel_size=3, stride=1, *, bias=False, dtype, rngs
    ):
        # It holds the kernel and the bias, and is not called.
        self.conv = nnx.Conv(
            in_features,
            out_features,
            (kernel_size, kernel_size),
            stride,
            padding=kernel_size // 2,
            use_bias=bias,
            dtype=dtype,
            kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
            rngs=rngs,
        )
        # No dtype here: statistics and normalisation in float32 whatever the activations are.
        self.bn = nnx.data(nnx.BatchNorm(out_features, momentum=0.9, epsilon=1e-5, rngs=rngs))
        self.affine = nnx.data(None)  # (scale, shift) of each output channel, once frozen

    def __call__(self, x):
        """Run all ticks of `x`."""
        y = self.products(x)
        if self.affine is not None or self.bn.use_running_average:
            scale, shift = self.running()
            y = y * scale + shift
        else:
            y = self.bn(y if self.conv.bias is None else y + self.conv.bias[...])
        return y.astype(self.conv.dtype)

    def products(self, x):
        """What the convolution gives, of all ticks of `x`."""
        y = self._products(x.reshape(-1, *x.shape[2:]))
        return checkpoint_name(y.reshape(*x.shape[:2], *y.shape[1:]), CONVOLUTION)

    def _products(self, x):
        """The convolution; of a quantised layer exact sums in int32, as float32."""
        kernel, strides = self.conv.kernel[...], (self.conv.strides,) * 2
        padding = ((self.conv.padding,) * 2,) * 2
        if kernel.dtype == jnp.int8:
            sums = convolve(x, kernel, strides, padding, preferred_element_type=jnp.int32)
            return sums.astype(jnp.float32)
        dtype = self.conv.dtype
        # float32 means float32: no TF32 on GPUs, no bfloat16 passes on TPUs.
        precision = None if dtype == jnp.bfloat16 else lax.Precision.HIGHEST
        product = _convolve_few if x.shape[-1] <= FEW_CHANNELS else _convolve
        how = {"strides": strides, "padding": padding, "precision": precision}
        product, x, kernel = (
            functools.partial(product, **how),
            x.astype(dtype),
            kernel.astype(dtype),
        )
        # In training only of many images, see `MANY_IMAGES`.
        if self.affine is not None and _gives_few_pixels(x, kernel, strides):
            few = functools.partial(_convolve_few, **how)
            return lax.platform_dependent(x, kernel, cpu=few, default=product)
        return product(x, kernel)

    def running(self) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        """(scale, shift) of the bias and BatchNorm with its running statistics."""
        if self.affine is not None:
            return tuple(part[...] for part in self.affine)
        scale = self.bn.scale[...] * lax.rsqrt(self.bn.var[...] + self.bn.epsilon)
        bias = 0 if self.conv.bias is None else self.conv.bias[...]
        return scale, self.bn.bias[...] + (bias - self.bn.mean[...]) * scale

    def freeze(self) -> None:
        """Prepare for inference: compute once what does not depend on the input."""
        self.affine = nnx.data(tuple(map(nnx.Param, self.running())))
        self.conv.kernel = nnx.Param(_laid_out(self.conv.kernel[...].astype(self.conv.dtype)))
        self.conv.bias, self.bn = nnx.data(None), nnx.data(None)

    def quantize(self) -> None:
        """Round the kernel to int8, symmetrically with one scale per output channel, and freeze.

        The layer then takes int8 spikes: their products are summed exactly, in int32.
        """
        kernel, (scale, shift) = self.conv.kernel[...], self.running()
        step = jnp.maximum(jnp.max(jnp.abs(kernel), (0, 1, 2)), 1e-12) / 127
        self.freeze()
        self.affine = nnx.data((nnx.Param(scale * step), nnx.Param(shift)))
        self.conv.kernel = nnx.Param(_laid_out(jnp.round(kernel / step).astype(jnp.int8)))


class Shortcut(nnx.Module):
    """Average pool (stride), 1x1 convolution, BatchNorm: where a block changes the shape.

    An incomplete window at the border of an odd map is filled up with its edge, so that the sizes
    are those of a strided convolution. `largest` is as of `average_pool`.
    """

    def __init__(self, in_features, out_features, stride, *, largest=127, dtype, rngs):
        self.stride, self.largest = stride, largest
        self.projection = ConvBN(in_features, out_features, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        """Run all ticks of `x`."""
        rows, columns = (-size % self.stride for size in x.shape[2:4])
        if rows or columns:
            x = jnp.pad(x, ((0, 0), (0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
        return self.projection(average_pool(x, self.stride, self.largest))


class Hidden(nnx.Module):
    """Linear layers with neurons, before the read-out; carries their membranes.

    Maps Float[Array, "B T N"] to Float[Array, "B T M"].

    Args:
      in_features: N.
      sizes: neurons of each layer; M is the last.
    """

    def __init__(self, in_features, sizes, *, neuron, dtype, rngs):
        self.dtype = dtype
        widths = [in_features, *sizes]
        pairs = itertools.pairwise(widths)
        self.linears = nnx.List([linear(n, m, rngs=rngs) for n, m in pairs])
        self.neurons = nnx.List([own(neuron) for _ in sizes])

    def __call__(self, x, membranes=None):
        """Return (spikes, membranes) of all ticks of `x`, from `membranes` (None: at rest)."""
        after = []
        membranes = (None,) * len(self.linears) if membranes is None else membranes
        for layer, neuron, v in zip(self.linears, self.neurons, membranes, strict=True):
            x, v = fire(neuron, layer(x).astype(self.dtype), v)
            after.append(v)
        return x, tuple(after)

    def replace_neurons(self, replace) -> None:
        """As of a network."""
        for index, neuron in enumerate(self.neurons):
            self.neurons[index] = replace(f"hidden.neurons.{index}", neuron)


def hidden_layers(in_features, width, multiples, **kinds) -> tuple[Hidden | None, int]:
    """(layers of `width` times these neurons, or None; what the read-out gets), as `Hidden`."""
    if not multiples:
        return None, in_features
    sizes = [width * multiple for multiple in multiples]
    return Hidden(in_features, sizes, **kinds), sizes[-1]


def average_pool(
    x: Num[Array, "B T H W C"], size: int, largest: int = 127
) -> Num[Array, "B T h w C"]:
    """Mean over non-overlapping `size` x `size` windows; an incomplete border is left out.

    Args:
      largest: number in `x`, where that is of integers. Of small ones the mean is in bfloat16,
        which is exact there: it has all integers up to 256, and their quarters.
    """
    if size > 1 and jnp.issubdtype(x.dtype, jnp.integer):
        x = x.astype(jnp.bfloat16 if largest * size**2 <= 256 else jnp.float32)
    return x if size == 1 else nnx.avg_pool(x, (size, size), strides=(size, size))


@jax.custom_vjp
def _max_pool(x):
    integer = jnp.issubdtype(x.dtype, jnp.integer)
    lowest = np.asarray(jnp.iinfo(x.dtype).min if integer else -jnp.inf, x.dtype)
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides)


def _max_pool_forward(x):
    y = _max_pool(x)
    return y, (x, y)


def _max_pool_backward(residuals, g):
    """To the first of the largest in each window, as in PyTorch; the same in every run on a GPU."""
    x, y = residuals
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    spans, sizes = [2 * side - 1 for side in y.shape[1:3]], padded.shape[1:3]
    zero, taken, total = jnp.zeros((), g.dtype), jnp.zeros(y.shape, bool), 0
    for i, j in itertools.product(range(3), range(3)):
        window = padded[:, i : i + spans[0] : 2, j : j + spans[1] : 2]
        first = (window == y) & ~taken
        taken |= first
        around = [
            (begin, size - begin - span, 1)
            for begin, size, span in zip((i, j), sizes, spans, strict=True)
        ]
        total += lax.pad(jnp.where(first, g, zero), zero, ((0, 0, 0), *around, (0, 0, 0)))
    return (total[:, 1:-1, 1:-1],)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(x: Num[Array, "B T H W C"]) -> Num[Array, "B T h w C"]:
    """The largest of 3x3 windows at stride 2, padded by 1; of spikes, whether one is there."""
    y = _max_pool(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def linear(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """The read-out. Logits are computed in float32 whatever the activations are."""
    return nnx.Linear(in_features, out_features, precision=lax.Precision.HIGHEST, rngs=rngs)
