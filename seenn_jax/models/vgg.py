"""Spiking VGGs: VGG-16 for images, VGGSNN for event data (Deng et al., ICLR 2022)."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seenn_jax.models.layers import ConvBN, average_pool, hidden_layers, linear
from seenn_jax.models.neurons import fire, largest_spike, own


class SpikingVGG(nnx.Module):
    """A chain of biased 3x3 conv-BN-neuron layers and average pools, then one linear layer.

    Class attributes, of which each network has its own:
      plan: channels as multiples of the width, "P" = 2x2 average pool; (channels, stride) for a
        strided layer. The first entry is the stem.
      hidden: neurons of each linear layer before the last, as multiples of the width.
      flat: read out from all positions of the last map, and not from their average.
      smallest: side of the smallest images that it takes.

    Args: as for `SpikingResNet`; `width` is 64 in both papers.
    """

    plan: tuple
    hidden: tuple[int, ...] = ()
    flat = False
    smallest = 16

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        convs, pools, features = [], [], image_shape[-1]
        for entry in self.plan:
            if entry == "P":
                pools[-1] = 2
                continue
            multiple, stride = entry if isinstance(entry, tuple) else (entry, 1)
            out = width * multiple
            convs.append(ConvBN(features, out, stride=stride, bias=True, dtype=dtype, rngs=rngs))
            pools.append(1)
            features = out
        self.pools = tuple(pools)
        self.convs = nnx.List(convs)
        self.neurons = nnx.List([own(neuron) for _ in convs])
        self.largest = largest_spike(neuron)
        self.last_map = self._last_map(image_shape)
        positions = math.prod(self.last_map) if self.flat else 1
        features *= positions
        kinds = {"neuron": neuron, "dtype": dtype, "rngs": rngs}
        layers, features = hidden_layers(features, width, self.hidden, **kinds)
        self.hidden_layers = nnx.data(layers)
        self.head = linear(features, num_classes, rngs=rngs)

    def _last_map(self, image_shape: tuple[int, int, int]) -> tuple[int, int]:
        """(height, width) of what is read out."""
        sides = image_shape[:2]
        for conv, pool in zip(self.convs, self.pools, strict=True):
            sides = tuple(-(-side // conv.conv.strides) // pool for side in sides)
        return sides

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes and nothing else: not the stem, none after a pool."""
        hidden = self.hidden_layers.linears if self.hidden else ()
        layers = [*self.convs[1:], *hidden, self.head]
        pools = [*self.pools[:-1], self.pools[-1] if self.flat else None, *(1 for _ in hidden)]
        return [layer for layer, before in zip(layers, pools, strict=True) if before == 1]

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        for index, neuron in enumerate(self.neurons):
            self.neurons[index] = replace(f"neurons.{index}", neuron)
        if self.hidden:
            self.hidden_layers.replace_neurons(replace)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T H W D"]:
        """The currents of the first spiking layer; no state, so once a sample for still images."""
        return self.convs[0](inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: one for each layer, and those of the
          hidden layers together)
        """
        if membranes is None:
            membranes = (None,) * (len(self.convs) + bool(self.hidden))
        after, spikes = [], None
        for index, (pool, v) in enumerate(zip(self.pools, membranes, strict=False)):
            if index > 0:
                currents = self.convs[index](spikes)
            spikes, v = fire(self.neurons[index], currents, v)
            spikes = average_pool(spikes, pool, self.largest)
            after.append(v)
        features = spikes.astype(jnp.promote_types(spikes.dtype, jnp.float32))
        if self.flat:
            features = features.reshape(*features.shape[:2], math.prod(features.shape[2:]))
        else:
            features = features.mean((2, 3))
        if self.hidden:
            features, v = self.hidden_layers(features, membranes[-1])
            after.append(v)
        return self.head(features), tuple(after)


class VGG16(SpikingVGG):
    """VGG-16 for images of 32x32 pixels."""

    plan = (1, 1, "P", 2, 2, "P", 4, 4, 4, "P", 8, 8, 8, "P", 8, 8, 8)


class VGGSNN(SpikingVGG):
    """The network for event data of Deng et al., ICLR 2022."""

    plan = (1, (2, 2), 4, (4, 2), 8, (8, 2), 8, (8, 2))
    flat = True


class VGG16QCFS(SpikingVGG):
    """VGG-16 as the QCFS authors convert it: a fifth pool and two hidden linear layers."""

    plan = (*VGG16.plan, "P")
    hidden = (64, 64)
    flat = True
    smallest = 32


class VGGSNNPool(SpikingVGG):
    """VGGSNN with average pools for its strides (Deng et al., ICLR 2022)."""

    plan = (1, 2, "P", 4, 4, "P", 8, 8, "P", 8, 8, "P")
    flat = True
