"""The network of a config is the one that it says."""

import chex
import numpy as np
import pytest
from flax import nnx

from seenn_jax.data import Dataset, Split
from seenn_jax.errors import UserError
from seenn_jax.models import NEURONS
from seenn_jax.models.activations import QCFS, ReLU
from seenn_jax.models.neurons import ILIF, LIF, PLIF
from seenn_jax.run import build
from seenn_jax.run.folder import DataFacts

FACTS = DataFacts((8, 8, 1), 10, [0.25], [0.375])


def test_build_makes_the_network_of_the_config(make_config):
    config = make_config()
    params = nnx.state(build.network(config, FACTS), nnx.Param)
    assert params["stem"]["conv"]["kernel"].shape == (3, 3, 1, 16)
    again = nnx.state(build.network(config, FACTS), nnx.Param)
    other = nnx.state(build.network(make_config(seed=1), FACTS), nnx.Param)
    chex.assert_trees_all_equal(params, again)
    kernels = params["stem"]["conv"]["kernel"], other["stem"]["conv"]["kernel"]
    assert not np.array_equal(*kernels)


KINDS = {"qcfs": QCFS, "relu": ReLU, "lif": LIF, "plif": PLIF, "ilif": ILIF}


@pytest.mark.parametrize(("activation", "kind"), KINDS.items())
def test_the_network_has_the_activation_of_the_config(make_config, activation, kind):
    model = build.network(make_config(activation=activation, quantization_levels=5), FACTS)
    assert isinstance(model.blocks[0].neuron1, kind)
    if activation == "qcfs":
        assert model.neuron.levels == 5
        assert float(model.neuron.threshold) == pytest.approx(2.0)


def test_neurons_have_the_settings_of_the_config(make_config):
    settings = {"tau": 0.25, "threshold": 2.0, "reset": "soft", "detach_reset": True}
    config = make_config(model={"name": "one_block", **settings, "largest_spike": 8})
    lif = LIF(0.25, 2.0, reset="soft", detach_reset=True)
    found = {name: NEURONS[name].make(config) for name in ("lif", "plif", "ilif")}
    assert (found["lif"], found["plif"].lif) == (lif, lif)
    assert found["ilif"] == ILIF(0.25, 2.0, 8, detach_reset=True)


@pytest.fixture
def made(monkeypatch):
    """`(side, classes, seed) -> data set`, which is then that of every config."""

    def make(side=4, classes=("a", "b"), seed=0):
        images = np.random.default_rng(seed).integers(0, 256, (6, side, side, 3), np.uint8)
        split = Split(images, np.array([0, 1] * 3, np.int32))
        named = () if isinstance(classes, int) else classes
        count = classes if isinstance(classes, int) else len(classes)
        dataset = Dataset("made", split, split, split, count, named)
        monkeypatch.setattr(build, "dataset", lambda config: dataset)
        return dataset

    return make


def test_the_data_of_a_run_fit_it(made, make_config, caplog):
    config, facts = make_config(), DataFacts.of(made())
    for classes in (("a", "b"), 2):  # names that are not known are no others
        dataset = made(classes=classes)
        assert build.dataset_of_run(config, facts) is dataset
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"side": 5}, r"image_shape \(5, 5, 3\), and .* trained on data with \(4, 4, 3\)"),
        ({"classes": 3}, "num_classes 3, and the run was trained on data with 2"),
        ({"classes": ("b", "a")}, r"classes \('b', 'a'\), and .* data with \('a', 'b'\)"),
    ],
)
@pytest.mark.parametrize("other", [True, False])
def test_data_that_do_not_fit_a_run_are_named(made, make_config, changes, said, other):
    facts = DataFacts.of(made())
    made(**changes)
    with pytest.raises(UserError, match=f"'digits' has {said}.*: give data that fit"):
        build.dataset_of_run(make_config(), facts, other)


def test_other_images_to_train_on_are_warned_of(made, make_config, caplog):
    facts = DataFacts.of(made())
    made(seed=1)
    build.dataset_of_run(make_config(), facts, other=True)
    assert caplog.text == ""
    build.dataset_of_run(make_config(), facts)
    assert "the training images of digits are others than those that the run was" in caplog.text


def test_data_that_have_moved(make_config, tmp_path):
    config = make_config()
    build.move_data(config, None, None)
    assert config == make_config()
    build.move_data(config, "here", None)
    assert (config.data.name, config.data.dir) == ("digits", "here")
    build.move_data(config, None, "mnist")
    assert (config.data.name, config.data.dir) == ("mnist", "here")
    with pytest.raises(UserError, match=f"`data_name`={tmp_path} is a folder, and the run was"):
        build.move_data(config, None, str(tmp_path))
    config.data.image_size = 8
    build.move_data(config, None, str(tmp_path))
    assert config.data.name == str(tmp_path)
    with pytest.raises(UserError, match=f"`data_dir`=here is .*folder {tmp_path}: .* `data_name`"):
        build.move_data(config, "here", None)


def test_where_data_have_moved_to_is_asked_for(make_config, tmp_path):
    for name, asked in ((f"{tmp_path}/gone", "`data_name`"), ("cats", "`data_dir` or `data_name`")):
        config = make_config()
        config.data.update(name=name, image_size=8)
        with pytest.raises(UserError, match=f"; where the data have moved, give {asked}$"):
            build.dataset_of_run(config, FACTS)
