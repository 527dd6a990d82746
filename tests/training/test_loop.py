"""Train, stop, continue, finish: the same bits, the same log, and mistakes that change nothing."""

import io
import math
import os
import re
import shutil
import signal
import threading
import time
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from seenn_jax.config import default_config
from seenn_jax.data import Dataset, load_dataset
from seenn_jax.errors import Terminated, UserError
from seenn_jax.run import checkpoints, folder, stored
from seenn_jax.run.lock import only_one
from seenn_jax.training import loop, network
from tests.training.runs import latest_of, metrics_of

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


def without_speed(metrics):
    return [{k: v for k, v in line.items() if k != "train/images_per_second"} for line in metrics]


# --- A whole run ----------------------------------------------------------------------------------


def test_a_run_leaves_what_issue_and_readme_promise(trained, make_config):
    assert {path.name for path in trained.iterdir()} == {
        "run.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
    }
    config, facts = folder.load(trained)
    assert config.to_dict() == make_config().to_dict()
    assert facts == folder.DataFacts.of(load_dataset("digits", validation=150))


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


class Counted(NamedTuple):
    """A state that does nothing."""

    step: int


def test_images_a_second_are_those_of_the_whole_epoch(tmp_path):
    # As on a GPU, where a call may last until its steps are done, and the compiler comes first.
    config, seconds, console = default_config(), 0.1, Console(file=io.StringIO())
    config.update(batch_size=50, epochs=1)
    images = type("Images", (), {"size": 150})

    def train(state):
        time.sleep(seconds)
        return Counted(state.step + 1), {"loss": 1.0, "accuracy": 0.5, "gradient_norm": 1.0}, 1

    def steps(epoch):
        time.sleep(seconds)
        return train

    def make_task(state, config):
        validated = loop.Validation(0.5, {}, "half")
        rate = lambda step: 0.1  # noqa: E731
        return state, loop.Task(steps, lambda state: validated, rate, lambda epoch: {}, [3])

    data = Dataset("none", images, images, images, 2)
    loop.run_task(config, tmp_path, console, "nothing", data, Counted(0), make_task, 0.0)
    (line,) = metrics_of(tmp_path)
    assert 0.7 < line["train/images_per_second"] * 3 * seconds / 150 <= 1


def test_event_files_hold_the_same_scalars(trained, read_events):
    expected = {
        (line["step"], name): [pytest.approx(value, rel=1e-6)]
        for line in metrics_of(trained)
        for name, value in line.items()
        if name != "step"
    }
    assert read_events(trained / "tensorboard") == expected


def test_the_best_and_the_two_latest_checkpoints_are_there(trained):
    accuracy = {
        line["step"]: line["validation/accuracy_3"]
        for line in metrics_of(trained)
        if "validation/accuracy_3" in line
    }
    assert sorted(accuracy) == [2 * EPOCH, 4 * EPOCH, 6 * EPOCH]
    best = max(accuracy, key=lambda step: (accuracy[step], step))
    assert set(checkpoints.steps(trained)) == {best, 4 * EPOCH, 6 * EPOCH}
    assert checkpoints.best_step(trained) == best
    assert stored.score(trained, best) == pytest.approx(accuracy[best])


def test_a_finished_run_says_so_and_trains_no_further(
    trained, make_config, call_train, contents, monkeypatch
):
    before = contents(trained)
    monkeypatch.setattr(loop, "_Loop", None)  # no call of it could end well
    out = call_train(make_config(), trained)
    assert out == f"{trained} is trained: all 6 epochs are done.\n"
    assert contents(trained) == before


# --- Stop and resume ------------------------------------------------------------------------------


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
    chex.assert_trees_all_equal(expected, found)

    # Epochs 3 and 4 have been computed twice and are logged once, with the same figures.
    assert without_speed(metrics_of(copy_of_stopped)) == without_speed(metrics_of(trained))
    shown = read_events(copy_of_stopped / "tensorboard")
    assert all(len(values) == 1 for values in shown.values())
    assert shown.keys() == read_events(trained / "tensorboard").keys()


def test_sigterm_damage_and_what_a_killed_process_left_behind(
    trained, copy_of_stopped, make_config, call_train, monkeypatch
):
    """Ended within epoch 3, damaged there, ended again and continued: the same bits."""
    folder = copy_of_stopped / "checkpoints"
    shutil.copytree(folder / str(2 * EPOCH), folder / f"{4 * EPOCH}.orbax-checkpoint-tmp")
    with (copy_of_stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "tra')
    before, read = signal.getsignal(signal.SIGTERM), loop._read_metrics

    def ended_at(last):
        def read_and_end(metrics, config, step):
            if step == last:
                os.kill(os.getpid(), signal.SIGTERM)
            return read(metrics, config, step)

        monkeypatch.setattr(loop, "_read_metrics", read_and_end)
        with pytest.raises(Terminated) as ended:
            call_train(make_config(), copy_of_stopped)
        assert signal.getsignal(signal.SIGTERM) == before
        assert ended.value.code == 143
        saved = f"ended by SIGTERM after step {last}, which is saved: the same command continues"
        assert saved in ended.value.sentence
        assert latest_of(copy_of_stopped)[0] == last

    def ended_while_validated(step):
        told = threading.Event()

        def never_ending(*_):
            os.kill(os.getpid(), signal.SIGTERM)
            told.wait(60)

        monkeypatch.setattr(network, "_make_validate", lambda *_: never_ending)
        with pytest.raises(Terminated) as ended:
            call_train(make_config(), copy_of_stopped)
        told.set()
        monkeypatch.undo()
        assert f"after step {step}, which is saved" in ended.value.sentence
        assert latest_of(copy_of_stopped)[0] == step
        assert stored.score(copy_of_stopped, step) == -math.inf

    ended_at(2 * EPOCH + 5)
    assert not (copy_of_stopped / ".lock").exists()
    (folder / f"{2 * EPOCH + 5}" / "metrics" / "metrics").unlink()
    ended_at(2 * EPOCH + 3)
    monkeypatch.undo()
    ended_while_validated(4 * EPOCH)
    assert (folder / f"damaged-{2 * EPOCH + 5}").is_dir()
    out = call_train(make_config(), copy_of_stopped)
    assert "after epoch 4.\n" in out
    assert re.findall(r"^epoch +(\d+)/6", out, re.MULTILINE) == ["4", "6"]
    (step, expected), (resumed_step, found) = latest_of(trained), latest_of(copy_of_stopped)
    assert step == resumed_step == 6 * EPOCH
    chex.assert_trees_all_equal(expected, found)
    assert without_speed(metrics_of(copy_of_stopped)) == without_speed(metrics_of(trained))
    for step in checkpoints.steps(trained):
        assert stored.score(copy_of_stopped, step) == stored.score(trained, step)


def test_a_damaged_finished_run_is_trained_on(
    copy_of_trained, make_config, call_train, monkeypatch
):
    """And one without any whole checkpoint is begun anew."""
    started = []
    monkeypatch.setattr(network, "run_task", lambda *arguments: started.append(arguments))
    steps = checkpoints.steps(copy_of_trained)
    for number, step in enumerate(reversed(steps)):
        (copy_of_trained / "checkpoints" / str(step) / "default" / "manifest.ocdbt").unlink()
        out = call_train(make_config(), copy_of_trained)
        assert f"checkpoints/{step} is damaged (" in out
        assert f"it is set aside as damaged-{step}." in out
        assert ("no whole checkpoint left, and is begun anew" in out) == (step == steps[0])
        assert len(started) == number + 1


def test_a_second_training_in_the_workdir(copy_of_trained, make_config, call_train, contents):
    with only_one(copy_of_trained):
        before = contents(copy_of_trained)
        with pytest.raises(UserError, match=f"is being trained already, by process {os.getpid()}"):
            call_train(make_config(), copy_of_trained)
        assert contents(copy_of_trained) == before


class Stop(Exception):
    pass


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
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
    chex.assert_trees_all_equal(expected, found)
    # Means are of the whole epoch, also of the steps before it was resumed.
    assert without_speed(metrics_of(trained_on_imagenet)) == without_speed(
        metrics_of(tmp_path / "run")
    )


@pytest.mark.slow
def test_a_loss_that_is_not_finite_goes_back_as_often_as_allowed(
    make_config, call_train, tmp_path, monkeypatch
):
    read, one, other = loop._read_metrics, tmp_path / "one", tmp_path / "other"
    short = {"epochs": 2, "validate_every": 1}
    left = [1]  # steps whose loss becomes NaN, after the first epoch of 20 steps

    def read_nan(metrics, config, step):
        if step > 25 and left:
            left.pop()
            metrics = metrics | {"loss": np.nan}
        return read(metrics, config, step)

    monkeypatch.setattr(loop, "_read_metrics", read_nan)
    with pytest.raises(UserError, match=r"a larger `config\.rewinds` \(now 0\) the same command"):
        call_train(make_config(**short), one)
    shutil.copytree(one, other)
    call_train(make_config(**short), one)
    left.append(1)
    out = call_train(make_config(**short, rewinds=1), other)
    assert "the loss became nan by step 26: back to step 20, from where" in out
    assert "(rewind 1 of at most 1)." in out

    plain, rewound = without_speed(metrics_of(one)), without_speed(metrics_of(other))
    assert [line["epoch"] for line in rewound] == [1, 2]
    assert plain[0] == rewound[0]
    assert plain[1]["train/loss"] != rewound[1]["train/loss"]
    assert checkpoints.resumed(one, 40, {})[1] == {}
    assert checkpoints.resumed(other, 40, {})[1] == {"rewinds": 1}

    left += [1, 1]
    shutil.rmtree(other / "checkpoints" / "40")
    with pytest.raises(UserError, match=r"the loss became nan by step 26"):
        call_train(make_config(**short, rewinds=1), other)
    assert left == []


# --- Mistakes -------------------------------------------------------------------------------------


def test_another_config_in_a_used_workdir(trained, make_config, call_train, contents):
    before = contents(trained)
    config = make_config(epochs=7, optimizer={"learning_rate": 0.2})
    with pytest.raises(UserError) as caught:
        call_train(config, trained)
    message = str(caught.value)
    assert "`config.epochs` was 6 and is 7" in message
    assert "`config.optimizer.learning_rate` was 0.1 and is 0.2" in message
    assert contents(trained) == before


def test_a_checkpoint_of_another_architecture(copy_of_stopped, make_config, call_train, contents):
    shutil.rmtree(copy_of_stopped / "checkpoints")
    other = {"step": jnp.int32(7), "params": {"head": {"bias": jnp.zeros(10)}}}
    with checkpoints.open_checkpoints(copy_of_stopped) as manager:
        checkpoints.save(manager, 7, other, 0.5)
    before = contents(copy_of_stopped)
    with pytest.raises(UserError, match=r"params\.blocks\.0\.conv1\.bn\.bias is \(16,\).*lacks it"):
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
    make_loop = loop._Loop

    def broken_loop(config, task, *rest):
        def broken(state):
            state, metrics, steps = task.steps(5)(state)
            return state, metrics | {"loss": jnp.nan * metrics["loss"]}, steps

        return make_loop(config, task._replace(steps=lambda epoch: broken), *rest)

    monkeypatch.setattr(loop, "_Loop", broken_loop)
    match = r"the loss became nan by step \d+ .*lower `config\.optimizer\.learning_rate` \(now 0\.1"
    refuse(call_train, make_config(), copy_of_stopped, match, contents)


def test_a_network_that_is_not_finite_is_not_saved(
    copy_of_stopped, make_config, call_train, contents, monkeypatch
):
    """The loss of a step is that before its update, which may be what goes wrong."""
    broken = lambda state: jax.tree.map(lambda x: x * jnp.nan, (state.params, state.stats))  # noqa: E731
    monkeypatch.setattr(network, "evaluated", broken)
    match = f"a logit on the validation split became nan by step {4 * EPOCH}"
    refuse(call_train, make_config(), copy_of_stopped, match, contents)


def test_a_gradient_that_is_not_finite(make_config):
    metrics = {"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(jnp.inf)}
    with pytest.raises(UserError, match=r"the norm of the gradient became inf by step 7") as caught:
        loop._read_metrics(metrics, make_config(), 7)
    assert "float32" not in str(caught.value)
    bfloat16 = make_config(model={"dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"or use `config\.model\.dtype`=float32"):
        loop._read_metrics(metrics, bfloat16, 7)
    good = {"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(2.0)}
    assert loop._read_metrics(good, bfloat16, 7) == {"loss": 1.0, "gradient_norm": 2.0}
