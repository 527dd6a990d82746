"""Config files are found by their names, here first, and can inherit wherever they lie."""

import subprocess
import sys

import pytest

from seenn_jax.cli.configs import config_path
from seenn_jax.cli.overrides import with_config_path
from seenn_jax.errors import UserError
from tests.cli.conftest import ROOT


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["digits", "configs/digits.py", "digits.py"])
def test_a_name_is_a_config_of_the_package(elsewhere, name):
    assert config_path(name).resolve() == ROOT / "configs" / "digits.py"


def test_those_of_the_working_directory_come_first(elsewhere):
    (elsewhere / "configs").mkdir()
    for name in ("digits", "mine"):
        (elsewhere / "configs" / f"{name}.py").touch()
        for given in (name, f"configs/{name}.py"):
            assert config_path(given).resolve() == elsewhere / "configs" / f"{name}.py"
    (elsewhere / "digits.py").touch()
    assert str(config_path("digits.py")) == "digits.py"
    assert config_path("digits").parent.name == "configs"


@pytest.mark.parametrize("name", ["", "none", "configs/none.py", "other/digits.py", "configs"])
def test_what_is_not_there_is_named_with_the_names_that_are(elsewhere, name):
    with pytest.raises(
        UserError, match=f"no config file '{name}': .*ive the path .*cifar10, .*digits, "
    ):
        config_path(name)


def test_arguments_get_the_path(monkeypatch):
    monkeypatch.chdir(ROOT)
    wanted = ["--config=configs/digits.py", "--workdir=digits"]
    assert with_config_path(["--config=digits", "--workdir=digits"]) == wanted
    assert with_config_path(["--config", "digits", "x"]) == ["--config", "configs/digits.py", "x"]
    same = ["--config.epochs=3", "digits"]
    assert with_config_path(same) == same
    with pytest.raises(UserError, match="--config is empty"):
        with_config_path(["--config"])


def test_a_config_inherits_from_those_of_the_package(elsewhere, environment):
    (elsewhere / "mine.py").write_text(
        "from configs.digits_taught import get_config as taught\n"
        "def get_config():\n    config = taught()\n    config.epochs = 3\n    return config\n"
    )
    code = (
        "from seenn_jax.cli.overrides import load_config; config = load_config('mine.py'); "
        "print(config.epochs, config.teacher, load_config('cifar10_colab').data.name)"
    )
    # The package alone is on the path, not configs/: as once it is installed.
    (elsewhere / "path").mkdir()
    (elsewhere / "path" / "seenn_jax").symlink_to(ROOT / "seenn_jax")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment | {"PYTHONPATH": str(elsewhere / "path")},
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["3", "runs/digits_ann", "cifar10"], done.stderr
