"""A spiking network of linear layers alone, for data without a neighbourhood such as SHD."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seenn_jax.models.layers import ConvBN, linear
from seenn_jax.models.neurons import fire, own


class SpikingMLP(nnx.Module):
    """Linear layers of `width` neurons with BatchNorm, then the read-out; nothing is recurrent.

    A linear layer is a 1x1 convolution of a single pixel, whose channels are all values of the
    input.

    Class attributes:
      hidden: how many layers of neurons.
      smallest: side of the smallest images that it takes.

    Args: as for `SpikingResNet`; `width` is the neurons of a layer.
    """

    hidden = 2
    smallest = 1

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        sizes = [math.prod(image_shape)] + [width] * self.hidden
        self.layers = nnx.List(
            [ConvBN(n, width, 1, dtype=dtype, rngs=rngs) for n in sizes[: self.hidden]]
        )
        self.neurons = nnx.List([own(neuron) for _ in self.layers])
        self.head = linear(width, num_classes, rngs=rngs)

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes and nothing else."""
        return [*self.layers[1:], self.head]

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        for index, neuron in enumerate(self.neurons):
            self.neurons[index] = replace(f"neurons.{index}", neuron)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """The currents of the first spiking layer."""
        values = math.prod(inputs.shape[2:])
        return self.layers[0](inputs.reshape(*inputs.shape[:2], 1, 1, values))

    def integrate(
        self, currents: Float[Array, "B T h w D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest), one for each layer."""
        membranes = (None,) * len(self.layers) if membranes is None else membranes
        after, spikes = [], None
        for index, v in enumerate(membranes):
            if index > 0:
                currents = self.layers[index](spikes)
            spikes, v = fire(self.neurons[index], currents, v)
            after.append(v)
        features = spikes.astype(jnp.promote_types(spikes.dtype, jnp.float32))
        return self.head(features.mean((2, 3))), tuple(after)  # of the one pixel
