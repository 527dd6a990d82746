"""What a network moves between memory and arithmetic: weights, membranes, spikes; and picojoules.

The model, for one image at a time. Within a layer and a timestep each number is moved once: what is
read is used for all that needs it, and sums stay where they are made. So, in a timestep,

- weights are read once, those of neurons that do not fire too;
- membranes are read and written;
- spikes are written by their layer and read by the next, a bit each, whether they are 0 or 1; of
  networks that add spikes, or send integers, in as many bits as the largest of all sums takes;
- currents of the stem, of a still image, are written once and read at each timestep;
- the image is read once, from DRAM; of event data one of each timestep.

The same network as an ordinary one (ANN) has one timestep, no membranes, and activations of a dtype
in the place of spikes. The chip has `CAPACITY` bytes. Spikes or activations (of two layers at a
time) lie there, then membranes, currents and weights, each as far as there is room; the rest is in
DRAM and is moved from there each time. What lies on the chip stays there from image to image.

Left out: a policy network, a second reading by a shortcut, the addresses of spikes that are sent
one by one, and caches in between.

Prices are those of 64 bits at 45 nm (M. Horowitz, "Computing's energy problem (and what we can do
about it)", ISSCC 2014, pp. 10-14, figure 1.1.9): 100 pJ from a cache of 1 MB, 1.3 to 2.6 nJ from
DRAM, of which the middle is taken.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int

from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import run_all
from seenn_jax.models.precision import most_spikes

CAPACITY = 2**20  # bytes of the chip's memory
CHIP_PICOJOULES = 100 / 8  # a byte
DRAM_PICOJOULES = (1300 + 2600) / 2 / 8
MODEL = (
    "Moved, in a model: in each timestep every weight is read once, every membrane read and "
    "written, every spike (a bit, or as many as the largest integer takes that is sent) written "
    "and read; 12.5 pJ a byte from 1 MB on the chip, 244 pJ from DRAM (Horowitz, ISSCC 2014), one "
    "image at a time."
)


class Sizes(NamedTuple):
    """What a network for inference has, of one image.

    Attributes:
      weights: bytes of kernels, and of two float32 for each channel of a convolution.
      membranes: bytes.
      neurons, largest: of all layers, and of the largest.
      bits: of a spike.
      currents: bytes of the stem's.
      image: bytes, a byte for each pixel and channel.
      activation: bytes of one in the network as an ANN.
    """

    weights: int
    membranes: int
    neurons: int
    largest: int
    currents: int
    image: int
    activation: int
    bits: int = 1


def sizes(model: nnx.Module, image_shape: tuple[int, int, int]) -> Sizes:
    """The sizes of a spiking network for inference.

    Args:
      image_shape: (height, width, channels) of one input.
    """
    membranes: list[int] = []
    neurons: list[int] = []

    def record(place, neuron):
        def recorded(currents, v0=None):
            spikes, v = neuron(currents, v0)
            membranes.extend(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(v))
            neurons.append(math.prod(spikes.shape[2:]))
            return spikes, v

        return recorded

    graph, state = nnx.split(model)

    def run(state, image):
        model = nnx.merge(graph, state, copy=True)
        model.replace_neurons(record)
        run_all(model, image, 1)
        return model.encode(image[:, None])

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    currents = jax.eval_shape(run, state, image)
    return Sizes(
        weights=_weights(model),
        membranes=sum(membranes),
        neurons=sum(neurons),
        largest=max(neurons),
        currents=currents.size * currents.dtype.itemsize,
        image=math.prod(image_shape),
        activation=currents.dtype.itemsize,
        bits=most_spikes(model).bit_length(),
    )


def _weights(model: nnx.Module) -> int:
    """Bytes of a network's layers."""
    total = 0
    convolutions = {id(m.conv) for _, m in nnx.iter_graph(model) if isinstance(m, ConvBN)}
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.Conv | nnx.Linear):
            total += module.kernel[...].nbytes
            if id(module) in convolutions:
                total += 2 * 4 * module.out_features
            elif module.bias is not None:
                total += module.bias[...].nbytes
    return total


class Moved(NamedTuple):
    """A kind of data.

    Attributes:
      resident: bytes that it takes.
      moved: bytes, each time.
    """

    resident: int | float
    moved: int | float


def bill(kinds: dict[str, Moved], image: int | float) -> dict[str, Any]:
    """What moving costs, where those that come first get room on the chip first.

    Args:
      kinds: by their name.
      image: bytes of images.

    Returns:
      {bytes: of each kind, image included; chip: bytes from and to the chip's memory; dram: bytes
      from and to DRAM; picojoules}
    """
    room, chip, dram = CAPACITY, 0.0, float(image)
    for resident, moved in kinds.values():
        there = min(1.0, room / resident) if resident else 1.0
        room -= there * resident
        chip, dram = chip + there * moved, dram + (1 - there) * moved
    return {
        "bytes": {name: kind.moved for name, kind in kinds.items()} | {"image": image},
        "chip": chip,
        "dram": dram,
        "picojoules": CHIP_PICOJOULES * chip + DRAM_PICOJOULES * dram,
    }


def spiking(of: Sizes, timesteps: int | float, still: bool = True) -> dict[str, Any]:
    """The bill of an image that runs so many timesteps, or on average."""
    currents = of.currents if still else 0
    kinds = {
        "spikes": Moved(2 * of.largest * of.bits / 8, 2 * of.neurons * of.bits / 8 * timesteps),
        "membranes": Moved(of.membranes, 2 * of.membranes * timesteps),
        "currents": Moved(currents, currents * (1 + timesteps)),
        "weights": Moved(of.weights, of.weights * timesteps),
    }
    return bill(kinds, of.image * (1 if still else timesteps))


def ordinary(of: Sizes) -> dict[str, Any]:
    """The bill of an image in the same network as an ANN."""
    activations = 2 * of.activation
    kinds = {
        "activations": Moved(activations * of.largest, activations * of.neurons),
        "weights": Moved(of.weights, of.weights),
    }
    return bill(kinds, of.image)


def account(
    of: Sizes, exit_times: Int[np.ndarray, "N"], timesteps: int, *, still: bool = True
) -> dict[str, Any]:
    """What images move on average, each up to its exit, as plain figures.

    Args:
      of: the network's.
      exit_times: timesteps of each image, from 1.
      timesteps: T.
      still: each timestep shows the same image.

    Returns:
      {at_exit: a `bill`; by_timestep: the bills at t = 1..T if every image ran t timesteps; ann:
      that of the network as an ordinary one}
    """
    return {
        "at_exit": spiking(of, float(np.mean(exit_times)), still),
        "by_timestep": [spiking(of, t, still) for t in range(1, timesteps + 1)],
        "ann": ordinary(of),
    }
