"""Train, stop, continue, finish: the same bits, the same log, and mistakes that change nothing."""

import json
import re
import runpy
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from seenn_jax import run
from seenn_jax.data import load_dataset
from seenn_jax.errors import UserError
from seenn_jax.training import checkpoints, loop
from seenn_jax.training.state import Given, TrainState

EPOCH = (1437 - 150) // 64  # steps


@pytest.fixture(scope="session")
def stopped(make_config, call_train, tmp_path_factory):
    """A run like `trained`, interrupted in epoch 4: its checkpoint is that of epoch 2."""
    workdir = tmp_path_factory.mktemp("runs") / "stopped"
    save = checkpoints.save

    def save_once(manager, step, *rest):
        if step > 2 * EPOCH:
            raise KeyboardInterrupt
        save(manager, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            call_train(make_config(), workdir)
    return workdir


@pytest.fixture
def copy_of_stopped(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "copy")


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def latest_of(workdir):
    """(step, arrays by name) of the latest checkpoint."""
    with checkpoints.open_checkpoints(workdir, read_only=True) as manager:
        step = manager.latest_step()
        template = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in manager.item_metadata(step).items()
        }
        return step, checkpoints.restore(manager, step, template)


def without_speed(metrics):
    return [{k: v for k, v in line.items() if k != "train/images_per_second"} for line in metrics]


# --- A whole run -----------------------------------------------------------------------------


def test_a_run_leaves_what_issue_and_readme_promise(trained, make_config):
    assert {path.name for path in trained.iterdir()} == {
        "run.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
    }
    config, facts = run.load(trained)
    assert config.to_dict() == make_config().to_dict()
    assert facts == run.DataFacts.of(load_dataset("digits", validation=150))


def test_every_epoch_is_logged_and_every_second_one_validated(trained):
    metrics = metrics_of(trained)
    assert [line["step"] for line in metrics] == [EPOCH * e for e in range(1, 7)]
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert [line["train/timesteps"] for line in metrics] == [1, 3, 3, 3, 3, 3]
    for line in metrics:
        assert ("validation/accuracy_3" in line) == (line["epoch"] % 2 == 0)
        assert 0 <= line["train/accuracy"] <= 1
        assert line["train/loss"] > 0
        assert line["train/gradient_norm"] > 0
        assert line["train/images_per_second"] > 0
    # It learns: chance is 10 %.
    assert metrics[-1]["train/accuracy"] > 0.3
    assert metrics[-1]["train/loss"] < metrics[0]["train/loss"]
    # Cosine from 0.1 to 0 over all steps; what is logged is the rate of an epoch's last step.
    last = [0.05 * (1 + np.cos(np.pi * (EPOCH * e - 1) / (6 * EPOCH))) for e in range(1, 7)]
    np.testing.assert_allclose([m["train/learning_rate"] for m in metrics], last, rtol=1e-4)


def test_event_files_hold_the_same_scalars(trained, read_events):
    expected = {
        (line["step"], name): [pytest.approx(value, rel=1e-6)]
        for line in metrics_of(trained)
        for name, value in line.items()
        if name != "step"
    }
    assert read_events(trained / "tensorboard") == expected


def test_the_best_and_the_latest_checkpoint_are_there(trained):
    accuracy = {
        line["step"]: line["validation/accuracy_3"]
        for line in metrics_of(trained)
        if "validation/accuracy_3" in line
    }
    assert sorted(accuracy) == [2 * EPOCH, 4 * EPOCH, 6 * EPOCH]
    best = max(accuracy, key=lambda step: (accuracy[step], step))
    with checkpoints.open_checkpoints(trained, read_only=True) as manager:
        assert set(manager.all_steps()) == {best, 6 * EPOCH}
        assert checkpoints.best_step(manager) == best
        assert manager.metrics(best)["score"] == pytest.approx(accuracy[best])


def test_a_finished_run_says_so_and_trains_no_further(
    trained, make_config, call_train, contents, monkeypatch
):
    before = contents(trained)
    monkeypatch.setattr(loop, "_loop", None)  # no call of it could end well
    out = call_train(make_config(), trained)
    assert out == f"{trained} is trained: all 6 epochs are done.\n"
    assert contents(trained) == before


# --- Stop and resume -------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_same_bits(
    trained, stopped, copy_of_stopped, make_config, call_train, read_events
):
    assert latest_of(stopped)[0] == 2 * EPOCH
    assert [line["epoch"] for line in metrics_of(stopped)] == [1, 2, 3, 4]
    out = call_train(make_config(), copy_of_stopped)
    assert f"Continuing {copy_of_stopped} after epoch 2.\n" in out
    assert re.findall(r"^epoch +(\d+)/6", out, re.MULTILINE) == ["4", "6"]

    (step, expected), (resumed_step, found) = latest_of(trained), latest_of(copy_of_stopped)
    assert step == resumed_step == 6 * EPOCH
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)

    # Epochs 3 and 4 have been computed twice and are logged once, with the same figures.
    assert without_speed(metrics_of(copy_of_stopped)) == without_speed(metrics_of(trained))
    shown = read_events(copy_of_stopped / "tensorboard")
    assert all(len(values) == 1 for values in shown.values())
    assert shown.keys() == read_events(trained / "tensorboard").keys()


def test_what_a_killed_process_left_behind_does_not_stop_a_resume(
    copy_of_stopped, make_config, call_train
):
    step = str(2 * EPOCH)
    folder = copy_of_stopped / "checkpoints"
    shutil.copytree(folder / step, folder / f"{4 * EPOCH}.orbax-checkpoint-tmp")
    with (copy_of_stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "tra')
    call_train(make_config(), copy_of_stopped)
    assert latest_of(copy_of_stopped)[0] == 6 * EPOCH
    assert [line["epoch"] for line in metrics_of(copy_of_stopped)] == [1, 2, 3, 4, 5, 6]


class Stop(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_run_resumes_in_the_middle_of_an_epoch(
    trained_on_imagenet, make_imagenet_config, call_train, tmp_path, monkeypatch, workers
):
    config = make_imagenet_config(checkpoint_every=3)
    read = loop._read_metrics

    def read_until_step_7(metrics, config, step):
        if step > 7:
            raise Stop
        return read(metrics, config, step)

    monkeypatch.setattr(loop, "_read_metrics", read_until_step_7)
    with pytest.raises(Stop):
        call_train(config, tmp_path / "run")
    monkeypatch.undo()
    # Of 4 steps an epoch, 3 is within the first and 6 within the second; 4 is the end of one.
    assert latest_of(tmp_path / "run")[0] == 6

    config.data.workers = workers
    out = call_train(config, tmp_path / "run")
    assert "Continuing" in out
    assert "after epoch 1 and 2 of 4 steps." in out
    (step, expected), (resumed_step, found) = map(
        latest_of, (trained_on_imagenet, tmp_path / "run")
    )
    assert step == resumed_step == 8
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)


def test_calls_come_to_the_end_of_an_epoch_from_its_middle(monkeypatch, make_config):
    monkeypatch.setitem(loop.STEPS_PER_CALL, jax.default_backend(), 50)

    def step(state, given, images):
        return state._replace(step=state.step + 1), {"seen": images.sum()}

    def taken(start):
        state = TrainState(jnp.int32(start), None, None, None, None)
        data = (np.ones((80, 1, 1, 1), np.uint8),)
        quiet, key = Console(quiet=True), Given(np.uint32(0))
        compiled = loop.compiled_steps(state, key, data, make_config(batch_size=2), quiet)
        return compiled(step, "a test")(state)[2]

    # Of 40 steps an epoch: as many as divide it and come to its end from 26 and 50.
    assert [taken(start) for start in (0, 80, 26, 50)] == [40, 40, 2, 10]


def test_cifar100_as_tfds_prepares_it(tmp_path, prepare_official, picture, encoded, call_train):
    def rows(numbers):
        for i in numbers:
            image = encoded(picture(i, 32, 32), "PNG")
            yield {"image": image, "label": 7 * i % 100, "coarse_label": i % 20, "id": str(i)}

    prepare_official(tmp_path, "cifar100", {"train": rows(range(40)), "test": rows(range(40, 48))})
    config = runpy.run_path("configs/cifar100.py")["get_config"]()
    config.data.update(dir=str(tmp_path), validation=8)
    config.model.update(name="resnet8", width=4)
    config.update(timesteps=2, epochs=1, inherit_epochs=0, batch_size=8)
    assert config.augment.autoaugment
    call_train(config, tmp_path / "run")
    step, saved = latest_of(tmp_path / "run")
    assert step == 4
    assert saved["params.head.bias"].shape == (100,)
    assert np.isfinite(saved["params.head.bias"]).all()


# --- Mistakes --------------------------------------------------------------------------------


def test_another_config_in_a_used_workdir(trained, make_config, call_train, contents):
    before = contents(trained)
    config = make_config(epochs=7, optimizer={"learning_rate": 0.2})
    with pytest.raises(UserError) as caught:
        call_train(config, trained)
    message = str(caught.value)
    assert "config.epochs was 6 and is 7" in message
    assert "config.optimizer.learning_rate was 0.1 and is 0.2" in message
    assert contents(trained) == before


def test_a_checkpoint_of_another_architecture(copy_of_stopped, make_config, call_train, contents):
    shutil.rmtree(copy_of_stopped / "checkpoints")
    other = {"step": jnp.int32(7), "params": {"head": {"bias": jnp.zeros(10)}}}
    with checkpoints.open_checkpoints(copy_of_stopped) as manager:
        checkpoints.save(manager, 7, other, 0.5)
    before = contents(copy_of_stopped)
    with pytest.raises(UserError, match=r"params\.blocks\.0\.conv1\.bn\.bias is \(4,\).*lacks it"):
        call_train(make_config(), copy_of_stopped)
    assert contents(copy_of_stopped) == before


def refuse(call_train, config, workdir, match, contents):
    """The error, and the checkpoints as they were."""
    before = contents(workdir / "checkpoints")
    with pytest.raises(UserError, match=match):
        call_train(config, workdir)
    assert contents(workdir / "checkpoints") == before


def test_a_loss_that_is_not_a_number(
    copy_of_stopped, make_config, call_train, contents, monkeypatch
):
    run_epochs = loop._loop

    def run_broken(state, config, task, *rest):
        def broken(state, epoch):
            state, metrics, steps = task.train(state, epoch)
            return state, metrics | {"loss": jnp.nan * metrics["loss"]}, steps

        run_epochs(state, config, task._replace(train=broken), *rest)

    monkeypatch.setattr(loop, "_loop", run_broken)
    match = r"the loss became nan by step \d+ .*lower --config\.optimizer\.learning_rate \(now 0\.1"
    refuse(call_train, make_config(), copy_of_stopped, match, contents)


def test_a_network_that_is_not_finite_is_not_saved(
    copy_of_stopped, make_config, call_train, contents, monkeypatch
):
    """The loss of a step is that before its update, which may be what goes wrong."""
    broken = lambda state: jax.tree.map(lambda x: x * jnp.nan, (state.params, state.stats))  # noqa: E731
    monkeypatch.setattr(loop, "evaluated", broken)
    match = f"a logit on the validation split became nan by step {4 * EPOCH}"
    refuse(call_train, make_config(), copy_of_stopped, match, contents)


def test_a_gradient_that_is_not_finite(make_config):
    metrics = {"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(jnp.inf)}
    with pytest.raises(UserError, match=r"the norm of the gradient became inf by step 7") as caught:
        loop._read_metrics(metrics, make_config(), 7)
    assert "float32" not in str(caught.value)
    bfloat16 = make_config(model={"dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"or use --config\.model\.dtype=float32"):
        loop._read_metrics(metrics, bfloat16, 7)
    good = {"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(2.0)}
    assert loop._read_metrics(good, bfloat16, 7) == {"loss": 1.0, "gradient_norm": 2.0}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"batch_size": 1288}, r"config\.batch_size is 1288 and digits has only 1287 training"),
        ({"data": {"validation": 1437}}, r"validation = 1437 is not possible"),
        ({"data": {"name": "folder:/x"}}, r"'folder:/x', .* set --config\.data\.image_size=224"),
        (
            {"data": {"image_size": 8}},
            r"'digits' is not streamed: set --config\.data\.image_size",
        ),
        ({"timesteps": 0}, r"config\.timesteps is 0"),
        ({"model": {"name": "vgg16"}}, r"images of 8x8 are too small for vgg16"),
        ({"model": {"dtype": "float64"}}, r"dtype 'float64' needs JAX_ENABLE_X64=1"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(tmp_path, make_config, call_train, changes, match):
    with pytest.raises(UserError, match=match):
        call_train(make_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- Arithmetic ------------------------------------------------------------------------------


def test_one_class(tmp_path, make_config, call_train, picture, encoded):
    (tmp_path / "data/only").mkdir(parents=True)
    for i in range(5):
        (tmp_path / f"data/only/{i}.jpg").write_bytes(encoded(picture(i)))
    data = {"name": f"folder:{tmp_path}/data", "image_size": 8, "validation": 1}
    with pytest.raises(UserError, match=r"the data has 1 class\(es\), and at least 2 are needed"):
        call_train(make_config(data=data, batch_size=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_timesteps_of_epoch(make_config):
    config = make_config(epochs=5, inherit_epochs=2, timesteps=4)
    assert [loop.timesteps_of_epoch(config, epoch) for epoch in range(5)] == [1, 1, 4, 4, 4]
    config.inherit_epochs = 0
    assert loop.timesteps_of_epoch(config, 0) == 4


@given(st.integers(1, 2000), st.integers(1, 100))
def test_steps_per_call_is_the_largest_divisor(steps_per_epoch, most):
    steps = loop.steps_per_call(steps_per_epoch, most)
    assert 1 <= steps <= most
    assert steps_per_epoch % steps == 0
    assert not any(steps_per_epoch % n == 0 for n in range(steps + 1, most + 1))


def test_steps_per_call_by_hand():
    assert loop.steps_per_call(175, 50) == 35
    assert loop.steps_per_call(173, 50) == 1
    assert loop.steps_per_call(20, 50) == 20


# --- Event data ------------------------------------------------------------------------------


def test_event_data_trains_with_a_frame_for_each_timestep(trained_on_events):
    workdir, _ = trained_on_events
    config, facts = run.load(workdir)
    assert (facts.frames, facts.image_shape) == (config.timesteps, (48, 48, 2))
    metrics = metrics_of(workdir)
    assert [line["epoch"] for line in metrics] == [1, 2]
    assert all(0 <= line["validation/accuracy_3"] <= 1 for line in metrics)
    assert all(np.isfinite(line["train/loss"]) for line in metrics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "relu", "loss": "mean_ce"}, r"cifar10_dvs is event data: .*activation=lif"),
        ({"augment": {"autoaugment": True}}, r"autoaugment is for colour images"),
        ({"timesteps": 2}, r"config\.timesteps was 3 and is 2"),
    ],
)
def test_what_event_data_cannot_have(on_events, make_event_config, call_train, changes, message):
    workdir, data = on_events
    with pytest.raises(UserError, match=message):
        call_train(make_event_config(data, **changes), workdir)
