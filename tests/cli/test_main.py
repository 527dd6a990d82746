"""The shell around the programs: exit statuses, and one sentence for every mistake."""

import logging
import sys

import pytest
from absl import flags

from seenn_jax.cli import main as shell
from seenn_jax.cli.flags import EVALUATE, TRAIN
from seenn_jax.cli.main import as_flags
from tests.cli.conftest import DIGITS, check_refused

MODULE = "seenn_jax/__main__.py"  # what python -m seenn_jax runs


@pytest.mark.parametrize(
    ("script", "arguments", "named"),
    [
        ("train.py", [DIGITS, "--config.epochs=3", "now"], ["'now'", "--name=value"]),
        ("evaluate.py", ["--workdir=no/such/run"], ["no/such/run holds no run", "--workdir"]),
        ("-m", ["seenn_jax", "evaluate", "--workdir=no/such/run"], ["no/such/run holds no run"]),
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
    ids=["train", "evaluate", "module", "sweep", "betas"],
)
def test_a_mistake_is_one_line_of_a_real_process(process, script, arguments, named):
    check_refused(*process(script, *arguments), *named)


# --- python -m seenn_jax ---------------------------------------------------------------------


def test_the_module_trains_and_evaluates(program, trained, make_config, tmp_path):
    check_refused(*program(MODULE, "train"), "--config is missing", DIGITS)
    workdir = tmp_path / "run"
    refused = program(MODULE, "train", DIGITS, "--config.epochs=0", f"--workdir={workdir}")
    check_refused(*refused, "--config.epochs is 0")
    refused = program(MODULE, "evaluate", f"--workdir={trained}", "--exit=sure")
    check_refused(*refused, "unknown exit 'sure'")
    # Each has its own flags only.
    check_refused(*program(MODULE, "train", "--slots=3"), "unknown flag 'slots'")
    check_refused(*program(MODULE, "evaluate", DIGITS), "unknown flag 'config'")


@pytest.mark.parametrize("arguments", [[], ["fit"], ["--workdir=x"], ["Train"]], ids=str)
def test_the_module_s_first_argument_is_a_program(program, arguments):
    refused = program(MODULE, *arguments)
    check_refused(*refused, "give one of train, evaluate, predict, and --help")


# --- Settings in sentences -------------------------------------------------------------------


def test_settings_become_flags():
    sentence = "`config.epochs` is 0, `slots` is 3, `threshold`=0.5, `init_state` and a `b c`"
    assert as_flags(sentence, EVALUATE) == (
        "--config.epochs is 0, --slots is 3, --threshold=0.5, `init_state` and a `b c`"
    )
    # What is no flag of this program stays a name.
    assert as_flags(sentence, TRAIN) == (
        "--config.epochs is 0, `slots` is 3, `threshold`=0.5, `init_state` and a `b c`"
    )
    assert as_flags("give a `workdir`, or another `workdir`", TRAIN) == (
        "give a --workdir, or another --workdir"
    )
    assert as_flags("nothing here", TRAIN) == "nothing here"


# --- How a program ends ----------------------------------------------------------------------


@pytest.fixture
def call_main(monkeypatch, capsys):
    """`main` around a function; logging is put back as it was."""
    handlers, levels = list(logging.root.handlers), {}
    for name in (None, "absl", "seenn_jax"):
        levels[name] = logging.getLogger(name).level

    def call(function, **options):
        monkeypatch.setattr(sys, "argv", ["program.py"])
        with pytest.raises(SystemExit) as end:
            shell.main(function, {}, **options)
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
    found = call_main(raising(KeyboardInterrupt()), interrupted="gone on")
    assert found == (130, "", "gone on\n")


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
    monkeypatch.setattr(type(shell.jax.config), "jax_compilation_cache_dir", None, raising=False)
    shell._enable_compilation_cache()
    assert updates == {"jax_compilation_cache_dir": str(tmp_path / "seenn_jax" / "xla")}
