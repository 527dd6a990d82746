"""A run's folder: claimed once, read back as it was, and never changed by a mistake."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from seenn_jax import run
from seenn_jax.conversion import QCFS, ReLU
from seenn_jax.data import Dataset, Split, Stream
from seenn_jax.data.streaming import Folder
from seenn_jax.errors import UserError
from seenn_jax.neurons import LIF

FACTS = run.DataFacts((8, 8, 1), 10, [0.25], [0.375])


def with_checkpoint(workdir):
    (workdir / run.CHECKPOINTS / "27").mkdir(parents=True)
    return workdir


def test_how_data_are_read_may_change_while_a_run_is_continued(tmp_path, make_config):
    run.claim(with_checkpoint(tmp_path / "run"), make_config(), FACTS)
    run.claim(tmp_path / "run", make_config(data={"workers": 3}, checkpoint_every=5), FACTS)


def test_the_facts_of_a_streamed_data_set_are_known_beforehand():
    nothing_read = Stream(Folder(Path("not read"), []), np.arange(3), 16, False)
    facts = run.DataFacts.of(Dataset("made up", nothing_read, nothing_read, nothing_read, 7))
    assert facts == run.DataFacts((16, 16, 3), 7, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_the_facts_of_a_data_set_are_those_of_its_train_split():
    images = np.zeros((2, 4, 4, 2), np.uint8)
    images[0, ..., 0] = 255
    one = np.zeros((1, 4, 4, 2), np.uint8)
    split = Split(images, np.array([0, 2], np.int32))
    other = Split(one, np.array([1], np.int32))
    facts = run.DataFacts.of(Dataset("made up", split, other, other, 3))
    # Channel 0 is half 0, half 1: mean 1/2, deviation 1/2; channel 1 is constant.
    assert facts == run.DataFacts((4, 4, 2), 3, [0.5, 0.0], [0.5, 1.0])
    mean, std = facts.normalization
    assert mean.dtype == std.dtype == np.float32


def test_the_facts_of_event_data_keep_no_event_at_zero():
    frames = np.zeros((2, 3, 4, 5, 2), np.uint8)
    frames[0, ..., 0] = 2
    split = Split(frames, np.array([0, 1], np.int32))
    facts = run.DataFacts.of(Dataset("made up", split, split, split, 2))
    # Channel 0: half of the counts are 2, so their root mean square is sqrt(2).
    assert facts._replace(std=None) == run.DataFacts((4, 5, 2), 2, [0.0, 0.0], None, frames=3)
    assert facts.std == pytest.approx([2**0.5 / 255, 1])


def test_build_makes_the_network_of_the_config(make_config):
    config = make_config()
    params = nnx.state(run.build(config, FACTS), nnx.Param)
    assert params["stem"]["conv"]["kernel"].shape == (3, 3, 1, 4)
    again = nnx.state(run.build(config, FACTS), nnx.Param)
    other = nnx.state(run.build(make_config(seed=1), FACTS), nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    kernels = params["stem"]["conv"]["kernel"], other["stem"]["conv"]["kernel"]
    assert not np.array_equal(*kernels)


def test_what_is_claimed_is_loaded(tmp_path, make_config):
    config = make_config()
    run.claim(tmp_path / "a" / "b", config, FACTS)
    loaded, facts = run.load(tmp_path / "a" / "b")
    assert loaded.to_dict() == config.to_dict()
    assert facts == FACTS
    content = json.loads((tmp_path / "a" / "b" / "run.json").read_text())
    assert content.keys() == {"config", "data", "teacher", "revision", "versions", "device"}
    assert os.listdir(tmp_path / "a" / "b") == ["run.json"]


def test_a_run_that_is_older_than_a_setting_has_its_default(tmp_path, make_config):
    config = make_config()
    run.claim(tmp_path, config, FACTS)
    with_checkpoint(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    del content["config"]["activation"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert run.load(tmp_path)[0].to_dict() == config.to_dict()
    run.claim(tmp_path, config, FACTS)
    with pytest.raises(UserError, match=r"config\.activation was 'lif' and is 'relu' *\)"):
        run.claim(tmp_path, make_config(activation="relu"), FACTS)


@pytest.mark.parametrize(("activation", "kind"), [("qcfs", QCFS), ("relu", ReLU), ("lif", LIF)])
def test_the_network_has_the_activation_of_the_config(make_config, activation, kind):
    model = run.build(make_config(activation=activation, quantization_levels=5), FACTS)
    assert isinstance(model.blocks[0].neuron1, kind)
    if activation == "qcfs":
        assert model.neuron.levels == 5
        assert float(model.neuron.threshold) == pytest.approx(2.0)


def test_a_used_workdir_takes_the_same_config_only(tmp_path, make_config, contents):
    run.claim(tmp_path, make_config(), FACTS)
    with_checkpoint(tmp_path)
    before = contents(tmp_path)
    run.claim(tmp_path, make_config(), FACTS)
    changed = make_config(seed=3, optimizer={"learning_rate": 0.5})
    with pytest.raises(UserError) as caught:
        run.claim(tmp_path, changed, FACTS)
    message = str(caught.value)
    assert "config.optimizer.learning_rate was 0.1 and is 0.5" in message
    assert "config.seed was 0 and is 3" in message
    assert message.count(" was ") == 2
    assert "another --workdir" in message
    assert contents(tmp_path) == before


def test_a_used_workdir_takes_the_same_data_only(tmp_path, make_config):
    run.claim(tmp_path, make_config(), FACTS)
    with_checkpoint(tmp_path)
    with pytest.raises(UserError, match="other images of 'digits'"):
        run.claim(tmp_path, make_config(), FACTS._replace(mean=[0.26]))


def test_a_run_that_failed_before_its_first_checkpoint_can_be_mended(tmp_path, make_config):
    run.claim(tmp_path, make_config(), FACTS)
    (tmp_path / run.CHECKPOINTS / "27.orbax-checkpoint-tmp").mkdir(parents=True)
    run.claim(tmp_path, make_config(seed=3), FACTS)
    assert run.load(tmp_path)[0].seed == 3


def test_a_workdir_that_cannot_be_made(tmp_path, make_config):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"{workdir} can't be made"):
            run.claim(workdir, make_config(), FACTS)


@pytest.mark.parametrize("text", ["{", '"config"', "[]", "{}", '{"config": {}}'])
def test_a_damaged_run_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json .*: restore it"):
        run.load(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no run"):
        run.load(tmp_path)


def test_newest_is_the_run_that_was_trained_last(tmp_path, make_config):
    with pytest.raises(UserError, match="there is no run in"):
        run.newest(tmp_path)
    for age, name in enumerate(("b", "a", "c")):
        run.claim(tmp_path / name, make_config(), FACTS)
        os.utime(with_checkpoint(tmp_path / name) / run.CHECKPOINTS, (0, 1000 - age))
    assert run.newest(tmp_path) == tmp_path / "b"
    os.utime(tmp_path / "a" / run.CHECKPOINTS, (0, 2000))
    assert run.newest(tmp_path) == tmp_path / "a"
    # One that has only just begun has no checkpoints yet.
    run.claim(tmp_path / "d", make_config(), FACTS)
    assert run.newest(tmp_path) == tmp_path / "d"
