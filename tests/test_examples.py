"""The examples do what they say; none of them edits the package."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import seenn_jax
from seenn_jax.exits import accumulate
from seenn_jax.run import folder

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text().splitlines()) < 60


def plugin(name):
    return (str(ROOT / "examples" / f"{name}.py"),)


@pytest.fixture
def trained_with(make_config, call_train, tmp_path):
    """`(example, **changes of the config) -> a run`."""

    def train(name, **changes):
        length = {"epochs": 2, "inherit_epochs": 0, "timesteps": 2}
        config = make_config(plugins=plugin(name), **length, **changes)
        call_train(config, tmp_path / name)
        return tmp_path / name

    return train


@pytest.mark.slow
def test_adaptive_threshold(trained_with):
    run = trained_with("adaptive_threshold", activation="alif")
    predictor = seenn_jax.load(run)
    rises = {float(predictor.model.neuron.raw[...])}
    [block] = predictor.model.blocks
    rises |= {float(neuron.raw[...]) for neuron in (block.neuron1, block.neuron2)}
    assert len(rises) == 3  # each layer has learnt its own
    result = seenn_jax.evaluate(run)
    assert result["network"] == "spiking"
    assert result["share_of_answers_that_differ"] == 0
    with pytest.raises(
        seenn_jax.UserError, match="int8 needs spikes of 0 and 1, and stem is a ALIF"
    ):
        seenn_jax.load(run, precision="int8")


def test_own_network(trained_with):
    run = trained_with("own_network", model={"name": "two_layers"})
    result = seenn_jax.evaluate(run, precision="int8")
    assert result["share_of_answers_that_differ"] == 0
    params = seenn_jax.load(run, precision="int8").network.params
    assert [leaf.ndim for leaf in params if leaf.dtype == np.int8] == [4]


def test_own_data(trained_with):
    run = trained_with("own_data", data={"name": "bars"})
    result = seenn_jax.evaluate(run, exit="full")
    assert (result["num_samples"], result["dataset"]) == (200, "bars")
    assert result["accuracy"] > 0.6


def test_own_exit(trained_with, program):
    run = trained_with("own_exit")
    status, out, _ = program("evaluate.py", f"--workdir={run}", "--exit=steady")
    assert status == 0
    assert "steady exit" in out
    assert folder.kept_exit(run)["exit"] == "steady"
    found = seenn_jax.evaluate(run, exit="steady", choice=seenn_jax.Given(0.15))
    assert found["share_of_exit_times_that_differ"] == found["share_of_answers_that_differ"] == 0
    assert found["average_timesteps"] == 2  # at t = 1 there is no tick before


def test_any_network():
    done = subprocess.run(
        [sys.executable, ROOT / "examples/any_network.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = runpy.run_path(str(ROOT / "examples/any_network.py"))
    inputs = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    exited = names["answer"](inputs)
    membranes, logits = np.zeros((50, 5), np.float32), []
    for _ in range(8):
        membranes, now = names["step"](membranes, inputs)
        logits.append(now)
    cumulative = accumulate(np.stack(logits, 1))
    sure = np.array(seenn_jax.confidence(cumulative) > 0.9)
    sure[:, -1] = True
    np.testing.assert_array_equal(exited.timesteps, sure.argmax(1) + 1)


# --- Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, r"`config.plugins` names '.*mine.py', and there is no such module"),
        ("1 / 0", r"the plugin '.*mine.py' of `config.plugins` fails: ZeroDivisionError"),
        ("def", r"fails: SyntaxError"),
        ("import no_such_thing", r"fails: ModuleNotFoundError: No module named 'no_such_thing'"),
        (
            "import seenn_jax; seenn_jax.EXITS['confidence'] = None",
            r"fails: the exit 'confidence' is there already: choose another name",
        ),
    ],
)
def test_plugins_that_can_not_be(make_config, call_train, tmp_path, text, complaint):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(seenn_jax.UserError, match=complaint):
        call_train(make_config(plugins=(str(path),)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_module_that_is_not_there(make_config, call_train, tmp_path):
    with pytest.raises(seenn_jax.UserError, match=r"names 'no_such_plugin', and there is no such"):
        call_train(make_config(plugins=("no_such_plugin",)), tmp_path / "run")


def test_what_a_plugin_added_is_gone_when_it_fails(make_config, call_train, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import seenn_jax; seenn_jax.LOSSES['mine'] = lambda config: None; 1 / 0")
    with pytest.raises(seenn_jax.UserError, match="ZeroDivisionError"):
        call_train(make_config(plugins=(str(path),)), tmp_path / "run")
    assert "mine" not in seenn_jax.LOSSES


def test_a_run_whose_plugin_is_gone_names_it_and_what_it_gave(
    make_config, call_train, tmp_path, environment
):
    path = tmp_path / "gone.py"
    path.write_text("import seenn_jax\nseenn_jax.LOSSES['gone'] = seenn_jax.LOSSES['mean_ce']\n")
    call_train(
        make_config(plugins=(str(path),), loss="gone", epochs=1, inherit_epochs=0), tmp_path / "r"
    )
    path.unlink()
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"--workdir={tmp_path / 'r'}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 2
    assert "--config.plugins names" in done.stderr
    assert "gone.py' (it gave LOSSES.gone), and there is no such module" in done.stderr
    assert done.stderr.count("\n") == 1
