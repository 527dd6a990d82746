"""SEW-ResNets and MS-ResNets: their published sizes, what is added, exits, gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.energy import layers
from seenn_jax.errors import UserError
from seenn_jax.models import MODELS, build_model
from seenn_jax.models.activations import ReLU
from seenn_jax.models.conversion import convert
from seenn_jax.models.neurons import LIF
from seenn_jax.models.precision import to_int8
from seenn_jax.models.residual import MSBlock, MSResNet, SEWBlock, SEWBottleneck, SEWResNet
from seenn_jax.models.residual import MSResNet18I2E as I2E
from tests.models import families


class SEW(SEWResNet):
    """With the pool, and a block of three convolutions and a shortcut."""

    block = SEWBottleneck
    stages = (1,)
    large_images = True


class MS(MSResNet):
    stages = (1, 1)


class MSOfI2E(I2E):
    stages = (1, 1)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # torchvision's ResNets, of the same convolutions; its documentation rounds GMACs so.
        ("sew_resnet18", 11_689_512, 1.81),
        pytest.param("sew_resnet34", 21_797_672, 3.66, marks=slow),
        pytest.param("sew_resnet50", 25_557_032, 4.09, marks=slow),
        # Those of ResNets, and in the authors' code a shortcut of 64x64 in the first stage.
        ("ms_resnet18", 11_689_512 + 64 * 64 + 2 * 64, 1.83),
        pytest.param("ms_resnet34", 21_797_672 + 64 * 64 + 2 * 64, 3.68, marks=slow),
    ],
)
def test_published_sizes(name, parameters, macs):
    shape = (224, 224, 3)
    model = nnx.eval_shape(lambda: build_model(name, 64, image_shape=shape, num_classes=1000))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == parameters
    found = layers(nnx.view(model, use_running_average=True), shape)
    assert round(sum(layer.macs for layer in found) / 1e9, 2) == macs
    # Of SEW all but the ends receive spikes; of MS the shortcuts get membrane currents.
    reals = [layer.place for layer in found if layer.receives != "spikes"]
    shortcuts = [f"blocks.{i}.shortcut" for i, b in enumerate(model.blocks) if b.shortcut]
    assert reals == ["stem", *(shortcuts if name.startswith("ms") else []), "head"]


def block_of_shape(kind, spikes):
    """A block of one channel whose convolutions pass their input on, times these weights."""
    block = kind(1, 1, 1, neuron=LIF(), dtype=jnp.float32, rngs=nnx.Rngs(0))
    for conv, weight in zip(block.convs, spikes, strict=True):
        side = conv.conv.kernel.shape[0]
        middle = (side // 2, side // 2, 0, 0)
        conv.conv.kernel[...] = jnp.zeros((side, side, 1, 1)).at[middle].set(weight)
        conv.bn.var[...] = jnp.ones(1) - 1e-5
    return nnx.view(block, use_running_average=True)


def test_spikes_are_added():
    block = block_of_shape(SEWBlock, (1, 0.75))
    x = jnp.asarray([2.0, 1, 0]).reshape(1, 3, 1, 1, 1)  # three ticks of one pixel
    # The first neuron fires at 2 and 1; the second is at 0.75, 0.375 + 0.75, and 0.
    found, (first, second) = block(x)
    np.testing.assert_array_equal(found.ravel(), [2, 1 + 1, 0])
    np.testing.assert_array_equal([first.item(), second.item()], [0, 0])

    class And(SEWBlock):
        connect = staticmethod(lambda shortcut, spikes: shortcut * spikes)

    np.testing.assert_array_equal(block_of_shape(And, (1, 0.75))(x)[0].ravel(), [0, 1, 0])


def test_currents_are_added():
    block = block_of_shape(MSBlock, (1, 0.75))
    x = jnp.asarray([0.5, 0.8, -3]).reshape(1, 3, 1, 1, 1)
    # The first neuron is at 0.5 and 0.25 + 0.8: it fires at the second tick, as does the next one.
    found, (first, second) = block(x)
    np.testing.assert_allclose(found.ravel(), [0.5, 0.8 + 0.75, -3])
    np.testing.assert_array_equal([first.item(), second.item()], [-3, 0])


@pytest.mark.parametrize("kind", [SEW, *(pytest.param(k, marks=slow) for k in (MS, MSOfI2E))])
def test_every_method_and_int8(kind, monkeypatch):
    families.check_methods(*families.exact(monkeypatch, kind))


@slow
@pytest.mark.parametrize("kind", [SEW, MS, MSOfI2E])
def test_gradients(kind):
    families.check_gradients(kind, LIF())
    families.check_differences(kind, ReLU())


def test_more_spikes_than_int8_holds():
    class Deep(SEWResNet):
        stages = (127,)
        blocks = ()

        def __init__(self):
            pass

        def replace_neurons(self, replace):
            replace("stem", LIF())

    with pytest.raises(UserError, match=r"int8 holds numbers up to 127, .* up to 128 spikes"):
        to_int8(Deep())


def test_conversion_refuses_max_pooling(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", SEW)
    shape, places = (8, 8, 1), []
    model = build_model("tiny", 1, image_shape=shape, num_classes=2, neuron=ReLU())
    nnx.clone(model).replace_neurons(lambda place, neuron: places.append(place) or neuron)
    model = nnx.view(model, use_running_average=True)
    with pytest.raises(UserError, match=r"the network has max pooling \(to a map of 2x2x1\)"):
        convert(model, shape, dict.fromkeys(places, 1.0))
