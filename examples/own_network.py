"""A network of one's own: two convolutions and a read-out.

python train.py --config=configs/digits.py --config.plugins="('examples/own_network.py',)" \
    --config.model.name=two_layers --workdir=runs/digits_two_layers
python evaluate.py --workdir=runs/digits_two_layers --precision=int8
"""

import jax.numpy as jnp
from flax import nnx

from seenn_jax import MODELS
from seenn_jax.models.layers import ConvBN, linear
from seenn_jax.models.neurons import own


class TwoLayers(nnx.Module):
    """conv-BN-neuron, strided conv-BN-neuron, global average pool, linear."""

    smallest = 2  # side of the smallest images that it takes

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        self.stem = ConvBN(image_shape[-1], width, dtype=dtype, rngs=rngs)
        self.conv = ConvBN(width, 2 * width, stride=2, dtype=dtype, rngs=rngs)
        self.neuron1, self.neuron2 = own(neuron), own(neuron)
        self.head = linear(2 * width, num_classes, rngs=rngs)

    def spike_layers(self):
        """The layers whose inputs are spikes and nothing else: those that int8 quantises."""
        return [self.conv]

    def replace_neurons(self, replace):
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        self.neuron1 = replace("neuron1", self.neuron1)
        self.neuron2 = replace("neuron2", self.neuron2)

    def encode(self, inputs):
        """The currents [B, T, H, W, D] of the first spiking layer, without state."""
        return self.stem(inputs)

    def integrate(self, currents, membranes=None):
        """(logits [B, T, K], membranes) of the ticks of `currents`, from `membranes`."""
        first, second = (None, None) if membranes is None else membranes
        spikes, first = self.neuron1(currents, first)
        spikes, second = self.neuron2(self.conv(spikes), second)
        return self.head(jnp.mean(spikes, (2, 3), dtype=jnp.float32)), (first, second)


MODELS["two_layers"] = TwoLayers
