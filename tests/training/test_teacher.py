"""A teacher: what can be one, what it does to the loss, and that it stays as it is."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.data import load_dataset, normalize
from seenn_jax.errors import UserError
from seenn_jax.run import checkpoints, folder, stored
from seenn_jax.training.logs import is_trained
from seenn_jax.training.teacher import missing_teacher, open_teacher
from tests.models.networks import logits_of


@pytest.fixture(scope="module")
def ann(make_config, call_train, tmp_path_factory):
    """A run of an ordinary network. Look, don't touch."""
    workdir = tmp_path_factory.mktemp("runs") / "ann"
    call_train(ann_config(make_config), workdir)
    return workdir


def ann_config(make_config, **changes):
    return make_config(activation="relu", loss="mean_ce", epochs=1, inherit_epochs=0, **changes)


@pytest.fixture(scope="module")
def facts():
    return folder.DataFacts.of(load_dataset("digits", validation=150))


def arrays(workdir):
    """Everything in the latest checkpoint of a run."""
    return stored.arrays(workdir, max(checkpoints.steps(workdir)))


def test_its_logits_are_those_of_its_averaged_network(ann, make_config, facts):
    teacher = open_teacher(make_config(teacher=str(ann)), facts)
    model, step = checkpoints.load_model(ann, *folder.load(ann))
    images = jnp.asarray(load_dataset("digits", validation=150).test.images[:16])
    inputs = normalize(images, *facts.normalization, dtype="float32")
    expected = logits_of(model, inputs, 1)[:, 0]
    found = jax.jit(teacher.logits)(teacher.params, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert teacher.about["workdir"] == str(ann)
    assert teacher.about["checkpoint_step"] == step

    # Normalised by other figures, the same pixels are the same to it.
    other = facts._replace(mean=[0.1], std=[0.7])
    inputs = normalize(images, *other.normalization, dtype="float32")
    teacher = open_teacher(make_config(teacher=str(ann)), other)
    found = jax.jit(teacher.logits)(teacher.params, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_weight_there_is_none(ann, make_config, facts):
    assert open_teacher(make_config(teacher=str(ann), teacher_weight=0.0), facts) is None
    assert open_teacher(make_config(), facts) is None


def test_a_run_with_a_teacher(ann, make_config, call_train, tmp_path, contents):
    before = contents(ann)
    config = dict(epochs=1, inherit_epochs=0, timesteps=2)
    for name, more in {
        "plain": {},
        "weightless": {"teacher": str(ann), "teacher_weight": 0.0},
        "taught": {"teacher": str(ann)},
        "parts": {"teacher": str(ann), "accumulate": 2, "remat": True, "augment": {"mixup": 0.5}},
    }.items():
        call_train(make_config(**config, **more), tmp_path / name)
    plain, weightless, taught = (
        arrays(tmp_path / name) for name in ("plain", "weightless", "taught")
    )
    assert plain.keys() == taught.keys()  # nothing of the teacher
    chex.assert_trees_all_equal(plain, weightless)
    assert any(np.any(plain[name] != taught[name]) for name in plain)
    assert contents(ann) == before

    known = json.loads((tmp_path / "taught" / folder.FILE).read_text())["teacher"]
    assert known == open_teacher(make_config(teacher=str(ann)), folder.load(ann)[1]).about
    assert json.loads((tmp_path / "plain" / folder.FILE).read_text())["teacher"] is None


@pytest.mark.slow
def test_a_resumed_run_finds_its_teacher_or_says_what_is_missing(
    ann, make_config, call_train, tmp_path
):
    teacher = tmp_path / "teacher"
    shutil.copytree(ann, teacher)
    length = {"epochs": 2, "inherit_epochs": 0, "timesteps": 2, "validate_every": 1}
    config = make_config(**length, teacher=str(teacher))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    call_train(config, whole)
    shutil.copytree(whole, stopped)
    steps = sorted(int(path.name) for path in (whole / "checkpoints").iterdir())
    shutil.rmtree(stopped / "checkpoints" / str(steps[1]))
    assert "Continuing" in call_train(config, stopped)
    chex.assert_trees_all_equal(arrays(stopped), arrays(whole))

    shutil.rmtree(teacher)
    with pytest.raises(UserError, match=r"teacher, which can't teach: .* holds no run"):
        call_train(config, whole)
    call_train(ann_config(make_config, seed=5), teacher)
    with pytest.raises(UserError, match=r"was taught by .*: restore the teacher"):
        call_train(config, whole)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda facts: facts._replace(num_classes=7), "knows 10 classes, and the data have 7"),
        (
            lambda facts: facts._replace(image_shape=(8, 8, 3)),
            "sees images of 8x8x1, and the data are of 8x8x3",
        ),
        (lambda facts: facts._replace(frames=4), "8x8x1, and the data are of 4x8x8x1"),
    ],
)
def test_data_that_it_can_not_teach_on(ann, make_config, facts, change, complaint):
    with pytest.raises(UserError, match=complaint):
        open_teacher(make_config(teacher=str(ann)), change(facts))


def test_networks_that_can_not_teach(
    ann, trained, trained_policy, make_config, facts, tmp_path, call_train
):
    (tmp_path / "empty").mkdir()
    shutil.copy(ann / folder.FILE, tmp_path / "empty")
    for path, complaint in (
        (tmp_path / "nowhere", "nowhere holds no run"),
        (tmp_path / "empty", "has no checkpoint yet"),
        (trained, "its network is a spiking one"),
        (trained_policy, "it is a policy's run"),
    ):
        with pytest.raises(UserError, match=rf"`config\.teacher` is .*{complaint}"):
            call_train(make_config(teacher=str(path)), tmp_path / "student")
    assert not (tmp_path / "student").exists()
    everything = shutil.copytree(ann, tmp_path / "everything")
    content = json.loads((everything / folder.FILE).read_text())
    content["config"]["data"]["train_on_validation"] = True
    del content["checksum"]
    (everything / folder.FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match="it has learnt its validation split"):
        call_train(make_config(teacher=str(everything)), tmp_path / "student")
    held_out = make_config(teacher=str(ann))
    held_out.data.validation = 151
    with pytest.raises(UserError, match=r"it held out 150 images .* and here 151 are"):
        call_train(held_out, tmp_path / "student")
    held_out.data.validation = 0.01  # whether that is less is not known here
    with pytest.raises(
        UserError, match=r"held out 150 .* here 0\.01 are, some of which it may have"
    ):
        call_train(held_out, tmp_path / "student")


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("teacher_weight", -0.1, "from 0 to 1"),
        ("teacher_weight", 1.5, "from 0 to 1"),
        ("teacher_weight", float("nan"), "a number that float32 can hold"),
        ("teacher_temperature", 0.0, "above 0"),
        ("teacher_temperature", float("inf"), "a number that float32 can hold"),
    ],
)
def test_settings_that_can_not_be(make_config, call_train, tmp_path, setting, value, complaint):
    match = rf"`config\.{setting}` is {value}: it must be {complaint}"
    with pytest.raises(UserError, match=match):
        call_train(make_config(**{setting: value}), tmp_path / "run")


def test_a_policy_takes_none(make_policy_config, ann, call_train, tmp_path):
    with pytest.raises(UserError, match=r"`config\.teacher` is .*a policy is trained on"):
        call_train(make_policy_config(teacher=str(ann)), tmp_path / "run")


@pytest.mark.slow
def test_one_command_trains_the_teacher_first(program, tmp_path):
    """The teacher that is missing, then one that was stopped, then one that is there."""
    flags = [
        "--config=configs/digits_taught.py",
        f"--config.teacher={tmp_path / 'digits_ann'}",
        "--config.data.validation=150",
        "--config.epochs=1",
        "--config.model.width=4",
    ]
    short = tmp_path / "configs"
    short.mkdir()
    small = ["config.model.name = 'one_block'", "config.model.width = 4"]
    for name, lines in {
        "digits_taught": ["config.timesteps = 2", "config.epochs = 1"],
        "digits_ann": ["config.epochs = 2", "config.validate_every = 1"],
    }.items():
        text = f"from configs.{name} import get_config as whole\n\n\ndef get_config():\n"
        lines = ["config = whole()", *small, *lines, "return config"]
        text += "".join(f"    {line}\n" for line in lines)
        (short / f"{name}.py").write_text(text)
    flags[0] = f"--config={short / 'digits_taught.py'}"
    teacher = tmp_path / "digits_ann"

    status, out, _ = program("train.py", *flags, f"--workdir={tmp_path / 'one'}")
    assert status == 0
    assert out.index("Training the teacher first") < out.index("Training one_block (width 4)")
    assert is_trained(teacher)
    assert folder.load(teacher)[0].data.validation == 150
    last = max((teacher / "checkpoints").iterdir(), key=lambda path: int(path.name))

    status, out, _ = program("train.py", *flags, f"--workdir={tmp_path / 'two'}")
    assert status == 0
    assert "teacher first" not in out
    shutil.rmtree(last)
    assert not is_trained(teacher)
    status, out, _ = program("train.py", *flags, f"--workdir={tmp_path / 'three'}")
    assert (status, "Continuing" in out) == (0, True)


def test_which_teacher_is_missing(make_config, ann, tmp_path):
    config = make_config(teacher=str(tmp_path / "digits_ann"))
    assert missing_teacher(config, tmp_path) is None  # there is no config of its name
    (tmp_path / "digits_ann.py").touch()
    expected = (tmp_path / "digits_ann", tmp_path / "digits_ann.py")
    assert missing_teacher(config, tmp_path) == expected
    (tmp_path / "ann.py").touch()
    assert missing_teacher(make_config(teacher=str(ann)), tmp_path) is None
    assert missing_teacher(make_config(), tmp_path) is None
