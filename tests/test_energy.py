import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.energy import Layer, account, layers, operations, windows
from seenn_jax.errors import UserError
from seenn_jax.models import build_model
from seenn_jax.models.activations import QCFS
from seenn_jax.models.conversion import convert, layer_outputs
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import for_inference
from seenn_jax.models.neurons import ILIF, LIF
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.vgg import SpikingVGG
from seenn_jax.ticks import currents

SHAPE = (8, 8, 3)
T = 3

# --- Layer by layer -------------------------------------------------------------------------------


def small(name, neuron=None, shape=SHAPE):
    model = build_model(name, 5, image_shape=shape, num_classes=4, neuron=neuron)
    return nnx.view(model, use_running_average=True)


@pytest.mark.parametrize(
    ("name", "shape", "reals"),
    [
        ("resnet8", SHAPE, ["blocks.1.shortcut.projection", "blocks.2.shortcut.projection"]),
        ("resnet20", SHAPE, []),
        ("resnet34", (16, 16, 3), ["blocks.0.conv1"]),
        ("vgg16", (16, 16, 3), ["convs.2", "convs.4", "convs.7", "convs.10"]),
    ],
)
def test_what_layers_receive(name, shape, reals):
    model = nnx.eval_shape(lambda: small(name, shape=shape))
    found = layers(model, shape)
    assert [layer.place for layer in found if layer.receives == "real numbers"] == [*reals, "head"]
    assert [layer.place for layer in found if layer.receives == "pixels"] == [found[0].place]
    # All convolutions are there once: stem, two a block or the whole chain, projections.
    convolutions = sum(isinstance(m, ConvBN) for _, m in nnx.iter_graph(model))
    assert len({layer.place for layer in found}) == len(found) == convolutions + 1


def test_a_layer_too_large_to_count_is_named():
    model = nnx.eval_shape(lambda: build_model("resnet8", 64, image_shape=SHAPE, num_classes=4))
    with pytest.raises(UserError, match=r"blocks\.0\.conv1 takes up to 38,654,705,664 .*2\^31 - 1"):
        layers(nnx.view(model, use_running_average=True), (1024, 1024, 3))


# --- Spikes, by hand -----------------------------------------------------------------------------


class TwoLayers(SpikingVGG):
    plan = (1, (1, 2))
    flat = True


def tiny():
    """3x3 pixels, a stem of two channels, a strided convolution to 2x2x2, flat, three logits.

    The stem's first channel fires wherever a pixel is 1, the second, of weight 3/4, at every second
    tick: 0.75, then 0.375 + 0.75. The next layer's first channel always fires, its second never.
    """
    options = {"neuron": LIF(), "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    model = TwoLayers(2, image_shape=(3, 3, 1), num_classes=3, **options)
    model = for_inference(nnx.view(model, use_running_average=True))
    stem, second = model.convs
    stem.conv.kernel[...] = jnp.zeros((3, 3, 1, 2)).at[1, 1, 0].set(jnp.array([1, 0.75]))
    second.conv.kernel[...] = jnp.zeros((3, 3, 2, 2))
    for layer, shift in (stem, [0.0, 0]), (second, [1.0, 0]):
        for part, values in zip(layer.affine, ([1.0, 1], shift), strict=True):
            part[...] = jnp.array(values)
    return model


def tiny_image():
    return jnp.zeros((1, 3, 3, 1)).at[0, [0, 1], [0, 1], 0].set(1)


def test_a_tiny_network_by_hand():
    found = layers(tiny(), (3, 3, 1))
    assert found == [
        Layer("convs.0", "pixels", 9 * 9 * 2),
        Layer("convs.1", "spikes", 4 * 9 * 2 * 2),
        Layer("head", "spikes", 8 * 3),
    ]
    counted, rates = operations(tiny(), tiny_image(), 2)
    # At stride 2, windows begin at -1 and 1: the corner lies in one, the centre in all four. Each
    # reaches two channels. At the second tick both channels of the stem fire.
    np.testing.assert_array_equal(counted["convs.1"], [[2 + 8, 2 * (2 + 8)]])
    np.testing.assert_array_equal(counted["head"], [[4 * 3, 4 * 3]])
    assert set(counted) == {"convs.1", "head"}
    np.testing.assert_allclose(rates["neurons.0"], [[2 / 18, 4 / 18]])
    np.testing.assert_allclose(rates["neurons.1"], [[0.5, 0.5]])


def test_an_integer_counts_as_the_binary_spikes_that_it_stands_for():
    model = tiny()
    model.replace_neurons(lambda place, neuron: ILIF())
    # At 1 and 0.75 all round to 1; the image twice as bright sends 2 and 1.5, which is 2.
    for brightness, spikes in ((1, 1), (2, 2), (9, 4)):
        counted, rates = operations(model, brightness * tiny_image(), 1)
        np.testing.assert_array_equal(counted["convs.1"], [[2 * (2 + 8) * spikes]])
        np.testing.assert_allclose(rates["neurons.0"], [[4 / 18]])
    # Four times as many operations must be counted, at most.
    model = nnx.eval_shape(
        lambda: build_model("resnet8", 16, image_shape=SHAPE, num_classes=4, neuron=ILIF())
    )
    with pytest.raises(UserError, match=r"blocks\.0\.conv1 takes up to 9,663,676,416 operations"):
        layers(nnx.view(model, use_running_average=True), (1024, 1024, 3))


def test_the_account_of_two_images_by_hand():
    images = jnp.concatenate([tiny_image()] * 2)
    counted, rates = jax.device_get(operations(tiny(), images, 2))
    found = account(layers(tiny(), (3, 3, 1)), counted, rates, np.array([1, 2]), policy_macs=10)
    # 22 synaptic operations up to the first tick, 54 up to the second.
    assert found["at_exit"] == pytest.approx(
        {
            "synaptic_operations": 38,
            "macs": 162 + 10,
            "picojoules": 4.6 * 172 + 0.9 * 38,
            "picojoules_stem_each_timestep": 4.6 * (1.5 * 162 + 10) + 0.9 * 38,
        }
    )
    assert [bill["synaptic_operations"] for bill in found["by_timestep"]] == [22, 54]
    assert [bill["macs"] for bill in found["by_timestep"]] == [162, 162]
    assert found["ann"] == pytest.approx({"macs": 330, "picojoules": 4.6 * 330})
    assert [layer["operations"] for layer in found["layers"]] == [162, (10 + 30) / 2, (12 + 24) / 2]
    # The first image's second tick was not run.
    assert found["rates"][0] == {
        "place": "neurons.0",
        "rate": pytest.approx((2 + 2 + 4) / (3 * 18)),
    }


def test_event_data_costs_a_stem_at_every_timestep():
    images = jnp.concatenate([tiny_image()] * 2)
    frames = jnp.broadcast_to(images[:, None], (2, 2, 3, 3, 1))
    counted, rates = jax.device_get(operations(tiny(), frames, 2))
    np.testing.assert_array_equal(counted["convs.1"], [[10, 20]] * 2)
    found = account(layers(tiny(), (3, 3, 1)), counted, rates, np.array([1, 2]), still=False)
    assert found["at_exit"]["macs"] == 1.5 * 162
    energy = pytest.approx(4.6 * 1.5 * 162 + 0.9 * 38)
    assert found["at_exit"]["picojoules"] == energy
    assert found["at_exit"]["picojoules_stem_each_timestep"] == energy
    assert found["layers"][0]["operations"] == 1.5 * 162


def test_real_numbers_cost_macs_at_every_timestep():
    found = account(
        [Layer("stem", "pixels", 7), Layer("a", "spikes", 100), Layer("head", "real numbers", 5)],
        {"a": np.array([[1, 2, 3]], np.int32)},
        {"stem": np.ones((1, 3), np.float32)},
        np.array([3]),
    )
    assert found["at_exit"]["macs"] == 7 + 3 * 5
    assert found["by_timestep"][-1] == found["at_exit"]
    assert found["layers"][2]["operations"] == 15


# --- Spikes, by force ----------------------------------------------------------------------------


def by_force(spikes, window, stride, padding):
    """Spikes in each window, summed over windows: [B, T] of [B, T, H, W, C]."""
    height, width = spikes.shape[2:4]
    count = np.zeros(spikes.shape[:2], int)
    for top in range(-padding, height + padding - window + 1, stride):
        for left in range(-padding, width + padding - window + 1, stride):
            rows = slice(max(top, 0), max(top + window, 0))
            columns = slice(max(left, 0), max(left + window, 0))
            count += (spikes[:, :, rows, columns] != 0).sum((2, 3, 4))
    return count


def layer_by_force(spikes, layer):
    conv = layer.conv
    found = by_force(spikes, conv.kernel_size[0], conv.strides, conv.padding)
    return conv.out_features * found


@settings(deadline=None)
@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_windows_by_force(sides, window, stride, seed):
    padding = window // 2
    spikes = np.random.default_rng(seed).integers(0, 2, (1, 2, *sides, 1))
    found = windows(sides, window, stride, padding)
    expected = by_force(spikes, window, stride, padding)
    np.testing.assert_array_equal((spikes[..., 0] * found).sum((2, 3)), expected)
    # At most a dense pass, zero padding included.
    outputs = np.prod([(side + 2 * padding - window) // stride + 1 for side in sides])
    assert 0 < found.sum() <= outputs * window**2


def test_windows_by_hand():
    np.testing.assert_array_equal(windows((3, 3), 3, 1, 1), [[4, 6, 4], [6, 9, 6], [4, 6, 4]])
    np.testing.assert_array_equal(windows((4, 2), 3, 2, 1), [[1, 1], [2, 2], [1, 1], [1, 1]])
    np.testing.assert_array_equal(windows((3, 2), 1, 2), [[1, 0], [0, 0], [1, 0]])


class TwoBlocks(SpikingResNet):
    stages = (1, 1)
    pool = False


def run(neuron):
    """(model, what `operations` counts, outputs of each neuron) on five images of 7x6 pixels."""
    options = {"neuron": neuron, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    model = TwoBlocks(5, image_shape=(7, 6, 3), num_classes=4, **options)
    model = nnx.view(model, use_running_average=True)
    if isinstance(neuron, QCFS):
        model = convert(model, (7, 6, 3))
    images = 2 * jax.random.normal(jax.random.key(0), (5, 7, 6, 3))
    graph, state = nnx.split(model)

    @jax.jit
    def both(state, images):
        model = nnx.merge(graph, state)
        outputs = layer_outputs(model, currents(model, images, T))[2]
        return operations(model, images, T), outputs

    return model, *jax.device_get(both(state, images))


@pytest.mark.parametrize("kind", ["LIF", "converted"])
def test_a_network_by_force(kind):
    """Its second block takes every second pixel, in the shortcut too."""
    model, (counted, rates), outputs = run(LIF() if kind == "LIF" else QCFS(4))
    source, expected = "stem", {}
    for index, block in enumerate(model.blocks):
        place = f"blocks.{index}"
        expected[f"{place}.conv1"] = layer_by_force(outputs[source], block.conv1)
        if block.shortcut is not None:
            expected[f"{place}.shortcut"] = layer_by_force(outputs[source], block.shortcut)
        expected[f"{place}.conv2"] = layer_by_force(outputs[f"{place}.neuron1"], block.conv2)
        source = f"{place}.neuron2"
    assert counted.keys() == expected.keys()
    for place in expected:
        np.testing.assert_array_equal(counted[place], expected[place], err_msg=place)
    places = [f"blocks.{i}.neuron{j}" for i in (0, 1) for j in (1, 2)]
    assert list(rates) == ["stem", *places]
    for place in outputs:
        spiked = (outputs[place] != 0).mean((2, 3, 4))
        np.testing.assert_allclose(rates[place], spiked, rtol=1e-6)
    if kind == "converted":  # outputs are lambda = 2 or 0, and that is one spike or none
        assert set(np.unique(outputs["stem"])) == {0, np.float32(2)}

    # At T a network has cost the sum of its ticks, and no layer more than were it dense.
    found = layers(model, (7, 6, 3))
    bills = account(found, counted, rates, np.array([1, 2, 3, 1, 3]))["by_timestep"]
    ticks = sum(counted.values()).mean(0)
    totals = [bill["synaptic_operations"] for bill in bills]
    np.testing.assert_allclose(totals, np.cumsum(ticks))
    for layer in found:
        if layer.receives == "spikes":
            assert np.all(counted[layer.place] <= layer.macs)
    assert bills[0]["synaptic_operations"] > 0
