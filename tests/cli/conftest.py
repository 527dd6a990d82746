"""What the tests of the programs share: what a mistake looks like, and processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


def named_after(value):
    """The id of a parameter: of a list of arguments the last flag."""
    return " ".join(value[-1:]) if value and value[-1].startswith("-") else ""


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


@pytest.fixture
def process(environment):
    """`(script, *arguments) -> (exit status, stdout, stderr)` of a process of its own."""

    def call(script, *arguments):
        command = [sys.executable, script, *map(str, arguments)]
        end = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return end.returncode, end.stdout, end.stderr

    return call


@pytest.fixture
def refused_training(program, tmp_path):
    """`(arguments, named)`: train.py refuses them, and leaves no folder."""

    def check(arguments, named):
        workdir = tmp_path / "run"
        check_refused(*program("train.py", f"--workdir={workdir}", *arguments), *named)
        assert not workdir.exists()

    return check
