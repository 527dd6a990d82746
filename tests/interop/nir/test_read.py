"""Graphs are read as their equations say, and run, train and exit as any network here."""

import itertools
import random

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest
from flax import nnx

from benchmarks.damages import DAMAGES
from seenn_jax import MODELS, above, confidence, energy
from seenn_jax.engine import run_network
from seenn_jax.errors import UserError
from seenn_jax.interop.nir import FromFile, read, write
from seenn_jax.interop.nir.neurons import Euler
from seenn_jax.models import build_model
from seenn_jax.models.conversion import layer_outputs
from seenn_jax.models.network import inference_network, run_all
from seenn_jax.models.neurons import LIF
from seenn_jax.models.precision import to_int8
from seenn_jax.ticks import currents
from tests.interop.nir.test_write import NETWORKS, T, exact

RNG = np.random.default_rng(0)


def saved(path, *nodes, shape, edges=None, metadata=None):
    """A graph of nodes in a chain, or with edges between "input", "0", "1" ... and "output"."""
    named = {str(number): node for number, node in enumerate(nodes)}
    names = ["input", *named, "output"]
    nodes = {"input": nir.Input(np.array(shape)), **named, "output": nir.Output(np.array([2]))}
    edges = edges or list(itertools.pairwise(names))
    nir.write(path, nir.NIRGraph(nodes, edges, metadata=metadata or {}, type_check=False))
    return path


def logits_of(network, images, timesteps=1):
    """Of the ticks of the same images."""
    return np.asarray(run_all(network, jnp.asarray(images), timesteps))


def round_trip(name, folder):
    """(network, what comes back, [logits, outputs of each layer] of both) of one of `NETWORKS`."""
    model, images = exact(*NETWORKS[name])
    path, shape = folder / f"{name}.nir", NETWORKS[name][2]
    write(path, model, shape, lossy=name == "converted")
    back = read(path)
    assert (back.image_shape, back.num_classes) == (shape, 3)

    @jax.jit
    def outputs(state, graph_images):
        models = nnx.merge(graph, state)
        return [layer_outputs(m, currents(m, graph_images, T))[::2] for m in models]

    graph, state = nnx.split((model, back))
    return model, back, outputs(state, images)


ROUND_TRIPS = (
    "averaging shortcuts",
    "large images",
    "hidden layers, above the threshold",
    "converted",
    "spikes are added",
    "currents are added",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if "added" in n else []) for n in ROUND_TRIPS],
)
def test_a_round_trip_is_the_network_spike_for_spike(name, tmp_path):
    model, back, ((logits, wanted), (found, spikes)) = round_trip(name, tmp_path)
    if name != "converted":
        assert {type(n) for n in back.layers if isinstance(n, Euler | LIF)} == {LIF}
        # A sum of spikes is none to the reader: the second block's first layer and shortcut get it.
        sums = 2 if name == "spikes are added" else 0
        assert len(back.spike_layers()) == len(model.spike_layers()) - sums
    np.testing.assert_array_equal(found, logits)
    pairs = list(zip(wanted.values(), spikes.values(), strict=True))
    assert all(np.array_equal(ours != 0, theirs) for ours, theirs in pairs)
    assert sum(bool(ours.any()) for ours, _ in pairs) > 2


def test_it_exits_in_slots_and_learns(tmp_path):
    model, _ = exact(*NETWORKS["flat"])
    shape = NETWORKS["flat"][2]
    write(tmp_path / "a.nir", model, shape)
    back = read(tmp_path / "a.nir", surrogate="triangle")
    images = jnp.asarray(RNG.normal(size=(12, *shape)), jnp.float32)
    network, criterion = inference_network(back, shape, T), above(confidence, 0.6)
    ends = [
        run_network(method, network, network.params, images, criterion, T, 4)
        for method in ("slots", "full")
    ]
    np.testing.assert_array_equal(ends[0].timesteps, ends[1].timesteps)
    np.testing.assert_allclose(ends[0].logits, ends[1].logits, atol=1e-5)
    assert 1 < ends[0].timesteps.mean() < T

    graph, params, others = nnx.split(back, nnx.Param, nnx.BatchStat)
    assert not jax.tree.leaves(others)
    gradients = jax.jit(
        jax.grad(lambda params: run_all(nnx.merge(graph, params, others), images[:2], 2).sum())
    )(params)
    kernels = [g for g in jax.tree.leaves(gradients) if g.ndim == 4]
    assert len(kernels) == 4
    assert all(np.any(g) for g in kernels)
    to_int8(back)  # all but what takes pixels, and what is behind a pool
    kinds = [layer.conv.kernel.dtype.name for layer in back.layers if hasattr(layer, "conv")]
    assert kinds == ["float32", "int8", "float32", "int8"]


NEURONS = {
    "LIF": nir.LIF(
        tau=np.array([0.004, 0.002]),
        r=np.array([3.0, 1.5]),
        v_leak=np.array([0.1, -0.2]),
        v_threshold=np.array([0.7, 0.3]),
        v_reset=np.array([-0.3, 0.1]),
    ),
    "LI": nir.LI(tau=np.array([0.004, 0.002]), r=np.ones(2), v_leak=np.array([0.1, -0.2])),
    "IF": nir.IF(r=np.array([500.0, 300.0]), v_threshold=np.array([0.7, 0.3])),
    "I": nir.I(r=np.array([500.0, 300.0])),
    "CubaLIF": nir.CubaLIF(
        tau_syn=np.array([0.002, 0.003]),
        tau_mem=np.array([0.004, 0.002]),
        r=np.array([3.0, 1.5]),
        v_leak=np.array([0.1, 0.0]),
        v_threshold=np.array([0.5, 0.3]),
        w_in=np.array([1.5, 2.0]),
    ),
    "CubaLI": nir.CubaLI(
        tau_syn=np.array([0.002]),
        tau_mem=np.array([0.004]),
        r=np.array([3.0]),
        v_leak=np.array([0.1]),
    ),
}
DT, TICKS = 0.001, 8


def by_its_equations(node, x):
    """What a node puts out at each tick of the constant input x, by Euler steps."""
    v, i, out = np.zeros(2), np.zeros(2), []
    for _ in range(TICKS):
        current = x
        if hasattr(node, "tau_syn"):
            i = i + DT / node.tau_syn * (node.w_in * x - i)
            current = i
        tau = getattr(node, "tau_mem", getattr(node, "tau", None))
        if tau is None:
            v = v + DT * node.r * current
        else:
            v = v + DT / tau * (node.v_leak - v + node.r * current)
        if hasattr(node, "v_threshold"):
            spikes = v > node.v_threshold
            v = np.where(spikes, node.v_reset, v)
            out.append(spikes)
        else:
            out.append(v)
    return np.array(out, np.float32)


@pytest.mark.parametrize("kind", NEURONS)
def test_neurons_are_their_equations(kind, tmp_path):
    node = NEURONS[kind]
    network = read(saved(tmp_path / "a.nir", node, shape=[2], metadata={"dt": DT}))
    found = logits_of(network, np.float32([[[[0.4, 0.9]]]]), TICKS)[0]
    wanted = by_its_equations(node, np.array([0.4, 0.9]))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert len(np.unique(wanted)) > 1
    assert len(jax.tree.leaves(nnx.split(network, nnx.Param, ...)[1])) == 0  # nothing is learnt


def test_the_time_step_is_the_caller_s_or_the_file_s(tmp_path):
    node = NEURONS["LI"]
    path = saved(tmp_path / "a.nir", node, shape=[2])
    with pytest.raises(UserError, match=r"does not say its time step: give `dt` in seconds, which"):
        read(path)
    for dt in (0.001, 0.002):
        found = logits_of(read(path, dt), np.ones((1, 1, 1, 2), np.float32))[0, 0]
        np.testing.assert_allclose(found, dt / node.tau * (node.v_leak + 1), rtol=1e-6)
    # As snnTorch writes it: one number for all neurons, beta = 0.9 in float32.
    tau = np.float32(1e-4) / (1 - np.float32(0.9))
    numbers = {"tau": tau, "r": tau / np.float32(1e-4), "v_leak": 0, "v_threshold": 1}
    leaky = nir.LIF(**{name: np.reshape(np.float32(value), 1) for name, value in numbers.items()})
    network = read(saved(tmp_path / "b.nir", leaky, shape=[2]), 1e-4)
    assert network.layers[0] == LIF(0.9, float(np.nextafter(np.float32(1), np.float32(2))))


def by_windows(x, node, combine):
    """A convolution or pool by its windows, channels first."""
    (top, left), (down, right) = (np.broadcast_to(v, 2) for v in (node.padding, node.stride))
    x = np.pad(x, ((0, 0), (top, top), (left, left)))
    size = combine(x, 0, 0)[0]
    rows, columns = (x.shape[1] - size[0]) // down + 1, (x.shape[2] - size[1]) // right + 1
    return np.stack(
        [
            np.stack([combine(x, i * down, j * right)[1] for j in range(columns)], -1)
            for i in range(rows)
        ],
        -2,
    )


def convolved(node):
    out, depth, height, width = node.weight.shape
    (down, right), each = node.dilation, out // node.groups
    size = ((height - 1) * down + 1, (width - 1) * right + 1)

    def combine(x, i, j):
        part = x[:, i : i + size[0] : down, j : j + size[1] : right]
        if part.shape[1:] != (height, width):
            return size, None
        groups = [
            np.einsum("cij,ocij->o", part[g * depth : (g + 1) * depth], weight)
            for g, weight in enumerate(node.weight.reshape(node.groups, each, depth, height, width))
        ]
        return size, np.concatenate(groups) + node.bias

    return combine


def pooled(node, divisor):
    size = tuple(node.kernel_size)
    return lambda x, i, j: (size, x[:, i : i + size[0], j : j + size[1]].sum((1, 2)) / divisor)


def conv(out=4, depth=4, window=(3, 3), stride=1, padding=1, dilation=1, groups=1):
    weight = np.float32(RNG.normal(size=(out, depth // groups, *window)))
    bias = np.float32(RNG.normal(size=out))
    return nir.Conv2d((6, 5), weight, stride, padding, dilation, groups, bias)


def pool(kind, window, stride, padding):
    return kind(*(np.array(each) for each in (window, stride, padding)))


MAPS = {
    "plain": conv(),
    "strided": conv(stride=2),
    "unpadded": conv(padding=0),
    "depthwise": conv(groups=4),
    "grouped, dilated": conv(out=6, window=(2, 3), stride=(2, 1), dilation=(1, 2), groups=2),
    "average": pool(nir.AvgPool2d, (2, 2), (2, 2), (0, 0)),
    "average, padded": pool(nir.AvgPool2d, (3, 2), (2, 1), (1, 0)),
    "sum": pool(nir.SumPool2d, (2, 2), (1, 2), (0, 1)),
}


@pytest.mark.parametrize("name", MAPS)
def test_convolutions_and_pools_are_pytorch_s(name, tmp_path):
    node, x = MAPS[name], RNG.normal(size=(4, 6, 5))
    if isinstance(node, nir.Conv2d):
        wanted = by_windows(x, node, convolved(node))
    else:
        average = isinstance(node, nir.AvgPool2d)
        wanted = by_windows(x, node, pooled(node, np.prod(node.kernel_size) if average else 1))
    flatten = nir.Flatten(np.array(wanted.shape), start_dim=int(RNG.choice([0, 1, -3])))
    head = nir.Linear(np.eye(wanted.size, dtype=np.float32))
    scale = nir.Scale(np.float32(RNG.normal(size=(4, 6, 5))))
    network = read(saved(tmp_path / "a.nir", scale, node, flatten, head, shape=[4, 6, 5]))
    image = (x / scale.scale).transpose(1, 2, 0)[None].astype(np.float32)
    np.testing.assert_allclose(
        logits_of(network, image)[0, 0], wanted.ravel(), rtol=1e-4, atol=1e-4
    )
    assert network.stem == 4  # all of it is computed once
    if name in ("depthwise", "unpadded"):
        with pytest.raises(UserError, match=r"layers\.1 is a convolution whose operations are not"):
            energy.layers(network, (6, 5, 4))


def test_a_threshold_is_passed_from_above(tmp_path):
    node = nir.Threshold(np.float32([0.5, 0.25]))
    edges = [("input", "0"), ("input", "1"), ("0", "1"), ("1", "output")]
    affine = nir.Affine(np.eye(2, dtype=np.float32), np.float32([10, 20]))
    network = read(saved(tmp_path / "a.nir", node, affine, shape=[2], edges=edges))
    found = logits_of(network, np.float32([[[[0.5, 0.3]]]]))[0, 0]
    np.testing.assert_allclose(found, [10.5, 21.3], rtol=1e-6)  # with what goes past it


def test_a_file_is_a_row_of_models(tmp_path):
    model, _ = exact(*NETWORKS["flat"])
    write(tmp_path / "a.nir", model, (8, 8, 2))
    MODELS["from_file"] = FromFile(tmp_path / "a.nir")
    try:
        build = {"image_shape": (8, 8, 2), "num_classes": 3}
        network = build_model("from_file", 7, **build, neuron=LIF(surrogate="triangle"))
        assert network.layers[1].surrogate == "triangle"
        shapes = nnx.eval_shape(lambda: build_model("from_file", 7, **build))
        assert shapes.num_classes == 3
        with pytest.raises(UserError, match=r"has 3 classes, and the data are .* with 4"):
            build_model("from_file", 7, **build | {"num_classes": 4})
        with pytest.raises(UserError, match=r"brings its own neurons: leave `config.activation`"):
            build_model("from_file", 7, **build, neuron=lambda x, v0=None: (x, None))
    finally:
        del MODELS["from_file"]


# --- Mistakes ------------------------------------------------------------------------------------

LINEAR = nir.Linear(np.ones((2, 2), np.float32))
MISTAKES = {
    "unknown node": (
        [nir.Delay(np.ones(2))],
        {},
        r"node '0' is a Delay, which can't be said here: a graph may have Affine, AvgPool2d, Conv",
    ),
    "cycle": (
        [LINEAR, LINEAR],
        {"edges": [("input", "0"), ("0", "1"), ("1", "0"), ("1", "output")]},
        r"the graph is recurrent, by (0 -> 1 -> 0|1 -> 0 -> 1)",
    ),
    "two widths": ([nir.Linear(np.ones((2, 3)))], {}, r"node '0' takes 3 numbers to 2.*shape \(2,"),
    "tau": ([NEURONS["LI"]], {"metadata": {"dt": 0.1}}, r"time constant tau = 0\.002 s.*dt = 0\.1"),
    "dt": ([NEURONS["LI"]], {"metadata": {"dt": -1.0}}, r"time step dt is -1\.0: it must be above"),
    "shape": ([nir.I(np.ones(3))], {"metadata": {"dt": 1.0}}, r"r of shape \(3,\).*shape \(2,\)"),
    "not finite": ([nir.Scale(np.array([1, np.nan]))], {}, "'0' has a scale that is not finite"),
    "map": ([MAPS["plain"]], {}, r"takes a map of shape \(channels, height, width\).*\(2,\)"),
    "small map": ([MAPS["unpadded"]], {"shape": [4, 2, 2]}, "maps of at least 3x3"),
    "channels": ([MAPS["plain"]], {"shape": [3, 4, 4]}, r"takes 4 channels in 1 group\(s\) to 4"),
    "no vector": ([MAPS["plain"]], {"shape": [4, 4, 4]}, r"output has the shape \(4, 4, 4\)"),
    "input": ([LINEAR], {"shape": [2, 2]}, r"the input has the shape \(2, 2\)"),
    "lost": (
        [LINEAR, LINEAR],
        {"edges": [("input", "0"), ("1", "0"), ("0", "output")]},
        r"node '1' has the wrong edges: all must lead from 'input' to 'output'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_read_is_named(name, tmp_path):
    nodes, options, match = MISTAKES[name]
    path = saved(tmp_path / "a.nir", *nodes, **{"shape": [2]} | options)
    with pytest.raises(UserError, match=match) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_what_is_no_graph(tmp_path):
    path = tmp_path / "a.nir"
    with pytest.raises(UserError, match=r"a\.nir can't be read .No such file"):
        read(path)
    path.write_text("<html>")
    with pytest.raises(UserError, match=r"can't be read as a NIR graph .*get the file again"):
        read(path)
    nir.write(path, LINEAR)
    with pytest.raises(UserError, match=r"graph \(it holds a single Linear\): get"):
        read(path)


def test_a_zeroed_heap_of_strings_is_no_endless_loop(tmp_path):
    path = saved(tmp_path / "a.nir", LINEAR, shape=[2])
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL\x01")
    at = start + 16
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    content[at : at + 16] = bytes(16)  # what says how much space is left
    path.write_bytes(content)
    with pytest.raises(UserError, match="a heap of its strings is damaged"):
        read(path)


def test_a_damaged_file_is_one_sentence(tmp_path):
    nodes = [MAPS["plain"], nir.Flatten(np.array([4, 4, 4]), 0), nir.Linear(np.ones((2, 64)))]
    path = saved(tmp_path / "a.nir", *nodes, NEURONS["LIF"], shape=[4, 4, 4], metadata={"dt": DT})
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for kind in ("flip", "cut", "zeros") * 8:
        path.write_bytes(DAMAGES[kind](whole, rng))
        try:
            read(path)
        except UserError as error:  # and nothing else
            refused += "\n" not in str(error)
    assert 8 < refused <= 24
