"""Spiking ResNets (Zheng et al., AAAI 2021; SEENN, section 4), and those of QCFS to convert."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seenn_jax.models.fused import conv_fire
from seenn_jax.models.layers import ConvBN, Shortcut, average_pool, hidden_layers, linear
from seenn_jax.models.neurons import fire, largest_spike, own


class SpikingBlock(nnx.Module):
    """conv-BN-neuron-conv-BN, add the shortcut, neuron; carries two layers' membranes.

    Where a block changes the shape its shortcut is a `Shortcut`, or, where `pool` is False, a
    strided 1x1 convolution and BatchNorm.
    """

    def __init__(self, in_features, out_features, stride, *, neuron, dtype, rngs, pool=True):
        make = functools.partial(ConvBN, dtype=dtype, rngs=rngs)
        self.neuron1, self.neuron2 = own(neuron), own(neuron)
        self.conv1 = make(in_features, out_features, stride=stride)
        self.conv2 = make(out_features, out_features)
        self.shortcut = nnx.data(None)
        if pool and (stride > 1 or in_features != out_features):
            kinds = {"largest": largest_spike(neuron), "dtype": dtype, "rngs": rngs}
            self.shortcut = Shortcut(in_features, out_features, stride, **kinds)
        elif stride > 1 or in_features != out_features:
            self.shortcut = make(in_features, out_features, 1, stride)

    def __call__(self, x, membranes=(None, None)):
        """Return (spikes, membranes) of all ticks of `x`, from `membranes` (None: at rest)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        spikes, v1 = conv_fire(self.conv1, self.neuron1, x, membranes[0])
        spikes, v2 = conv_fire(self.conv2, self.neuron2, spikes, membranes[1], residual)
        return spikes, (v1, v2)


class SpikingResNet(nnx.Module):
    """3x3 stem, stages of spiking blocks with strides 1, 2, 2 ..., global average pool, linear.

    Class attributes, of which each network has its own:
      stages: number of blocks in each stage; stage i has width * first * 2^i channels.
      first: channels of the first stage in those of the stem.
      hidden: neurons of each linear layer before the last, in channels of the stem.
      pool: whether shortcuts average where the size changes (ResNet-19), or take every second
        pixel (He et al. 2016, QCFS).
      large_images: a 7x7 stem of stride 2 and a 2x2 average pool after its neuron, as for ImageNet,
        where the original has max pooling, which spikes can't do.
      smallest: side of the smallest images that it takes.

    Args:
      width: channels of the stem.
      image_shape: (height, width, channels) of one input.
      num_classes: number of logits.
      neuron: `(currents, v0) -> (spikes, v)`, for example `neurons.LIF()`; each layer has its own
        copy of one with parameters.
      dtype: of activations and membranes; parameters and logits stay float32.
      rngs: for the initial parameters.
    """

    stages: tuple[int, ...]
    first = 1
    hidden: tuple[int, ...] = ()
    pool = True
    large_images = False
    smallest = 4

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        self.neuron, self.largest = own(neuron), largest_spike(neuron)
        size, stride = (7, 2) if self.large_images else (3, 1)
        self.stem = ConvBN(image_shape[-1], width, size, stride, dtype=dtype, rngs=rngs)
        self.stem_pool = 2 if self.large_images else 1
        stack, features = [], width
        for stage, count in enumerate(self.stages):
            for index in range(count):
                out = width * self.first * 2**stage
                stride = 2 if stage > 0 and index == 0 else 1
                kinds = {"neuron": neuron, "dtype": dtype, "rngs": rngs, "pool": self.pool}
                stack.append(SpikingBlock(features, out, stride, **kinds))
                features = out
        self.blocks = nnx.List(stack)
        kinds = {"neuron": neuron, "dtype": dtype, "rngs": rngs}
        layers, features = hidden_layers(features, width, self.hidden, **kinds)
        self.hidden_layers = nnx.data(layers)
        self.head = linear(features, num_classes, rngs=rngs)

    @property
    def renews(self) -> bool:
        """Whether its layers put fresh membranes at rest, as `neurons.fire` does."""
        ours = all(type(block) is SpikingBlock for block in self.blocks)
        return ours and type(self).integrate is SpikingResNet.integrate

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes and nothing else."""
        layers = [
            layer
            for block in self.blocks
            for layer in (block.conv1, block.conv2, block.shortcut)
            if isinstance(layer, ConvBN)  # neither none nor one that averages
        ]
        layers = layers if self.stem_pool == 1 else layers[1:]
        # The first of the hidden layers gets an average.
        return [*layers, *self.hidden_layers.linears[1:], self.head] if self.hidden else layers

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        self.neuron = replace("stem", self.neuron)
        for index, block in enumerate(self.blocks):
            block.neuron1 = replace(f"blocks.{index}.neuron1", block.neuron1)
            block.neuron2 = replace(f"blocks.{index}.neuron2", block.neuron2)
        if self.hidden:
            self.hidden_layers.replace_neurons(replace)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """The currents of the first spiking layer; no state, so once a sample for still images."""
        return self.stem(inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: of the stem, of each block, and of the
          hidden layers where there are any)
        """
        count = 1 + len(self.blocks) + bool(self.hidden)
        stem, *rest = membranes if membranes is not None else (None,) * count
        hidden = rest.pop() if self.hidden else None
        spikes, v = fire(self.neuron, currents, stem)
        spikes, after = average_pool(spikes, self.stem_pool, self.largest), [v]
        for block, v in zip(self.blocks, rest, strict=True):
            spikes, v = block(spikes, (None, None) if v is None else v)
            after.append(v)
        # The mean of spikes is summed in float32.
        features = jnp.mean(spikes, (2, 3), dtype=jnp.promote_types(spikes.dtype, jnp.float32))
        if self.hidden:
            features, v = self.hidden_layers(features, hidden)
            after.append(v)
        return self.head(features), tuple(after)


class ResNet8(SpikingResNet):
    """Three stages of one block, for small images."""

    stages = (1, 1, 1)


class ResNet19(SpikingResNet):
    """SEENN's network for CIFAR (Zheng et al., AAAI 2021), of width 128 there.

    At that width 12.56 M weights (12.57 M parameters with BatchNorm's) and 2.285 GMAC per image and
    timestep at 32x32.
    """

    stages = (3, 3, 2)


class ResNet18(SpikingResNet):
    """He et al. 2016 with a 3x3 stem, of width 64: QCFS's network for CIFAR."""

    stages = (2, 2, 2, 2)
    pool = False


class ResNet20(SpikingResNet):
    """He et al. 2016 for CIFAR, of width 16."""

    stages = (3, 3, 3)
    pool = False


class ResNet34(SpikingResNet):
    """He et al. 2016 for ImageNet, of width 64."""

    stages = (3, 4, 6, 3)
    pool = False
    large_images = True


class ResNet34Small(ResNet34):
    """The same with a 3x3 stem, for small images: QCFS's, and SEENN's to convert, of width 64."""

    large_images = False


class ResNet20SEENN(ResNet20):
    """SEENN's ResNet-20 for conversion, of width 128, which has a block less than its name says."""

    stages = (3, 3, 2)


class ResNet19TET(ResNet19):
    """TET's ResNet-19 (Deng et al., ICLR 2022), of width 64: a narrow stem and a hidden layer."""

    first = 2
    hidden = (4,)
    pool = False
