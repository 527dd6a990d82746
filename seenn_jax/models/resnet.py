"""Spiking ResNets (Zheng et al., AAAI 2021; SEENN, section 4)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seenn_jax.layers import ConvBN, SpikingBlock, linear

# Blocks in each of the three stages, at 1, 2 and 4 (ResNet-19) times the width.
STAGES = {"resnet19": (3, 3, 2), "resnet8": (1, 1, 1)}


class SpikingResNet(nnx.Module):
    """3x3 stem, three stages of spiking blocks with strides 1, 2, 2, global average pool, linear.

    ResNet-19 at width 128: 12.56 M weights (12.57 M parameters with BatchNorm's), 2.285 GMAC per
    image and timestep at 32x32.

    Args:
      blocks: number of blocks in each stage; stage i has width * 2^i channels.
      width: channels of the stem.
      in_channels: channels of the input.
      num_classes: number of logits.
      neuron: `(currents, v0) -> (spikes, v)`, for example `neurons.LIF()`.
      dtype: of activations and membranes; parameters and logits stay float32.
      rngs: for the initial parameters.
    """

    def __init__(self, blocks, width, *, in_channels, num_classes, neuron, dtype, rngs):
        self.neuron = neuron
        self.stem = ConvBN(in_channels, width, dtype=dtype, rngs=rngs)
        stack, features = [], width
        for stage, count in enumerate(blocks):
            for index in range(count):
                out = width * 2**stage
                stride = 2 if stage > 0 and index == 0 else 1
                stack.append(
                    SpikingBlock(features, out, stride, neuron=neuron, dtype=dtype, rngs=rngs)
                )
                features = out
        self.blocks = nnx.List(stack)
        self.head = linear(features, num_classes, rngs=rngs)

    def spike_layers(self) -> list[ConvBN]:
        """The layers whose inputs are spikes and nothing else."""
        return [conv for block in self.blocks for conv in (block.conv1, block.conv2)]

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T H W D"]:
        """The currents of the first spiking layer; no state, so once a sample for still images."""
        return self.stem(inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: one tuple for the stem and each block)
        """
        stem, *rest = membranes if membranes is not None else (None,) * (1 + len(self.blocks))
        spikes, v = self.neuron(currents, stem)
        after = [v]
        for block, v in zip(self.blocks, rest, strict=True):
            spikes, v = block(spikes, (None, None) if v is None else v)
            after.append(v)
        # The mean of 0/1 spikes is summed in float32.
        features = jnp.mean(spikes, (2, 3), dtype=jnp.promote_types(spikes.dtype, jnp.float32))
        return self.head(features), tuple(after)
