"""State dicts in the names of others come back as the same network, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.interop.official import load_state_dict
from seenn_jax.interop.sources import SOURCES, source_of
from seenn_jax.interop.state_dict import named, write
from seenn_jax.models import MODELS, NEURONS, build_model
from seenn_jax.run.inference import load
from tests.interop.make_golden import GOLDEN
from tests.interop.test_official import state_of

QCFS = {"resnet18": (">=", ">"), "resnet20": (">=",), "resnet20_seenn": (">",)}
QCFS |= {"resnet34_small": (">=", ">"), "vgg16_qcfs": (">=",)}
EACH = {(source.model, source.activation, source.fires) for source in SOURCES}
EACH |= {(name, "qcfs", fires) for name, each in QCFS.items() for fires in each}
EACH |= {(name, "lif", ">=") for name in ("sew_resnet18_small", "sew_resnet50")}


def config_of(config, model, activation, fires):
    config.activation = activation
    tau = 1.0 if model.startswith("sew") else 0.5
    config.model.update(name=model, width=2, fires=fires, tau=tau, threshold=1.0)
    return config


def network(config, rng=None):
    """Of the config's name, without parameters or, of a `rng`, with drawn ones."""
    name, neuron = config.model.name, NEURONS[config.activation].make(config)
    shape = (32, 16, 2) if "vggsnn" in name else (32, 32, 3)
    kinds = {"image_shape": shape, "num_classes": 3, "neuron": neuron, "dtype": jnp.float32}
    model = nnx.eval_shape(lambda: MODELS[name](2, rngs=nnx.Rngs(0), **kinds))
    for _, variable in nnx.to_flat_state(nnx.state(model)) if rng else ():
        variable.set_value(jnp.asarray(rng.normal(size=variable.shape), jnp.float32))
    return model


def round_trip(name, activation, fires):
    """[(path, an array of a network, what comes back of it)]."""
    config = config_of(default_config(), name, activation, fires)
    model, again = network(config, np.random.default_rng(0)), network(config)
    state, source = named(model, config)
    assert source == source_of(state)
    assert (source.model, source.activation, source.fires) == (name, activation, fires)
    load_state_dict(again, state)
    pairs = zip(*(nnx.to_flat_state(nnx.state(each)) for each in (model, again)), strict=True)
    return [(path, ours[...], theirs[...]) for (path, ours), (_, theirs) in pairs]


def rewritten(name):
    """The state dict of a golden file's network that is read and written again."""
    state = state_of(name)
    source = source_of(state)
    config = default_config()
    config.activation = source.activation
    config.model.update(name=source.model, fires=source.fires, tau=source.tau)
    with np.load(GOLDEN / f"{name}.npz") as golden:
        channels, *sides = map(int, golden["image"])
    model = nnx.eval_shape(
        lambda: build_model(
            name,
            4,
            image_shape=(*sides, channels),
            num_classes=5,
            neuron=NEURONS[source.activation].make(config),
        )
    )
    load_state_dict(model, state)
    return named(model, config)[0]


@pytest.mark.parametrize("name", ["resnet20_seenn", "vggsnn_pool"])
def test_what_was_read_is_written_as_it_was(name):
    before, after = state_of(name), rewritten(name)
    assert before.keys() == after.keys()
    for key, array in before.items():
        # The parameter behind a threshold is float32.
        np.testing.assert_allclose(after[key], array, rtol=1e-6 * key.endswith(".up"))


DEEP = ("resnet18", "resnet20", "resnet34_small")


@pytest.mark.parametrize(
    ("name", "activation", "fires"),
    [
        pytest.param(*each, marks=[pytest.mark.slow] if each[0] in DEEP else [])
        for each in sorted(EACH)
    ],
)
def test_every_source_gives_the_same_bits(name, activation, fires):
    for path, ours, theirs in round_trip(name, activation, fires):
        assert ours.dtype == theirs.dtype == jnp.float32
        np.testing.assert_array_equal(ours, theirs, err_msg=str(path))


def test_layouts_are_pytorch_s(make_config):
    config = config_of(make_config(), "vggsnn", "lif", ">")
    model = network(config, np.random.default_rng(0))
    state, _ = named(model, config)
    kernel = np.asarray(model.convs[1].conv.kernel[...])
    assert state["features.1.fwd.module.0.weight"][3, 1, 0, 2] == kernel[0, 2, 1, 3]
    # A map of 2x1 with 16 channels, which PyTorch flattens channels first.
    assert state["classifier.module.weight"][2, 5 * 2 + 1] == model.head.kernel[1 * 16 + 5, 2]


def test_thresholds_are_those_that_are_learnt(make_config):
    config = config_of(make_config(), "vgg16_qcfs", "qcfs", ">=")
    model = network(config, np.random.default_rng(0))
    state, _ = named(model, config)
    assert state["layer1.2.thresh"].shape == (1,)
    assert state["layer1.2.thresh"] == pytest.approx(float(model.neurons[0].threshold), rel=1e-6)


def zeros(model):
    """An abstract network, with parameters."""
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state))


def test_what_no_code_has(make_config, trained, tmp_path):
    for asked, changes, match in (
        (("resnet8", "lif", ">="), {}, r"a 'resnet8' of 'lif' neurons that fire at v >= their"),
        (("resnet19", "lif", ">"), {}, r"taken for SEENN's ResNet-19, 'resnet19' of 'lif' at v >="),
        (("resnet19", "relu", ">="), {}, r"a 'resnet19' of 'relu' neurons"),
        (("resnet20", "qcfs", ">"), {}, r"taken for QCFS's resnet20, to convert"),
        (("resnet34", "lif", ">="), {}, r"has no counterpart in the official code"),
        (("vgg16", "lif", ">="), {"tau": 0.9}, r"`config\.model\.tau` is 0\.9, and SEENN's VGG-16"),
        (("vgg16", "lif", ">="), {"reset": "soft"}, r"`config\.model\.reset` is soft, and SEENN's"),
    ):
        config = config_of(make_config(), *asked)
        config.model.update(**changes)
        with pytest.raises(UserError, match=match):
            named(zeros(network(config)), config)
    run = load(trained)
    with pytest.raises(UserError, match="no counterpart"):
        write(tmp_path / "net.safetensors", run)
    with pytest.raises(UserError, match="exists already: give the name of a new file"):
        write(tmp_path, run)
    assert not list(tmp_path.iterdir())
