"""Whole networks: what is trained on which data, and what can't be."""

import re
import runpy

import numpy as np
import pytest

from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import Given
from seenn_jax.run import checkpoints, folder, stored
from seenn_jax.run.inference import load
from seenn_jax.run.weights import export_weights
from seenn_jax.training import network
from tests.training.runs import latest_of, metrics_of


def test_timesteps_of_epoch(make_config):
    config = make_config(epochs=5, inherit_epochs=2, timesteps=4)
    assert [network.timesteps_of_epoch(config, epoch) for epoch in range(5)] == [1, 1, 4, 4, 4]
    config.inherit_epochs = 0
    assert network.timesteps_of_epoch(config, 0) == 4


def test_cifar100_as_tfds_prepares_it(tmp_path, prepare_official, picture, encoded, call_train):
    def rows(numbers):
        for i in numbers:
            image = encoded(picture(i, 32, 32), "PNG")
            yield {"image": image, "label": 7 * i % 100, "coarse_label": i % 20, "id": str(i)}

    prepare_official(tmp_path, "cifar100", {"train": rows(range(40)), "test": rows(range(40, 48))})
    config = runpy.run_path("configs/cifar100.py")["get_config"]()
    config.data.update(dir=str(tmp_path), validation=8)
    config.model.update(name="one_block", width=4)
    config.update(timesteps=2, epochs=1, inherit_epochs=0, batch_size=8)
    assert config.augment.autoaugment
    call_train(config, tmp_path / "run")
    step, saved = latest_of(tmp_path / "run")
    assert step == 4
    assert saved["params.head.bias"].shape == (100,)
    assert np.isfinite(saved["params.head.bias"]).all()


def test_event_data_trains_with_a_frame_for_each_timestep(trained_on_events):
    workdir, _ = trained_on_events
    config, facts = folder.load(workdir)
    assert (facts.frames, facts.image_shape) == (config.timesteps, (48, 48, 2))
    metrics = metrics_of(workdir)
    assert [line["epoch"] for line in metrics] == [1, 2]
    assert all(0 <= line["validation/accuracy_3"] <= 1 for line in metrics)
    assert all(np.isfinite(line["train/loss"]) for line in metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "plif", "gradient": "last", "random_timesteps": True},
        {"activation": "ilif", "gradient": "last", "remat": True, "accumulate": 2},
        {"activation": "plif", "model": {"dtype": "bfloat16", "reset": "soft"}},
    ],
    ids=["plif", "ilif", "bfloat16"],
)
def test_learnt_decays_and_integers_are_trained_kept_and_evaluated(
    make_config, call_train, tmp_path, changes
):
    config, run = make_config(epochs=3, **changes), tmp_path / "run"
    said = call_train(config, run)
    assert ("T = 1 to 3" in said) == config.random_timesteps
    lines = metrics_of(run)
    assert lines[0]["train/timesteps"] == 1  # which is inherited
    assert (1 < lines[-1]["train/timesteps"] < 3) == config.random_timesteps
    model = load(run).model
    if config.activation == "plif":
        decays = {float(model.neuron.tau), float(model.blocks[0].neuron1.tau)}
        assert len(decays | {0.5}) == 3
    weights = tmp_path / "weights.safetensors"
    export_weights(weights, load(run))
    accuracies = []
    for source, precision in ((run, "int8"), (run, None), (weights, None)):
        found = evaluate(source, precision=precision, choice=Given(0.5), energy=True)
        assert found["share_of_answers_that_differ"] == 0
        accuracies.append(found["accuracy"])
    assert min(accuracies) > 0.2  # by chance 0.1
    assert accuracies[1] == accuracies[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation": "relu", "loss": "mean_ce"},
            r"cifar10_dvs is event data: .*activation`=lif",
        ),
        (
            {"augment": {"autoaugment": True}},
            r"`config\.augment\.autoaugment` is for colour images",
        ),
        ({"timesteps": 2}, r"`config\.timesteps` was 3 and is 2"),
    ],
)
def test_what_event_data_cannot_have(on_events, make_event_config, call_train, changes, message):
    workdir, data = on_events
    with pytest.raises(UserError, match=message):
        call_train(make_event_config(data, **changes), workdir)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"batch_size": 1288}, r"`config\.batch_size` is 1288 and digits has only 1287 training"),
        ({"data": {"validation": 1437}}, r"validation` = 1437 is not possible"),
        ({"data": {"name": "folder:/x"}}, r"'folder:/x', .* set `config\.data\.image_size`=224"),
        (
            {"data": {"image_size": 8}},
            r"'digits' is not streamed: set `config\.data\.image_size`",
        ),
        ({"timesteps": 0}, r"`config\.timesteps` is 0"),
        ({"model": {"name": "vgg16"}}, r"images of 8x8 are too small for vgg16"),
        ({"model": {"dtype": "float64"}}, r"dtype 'float64' needs JAX_ENABLE_X64=1"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(tmp_path, make_config, call_train, changes, match):
    with pytest.raises(UserError, match=match):
        call_train(make_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_class(tmp_path, make_config, call_train, picture, encoded):
    (tmp_path / "data/only").mkdir(parents=True)
    for i in range(5):
        (tmp_path / f"data/only/{i}.jpg").write_bytes(encoded(picture(i)))
    data = {"name": f"folder:{tmp_path}/data", "image_size": 8, "validation": 1}
    with pytest.raises(UserError, match="has one class, 'only': give data of at least 2, or"):
        call_train(make_config(data=data, batch_size=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_where_all_is_learnt_the_last_counts_and_nothing_is_chosen(
    call_train, make_config, tmp_path
):
    config = make_config(epochs=2, inherit_epochs=0, validate_every=1)
    config.data.train_on_validation = True
    said = call_train(config, tmp_path)
    assert "1,437 images, 0 held out for validation" in said
    assert re.search(r"epoch +2/2 .* learnt [\d.]+% at t = 1", said)
    for ask in ({}, {"split": "validation"}, {"choice": Given(0.5), "temperature": True}):
        with pytest.raises(UserError, match=r"has learnt its validation split .* `threshold`"):
            evaluate(tmp_path, **ask)
    assert evaluate(tmp_path, choice=Given(0.5))["checkpoint_step"] == latest_of(tmp_path)[0]
    for step in checkpoints.steps(tmp_path):
        assert stored.score(tmp_path, step) == step  # a later one is better
