"""VGGs: which layers receive spikes, and what is read out."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seenn_jax.models.conversion import layer_outputs
from seenn_jax.models.neurons import LIF
from seenn_jax.models.vgg import SpikingVGG
from seenn_jax.ticks import currents
from tests.models.networks import CLASSES, logits_of, small, spike_places


def test_layers_whose_inputs_are_spikes():
    # All but the stem, and but what comes after a pool: 0 1 P 2 3 P 4 5 6 P 7 8 9 P 10 11 12.
    assert spike_places("vgg16", lambda model: model.convs) == [1, 3, 5, 6, 8, 9, 11, 12]
    assert spike_places("vggsnn", lambda model: model.convs) == [1, 2, 3, 4, 5, 6, 7]
    assert spike_places("vggsnn", lambda model: [model.head]) == [0]
    assert spike_places("vgg16", lambda model: [model.head]) == []


@pytest.mark.parametrize(
    ("name", "sides", "last_map"),
    [
        ("vggsnn", (48, 48), (3, 3)),
        ("vggsnn", (48, 32), (3, 2)),
        ("vggsnn", (17, 50), (2, 4)),  # 17, 9, 5, 3, 2 and 50, 25, 13, 7, 4
        ("vgg16", (31, 50), (1, 3)),  # incomplete windows of the pools are left out
    ],
)
def test_the_map_that_is_read_out_may_be_a_rectangle(name, sides, last_map):
    model = nnx.eval_shape(lambda: small(name, image_shape=(*sides, 2)))
    assert model.last_map == last_map
    positions = last_map[0] * last_map[1] if name == "vggsnn" else 1
    assert model.head.in_features == 8 * 6 * positions

    graph, state = nnx.split(nnx.view(model, use_running_average=True))
    image = jax.ShapeDtypeStruct((2, *sides, 2), jnp.float32)

    def run(state, image):
        model = nnx.merge(graph, state)
        logits, _, outputs = layer_outputs(model, currents(model, image, 3))
        return logits, list(outputs.values())[-1]

    logits, spikes = jax.eval_shape(run, state, image)
    assert logits.shape == (2, 3, CLASSES)
    assert spikes.shape == (2, 3, *last_map, 48)


def test_a_pool_at_the_end_is_read_out_too():
    class Pooled(SpikingVGG):
        plan = (1, 2, "P")
        flat = True

    rngs = nnx.Rngs(0)
    model = Pooled(
        3, image_shape=(7, 4, 1), num_classes=2, neuron=LIF(), dtype=jnp.float32, rngs=rngs
    )
    assert model.last_map == (3, 2)
    assert model.spike_layers() == [model.convs[1]]
    logits = logits_of(model, jnp.ones((1, 7, 4, 1)), 2)
    assert logits.shape == (1, 2, 2)
