"""A tick that was written as ONNX has our logits at every tick, as ONNX Runtime runs it."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.errors import UserError
from seenn_jax.interop.onnx import graph_of, write_tick
from seenn_jax.models.network import inference_network
from seenn_jax.run.inference import load
from tests.models.networks import BATCH, TIMESTEPS, exact, images, logits_of

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def ticks(model, inputs, membranes, timesteps):
    """Logits [B, T, K] of `inputs(t)`, the inputs of a tick but for the membranes."""
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names, found = [each.name for each in session.get_inputs()], []
    for t in range(timesteps):
        given = dict(zip(names, [*inputs(t), *membranes], strict=True))
        logits, *membranes = session.run(None, given)
        found.append(logits)
    return np.stack(found, 1)


def of_network(name):
    """(a tick of an exact network from its membranes at rest, ours): logits [B, T, K]."""
    model, inputs = exact(name), images(name, BATCH)
    network = inference_network(model, inputs.shape[1:], TIMESTEPS)
    rest = jax.tree.leaves(network.at_rest)
    structure = jax.tree.structure(network.at_rest)

    def tick(images, *membranes):
        currents = network.encode(network.params, images)
        membranes = jax.tree.unflatten(structure, membranes)
        after, logits = network.step(network.params, membranes, currents)
        return logits, *jax.tree.leaves(after)

    membranes = [np.repeat(np.asarray(v)[None], BATCH, 0) for v in rest]
    arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (inputs, *membranes)]
    count = range(len(rest))
    before, after = ["images", *(f"v{i}" for i in count)], ["logits", *(f"w{i}" for i in count)]
    graph = graph_of(tick, arguments, before, after, {})
    onnx.checker.check_model(graph, full_check=True)
    found = ticks(graph.SerializeToString(), lambda t: [np.asarray(inputs)], membranes, TIMESTEPS)
    return found, np.asarray(logits_of(model, inputs, TIMESTEPS))


EXACT = ("resnet8", "vgg16", "resnet19", "resnet34", "resnet19_tet", "vggsnn_pool")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_logits_are_ours_at_every_tick(name):
    found, ours = of_network(name)
    assert np.abs(np.diff(ours, axis=1)).max() > 1e-3  # the ticks are not all alike
    np.testing.assert_array_equal(found, ours)


def of_run(run, path):
    """(logits of a run's written tick on three images, ours), from membranes of garbage."""
    write_tick(path, run, 3)
    shown = run.dataset.test.images[:3]
    garbage = [np.full((3, *v.shape), 9, v.dtype) for v in jax.tree.leaves(run.network.at_rest)]
    given = lambda t: [shown, np.full(3, t == 0)]  # noqa: E731
    return ticks(path.read_bytes(), given, garbage, run.timesteps), run.logits(shown)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_run_is_written_with_all_that_it_needs(trained, tmp_path, precision):
    run = load(trained, precision=precision)
    path = tmp_path / "tick.onnx"
    found, ours = of_run(run, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    about = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert (about["timesteps"], about["classes"]) == (run.timesteps, [*run.facts.names])
    np.testing.assert_allclose(found, ours, atol=1e-5)


def test_the_graph_has_no_loops_and_each_constant_once(trained, tmp_path):
    write_tick(tmp_path / "tick", load(trained))
    graph = onnx.load(tmp_path / "tick").graph
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in graph.node}
    assert len({each.SerializeToString()[8:] for each in graph.initializer}) == len(
        graph.initializer
    )


def test_mistakes(trained, tmp_path, monkeypatch):
    run, path = load(trained), tmp_path / "tick.onnx"
    for write, match in (
        (lambda: write_tick(path, run, 0), r"`slots` is 0: it must be at least 1"),
        (lambda: write_tick(tmp_path, run), r"`onnx`=.* exists already: give the name of a new"),
        (
            lambda: write_tick(path, load(trained, precision="bfloat16")),
            r"computes in bfloat16.*give `precision`=float32",
        ),
        (
            lambda: graph_of(jnp.sort, [jax.ShapeDtypeStruct((3,), jnp.float32)], ["x"], ["y"], {}),
            r"the network has the operation 'sort', which is not written as ONNX: add a row",
        ),
    ):
        with pytest.raises(UserError, match=match):
            write()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="onnx, which is not installed: pip install onnx"):
        write_tick(path, run)
    assert not path.exists()
