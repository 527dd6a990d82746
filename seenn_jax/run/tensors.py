"""A network as tensors by name, and back; kernels may be stored in fewer bits.

Names are dotted paths, as in a checkpoint ("stem.conv.kernel"). A kernel in int8 has a float32
scale per output channel beside it, by the name of the kernel and ".scale".
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models.layers import ConvBN
from seenn_jax.run.checkpoints import named

Tensors = dict[str, np.ndarray]
DTYPES = ("float32", "bfloat16", "int8")  # of kernels; all else is float32
SCALE = ".scale"


def of_model(model: nnx.Module, dtype: str = "float32") -> Tensors:
    """Parameters and BatchNorm statistics.

    Args:
      dtype: one of `DTYPES`, of the convolutions that spikes go into: nearly all of a network.
    """
    tensors, narrow = {}, set() if dtype == "float32" else _spike_kernels(model)
    for state in _split(model)[1]:
        for name, leaf in named(state).items():
            tensor = np.asarray(leaf, np.float32)
            if name not in narrow:
                tensors[name] = tensor
            elif dtype == "int8":
                tensors[name], tensors[name + SCALE] = _in_int8(tensor)
            else:
                tensors[name] = tensor.astype(jnp.dtype(dtype))
    return tensors


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, Iterable]:
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, states


def _spike_kernels(model: nnx.Module) -> set[str]:
    layers = {id(layer.conv) for layer in model.spike_layers() if isinstance(layer, ConvBN)}
    paths = (path for path, module in nnx.iter_graph(model) if id(module) in layers)
    return {".".join(map(str, (*path, "kernel"))) for path in paths}


def _in_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kernel, scale of each output channel), rounded symmetrically as `ConvBN.quantize` does."""
    inputs = tuple(range(kernel.ndim - 1))
    scale = np.maximum(np.abs(kernel).max(inputs), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(kernel / scale).astype(np.int8), scale


def widened(tensors: Tensors) -> Tensors:
    """The same in float32."""
    wide = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in tensors:
            continue
        scale = tensors[name + SCALE] if tensor.dtype == np.int8 else np.float32(1)
        wide[name] = tensor.astype(np.float32) * scale
    return wide


def to_model(template: nnx.Module, tensors: Tensors, where: str) -> nnx.Module:
    """A network like `template` with these parameters and statistics, in float32.

    Args:
      template: a network, of which nothing but its structure and shapes is used.
      tensors: as of `of_model`.
      where: they come from, in words.

    Raises:
      UserError: names or shapes are others than those of the network.
    """
    graph, states = _split(template)
    leaves = [named(state) for state in states]
    wanted = {name: leaf for each in leaves for name, leaf in each.items()}
    misfit = differing(tensors, wanted)
    if misfit:
        raise UserError(
            f"{where} is of another architecture: {misfit[0]}; get it again, or use the version "
            "that wrote it"
        )
    filled = [
        jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(tensors[name]) for name in each])
        for state, each in zip(states, leaves, strict=True)
    ]
    return nnx.merge(graph, *filled)


def differing(there: dict, wanted: dict) -> list[str]:
    """Where the shapes of arrays by name differ from those of a network, in words."""

    def shape(of, name):
        return f"of shape {tuple(of[name].shape)}" if name in of else "missing"

    return [
        f"{name} is {shape(there, name)} in it and {shape(wanted, name)} in the network"
        for name in sorted(there.keys() | wanted.keys())
        if shape(there, name) != shape(wanted, name)
    ]


def rounded(model: nnx.Module, dtype: str) -> nnx.Module:
    """The network as it comes back from being stored in a dtype."""
    return to_model(model, widened(of_model(model, dtype)), "the network")
