"""What is written is read back by the NIR library, run by its equations, and gives our logits."""

import functools
import operator
import sys

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.interop.nir import build_graph, export, write
from seenn_jax.models.activations import QCFS
from seenn_jax.models.conversion import convert, layer_outputs
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.mlp import SpikingMLP
from seenn_jax.models.neurons import IF, ILIF, LIF, PLIF
from seenn_jax.models.residual import MSResNet, SEWBlock, SEWResNet
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.vgg import SpikingVGG
from seenn_jax.run import folder
from seenn_jax.run.inference import load
from seenn_jax.ticks import currents
from tests.run.untrained import untrained

T = 4

# --- A small interpreter of NIR ------------------------------------------------------------------


def convolve(x, node):
    (top, left), (down, right) = node.padding, node.stride
    x = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(x, node.weight.shape[2:], (2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows[:, :, ::down, ::right], node.weight)
    return y + node.bias[:, None, None]


def average(x, node):
    (rows, columns), height, width = node.kernel_size, *x.shape[2:]
    x = x[:, :, : height // rows * rows, : width // columns * columns]
    return x.reshape(*x.shape[:2], height // rows, rows, width // columns, columns).mean((3, 5))


def tick(graph, x, membranes):
    """(logits, outputs by node) of one tick; `membranes` are updated.

    Neurons take an Euler step of their equation, which for LIF is all that NIR says. What it does
    not say of IF is in their metadata.
    """
    dt = np.float32(graph.metadata["dt"])
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    outputs = {}

    @functools.cache
    def output(name):
        node = graph.nodes[name]
        total = sum(output(source) for source in sources[name])
        match node:
            case nir.Input():
                outputs[name] = x
            case nir.Output():
                outputs[name] = total
            case nir.Conv2d():
                outputs[name] = convolve(total, node)
            case nir.AvgPool2d():
                outputs[name] = average(total, node)
            case nir.Scale():
                outputs[name] = total * node.scale
            case nir.Flatten():
                outputs[name] = total.reshape(len(total), -1)
            case nir.Affine():
                outputs[name] = total @ node.weight.T + node.bias
            case nir.LIF() | nir.IF():
                rest = np.float32(node.metadata["initial_membrane"])
                v = membranes.get(name, np.full_like(total, rest))
                if isinstance(node, nir.LIF):
                    v = v + dt / node.tau * (node.v_leak - v + node.r * total)
                else:
                    v = v + dt * node.r * total
                spikes = v > node.v_threshold
                if node.metadata["reset"] == "zero":
                    after = node.v_reset
                else:
                    after = v - np.float32(node.metadata["threshold"])
                membranes[name] = np.where(spikes, after, v)
                outputs[name] = spikes.astype(np.float32)
        return outputs[name]

    return output("output"), outputs


# --- Networks ------------------------------------------------------------------------------------


class Small(SpikingResNet):
    stages = (1, 2)


class Strided(Small):
    pool = False


class Large(Strided):
    large_images = True


class Chain(SpikingVGG):
    plan = (1, 2, "P", 2, (4, 2))


class Flat(Chain):
    flat = True


class Hidden(Flat):
    hidden = (2, 1)


class SEW(SEWResNet):
    stages = (1, 1)


class MS(MSResNet):
    stages = (1, 1)


def made(network, neuron, image_shape):
    kinds = {"neuron": neuron, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    return network(5, image_shape=image_shape, num_classes=3, **kinds)


def exact(network, neuron, image_shape):
    """A network all of whose sums are exact in float32, so that no order of them changes a spike.

    Weights, statistics and thresholds are small multiples of powers of two.
    """
    model = made(network, neuron, image_shape)
    rng = np.random.default_rng(0)

    def draw(like, unit, low=-4, high=5):
        return jnp.asarray(unit * rng.integers(low, high, like.shape), jnp.float32)

    for _, module in nnx.iter_graph(model):
        if isinstance(module, ConvBN):
            kernel, bn = module.conv.kernel, module.bn
            kernel[...] = draw(kernel, 1 / 16)
            bn.var[...] = jnp.asarray(rng.choice([1 / 4, 1], bn.var.shape) - bn.epsilon)
            bn.mean[...], bn.bias[...] = draw(bn.mean, 1 / 8), draw(bn.bias, 1 / 8, 0)
        if isinstance(module, nnx.Linear):
            module.kernel[...], module.bias[...] = (
                draw(module.kernel, 1 / 16),
                draw(module.bias, 1 / 4),
            )
    model = nnx.view(model, use_running_average=True)
    if isinstance(neuron, QCFS):
        model = convert(model, image_shape)
        thresholds = iter(np.resize([2.0, 1.0, 0.5], 9))
        model.replace_neurons(lambda place, neuron: IF(next(thresholds)))
    images = 0.25 * rng.integers(-6, 7, (3, *image_shape))
    return model, jnp.asarray(images, jnp.float32)


NETWORKS = {
    # Shortcuts that average, an identity, and a border: 6 halved is odd, which a convolution takes.
    "averaging shortcuts": (Small, LIF(), (6, 4, 2)),
    "strided shortcuts": (Strided, LIF(tau=0.75, threshold=0.5), (7, 5, 2)),
    "no leak": (Chain, LIF(tau=1.0), (8, 8, 3)),
    "large images": (Large, LIF(), (16, 16, 3)),
    "flat": (Flat, LIF(), (8, 8, 2)),
    "linear layers alone": (SpikingMLP, LIF(), (3, 4, 2)),
    "converted, linear layers alone": (SpikingMLP, QCFS(4), (3, 4, 2)),
    "hidden layers, above the threshold": (Hidden, LIF(strict=True), (8, 8, 2)),
    "soft reset": (Strided, LIF(reset="soft"), (7, 5, 2)),
    "spikes are added": (SEW, LIF(), (7, 5, 2)),
    "currents are added": (MS, LIF(), (7, 5, 2)),
    "converted, spikes are added": (SEW, QCFS(4), (7, 5, 2)),
    "converted": (Small, QCFS(4), (8, 8, 2)),
    "converted, strided": (Strided, QCFS(4), (7, 5, 2)),
    "converted chain": (Flat, QCFS(4), (8, 8, 2)),
}


SLOW = ("currents are added", "converted, spikes are added")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS]
)
def test_what_is_read_back_is_the_network(name, tmp_path):
    network, neuron, image_shape = NETWORKS[name]
    model, images = exact(network, neuron, image_shape)
    path = tmp_path / "network.nir"
    write(path, model, image_shape, metadata={"std": np.float32([0.5, 0.25])}, lossy=True)
    graph = nir.read(path)

    graph_of_ours, state = nnx.split(model)

    @jax.jit
    def run(state, images):
        model = nnx.merge(graph_of_ours, state)
        logits, _, outputs = layer_outputs(model, currents(model, images, T))
        return logits, outputs

    logits, expected = jax.device_get(run(state, images))
    membranes, fired = {}, set()
    for t in range(T):
        found, outputs = tick(graph, np.asarray(images).transpose(0, 3, 1, 2), membranes)
        np.testing.assert_allclose(found, logits[:, t], rtol=1e-5, atol=1e-5)
        for place, ours in expected.items():
            node = "stem_neuron" if place == "stem" else place.replace(".", "_")
            spikes = ours[:, t] != 0
            spikes = spikes.transpose(0, 3, 1, 2) if spikes.ndim == 4 else spikes
            spikes = spikes.reshape(outputs[node].shape)  # the one pixel of a linear layer
            np.testing.assert_array_equal(outputs[node], spikes, err_msg=place)
            fired |= {(place, bool(spike)) for spike in np.unique(spikes)}
    # Each layer fired somewhere and kept silent elsewhere, and ticks differ.
    assert len(fired) == 2 * len(expected)
    assert not np.array_equal(logits[:, 0], logits[:, -1])
    np.testing.assert_array_equal(graph.metadata["std"], np.float32([0.5, 0.25]))


def only(kind, graph):
    return [node for node in graph.nodes.values() if isinstance(node, kind)]


def test_an_euler_step_is_a_tick_for_any_time_step():
    model, _ = exact(Small, LIF(tau=0.75, threshold=0.5), (8, 8, 2))
    for dt, graph in (
        (1e-4, build_graph(model, (8, 8, 2))),
        (2.0, build_graph(model, (8, 8, 2), dt=2.0)),
    ):
        assert graph.metadata["dt"] == dt
        for node in only(nir.LIF, graph):
            # v + dt / tau (v_leak - v + r I) = 0.75 v + I
            np.testing.assert_allclose(1 - dt / node.tau, 0.75, rtol=1e-6)
            np.testing.assert_allclose(dt / node.tau * node.r, 1, rtol=1e-6)
            assert np.all(node.v_leak == 0)
            assert np.all(node.v_reset == 0)
            below = np.unique(node.v_threshold)
            assert below < 0.5
            assert np.nextafter(below, np.float32(1)) == 0.5


def test_a_learnt_decay_is_written_as_it_was_learnt():
    model, _ = exact(Small, PLIF(LIF(tau=0.5)), (8, 8, 2))
    neuron = model.blocks[0].neuron2
    neuron.raw[...] = jnp.log(jnp.float32(0.75 / 0.25))
    nodes = build_graph(model, (8, 8, 2)).nodes
    for place, tau in (("stem_neuron", 0.5), ("blocks_0_neuron2", 0.75)):
        node = nodes[place]
        np.testing.assert_allclose(1 - 1e-4 / node.tau, tau, rtol=1e-5)
        np.testing.assert_allclose(node.r, 1 / (1 - tau), rtol=1e-5)
        assert node.metadata["reset"] == "zero"
    assert neuron is model.blocks[0].neuron2  # which stays as it is


def test_a_converted_network_s_thresholds_go_into_the_weights():
    model, _ = exact(Small, QCFS(4), (8, 8, 2))
    graph = build_graph(model, (8, 8, 2), lossy=True)
    assert graph.metadata["dt"] == 1
    stem = graph.nodes["stem_neuron"]
    assert np.all(stem.r == 1)
    assert stem.metadata == {
        "threshold": 2.0,
        "reset": "subtract threshold",
        "initial_membrane": 1.0,
    }
    # What follows the stem, of lambda 2; its own batch norm leaves the weights or doubles them.
    weight = graph.nodes["blocks_0_conv1"].weight.transpose(2, 3, 1, 0)
    kernel = np.asarray(model.blocks[0].conv1.conv.kernel[...])
    ratio = weight[kernel != 0] / kernel[kernel != 0]
    assert set(np.unique(ratio)) <= {2.0, 4.0}
    # The first and the third block have no convolution in their shortcut; lambda is 2 and 1 there.
    assert [np.unique(node.scale).item() for node in only(nir.Scale, graph)] == [2.0]
    assert ("stem_neuron", "blocks_0_neuron2_residual") in graph.edges
    into = [a for a, b in graph.edges if b == "blocks_1_neuron2"]
    assert sorted(into) == ["blocks_1_conv2", "blocks_1_shortcut"]


def test_a_run_is_exported_with_what_a_reader_must_know(trained, make_config, tmp_path):
    facts = folder.load(trained)[1]
    config = make_config(activation="qcfs", loss="mean_ce", inherit_epochs=0)
    ann = untrained(tmp_path / "ann", config, facts)
    for workdir, kind, other in ((trained, nir.LIF, nir.IF), (ann, nir.IF, nir.LIF)):
        path = tmp_path / f"{workdir.name}.nir"
        export(path, load(workdir), lossy=workdir is ann)
        graph = nir.read(path)
        assert len(only(kind, graph)) == 3
        assert only(other, graph) == []
        for name, expected in zip(("mean", "std"), facts.normalization, strict=True):
            np.testing.assert_array_equal(graph.metadata[name], expected)
        assert graph.metadata["timesteps"] == 3
        assert graph.metadata["dataset"] == "digits"


# --- Mistakes ------------------------------------------------------------------------------------


class Other(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def replace_neurons(self, replace):
        pass


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    model, _ = exact(Small, LIF(), (8, 8, 2))
    taken = tmp_path / "taken.nir"
    taken.write_text("mine")
    ann, _ = exact(Small, lambda x, v0=None: (x, None), (8, 8, 2))
    converted, _ = exact(Small, QCFS(4), (8, 8, 2))
    soft, _ = exact(Small, LIF(reset="soft"), (8, 8, 2))
    integers, _ = exact(Small, ILIF(), (8, 8, 2))
    for path, network, shape, match in (
        (taken, model, (8, 8, 2), "taken.nir exists already: give the name of a new file"),
        (tmp_path / "no" / "a.nir", model, (8, 8, 2), "there is no folder .*no; make it"),
        (tmp_path / "a.nir", converted, (8, 8, 2), r"half its threshold .* give `nir_lossy` to"),
        (tmp_path / "a.nir", soft, (8, 8, 2), r"reset by subtraction .* give `nir_lossy` to"),
        (tmp_path / "a.nir", integers, (8, 8, 2), r"stem\.neuron sends integers up to 4, .*plif"),
        (tmp_path / "a.nir", ann, (8, 8, 2), r"stem\.neuron is a <lambda>, which does not spike"),
        (tmp_path / "a.nir", model, (7, 8, 2), r"blocks\.1 averages a map of 7x8.*halved"),
    ):
        with pytest.raises(UserError, match=match):
            write(path, network, shape)

    class Product(SEW):
        block = type("And", (SEWBlock,), {"connect": staticmethod(operator.mul)})

    for kind, match in (
        (
            type("Pooled", (SEW,), {"large_images": True}),
            "Pooled has max pooling, and NIR has none",
        ),
        (Product, "Product connects spikes otherwise than by their sum, and NIR only adds"),
    ):
        abstract = nnx.eval_shape(functools.partial(made, kind, LIF(), (8, 8, 2)))
        with pytest.raises(UserError, match=match):
            build_graph(abstract, (8, 8, 2))
    with pytest.raises(UserError, match=r"no graph of a Other: .* SpikingResNet, SpikingVGG"):
        build_graph(Other(), (8, 8, 2))
    with pytest.raises(UserError, match=r"time step dt is 0\.0: it must be above 0"):
        build_graph(model, (8, 8, 2), dt=0.0)
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(UserError, match="needs the package nir, which is not installed: pip inst"):
        write(tmp_path / "a.nir", model, (8, 8, 2))
