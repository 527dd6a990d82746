"""Golden tensors of the official code, and files that are not what they should be."""

import json
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.interop.files import read_state_dict
from seenn_jax.interop.names import official_names
from seenn_jax.interop.official import convert, load_official, load_state_dict, make_run
from seenn_jax.interop.sources import canonical, source_of
from seenn_jax.models import MODELS, build_model, conversion
from seenn_jax.models.activations import QCFS
from seenn_jax.models.network import inference_network, run_all
from seenn_jax.models.neurons import LIF
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.run.inference import load
from seenn_jax.training.losses import tet
from tests.interop.make_golden import drawn
from tests.interop.torch_made import saved

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
FILES = {"resnet19": "reference_resnet19_w16.npz", "vgg16": "reference_vgg16_w16.npz"}


def relative_error(a, b):
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


def load_golden(name):
    path = GOLDEN / FILES[name]
    if not path.is_file():
        pytest.skip("golden tensors are not here")
    with np.load(path) as arrays:
        golden = dict(arrays)
    state = {k.removeprefix("param/"): v for k, v in golden.items() if k.startswith("param/")}
    grads = {k.removeprefix("grad/"): v for k, v in golden.items() if k.startswith("grad/")}
    return golden, state, grads


def small(name, **kwargs):
    shape = (48, 48, 2) if name == "vggsnn" else (32, 32, 3)
    return build_model(name, 16, **({"image_shape": shape, "num_classes": 10} | kwargs))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "resnet19")) for n in FILES]
)
def test_golden_in_float64(name):
    golden, state, official_grads = load_golden(name)
    with jax.enable_x64(True):
        model = small(name, dtype="float64")
        load_state_dict(model, state)
        images = jnp.asarray(golden["input"].transpose(0, 2, 3, 1), jnp.float64)
        targets = jax.nn.one_hot(golden["label"], 10, dtype=jnp.float64)
        timesteps = int(golden["T"])

        inference = nnx.view(model, use_running_average=True)
        evaluated = jax.jit(lambda images: run_all(inference, images, timesteps))(images)
        assert relative_error(evaluated, golden["eval_logits"]) < 1e-8

        graph, params, stats = nnx.split(model, nnx.Param, ...)

        def loss(params):
            logits = run_all(nnx.merge(graph, params, stats, copy=True), images, timesteps)
            return tet(logits, targets), logits

        (value, trained), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        assert relative_error(trained, golden["train_logits"]) < 1e-8
        assert relative_error(value, golden["tet_loss"]) < 1e-8

        expected = convert(model, official_grads)
        flat = nnx.to_flat_state(grads)
        assert set(expected) == {path for path, _ in flat}
        for path, leaf in flat:
            if path[-2:] == ("conv", "bias"):
                # BatchNorm takes any bias out again: its gradient is zero up to rounding.
                assert np.abs(leaf[...]).max() < 1e-12
                assert np.abs(expected[path]).max() < 1e-12
            else:
                assert relative_error(leaf[...], expected[path]) < 1e-5, path


class Golden(SpikingResNet):
    """SEENN's ResNet-20 has 2 blocks in its last stage; the QCFS authors', and ours, has 3."""

    stages = (3, 3, 2)
    pool = False


@pytest.mark.slow
def test_golden_conversion_in_float64(monkeypatch):
    path = GOLDEN / "reference_qcfs_resnet20_w16.npz"
    if not path.is_file():
        pytest.skip("golden tensors are not here")
    with np.load(path) as arrays:
        golden = dict(arrays)
    state = {k.removeprefix("param/"): v for k, v in golden.items() if k.startswith("param/")}
    monkeypatch.setitem(MODELS, "golden", Golden)
    with jax.enable_x64(True):
        ann = small("golden", neuron=QCFS(8), dtype="float64")
        load_state_dict(ann, state)
        ann = nnx.view(ann, use_running_average=True)
        snn = conversion.convert(ann, (32, 32, 3))
        images = jnp.asarray(golden["input"].transpose(0, 2, 3, 1), jnp.float64)
        thresholds = list(conversion.thresholds_of(snn).values())
        assert thresholds[0] == pytest.approx(state["conv1.2.up"].item(), rel=1e-12)
        assert thresholds[-1] == pytest.approx(state["conv4_x.1.relu.up"].item(), rel=1e-12)

        logits = jax.jit(lambda images: run_all(ann, images, 1))(images)
        assert relative_error(logits[:, 0], golden["ann_logits"]) < 1e-8
        network = inference_network(snn, (32, 32, 3), 1)
        step = jax.jit(lambda v: network.step(network.params, v, shown))
        shown = network.encode(network.params, images)
        membranes = jax.tree.map(lambda v: jnp.stack([v] * len(images)), network.at_rest)
        for t in range(16):
            membranes, logits = step(membranes)
            assert relative_error(logits, golden["snn_logits"][:, t]) < 1e-8, t


def all_spikes(name, dtype, state, images, timesteps):
    """The spikes of every layer of a network with the parameters `state`."""
    seen = []

    def neuron(currents, v0=None):
        spikes, v = LIF()(currents, v0)
        seen.append(np.asarray(spikes, np.float32))
        return spikes, v

    model = nnx.view(small(name, dtype=dtype, neuron=neuron), use_running_average=True)
    load_state_dict(model, state)
    run_all(model, jnp.asarray(images, dtype), timesteps)
    return seen


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 0.3)])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_share_of_spikes_that_differ(name, dtype, limit):
    golden, state, _ = load_golden(name)
    arguments = state, golden["input"].transpose(0, 2, 3, 1), int(golden["T"])
    with jax.enable_x64(True):
        reference = all_spikes(name, "float64", *arguments)
    lower = all_spikes(name, dtype, *arguments)
    # These networks are untrained: one spike that flips early on changes many after it.
    layers = [float(np.mean(a != b)) for a, b in zip(reference, lower, strict=True)]
    print(f"{name} {dtype}: {np.mean(layers):.2e} of spikes differ, {max(layers):.2e} in a layer")
    assert any(spikes.any() for spikes in reference)
    assert np.mean(layers) < limit


def pytorch_names(model, rng):
    """A state dict as the official code would have saved it, with random values."""
    state = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        shape = variable.shape[::-1]
        if len(shape) == 4:
            shape = (*shape[:2], shape[3], shape[2])
        state[official_names(model)[path]] = rng.normal(size=shape).astype(np.float32)
    return state


@pytest.mark.parametrize(("height", "width"), [(48, 48), (64, 32)])
def test_vggsnn_head_is_permuted_from_channels_first(height, width):
    model = small("vggsnn", image_shape=(height, width, 2))
    rows, columns = height // 16, width // 16
    state = pytorch_names(model, np.random.default_rng(0))
    assert "features.7.fwd.module.1.running_var" in state
    assert state["classifier.module.weight"].shape == (10, 128 * rows * columns)
    load_state_dict(model, state)
    # Class 4's weight of channel 5 at row 2, column 1.
    there = state["classifier.module.weight"][4, 5 * rows * columns + 2 * columns + 1]
    here = model.head.kernel[(2 * columns + 1) * 128 + 5, 4]
    assert here == there


@pytest.mark.parametrize("name", ["resnet19", "vgg16", "vggsnn"])
def test_files(name, tmp_path):
    model = small(name)
    state = pytorch_names(model, np.random.default_rng(0))
    np.savez(tmp_path / "net.npz", **state)
    load_official(model, tmp_path / "net.npz")
    kernel = next(iter(k for k in state if state[k].ndim == 4))
    assert np.array_equal(read_state_dict(tmp_path / "net.npz")[kernel], state[kernel])

    load_state_dict(model, {f"module.{k}": v for k, v in state.items()})

    missing = dict(state)
    del missing[kernel]
    with pytest.raises(UserError, match="another architecture"):
        load_state_dict(model, missing)
    with pytest.raises(UserError, match=r"has 'surplus'.*another architecture"):
        load_state_dict(model, state | {"surplus": np.zeros(3)})
    with pytest.raises(UserError, match="width and classes"):
        load_state_dict(model, state | {kernel: np.zeros((1, 2, 3, 3), np.float32)})


def test_pytorch_file(tmp_path):
    torch = pytest.importorskip("torch")
    model = small("vgg16")
    state = pytorch_names(model, np.random.default_rng(0))
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, tmp_path / "net.pth")
    load_official(model, tmp_path / "net.pth")
    assert np.array_equal(model.head.bias[...], state["classifier.0.module.bias"])


def test_qcfs_files():
    def names_of(name):
        return official_names(nnx.eval_shape(lambda: small(name, neuron=QCFS(4)))).values()

    last = {"conv5_x.1.relu.up", "conv5_x.0.shortcut.1.weight", "fc.weight"}
    assert last <= set(names_of("resnet18"))
    model = small("resnet20", neuron=QCFS(4))
    names = names_of("resnet20")
    state = pytorch_names(model, np.random.default_rng(0))
    state |= {name: np.float32([0.5]) for name in names if name.endswith(".up")}
    load_state_dict(model, state)
    assert float(model.blocks[8].neuron2.threshold) == pytest.approx(0.5)
    with pytest.raises(UserError, match=r"'conv1\.2\.up' is \[0\.\], and thresholds must be pos"):
        load_state_dict(model, state | {"conv1.2.up": np.zeros(1, np.float32)})
    for name in ("resnet19", "vgg16"):
        with pytest.raises(UserError, match=r"no counterpart.*QCFS activations ResNet-18"):
            names_of(name)


def state_of(name):
    """The state dict of a golden file."""
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as golden:
        shapes = json.loads(golden["shapes"].item())
    return {key: drawn(key, tuple(shape)) for key, shape in shapes.items()}


def test_both_spellings_of_qcfs_and_layers_listed_twice():
    new = state_of("resnet20")
    assert "conv2_x.0.act.thresh" in new
    old = {k.replace(".act.", ".relu.").replace(".thresh", ".up"): v for k, v in new.items()}
    assert canonical(new) == old
    assert [source_of(state).fires for state in (new, old)] == [">=", ">="]
    seenn = state_of("resnet20_seenn")
    assert source_of(seenn)[:4] == ("SEENN's resnet20, to convert", "resnet20_seenn", "qcfs", ">")
    tet = state_of("resnet19_tet")
    again = {
        **{k.replace(".bn.", ".seqbn.module."): v for k, v in tet.items() if ".bn." in k},
        **{k.replace("fc1.", "fc1_s.layer.module."): v for k, v in tet.items() if "fc1." in k},
        "bn1.bn.num_batches_tracked": np.array(3),
    }
    assert canonical(tet | again).keys() == tet.keys()


def test_both_spellings_of_sew_resnets():
    ours = state_of("sew_resnet50")
    theirs = {}
    for name, array in ours.items():
        if name.startswith("layer"):
            name = re.sub(r"\.conv(\d)\.", r".conv\1.module.0.", name)
            name = re.sub(r"\.bn(\d)\.", r".conv\1.module.1.", name)
            name = re.sub(r"\.downsample\.(\d)\.", r".downsample.0.module.\1.", name)
        theirs[name] = array
    assert canonical(theirs).keys() == ours.keys()
    for state in (ours, theirs):
        source = source_of(state)
        assert (source.model, source.fires, source.tau) == ("sew_resnet50", ">=", 1)
    small = ours | {"conv1.weight": np.zeros((4, 3, 3, 3))}
    assert source_of(small).model == "sew_resnet50_small"
    with pytest.raises(
        UserError, match=r"neurons have parameters \(layer1\.0\.sn1\.w\): one of IF"
    ):
        source_of(ours | {"layer1.0.sn1.w": np.zeros(())})
    with pytest.raises(
        UserError, match=r"of \(3, 4, 7, 3\) blocks of 3 convolutions: -18, -34 and"
    ):
        source_of(ours | {"layer3.6.conv1.weight": np.zeros(())})


def test_where_a_state_dict_comes_from():
    for name in ("resnet18", "resnet34_small", "vgg16_qcfs", "vggsnn", "vggsnn_pool"):
        assert source_of(state_of(name)).model == name
    for name in ("resnet19", "vgg16", "vggsnn"):
        names = official_names(nnx.eval_shape(lambda name=name: small(name))).values()
        assert source_of(dict.fromkeys(names)).model == name
    with pytest.raises(UserError, match=r"tensors are called a, b \.\.\., as in none that can be"):
        source_of({"a": 1, "b": 2})
    deep = dict.fromkeys(["conv1.2.up", *(f"conv2_x.{i}.relu.up" for i in range(5))])
    with pytest.raises(UserError, match=r"of \(5,\) blocks: ones of \(2, 2, 2, 2\), \(3, 3, 3\)"):
        source_of(deep)


def test_a_run_is_made_that_is_loaded_as_any(tmp_path):
    state = state_of("vggsnn_pool")
    rows = np.float32(np.random.default_rng(0).normal(size=(10, 32 * 9)))
    state |= {"classifier.module.weight": rows, "classifier.module.bias": np.zeros(10, np.float32)}
    path, workdir = tmp_path / "dvs_vgg", tmp_path / "run"
    path.write_bytes(saved({"state_dict": {f"module.{k}": v for k, v in state.items()}}))
    assert make_run(path, workdir, timesteps=3).model == "vggsnn_pool"
    predictor = load(workdir)
    config, facts = predictor.config, predictor.facts
    assert (config.model.fires, config.model.surrogate, config.timesteps) == (">", "triangle", 3)
    assert (config.data.name, facts.image_shape, facts.frames) == ("cifar10_dvs", (48, 48, 2), 3)
    assert predictor.model.neurons[0].strict
    kernel = predictor.model.convs[0].conv.kernel[...]
    np.testing.assert_array_equal(
        kernel.transpose(3, 2, 0, 1), state["features.0.fwd.module.0.weight"]
    )
    # What was learnt is not chosen on, and frames are the counts that they are.
    with pytest.raises(UserError, match="has learnt its validation split"):
        predictor.validation  # noqa: B018
    np.testing.assert_allclose(predictor.transform(jnp.full((1, 1, 48, 48, 2), 3, jnp.uint8)), 3)
    with pytest.raises(UserError, match="exists already: give the name of a new folder"):
        make_run(path, workdir)


def test_what_makes_no_run(tmp_path):
    state = state_of("resnet20_seenn")
    for change, data, match in (
        (
            {"conv1.2.up": np.float32([np.inf])},
            None,
            "'conv1.2.up' with numbers that are not",
        ),
        (
            {"conv1.2.up": np.float32([-1])},
            None,
            r"'conv1\.2\.up' is \[-1\.\], and thresholds",
        ),
        (
            {"surplus": np.zeros(1)},
            None,
            r"net: the checkpoint has 'surplus', which this Res",
        ),
        ({}, "cifar10_dvs", r"images of 3 channel\(s\) and those of 'cifar10_dvs' have 2"),
        ({}, "digits", "unknown `data` 'digits': the known ones are cifar10, cifar100"),
    ):
        (tmp_path / "net").write_bytes(saved(state | change))
        with pytest.raises(UserError, match=match):
            make_run(tmp_path / "net", tmp_path / "run", data=data)
        assert not (tmp_path / "run").exists()


def test_a_model_is_untouched_by_what_does_not_fit(tmp_path):
    model = small("vggsnn_pool")
    before = jax.tree.map(np.asarray, nnx.state(model))
    state = pytorch_names(model, np.random.default_rng(0))
    state["classifier.module.bias"] = np.zeros(9, np.float32)  # the last of all
    with pytest.raises(UserError, match="width and classes"):
        load_state_dict(model, state)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, nnx.state(model)), before)
    with pytest.raises(UserError, match="no counterpart"):
        load_state_dict(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {})
