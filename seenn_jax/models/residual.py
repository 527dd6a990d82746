"""Residual networks whose shortcuts add spikes (SEW-ResNet) or membrane currents (MS-ResNet).

SEW: Fang et al., "Deep residual learning in spiking neural networks", NeurIPS 2021, as in
fangwei123456/Spike-Element-Wise-ResNet. MS: Hu et al., "Advancing spiking neural networks toward
deep residual learning", TNNLS 2024, as in Ariande1/MS-ResNet.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Num

from seenn_jax.models.layers import ConvBN, linear, max_pool
from seenn_jax.models.neurons import fire, own


class _Block(nnx.Module):
    """Convolutions with BatchNorm, a neuron for each, and a 1x1 shortcut where the shape changes.

    Class attributes:
      kernels: sides of the convolutions; the first of 3x3 has the stride.
      expansion: channels of the last convolution in those of the others.
      shortcut_fires: whether the shortcut has a neuron, the last of `neurons`.
    """

    kernels: tuple[int, ...] = (3, 3)
    expansion = 1
    shortcut_fires = True

    def __init__(self, in_features, features, stride, *, neuron, dtype, rngs):
        make = functools.partial(ConvBN, dtype=dtype, rngs=rngs)
        out = features * self.expansion
        convs, before = [], in_features
        for index, size in enumerate(self.kernels):
            after = out if index == len(self.kernels) - 1 else features
            strides = stride if index == self.kernels.index(3) else 1
            convs.append(make(before, after, size, strides))
            before = after
        self.convs = nnx.List(convs)
        self.shortcut, count = nnx.data(None), len(convs)
        if stride > 1 or in_features != out:
            self.shortcut = make(in_features, out, 1, stride)
            count += self.shortcut_fires
        self.neurons = nnx.List([own(neuron) for _ in range(count)])


class SEWBlock(_Block):
    """conv-BN-neuron twice; to the spikes those of the shortcut are added.

    The shortcut passes its input on or, where the shape changes, is a strided 1x1 conv-BN-neuron.
    Spikes are then 0, 1, 2 ..., up to one more than there are blocks in the stage.
    """

    # `(spikes of the shortcut, spikes of the block) -> spikes`: ADD of the paper.
    connect = staticmethod(operator.add)

    def __call__(self, x, membranes=None):
        """Return (spikes, membranes) of all ticks of `x`, from `membranes` (None: at rest)."""
        membranes = membranes or (None,) * len(self.neurons)
        spikes, after = x, []
        for conv, neuron, v in zip(self.convs, self.neurons, membranes, strict=False):
            spikes, v = fire(neuron, conv(spikes), v)
            after.append(v)
        if self.shortcut is not None:
            x, v = fire(self.neurons[-1], self.shortcut(x), membranes[-1])
            after.append(v)
        return self.connect(x, spikes), tuple(after)


class SEWBottleneck(SEWBlock):
    """The same with 1x1, 3x3 and 1x1 convolutions."""

    kernels = (1, 3, 1)
    expansion = 4


class MSBlock(_Block):
    """neuron-conv-BN twice; to the currents those of the shortcut are added, and nothing fires.

    Where the shape changes the shortcut is a strided 1x1 conv-BN of the currents themselves. In the
    authors' code the last BatchNorm of a block begins at zero, here at one as all others.
    """

    shortcut_fires = False

    def __call__(self, x, membranes=None):
        """Return (currents, membranes) of all ticks of `x`, from `membranes` (None: at rest)."""
        membranes = membranes or (None,) * len(self.neurons)
        currents, after = x, []
        for conv, neuron, v in zip(self.convs, self.neurons, membranes, strict=False):
            spikes, v = fire(neuron, currents, v)
            currents = conv(spikes)
            after.append(v)
        if self.shortcut is not None:
            if self.shortcut_fires:
                x, v = fire(self.neurons[-1], x, membranes[-1])
                after.append(v)
            x = self.shortcut(x)
        return _rounded(x + currents), tuple(after)


class MSBlockSpikes(MSBlock):
    """The same with a neuron before the shortcut's convolution, which then receives spikes."""

    shortcut_fires = True


def _rounded(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Sums that run through all blocks, in their dtype whatever the compiler fuses."""
    return lax.reduce_precision(x, 8, 7) if x.dtype == jnp.bfloat16 else x


class ResidualNetwork(nnx.Module):
    """Stem, stages of blocks, global average pool, linear.

    Class attributes, of which each network has its own:
      block: the class of its blocks.
      stages: number of blocks in each stage; stage i has width * 2^i channels (times the block's
        expansion) and, but for the first, stride 2.
      large_images: a 7x7 stem of stride 2, as for ImageNet; else 3x3.
      smallest: side of the smallest images that it takes.

    Args: as for `SpikingResNet`; `width` is 64 in the papers.
    """

    block: type[_Block]
    stages: tuple[int, ...]
    large_images = False
    first_stride = 1
    smallest = 4

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        size, stride = (7, 2) if self.large_images else (3, 1)
        self.stem = ConvBN(image_shape[-1], width, size, stride, dtype=dtype, rngs=rngs)
        stack, features = [], width
        for stage, count in enumerate(self.stages):
            for index in range(count):
                stride = 1 if index else 2 if stage else self.first_stride
                kinds = {"neuron": neuron, "dtype": dtype, "rngs": rngs}
                stack.append(self.block(features, width * 2**stage, stride, **kinds))
                features = width * 2**stage * self.block.expansion
        self.blocks = nnx.List(stack)
        self.neuron = own(neuron)
        self.head = linear(features, num_classes, rngs=rngs)

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes, or sums of spikes, and nothing else."""
        return [
            layer
            for block in self.blocks
            for layer in (*block.convs, block.shortcut if block.shortcut_fires else None)
            if layer is not None
        ]

    def _replace_in_blocks(self, replace: Callable[[str, Callable], Callable]) -> None:
        for index, block in enumerate(self.blocks):
            for number, neuron in enumerate(block.neurons):
                block.neurons[number] = replace(f"blocks.{index}.neurons.{number}", neuron)

    def _blocks(self, x: Num[Array, "B T h w D"], membranes: Any) -> tuple[Array, list]:
        """(what the blocks put out, the membranes of each), all ticks of `x`."""
        after = []
        for block, v in zip(self.blocks, membranes, strict=True):
            x, v = block(x, v)
            after.append(v)
        return x, after

    def _read(self, spikes: Num[Array, "B T ..."]) -> Float[Array, "B T K"]:
        """The logits: a linear layer of the mean over all positions, summed in float32."""
        dtype = jnp.promote_types(spikes.dtype, jnp.float32)
        return self.head(jnp.mean(spikes, tuple(range(2, spikes.ndim - 1)), dtype=dtype))


class SEWResNet(ResidualNetwork):
    """The spikes of blocks are added: no neuron after the sum.

    With `large_images`, the spikes of the stem go through a 3x3 max pool of stride 2, as in the
    authors' code: of spikes it is an OR.
    """

    block = SEWBlock

    @property
    def largest_sum(self) -> int:
        """The most spikes that come together at one place."""
        return 1 + max(self.stages)

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        self.neuron = replace("stem", self.neuron)
        self._replace_in_blocks(replace)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """The currents of the first spiking layer; no state, so once a sample for still images."""
        return self.stem(inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: of the stem, and of each block)
        """
        stem, *others = membranes or (None,) * (1 + len(self.blocks))
        spikes, v = fire(self.neuron, currents, stem)
        spikes = max_pool(spikes) if self.large_images else spikes
        spikes, after = self._blocks(spikes, others)
        return self._read(spikes), (v, *after)


class MSResNet(ResidualNetwork):
    """The currents of blocks are added, from the stem to the last neuron: no neuron after a sum.

    The authors' code for ImageNet has no pool: its first stage has stride 2, with a shortcut.

    Class attribute:
      as_i2e: a 3x3 max pool of stride 2 of the stem's currents, without state, and a last neuron
        that fires at the average of all positions.
    """

    block = MSBlock
    as_i2e = False

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes and nothing else."""
        return [*super().spike_layers(), *([self.head] if self.as_i2e else [])]

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        self._replace_in_blocks(replace)
        self.neuron = replace("last", self.neuron)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """The currents that the first block gets; no state, so once a sample for still images."""
        return max_pool(self.stem(inputs)) if self.as_i2e else self.stem(inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: of each block, and of the last neuron)
        """
        *others, last = membranes or (None,) * (len(self.blocks) + 1)
        currents, after = self._blocks(currents, others)
        if self.as_i2e:
            wide = jnp.promote_types(currents.dtype, jnp.float32)
            currents = jnp.mean(currents, (2, 3), dtype=wide).astype(currents.dtype)
        spikes, v = fire(self.neuron, currents, last)
        return self._read(spikes), (*after, v)


class SEWResNet8(SEWResNet):
    """Three stages of one block, for small images."""

    stages = (1, 1, 1)


class SEWResNet18(SEWResNet):
    """Of width 64 for 224x224 pixels and 1000 classes: 11,689,512 parameters, 1.81 GMAC.

    As the ResNet-18 of torchvision, whose convolutions it has.
    """

    stages = (2, 2, 2, 2)
    large_images = True


class SEWResNet34(SEWResNet):
    """Of width 64 for 224x224 pixels and 1000 classes: 21,797,672 parameters, 3.66 GMAC.

    As the ResNet-34 of torchvision.
    """

    stages = (3, 4, 6, 3)
    large_images = True


class SEWResNet50(SEWResNet34):
    """Of width 64 for 224x224 pixels and 1000 classes: 25,557,032 parameters, 4.09 GMAC.

    As the ResNet-50 of torchvision, which has the stride in the 3x3 convolution of a block.
    """

    block = SEWBottleneck


class SEWResNet18Small(SEWResNet18):
    """The same with a 3x3 stem and no pool, for small images such as CIFAR's."""

    large_images = False


class SEWResNet34Small(SEWResNet34):
    """The same with a 3x3 stem and no pool, for small images such as CIFAR's."""

    large_images = False


class SEWResNet50Small(SEWResNet50):
    """The same with a 3x3 stem and no pool, for small images such as CIFAR's."""

    large_images = False


class MSResNet8(MSResNet):
    """Three stages of one block, for small images."""

    stages = (1, 1, 1)


class MSResNet18(MSResNet):
    """Of width 64 for 224x224 pixels and 1000 classes: 11,693,736 parameters, 1.83 GMAC.

    As in the authors' code, a 1x1 shortcut of the first stage more than torchvision's ResNet-18.
    """

    stages = (2, 2, 2, 2)
    large_images = True
    first_stride = 2


class MSResNet34(MSResNet18):
    """Of width 64 for 224x224 pixels and 1000 classes: 21,801,896 parameters, 3.68 GMAC."""

    stages = (3, 4, 6, 3)


class MSResNet18Small(MSResNet):
    """The same with a 3x3 stem and no stride in the first stage, for small images as CIFAR's."""

    stages = MSResNet18.stages


class MSResNet34Small(MSResNet):
    """The same with a 3x3 stem and no stride in the first stage, for small images as CIFAR's."""

    stages = MSResNet34.stages


class MSResNet18I2E(MSResNet):
    """The MS-ResNet-18 of I2E (AAAI 2026, Ruichen0424/I2E), of width 64 for 128x128x2 events.

    7x7 stem and max pool, a neuron in the shortcuts, and one at the average of the last map.
    """

    block = MSBlockSpikes
    stages = MSResNet18.stages
    large_images = True
    as_i2e = True
