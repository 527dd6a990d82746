"""What a network costs: multiply-accumulates (MACs), accumulates (ACs) of spikes, and picojoules.

A layer that receives spikes and nothing else adds a weight to each output that a spike reaches:
one AC, a synaptic operation. A spike at the border, or between the steps of a strided layer,
reaches fewer outputs than one inside; each is counted with those that it does reach. A layer that
receives real numbers (the stem, what follows an average pool, the read-out of an average) costs its
MACs at every timestep, at full density, zero padding included, as they are commonly counted.

Where a network adds spikes (SEW-ResNet, transformers) a sum of 2 counts as two spikes, and so does
a 2 of `ILIF` neurons, whose integers stand for so many binary spikes. Attention has no weights: a
query adds to the sum of its head, or the row of its head to its token; a key adds the values of its
token to that row.

The spikes of a converted network are its threshold lambda times 0 or 1. They count as the spikes
they are: lambda is a constant of the layer and goes into the weights of the next one.

Left out, as is usual: biases and the updates of membranes, averaging, and the additions of a
residual to the currents, at most one a spike where the convolution beside it takes 9 C. A policy
network and an ordinary one (ANN) are dense MACs.

Energies are of arithmetic alone, at 45 nm (Horowitz, ISSCC 2014): 4.6 pJ a MAC and 0.9 pJ an AC,
in 32-bit floating point. What is moved is counted in `memory`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from seenn_jax.errors import UserError
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import run_all
from seenn_jax.models.neurons import IF, neurons_of
from seenn_jax.models.precision import most_spikes

MAC_PICOJOULES = 4.6
AC_PICOJOULES = 0.9
CRITICISM = (
    "Arithmetic alone, at 45 nm: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate. Moving data "
    "is left out of it, which costs more than computing; counted with it, a spiking network beats "
    "a quantised ordinary one only where few of its neurons fire in a timestep (below 6.4 % at 5 "
    "to 10 timesteps: Yan et al., arXiv:2409.08290)."
)

# --- Layer by layer ------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A convolution or the read-out of a network.

    Attributes:
      place: where it is in the model, such as "blocks.0.conv1".
      receives: "pixels" (the stem), "spikes" (and nothing else) or "real numbers".
      macs: of one image and timestep, dense.
    """

    place: str
    receives: str
    macs: int


def layers(model: nnx.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of a network for inference, in the order in which they run.

    Args:
      model: a network of this package, spiking or not.
      image_shape: (height, width, channels) of one input.

    Raises:
      UserError: a layer with too many MACs for `operations` to count in 32 bits, or a convolution
        of another kind than `ConvBN`.
    """
    found, largest = [], _most_spikes(model)

    def see(place, layer, receives, x):
        dense = _dense(layer, x)
        if dense * largest >= 2**31:
            raise UserError(
                f"{place} takes up to {dense * largest:,} operations a timestep, and they are "
                "counted up to 2^31 - 1 a layer: use smaller images or a narrower network"
            )
        found.append(Layer(place, receives, dense))

    graph, state = nnx.split(model)

    def run(state, image):
        run_all(_watched(nnx.merge(graph, state), see), image, 1)

    jax.eval_shape(run, state, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return found


def operations(
    model: nnx.Module, inputs: Float[Array, "..."], timesteps: int
) -> tuple[dict[str, Int[Array, "B T"]], dict[str, Float[Array, "B T"]]]:
    """Run all ticks and count; pure, for use inside jit.

    Args:
      model: a spiking network for inference.
      inputs, timesteps: as for `models.run_all`.

    Returns:
      (synaptic operations of each layer that receives spikes, share of neurons that fire in each
      layer of neurons), by place
    """
    # Ordered as they run, which a plain dict does not stay in where `jit` returns it.
    operations, rates = OrderedDict(), OrderedDict()
    several = _most_spikes(model) > 1

    def see(place, layer, receives, x):
        if receives == "spikes" and _counts(layer):
            operations[place] = layer.operations(x)
        elif receives == "spikes":
            reached = _reached(layer, x.shape[2:])
            count = x.astype(jnp.int32) if several else x != 0
            operations[place] = jnp.sum(count * reached, range(2, x.ndim))

    def record(place, neuron):
        def recorded(currents, v0=None):
            spikes, v = neuron(currents, v0)
            rates[place] = jnp.mean(spikes != 0, range(2, spikes.ndim), dtype=jnp.float32)
            return spikes, v

        return recorded

    model = _watched(model, see)
    model.replace_neurons(record)
    run_all(model, inputs, timesteps)
    return operations, rates


def _watched(model: nnx.Module, see: Callable[[str, Any, str, Array], None]) -> nnx.Module:
    """A copy of `model` that calls `see(place, layer, what it receives, inputs)` as it runs."""
    model = nnx.clone(model)
    spiking = {id(layer) for layer in model.spike_layers()}
    first = True

    def watch(place, layer):
        def watched(x):
            nonlocal first
            receives = "spikes" if id(layer) in spiking else "pixels" if first else "real numbers"
            first = False
            see(place, layer, receives, x)
            return layer(x)

        return watched

    found = [
        (path, module)
        for path, module in nnx.iter_graph(model)
        if isinstance(module, ConvBN | nnx.Linear) or _counts(module)
    ]
    counted = {id(layer.conv) for _, layer in found if isinstance(layer, ConvBN)}
    for path, module in nnx.iter_graph(model):
        if isinstance(module, nnx.Conv) and id(module) not in counted:
            raise UserError(
                f"{'.'.join(map(str, path))} is a convolution whose operations are not counted, "
                "as it is no ConvBN: evaluate without `energy`"
            )
    for path, layer in found:
        *above, last = path
        parent = model
        for key in above:
            parent = parent[key] if isinstance(key, int) else getattr(parent, key)
        watched = watch(".".join(map(str, path)), layer)
        if isinstance(last, int):
            parent[last] = watched
        else:
            setattr(parent, last, watched)
    return model


def _most_spikes(model: nnx.Module) -> int:
    """As `precision.most_spikes`; of a converted network, whose spikes have unlike sizes, 1."""
    converted = any(isinstance(neuron, IF) for neuron in neurons_of(model))
    return 1 if converted else most_spikes(model)


def _counts(layer: Any) -> bool:
    """Whether it says itself what it costs, as attention does."""
    return hasattr(layer, "operations")


def _dense(layer: Any, x: Any) -> int:
    """Multiply-accumulates of one image and timestep of `x`."""
    if _counts(layer):
        return layer.macs(x)
    kernel = layer.conv.kernel if isinstance(layer, ConvBN) else layer.kernel
    return math.prod(kernel.shape) * math.prod(layer(x).shape[2:-1])


def windows(
    sides: Sequence[int], window: int, stride: int = 1, padding: int = 0
) -> Int[np.ndarray, "H W"]:
    """How many windows of a convolution each pixel of a map lies in.

    Args:
      sides: (H, W) of the map.
      window, stride, padding: of the convolution, the same along both sides.
    """

    def along(size):
        begins = np.arange(-padding, size + padding - window + 1, stride)
        pixels = np.arange(size)[:, None]
        return np.sum((begins <= pixels) & (pixels < begins + window), 1, dtype=np.int32)

    rows, columns = map(along, sides)
    return rows[:, None] * columns


def _reached(layer: ConvBN | nnx.Linear, shape: Sequence[int]) -> np.ndarray:
    """Outputs that a spike reaches, of inputs of `shape`, [H, W, 1] or [1]."""
    if isinstance(layer, nnx.Linear):
        return np.full(1, layer.out_features, np.int32)
    conv = layer.conv
    counted = windows(tuple(shape[:2]), conv.kernel_size[0], conv.strides, conv.padding)
    return np.int32(conv.out_features) * counted[:, :, None]


# --- Energy --------------------------------------------------------------------------------------


def picojoules(macs: float, accumulates: float = 0.0) -> float:
    """Energy of the arithmetic; see the module's docstring."""
    return MAC_PICOJOULES * macs + AC_PICOJOULES * accumulates


def account(
    layers: Sequence[Layer],
    operations: Mapping[str, Int[np.ndarray, "N T"]],
    rates: Mapping[str, Float[np.ndarray, "N T"]],
    exit_times: Int[np.ndarray, "N"],
    *,
    policy_macs: int = 0,
    still: bool = True,
) -> dict:
    """What images cost on average, each up to its exit, as plain figures.

    Args:
      layers: of the network, from `layers`.
      operations, rates: of its run, from `operations`, on N images.
      exit_times: timesteps of each image, from 1.
      policy_macs: of the policy network, which looks once at each image.
      still: each timestep shows the same image. Else, of event data, its stem has new work at each.

    Returns:
      {at_exit: a bill; by_timestep: the bills at t = 1..T if every image ran t timesteps, without
      the policy; policy_macs; ann: {macs, picojoules} of the network as an ordinary one; layers: a
      list of {place, receives, macs (dense, of one timestep), operations (up to the exit: ACs where
      it receives spikes, else MACs, the stem's once)}; rates: a list of {place, rate}, the share of
      neurons that fire in a timestep, over those that were run}.
      A bill is {synaptic_operations; macs; picojoules; picojoules_stem_each_timestep}. The stem
      is counted once, and in the last of these at each timestep, as where nothing keeps its
      currents; of event data, at each timestep in all of them.
    """
    exit_times = np.asarray(exit_times)
    # [N, T], of all timesteps up to each one. Past 2^31 in large networks.
    cumulative = {place: np.cumsum(x, 1, dtype=np.int64) for place, x in operations.items()}
    ran = np.arange(next(iter(rates.values())).shape[1]) < exit_times[:, None]
    stem, each = (
        sum(layer.macs for layer in layers if layer.receives == receives)
        for receives in ("pixels", "real numbers")
    )

    def bill(times, policy_macs):
        accumulates = sum((_at(x, times) for x in cumulative.values()), 0.0)
        average = float(np.mean(times))
        stems = 1 if still else average
        macs = stem * stems + each * average + policy_macs
        return _bill(accumulates, macs, again=stem * (average - stems))

    def spent(layer):
        if layer.receives == "spikes":
            return _at(cumulative[layer.place], exit_times)
        once = still and layer.receives == "pixels"
        return float(layer.macs * (1 if once else np.mean(exit_times)))

    dense = sum(layer.macs for layer in layers)
    return {
        "at_exit": bill(exit_times, policy_macs),
        "by_timestep": [bill(np.full_like(exit_times, t), 0) for t in range(1, ran.shape[1] + 1)],
        "policy_macs": policy_macs,
        "ann": {"macs": dense, "picojoules": picojoules(float(dense))},
        "layers": [layer._asdict() | {"operations": spent(layer)} for layer in layers],
        "rates": [{"place": p, "rate": float(np.mean(r, where=ran))} for p, r in rates.items()],
    }


def _bill(accumulates: float, macs: float, again: float) -> dict[str, float]:
    """A bill, and what it would be with so many MACs of the stem again."""
    spent = picojoules(macs, accumulates)
    return {
        "synaptic_operations": accumulates,
        "macs": macs,
        "picojoules": spent,
        "picojoules_stem_each_timestep": spent + picojoules(again),
    }


def _at(cumulative: np.ndarray, times: np.ndarray) -> float:
    """The mean over images of [N, T] at each one's time."""
    return float(np.mean(cumulative[np.arange(len(times)), times - 1]))
