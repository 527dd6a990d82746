"""Golden tensors of the official code, and files that are not what they should be."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.interop.files import read_state_dict
from seenn_jax.interop.names import official_names
from seenn_jax.interop.official import convert, load_official, load_state_dict
from seenn_jax.models import MODELS, build_model, conversion
from seenn_jax.models.activations import QCFS
from seenn_jax.models.network import inference_network, run_all
from seenn_jax.models.neurons import LIF
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.training.losses import tet

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


@pytest.mark.parametrize("name", FILES)
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


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint file at"):
        read_state_dict(tmp_path / "net.pth")
    (tmp_path / "net.h5").touch()
    with pytest.raises(UserError, match=r"ends in '.h5'"):
        read_state_dict(tmp_path / "net.h5")
    with pytest.raises(UserError, match="no counterpart"):
        load_state_dict(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {})
