"""What is wrong with a config file or with --config.key=value is said before anything is done."""

import pytest

from seenn_jax.cli.overrides import leaves, load_config
from seenn_jax.config import default_config
from tests.cli.conftest import DIGITS, ROOT, check_refused, named_after


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["--config is missing", DIGITS]),
        (["--config.epochs=3"], ["--config.epochs", "--config is missing"]),
        (["--config=configs/none.py"], ["'configs/none.py'", "digits"]),
        (["--config", "configs/none.py"], ["'configs/none.py'", "digits"]),
        (["--config"], ["--config is empty"]),
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
    ],
    ids=named_after,
)
def test_a_setting_that_cannot_be_is_named(refused_training, arguments, named):
    refused_training(arguments, named)


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


def test_a_config_file_is_read():
    assert load_config(str(ROOT / "configs" / "digits.py")).data.name == "digits"


def test_the_names_of_all_settings():
    names = leaves(default_config())
    assert {"epochs", "model.width", "optimizer.learning_rate", "data.name"} <= set(names)
    assert not {"model", "optimizer", "data"} & set(names)
    assert len(names) == len(set(names))
