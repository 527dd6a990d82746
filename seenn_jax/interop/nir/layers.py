"""The nodes of NIR without state, as layers of `[B, T, H, W, C]` or `[B, T, N]`.

A row of `LAYERS` makes one: `(node, its name, shape of its input, dtype) -> (layer, shape of its
output)`. Shapes are one sample's, channels first as in NIR.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seenn_jax.errors import UserError
from seenn_jax.interop.nir.neurons import Constant, channels_last
from seenn_jax.models.layers import ConvBN, linear
from seenn_jax.models.neurons import SURROGATES

Shape = tuple[int, ...]


def _misfit(name: str, what: str, shape: Shape) -> UserError:
    return UserError(
        f"node {name!r} takes {what} and is given a signal of shape {shape}: the graph does not "
        "fit together; write it again"
    )


def _array(name: str, field: str, value: Any, axes: int | None = None) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not array.size:
        raise UserError(f"node {name!r} has a {field} without numbers: get the file again")
    array = array.astype(np.float32)
    if axes is not None and array.ndim != axes:
        raise UserError(
            f"node {name!r} has a {field} of {array.ndim} axes, not {axes}: write it again"
        )
    if not np.all(np.isfinite(array)):
        raise UserError(f"node {name!r} has a {field} that is not finite: write the graph again")
    return array


def _pair(name: str, field: str, value: Any, least: int) -> tuple[int, int]:
    """Rows and columns, of one number or two."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iu" or numbers.size not in (1, 2) or numbers.min() < least:
        raise UserError(
            f"node {name!r} has {field} = {value}, which must be one or two whole numbers of at "
            f"least {least}: write the graph again"
        )
    rows, columns = np.broadcast_to(numbers.ravel(), 2)
    return int(rows), int(columns)


def _map(name: str, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise _misfit(name, "a map of shape (channels, height, width)", shape)
    return shape


# --- Convolution ---------------------------------------------------------------------------------


def _convolution(node, name, shape, dtype):
    """A `ConvBN` without BatchNorm where it can be said as one, which int8 and energies know."""
    channels, *sides = _map(name, shape)
    weight = _array(name, "weight", node.weight, 4)
    out, depth, *window = weight.shape
    bias = np.zeros(out) if node.bias is None else _array(name, "bias", node.bias, 1)
    groups = int(_pair(name, "groups", node.groups, 1)[0])
    stride, dilation = (
        _pair(name, field, getattr(node, field), 1) for field in ("stride", "dilation")
    )
    reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    padding = _padding(node, name, reach, stride)
    if depth * groups != channels or out % groups or bias.shape != (out,):
        raise _misfit(name, f"{depth * groups} channels in {groups} group(s) to {out}", shape)
    after = tuple(
        (side + sum(pad) - far - 1) // step + 1
        for side, pad, far, step in zip(sides, padding, reach, stride, strict=True)
    )
    if min(after) < 1:
        raise _misfit(name, f"maps of at least {reach[0] + 1}x{reach[1] + 1}", shape)
    kernel = jnp.asarray(weight.transpose(2, 3, 1, 0))
    step, size = stride[0], window[0]
    usual = (
        stride == (step, step)
        and window == [size, size]
        and dilation == (1, 1)
        and groups == 1
        and padding == [(size // 2, size // 2)] * 2
    )
    if usual:
        layer = _shapes(ConvBN, channels, out, size, step, dtype=dtype)
        layer.conv.kernel, layer.conv.bias = nnx.Param(kernel), nnx.data(None)
        layer.bn = nnx.data(None)  # as it is frozen
        layer.affine = nnx.data((nnx.Param(jnp.ones(out)), nnx.Param(jnp.asarray(bias))))
    else:
        layer = _shapes(
            nnx.Conv,
            channels,
            out,
            tuple(window),
            stride,
            padding=padding,
            kernel_dilation=dilation,
            feature_group_count=groups,
            dtype=dtype,
            precision=lax.Precision.HIGHEST,
        )
        layer.kernel, layer.bias = nnx.Param(kernel), nnx.Param(jnp.asarray(bias, jnp.float32))
    return layer, (out, *after)


def _shapes(make: Callable, *sizes: Any, **options: Any) -> Any:
    """A layer without numbers: drawing them would take longer than reading the file's."""
    return nnx.eval_shape(lambda: make(*sizes, **options, rngs=nnx.Rngs(0)))


def _padding(node, name: str, reach: Sequence[int], stride: Sequence[int]) -> list:
    if not isinstance(node.padding, str):
        return [(each, each) for each in _pair(name, "padding", node.padding, 0)]
    if node.padding == "valid":
        return [(0, 0)] * 2
    if node.padding != "same" or max(stride) > 1:
        raise UserError(
            f"node {name!r} has padding {node.padding!r} at stride {max(stride)}: it must be "
            "'valid', numbers or, without a stride, 'same'; write the graph again"
        )
    return [(far // 2, far - far // 2) for far in reach]  # as PyTorch shares it


# --- Others --------------------------------------------------------------------------------------


def _dense(node, name, shape, dtype):
    weight = _array(name, "weight", node.weight, 2)
    bias = getattr(node, "bias", None)
    bias = np.zeros(len(weight)) if bias is None else _array(name, "bias", bias, 1)
    if shape != weight.shape[1:] or bias.shape != weight.shape[:1]:
        raise _misfit(name, f"{weight.shape[1]} numbers to {len(weight)}", shape)
    layer = _shapes(linear, weight.shape[1], len(weight))
    layer.kernel = nnx.Param(jnp.asarray(weight.T))
    layer.bias = nnx.Param(jnp.asarray(bias, jnp.float32))
    return layer, (len(weight),)


@dataclasses.dataclass(frozen=True)
class Pool:
    """The sum of each window of a map, divided; zeros around it count, as in PyTorch."""

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    divisor: int

    def __call__(self, x):
        """Pool all ticks of `x`."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.bfloat16))
        around = [(0, 0), (0, 0), *((pad, pad) for pad in self.padding), (0, 0)]
        window, strides = (1, 1, *self.window, 1), (1, 1, *self.stride, 1)
        return lax.reduce_window(x, 0.0, lax.add, window, strides, around) / self.divisor


def _pool(average: bool) -> Callable:
    def make(node, name, shape, dtype):
        channels, *sides = _map(name, shape)
        window = _pair(name, "kernel_size", node.kernel_size, 1)
        stride = _pair(name, "stride", node.stride, 1)
        padding = _pair(name, "padding", node.padding, 0)
        each = zip(sides, window, stride, padding, strict=True)
        after = tuple((side + 2 * pad - size) // step + 1 for side, size, step, pad in each)
        if min(after) < 1:
            raise _misfit(name, f"maps of at least {window[0]}x{window[1]}", shape)
        divisor = math.prod(window) if average else 1
        return Pool(window, stride, padding, divisor), (channels, *after)

    return make


@dataclasses.dataclass(frozen=True)
class Flatten:
    """All of a sample in one axis, in the order of channels first."""

    def __call__(self, x):
        """Flatten each tick of `x`."""
        x = jnp.moveaxis(x, -1, 2) if x.ndim == 5 else x
        return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _flatten(node, name, shape, dtype):
    # Files have the axes counted with the batch, without it, or from the end.
    axes = len(shape)
    first, last = (int(np.asarray(dim)) for dim in (node.start_dim, node.end_dim))
    if first not in (0, 1, -axes) or last not in (-1, axes - 1, axes):
        raise UserError(
            f"node {name!r} flattens the axes {first} to {last} of {axes}: only all of them can "
            "be; write the graph so"
        )
    return Flatten(), (math.prod(shape),)


class Scale(nnx.Module):
    """Each number times one of its own, which is learnt."""

    def __init__(self, scale):
        self.scale = nnx.Param(jnp.asarray(scale, jnp.float32))

    def __call__(self, x):
        """Scale all ticks of `x`."""
        return x * self.scale[...].astype(jnp.promote_types(x.dtype, jnp.bfloat16))


class Threshold(nnx.Module):
    """1 above a threshold, else 0, at each tick anew."""

    def __init__(self, above):
        self.threshold = Constant(jnp.asarray(np.nextafter(above, np.float32(np.inf))))

    def __call__(self, x):
        """Compare all ticks of `x`."""
        return SURROGATES["dspike"](x - self.threshold[...].astype(x.dtype))


def _elementwise(make: Callable, field: str) -> Callable:
    def row(node, name, shape, dtype):
        array = _array(name, field, getattr(node, field))
        if array.size == 1:
            return make(array.reshape(())), shape
        if array.shape != shape:
            raise _misfit(name, f"one of shape {array.shape}", shape)
        return make(channels_last(array)), shape

    return row


LAYERS: dict[str, Callable] = {
    "Conv2d": _convolution,
    "Linear": _dense,
    "Affine": _dense,
    "AvgPool2d": _pool(True),
    "SumPool2d": _pool(False),
    "Flatten": _flatten,
    "Scale": _elementwise(Scale, "scale"),
    "Threshold": _elementwise(Threshold, "threshold"),
}
