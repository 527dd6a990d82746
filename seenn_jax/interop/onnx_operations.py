"""JAX's operations in ONNX's, by their name: `(graph, equation, *values) -> results`.

A value is a `Tensor`, or an array that is known. Where all are known an operation is no node; those
of `VIEWS` are asked for it, so that what repeats itself takes no more room.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from seenn_jax.errors import UserError

CHANNELS_FIRST = (0, 3, 1, 2)


def _elementwise(kind: str) -> Callable:
    """One node, where constants may be repeated along an axis."""

    def write(graph, equation, *values):
        return [graph.add(kind, *values, shrunk=True)]

    return write


def _same(graph: Any, equation: Any, *values: Any) -> Sequence[Any]:
    return values


def _known(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _cast(graph: Any, equation: Any, x: Any) -> list[Any]:
    dtype = np.dtype(equation.params["new_dtype"])
    return [
        x.astype(dtype, copy=False) if _known(x) else graph.add("Cast", x, to=graph.type(dtype))
    ]


def _reshape(graph: Any, equation: Any, x: Any) -> list[Any]:
    return [graph.reshaped(x, equation.outvars[0].aval.shape)]


def _broadcast(graph: Any, equation: Any, x: Any) -> list[Any]:
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    sides = equation.invars[0].aval.shape
    aligned = [1] * len(shape)
    for axis, side in zip(axes, sides, strict=True):
        aligned[axis] = side
    x = graph.reshaped(x, aligned)
    if _known(x):
        return [np.broadcast_to(x, shape)]
    return [x if tuple(aligned) == shape else graph.add("Expand", x, np.array(shape, np.int64))]


def _transpose(graph: Any, equation: Any, x: Any) -> list[Any]:
    order = equation.params["permutation"]
    return [x.transpose(order) if _known(x) else graph.add("Transpose", x, perm=order)]


def _select(graph: Any, equation: Any, which: Any, *cases: Any) -> list[Any]:
    if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
        raise _unknown(equation, "of more than two cases")
    return [graph.add("Where", which, *cases[::-1], shrunk=True)]


def _pad(graph: Any, equation: Any, x: Any, value: Any) -> list[Any]:
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise _unknown(equation, "between pixels, or of less than nothing")
    return [graph.add("Pad", x, np.array([*low, *high], np.int64), value)]


def _slice(graph: Any, equation: Any, x: Any) -> list[Any]:
    params = equation.params
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(starts)
    axes = range(len(starts))
    return [
        graph.add("Slice", x, *(np.array(each, np.int64) for each in (starts, ends, axes, steps)))
    ]


def _concatenate(graph: Any, equation: Any, *values: Any) -> list[Any]:
    shapes = [each.aval.shape for each in equation.invars]
    some = [x for x, shape in zip(values, shapes, strict=True) if 0 not in shape]
    return [graph.add("Concat", *some, axis=equation.params["dimension"]) if some[1:] else some[0]]


def _sum(graph: Any, equation: Any, x: Any) -> list[Any]:
    axes = np.array(equation.params["axes"], np.int64)
    return [graph.add("ReduceSum", x, axes, keepdims=0)]


def _sum_of_windows(graph: Any, equation: Any, x: Any) -> list[Any]:
    """As an average times its size; ONNX pools all axes but two, here the first."""
    params = equation.params
    window, strides = params["window_dimensions"], params["window_strides"]
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    low, high = zip(*params["padding"], strict=True)
    if {*window[:2], *strides[:2]} != {1} or dilations != {1} or any((*low[:2], *high[:2])):
        raise _unknown(equation, "other than over [B, T, H, W, C]")
    pooled = graph.add(
        "AveragePool",
        x,
        kernel_shape=window[2:],
        strides=strides[2:],
        pads=[*low[2:], *high[2:]],
        count_include_pad=1,
    )
    size = np.array(math.prod(window), equation.outvars[0].aval.dtype)
    return [graph.add("Mul", pooled, size)]


def _matmul(graph: Any, equation: Any, x: Any, y: Any) -> list[Any]:
    contracted, batch = equation.params["dimension_numbers"]
    rank = len(equation.invars[0].aval.shape)
    if tuple(contracted) != ((rank - 1,), (0,)) or batch != ((), ()):
        raise _unknown(equation, "other than of rows and a matrix")
    return [graph.add("MatMul", x, y)]


def _convolve(graph: Any, equation: Any, x: Any, kernel: Any) -> list[Any]:
    """Channels first; of integers in float32, in which sums below 2^24 are exact."""
    params = equation.params
    layout = params["dimension_numbers"]
    if (
        (layout.lhs_spec, layout.rhs_spec, layout.out_spec)
        != (CHANNELS_FIRST, (3, 2, 0, 1), CHANNELS_FIRST)
        or params["lhs_dilation"] != (1, 1)
        or params["batch_group_count"] != 1
        or not _known(kernel)
    ):
        raise _unknown(equation, "other than of images [N, H, W, C] and a constant kernel")
    integers = kernel.dtype.kind == "i"
    if integers:
        kernel, x = kernel.astype(np.float32), graph.add("Cast", x, to=graph.type(np.float32))
    low, high = zip(*params["padding"], strict=True)
    y = graph.add(
        "Conv",
        graph.add("Transpose", x, perm=CHANNELS_FIRST),
        kernel.transpose(3, 2, 0, 1),
        strides=params["window_strides"],
        pads=[*low, *high],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    y = graph.add("Transpose", y, perm=(0, 2, 3, 1))
    dtype = equation.outvars[0].aval.dtype
    return [graph.add("Cast", y, to=graph.type(dtype)) if integers else y]


def _round(graph: Any, equation: Any, x: Any) -> list[Any]:
    if equation.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise _unknown(equation, "of halves away from zero")
    return [graph.add("Round", x)]


def _clamp(graph: Any, equation: Any, low: Any, x: Any, high: Any) -> list[Any]:
    return [graph.add("Min", graph.add("Max", x, low, shrunk=True), high, shrunk=True)]


def _unknown(equation: Any, what: str) -> UserError:
    return UserError(
        f"the network has the operation {equation.primitive.name!r} {what}, which is not written "
        "as ONNX: export it as StableHLO"
    )


def _not_equal(graph: Any, equation: Any, x: Any, y: Any) -> list[Any]:
    return [graph.add("Not", graph.add("Equal", x, y, shrunk=True))]


VIEWS = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose")
OPERATIONS: dict[str, Callable] = {
    **{
        name: _elementwise(kind)
        for name, kind in {
            **{"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"},
            **{"max": "Max", "min": "Min", "neg": "Neg", "abs": "Abs", "sign": "Sign"},
            **{"exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt"},
            **{"floor": "Floor", "ceil": "Ceil", "and": "And", "or": "Or", "not": "Not"},
            **{"ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"},
            "eq": "Equal",
        }.items()
    },
    **dict.fromkeys(("name", "copy", "copy_p", "stop_gradient", "optimization_barrier"), _same),
    **dict.fromkeys(("reshape", "squeeze"), _reshape),
    "square": lambda graph, equation, x: [graph.add("Mul", x, x)],
    "ne": _not_equal,
    "round": _round,
    "clamp": _clamp,
    "convert_element_type": _cast,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "select_n": _select,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _concatenate,
    "reduce_sum": _sum,
    "reduce_window_sum": _sum_of_windows,
    "dot_general": _matmul,
    "conv_general_dilated": _convolve,
}
