"""Spiking VGGs: VGG-16 for images, VGGSNN for event data (Deng et al., ICLR 2022)."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seenn_jax.layers import ConvBN, average_pool, linear
from seenn_jax.neurons import own

# Channels as multiples of the width, "P" = 2x2 average pool; (channels, stride) for a strided one.
VGG16 = (1, 1, "P", 2, 2, "P", 4, 4, 4, "P", 8, 8, 8, "P", 8, 8, 8)
VGGSNN = (1, (2, 2), 4, (4, 2), 8, (8, 2), 8, (8, 2))


class SpikingVGG(nnx.Module):
    """A chain of biased 3x3 conv-BN-neuron layers and average pools, then one linear layer.

    Args:
      plan: the chain, `VGG16` or `VGGSNN`; its first entry is the stem.
      width: channels of the stem (64 in both papers).
      flatten: read out from all positions (side of the last map), or None for their average.
      in_channels, num_classes, neuron, dtype, rngs: as for `SpikingResNet`.
    """

    def __init__(self, plan, width, *, flatten=None, in_channels, num_classes, neuron, dtype, rngs):
        self.flatten = flatten
        convs, pools, features = [], [], in_channels
        for entry in plan:
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
        self.head = linear(features * (flatten or 1) ** 2, num_classes, rngs=rngs)

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes and nothing else: not the stem, none after a pool."""
        layers = [*self.convs[1:], self.head]
        pools = [*self.pools[:-1], self.pools[-1] if self.flatten is not None else None]
        return [layer for layer, before in zip(layers, pools, strict=True) if before == 1]

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        for index, neuron in enumerate(self.neurons):
            self.neurons[index] = replace(f"neurons.{index}", neuron)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T H W D"]:
        """The currents of the first spiking layer; no state, so once a sample for still images."""
        return self.convs[0](inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: one for each layer)
        """
        if membranes is None:
            membranes = (None,) * len(self.convs)
        after = []
        for index, (pool, v) in enumerate(zip(self.pools, membranes, strict=True)):
            if index > 0:
                currents = self.convs[index](spikes)
            spikes, v = self.neurons[index](currents, v)
            spikes = average_pool(spikes, pool)
            after.append(v)
        features = spikes.astype(jnp.promote_types(spikes.dtype, jnp.float32))
        if self.flatten is None:
            features = features.mean((2, 3))
        else:
            features = features.reshape(*features.shape[:2], math.prod(features.shape[2:]))
        return self.head(features), tuple(after)
