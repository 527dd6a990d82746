"""What train.py and evaluate.py say and leave: results, and one sentence for every mistake."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from seenn_jax import cli

ROOT = Path(__file__).parent.parent
DIGITS = "--config=configs/digits.py"


def check_refused(status, out, err, *named):
    """Exit status 2, and one line that names what is wrong."""
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in out + err
    for text in named:
        assert text in err


def flags_of(config):
    """The command line of a config: what differs from configs/digits.py and what does not."""
    keys = {f"config.{key}": config.get_oneway_ref(key).get() for key in config if key != "data"}
    flat = {}
    for key, value in keys.items():
        if hasattr(value, "items"):
            flat |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            flat[key] = value
    flat["config.data.validation"] = config.data.validation
    return [f"--{name}={value}" for name, value in flat.items()]


# --- Real processes --------------------------------------------------------------------------


@pytest.fixture
def process(environment):
    """`(script, *arguments) -> (exit status, stdout, stderr)` of a process of its own."""

    def call(script, *arguments):
        command = [sys.executable, script, *map(str, arguments)]
        end = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return end.returncode, end.stdout, end.stderr

    return call


def test_train_then_evaluate(process, trained, make_config, tmp_path):
    arguments = [DIGITS, f"--workdir={tmp_path}", *flags_of(make_config())]
    status, out, err = process("train.py", *arguments)
    # Not a word of orbax's or of backends that are not there.
    assert (status, err) == (0, "")
    assert "Training resnet8 (width 4) on digits: 1,287 images, 150 held out" in out
    assert "Compiling the training step for 1 timestep(s)" in out
    assert "epoch   6/6  loss" in out
    assert f"the run is in {tmp_path}." in out
    # Another process, the same bits.
    runs = [(path / "metrics.jsonl").read_text().splitlines()[-1] for path in (trained, tmp_path)]
    mine, other = ({**json.loads(line), "train/images_per_second": 0} for line in runs)
    assert mine == other

    copy = tmp_path / "copy.json"
    status, out, err = process("evaluate.py", f"--workdir={tmp_path}", f"--json={copy}")
    assert (status, err) == (0, "")
    assert f"Evaluating {tmp_path}." in out
    assert "digits, test split, 360 samples" in out
    folder = tmp_path / "evaluation" / "confidence"
    assert f"Report: {folder / 'report.html'}" in out
    result = json.loads((folder / "result.json").read_text())
    assert json.loads(copy.read_text()) == result
    assert result["exit"] == "confidence"
    accuracy, average = 100 * result["accuracy"], result["average_timesteps"]
    assert f"accuracy {accuracy:.2f} % at {average:.3f} timesteps on average (T = 3)" in out


@pytest.mark.parametrize(
    ("script", "arguments", "named"),
    [
        ("train.py", [DIGITS, "--config.epochs=3", "now"], ["'now'", "--name=value"]),
        ("evaluate.py", ["--workdir=no/such/run"], ["no/such/run holds no run", "--workdir"]),
        (
            "benchmarks/sweep_beta.py",
            ["--config=configs/digits_policy.py", "--init_from=no/such/run"],
            ["no/such/run holds no run", "config.init_from"],
        ),
        (
            "benchmarks/sweep_beta.py",
            ["--config=configs/digits_policy.py", "--betas=0.1,x"],
            ["--betas is '0.1,x'", "numbers separated by commas"],
        ),
    ],
    ids=["train", "evaluate", "sweep", "betas"],
)
def test_a_mistake_is_one_line_of_a_real_process(process, script, arguments, named):
    check_refused(*process(script, *arguments), *named)


# --- Mistakes in train.py --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["--config is missing", DIGITS]),
        (["--config.epochs=3"], ["--config.epochs", "--config is missing"]),
        (["--config=configs/none.py"], ["'configs/none.py'", "configs/digits.py"]),
        (["--config", "configs/none.py"], ["'configs/none.py'", "configs/digits.py"]),
        (["--config"], ["there is no config file ''"]),
        (["--config=configs"], ["there is no config file 'configs'"]),
        ([DIGITS, "--config.unknown=1"], ["unknown config key 'unknown'", "model.width", "seed"]),
        ([DIGITS, "--config.epoch=1"], ["'epoch'", "did you mean config.epochs?"]),
        ([DIGITS, "--config.model.widht=1"], ["'model.widht'", "config.model.width?"]),
        ([DIGITS, "--config.epochs.more=1"], ["unknown config key 'epochs.more'"]),
        ([DIGITS, "--config.optimizer=1"], ["config.optimizer is a group", "optimizer.momentum"]),
        ([DIGITS, "--config.epochs=abc"], ["--config.epochs is 'abc'", "an integer"]),
        ([DIGITS, "--config.epochs=1.5"], ["--config.epochs is '1.5'", "an integer"]),
        ([DIGITS, "--config.ema=much"], ["--config.ema is 'much'", "a number"]),
        ([DIGITS, "--config.augment.flip=7"], ["--config.augment.flip is '7'", "true or false"]),
        ([DIGITS, "--wrokdir=x"], ["unknown flag 'wrokdir'", "did you mean 'workdir'?"]),
        (
            [DIGITS, "--batch_size=7"],
            ["unknown flag 'batch_size'", "config, multihost, patience, workdir"],
        ),
        ([DIGITS, "fast"], ["unexpected argument 'fast'", "--name=value"]),
        ([DIGITS, "--config.model.name=resnet9"], ["'resnet9'", "vgg16", "resnet8"]),
        ([DIGITS, "--config.model.dtype=float16"], ["'float16'", "bfloat16, float32"]),
        ([DIGITS, "--config.timesteps=0"], ["config.timesteps is 0", "at least 1"]),
        ([DIGITS, "--config.batch_size=5000"], ["config.batch_size is 5000", "training images"]),
        ([DIGITS, "--config.data.validation=0"], ["config.data.validation is 0"]),
        ([DIGITS, "--config.data.name=no name"], ["'no name' is not the name of a data set"]),
    ],
    ids=lambda value: " ".join(value[-1:]) if value and value[-1].startswith("-") else "",
)
def test_what_cannot_be_trained(program, tmp_path, arguments, named):
    workdir = tmp_path / "run"
    check_refused(*program("train.py", f"--workdir={workdir}", *arguments), *named)
    assert not workdir.exists()


def test_an_unknown_data_set(program, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    refused = program("train.py", DIGITS, "--config.data.name=cifar10", f"--workdir={tmp_path}/run")
    check_refused(*refused, "'cifar10' is not prepared", str(tmp_path), "configs/digits.py")


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("config.epoch = 3", ["AttributeError", "epoch"]),
        ("config.epochs = 'many'", ["TypeError", "epochs"]),
        ("def", ["SyntaxError", "line 4"]),
        ("import no_such_module", ["ModuleNotFoundError", "no_such_module"]),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_error(program, tmp_path, code, named):
    path = tmp_path / "mine.py"
    path.write_text(
        "from seenn_jax.config import default_config\n"
        f"def get_config():\n    config = default_config()\n    {code}\n    return config\n"
    )
    status, out, err = program("train.py", f"--config={path}", f"--workdir={tmp_path}/run")
    check_refused(status, out, err, f"the config file {path} fails", *named)
    assert "batch_size" not in err  # ml_collections would print the whole config


def test_a_changed_config_in_a_used_workdir(program, trained, make_config, contents):
    before = contents(trained)
    changed = make_config(seed=1, model={"tau": 0.25})
    refused = program("train.py", DIGITS, f"--workdir={trained}", *flags_of(changed))
    check_refused(*refused, "config.seed was 0 and is 1", "config.model.tau was 0.5 and is 0.25")
    assert contents(trained) == before


def test_a_finished_run(program, trained, make_config, contents):
    before = contents(trained)
    arguments = ["--config", "configs/digits.py", f"--workdir={trained}", *flags_of(make_config())]
    assert program("train.py", *arguments) == (
        0,
        f"{trained} is trained: all 6 epochs are done.\n",
        "",
    )
    assert contents(trained) == before


def test_a_learning_rate_at_which_the_loss_is_lost(program, make_config, tmp_path):
    config = make_config(timesteps=1, inherit_epochs=0, optimizer={"learning_rate": 1e30})
    status, out, err = program("train.py", DIGITS, f"--workdir={tmp_path}", *flags_of(config))
    check_refused(status, out, err, "became", "--config.optimizer.learning_rate (now 1e+30)")
    assert list((tmp_path / "checkpoints").iterdir()) == []
    # It can be mended in its place.
    changed = make_config(timesteps=0)
    refused = program("train.py", DIGITS, f"--workdir={tmp_path}", *flags_of(changed))
    check_refused(*refused, "config.timesteps is 0")


# --- Mistakes in evaluate.py -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--exit=sure"], ["unknown exit 'sure'", "confidence, entropy, full, margin, patience"]),
        (["--threshold=1.5"], ["threshold 1.5", "[0, 1]"]),
        (["--threshold=nan"], ["threshold nan", "[0, 1]"]),
        (["--threshold=high"], ["--threshold is 'high'", "a number"]),
        (["--threshold=0.5", "--exit=full"], ["--threshold=0.5", "leave it out"]),
        (["--split=dev"], ["unknown split 'dev'", "test, train, validation"]),
        (["--batch_size=361"], ["--batch_size is 361", "360 images", "from 1 to that"]),
        (["--batch_size=0"], ["--batch_size is 0", "from 1 to that"]),
        (["--batch_size=all"], ["--batch_size is 'all'", "an integer"]),
        (["--exits=full"], ["unknown flag 'exits'", "did you mean 'exit'?"]),
        (["confidence"], ["unexpected argument 'confidence'", "--name=value"]),
        (["--json=README.md"], ["--json=README.md exists already", "new file"]),
        (["--json=no/such/folder.json"], ["--json=no/such/folder.json", "no folder no/such"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_what_cannot_be_evaluated(program, trained, contents, arguments, named):
    before = contents(trained)
    check_refused(*program("evaluate.py", f"--workdir={trained}", *arguments), *named)
    assert contents(trained) == before


def test_a_workdir_that_cannot_be_evaluated(program, copy_of_trained, contents):
    path = copy_of_trained / "run.json"
    original = path.read_text()
    content = json.loads(original)
    content["config"]["model"]["width"] = 6
    path.write_text(json.dumps(content))
    before = contents(copy_of_trained)
    refused = program("evaluate.py", f"--workdir={copy_of_trained}")
    check_refused(*refused, "of another architecture", "average.0.blocks.0.conv1.bn.bias is (6,)")
    assert contents(copy_of_trained) == before

    path.write_text(original)
    shutil.rmtree(copy_of_trained / "checkpoints")
    refused = program("evaluate.py", f"--workdir={copy_of_trained}")
    check_refused(*refused, "has no checkpoint yet", f"train.py --workdir={copy_of_trained}")
    path.unlink()
    refused = program("evaluate.py", f"--workdir={copy_of_trained}")
    check_refused(*refused, f"{copy_of_trained} holds no run")


def test_the_newest_run_is_the_default(program, trained, tmp_path, monkeypatch):
    for script in ("evaluate.py", "configs"):
        (tmp_path / script).symlink_to(ROOT / script)
    monkeypatch.chdir(tmp_path)
    check_refused(*program("evaluate.py"), "there is no run in runs/", "train.py --config=")
    for age, name in enumerate(("new", "old")):
        copy = shutil.copytree(trained, tmp_path / "runs" / name)
        os.utime(copy / "checkpoints", (0, 1000 - age))
    status, out, err = program("evaluate.py", "--exit=nothing")
    assert out == "Evaluating runs/new.\n"
    check_refused(status, out, err, "unknown exit 'nothing'")


# --- The shell around them -------------------------------------------------------------------


@pytest.fixture
def call_main(monkeypatch, capsys):
    """`cli.main` around a function; logging is put back as it was."""
    handlers, levels = list(logging.root.handlers), {}
    for name in (None, "absl", "seenn_jax"):
        levels[name] = logging.getLogger(name).level

    def call(function, *arguments):
        monkeypatch.setattr(sys, "argv", ["program.py"])
        with pytest.raises(SystemExit) as end:
            cli.main(function, *arguments)
        return end.value.code, *capsys.readouterr()

    yield call
    flags.FLAGS.unparse_flags()
    logging.root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def raising(error):
    def function():
        raise error

    return function


def test_ctrl_c_is_130(call_main):
    assert call_main(raising(KeyboardInterrupt())) == (130, "", "interrupted\n")
    assert call_main(raising(KeyboardInterrupt()), "gone on") == (130, "", "gone on\n")


def test_a_path_that_fails_is_named(call_main):
    error = PermissionError(13, "Permission denied", "/some/path")
    check_refused(*call_main(raising(error)), "/some/path: Permission denied")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, call_main):
    for error in (ValueError("a mistake of ours"), OSError("without a path")):
        with pytest.raises(type(error), match=str(error)):
            call_main(raising(error))


def test_compiled_programs_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    updates = {}
    monkeypatch.setattr("jax.config.update", updates.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(type(cli.jax.config), "jax_compilation_cache_dir", None, raising=False)
    cli._enable_compilation_cache()
    assert updates == {"jax_compilation_cache_dir": str(tmp_path / "seenn_jax" / "xla")}
