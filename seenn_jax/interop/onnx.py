"""One tick of a loaded run as an ONNX graph, for ONNX Runtime and what else takes one.

The operations are those that JAX traces for a CPU, one by one, with the same constants; a layer of
neurons is a handful of elementwise ones. What is called is put in its place, a scan of one tick
too, so that the graph has neither functions nor loops.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax.errors import UserError, needed
from seenn_jax.interop.onnx_operations import OPERATIONS, VIEWS
from seenn_jax.interop.stablehlo import tick_of
from seenn_jax.paths import check_new, put
from seenn_jax.run.inference import Predictor

OPSET, IR_VERSION = 17, 8  # of 2022, which all runtimes know
CALLED = ("jaxpr", "call_jaxpr")  # under which operations have what they call


def write_tick(path: str | Path, run: Predictor, slots: int = 1) -> None:
    """Write one tick: `images, fresh, membrane_0, ... -> logits, next_0, ...`.

    Images are uint8 [slots, H, W, C], `fresh` booleans [slots]: where one is set, the membranes are
    those at rest, whatever is given. `next_0` is the membrane to give at the next tick. Logits
    [slots, K] are of this tick alone, to be summed.

    Args:
      path: of a new file.
      run: of `seenn_jax.load`, in float32 or int8.
      slots: samples at a time.

    Raises:
      UserError: the file exists or can't be written; onnx is not installed; no slots; a run in
        bfloat16, or with an operation that is not in `OPERATIONS`.
    """
    path = Path(path)
    check_new("onnx", path)
    library()
    if run.config.model.dtype == "bfloat16":
        raise UserError(
            "the network computes in bfloat16, in which ONNX Runtime has no convolutions: give "
            "`precision`=float32"
        )
    tick, arguments = tick_of(run, slots)
    count = len(arguments) - 2
    inputs = ["images", "fresh", *(f"membrane_{i}" for i in range(count))]
    outputs = ["logits", *(f"next_{i}" for i in range(count))]
    about = {
        "timesteps": run.timesteps,
        "classes": run.facts.names,
        "logits": "of each tick, to be summed over ticks",
    }
    put(path, graph_of(tick, arguments, inputs, outputs, about).SerializeToString())


def library() -> Any:
    """The package onnx.

    Raises:
      UserError: it is not installed.
    """
    return needed("ONNX", "onnx")


def graph_of(
    function: Callable,
    arguments: Sequence[jax.ShapeDtypeStruct],
    inputs: Sequence[str],
    outputs: Sequence[str],
    about: dict[str, Any],
) -> Any:
    """The `onnx.ModelProto` of a function of arrays that returns arrays.

    Args:
      inputs, outputs: their names.
      about: metadata, each written in JSON.

    Raises:
      UserError: an operation that is not in `OPERATIONS`.
    """
    onnx = library()
    traced, graph = jax.make_jaxpr(function)(*arguments), Graph(onnx)
    found = graph.run(traced, [Tensor(name) for name in inputs])
    for name, value in zip(outputs, found, strict=True):
        graph.nodes.append(onnx.helper.make_node("Identity", [graph.name(value)], [name]))

    def described(names, avals):
        return [
            onnx.helper.make_tensor_value_info(name, graph.type(aval.dtype), aval.shape)
            for name, aval in zip(names, avals, strict=True)
        ]

    whole = onnx.helper.make_graph(
        graph.nodes,
        "tick",
        described(inputs, traced.in_avals),
        described(outputs, traced.out_avals),
        graph.constants,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    return model


class Tensor(str):
    """The name of what is computed when the graph runs; anything else is a constant."""


class Graph:
    """Nodes and constants, as they are added."""

    def __init__(self, onnx: Any):
        self.onnx, self.nodes, self.constants = onnx, [], []
        self._kept: dict[tuple, str] = {}  # names of constants, by what they are

    def type(self, dtype: Any) -> int:
        """As ONNX numbers it; bfloat16, which spikes are averaged in and exact, is float32."""
        dtype = np.dtype(np.float32 if dtype == jnp.bfloat16 else dtype)
        return self.onnx.helper.np_dtype_to_tensor_dtype(dtype)

    def name(self, value: Any, shrunk: bool = False) -> str:
        """How a node names a value.

        Args:
          shrunk: a constant may have 1 where it repeats itself along an axis.
        """
        if isinstance(value, Tensor):
            return value
        array = np.asarray(value, np.float32 if value.dtype == jnp.bfloat16 else None)
        if shrunk:
            array = array[tuple(slice(None) if step else slice(1) for step in array.strides)]
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._kept:
            self._kept[key] = f"constant_{len(self._kept)}"
            whole = array.copy(order="C")
            self.constants.append(self.onnx.numpy_helper.from_array(whole, self._kept[key]))
        return self._kept[key]

    def add(self, kind: str, *values: Any, shrunk: bool = False, **attributes: Any) -> Tensor:
        """What a node of one output puts out."""
        out = Tensor(f"{kind.lower()}_{len(self.nodes)}")
        names = [self.name(value, shrunk) for value in values]
        self.nodes.append(self.onnx.helper.make_node(kind, names, [out], **attributes))
        return out

    def run(self, traced: Any, values: Sequence[Any]) -> list[Any]:
        """The results of a closed jaxpr; what is known is computed at once."""
        jaxpr = traced.jaxpr
        known = dict(zip(jaxpr.constvars, map(np.asarray, traced.consts), strict=True))
        known |= dict(zip(jaxpr.invars, values, strict=True))

        def read(variable):
            if hasattr(variable, "val"):  # a number in the program
                return np.asarray(variable.val, variable.aval.dtype)
            return known[variable]

        for equation in jaxpr.eqns:
            found = self._results(equation, [read(each) for each in equation.invars])
            known |= dict(zip(equation.outvars, found, strict=True))
        return [read(each) for each in jaxpr.outvars]

    def _results(self, equation: Any, values: list[Any]) -> Sequence[Any]:
        kind, params = equation.primitive.name, equation.params
        avals = [each.aval for each in equation.outvars]
        if all(0 in aval.shape for aval in avals):
            return [np.zeros(aval.shape, aval.dtype) for aval in avals]
        if kind == "platform_index":
            platforms = params["platforms"]  # of each branch, None for every other platform
            fits = [each is None or (None not in platforms and "cpu" in each) for each in platforms]
            return [np.int32(fits.index(True))]
        if kind == "cond" and not isinstance(values[0], Tensor):
            return self.run(params["branches"][int(values[0])], values[1:])
        if kind == "scan" and params["length"] == 1:
            return self._one_step(equation, values)
        if kind in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat"):
            called = next(params[name] for name in CALLED if name in params)
            return self.run(called, values)
        if kind not in VIEWS and not any(isinstance(x, Tensor) for x in values):
            found = equation.primitive.bind(*values, **params)
            return [*map(np.asarray, found if equation.primitive.multiple_results else [found])]
        if kind in OPERATIONS:
            return OPERATIONS[kind](self, equation, *values)
        raise UserError(
            f"the network has the operation {kind!r}, which is not written as ONNX: add a row to "
            "interop.onnx_operations.OPERATIONS, or export it as StableHLO"
        )

    def _one_step(self, equation: Any, values: list[Any]) -> list[Any]:
        """A scan of length 1; what it scans, and what it stacks, has an axis more outside."""
        inner = equation.params["jaxpr"]

        def brought(values, old, new):
            return [
                x if a.shape == b.shape else self.reshaped(x, b.shape)
                for x, a, b in zip(values, old, new, strict=True)
            ]

        given, wanted = ([x.aval for x in part] for part in (equation.invars, equation.outvars))
        found = self.run(inner, brought(values, given, inner.in_avals))
        return brought(found, inner.out_avals, wanted)

    def reshaped(self, value: Any, shape: Sequence[int]) -> Any:
        """A value in another shape."""
        if not isinstance(value, Tensor):
            return value.reshape(shape)
        return self.add("Reshape", value, np.array(shape, np.int64))
