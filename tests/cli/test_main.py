"""The shell around the programs: exit statuses, and one sentence for every mistake."""

import errno
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from absl import flags

import seenn_jax
from seenn_jax.cli import main as shell
from seenn_jax.cli.flags import EVALUATE, PROGRAMS, TRAIN
from seenn_jax.cli.main import as_flags
from seenn_jax.errors import UserError
from tests.cli.conftest import DIGITS, ROOT, check_refused

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


# What people get wrong first, and all that is said.
FIRST_MISTAKES = [
    (
        ["train", "configs/digits.py"],
        "unexpected argument 'configs/digits.py': give a config file as --config=configs/digits.py",
    ),
    (["train"], "--config is missing: for example --config=configs/digits.py"),
    (
        ["train", DIGITS, "--epochs=5"],
        "unknown flag 'epochs': did you mean --config.epochs? --help=config lists the settings, "
        "and the flags are workdir, multihost, wait, config",
    ),
    (
        ["train", DIGITS, "--lr=0.1"],
        "unknown flag 'lr': did you mean --config.optimizer.learning_rate? --help=config lists",
    ),
    (
        ["train", DIGITS, "--batch_size=7"],
        "unknown flag 'batch_size': did you mean --config.batch_size? --help=config lists",
    ),
    (["train", DIGITS, "--model=vgg16"], "unknown flag 'model': did you mean --config.model.name?"),
    (
        ["train", DIGITS, "--config.lr=1"],
        "unknown config key 'lr': did you mean config.optimizer.learning_rate? The known ones are",
    ),
    (
        ["train", "--config=cifar"],
        "there is no config file 'cifar': did you mean 'cifar10'? Give the path of one, or a name",
    ),
    (["train", "digits"], "unexpected argument 'digits': give a config file as --config=digits"),
    (["train", "x"], "unexpected argument 'x': flags look like --name=value"),
    (["train", DIGITS, "--exit=full"], "unknown flag 'exit': the known ones are config, multihost"),
    (
        ["evaluate", "--exits=full"],
        "unknown flag 'exits': did you mean 'exit'? The known ones are ann, checkpoint",
    ),
    (["evaluate", "RUN"], "unexpected argument 'RUN': give a run as --workdir=RUN"),
    (
        ["evaluate", "--exit=confidense"],
        "unknown exit 'confidense': did you mean 'confidence'? The known ones are confidence",
    ),
    (
        ["evaluate"],
        "there is no run in runs/: train one with python -m seenn_jax train --config=configs/",
    ),
    (["evaluate", "--slots={1: 2}"], "--slots is '{1: 2}': it must be an integer; set it to one"),
    (["evaluate", "--json=/proc/x.json"], "--json=/proc/x.json can't be written ("),
    (["evaluate", "--nir=/proc/x.nir"], "--nir=/proc/x.nir can't be written ("),
    (
        ["evaluate", "--export_weights=/proc/x.safetensors"],
        "--export_weights=/proc/x.safetensors can't be written (",
    ),
    (["predict", "x.png"], "there is no run in runs/: train one with python -m seenn_jax train"),
    (["predict", "x.png", "--exit=confidense"], "unknown exit 'confidense': did you mean 'conf"),
    (["predict", "x.png", "--weights=RUN"], "--weights=RUN is a run: give it as --workdir=RUN"),
    (["predict"], "there is nothing to predict: give image files, or folders of them"),
]


@pytest.mark.parametrize(("arguments", "said"), FIRST_MISTAKES, ids=lambda value: str(value)[:40])
def test_first_mistakes(program, copy_of_trained, tmp_path, monkeypatch, arguments, said):
    # In a folder without runs, of one's own.
    (tmp_path / "seenn_jax").symlink_to(ROOT / "seenn_jax")
    (tmp_path / "RUN").symlink_to(copy_of_trained)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    check_refused(*program(MODULE, *arguments), f"error: {said}")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_devices_that_are_not_there(environment):
    for platform, script in (("cuda", "train.py"), ("nonsense", "evaluate.py")):
        done = subprocess.run(
            [sys.executable, script, *[DIGITS] * (script == "train.py")],
            cwd=ROOT,
            env=environment | {"JAX_PLATFORMS": platform},
            capture_output=True,
            text=True,
        )
        said = f"JAX_PLATFORMS={platform} asks for devices that JAX does not find here ("
        check_refused(done.returncode, done.stdout, done.stderr, said, "unset it, or install jax")
        assert "automatically" not in done.stderr  # advice of JAX's, which is another one


def test_scripts_run_from_another_folder(environment, tmp_path):
    for script, arguments, said in (
        ("train.py", ["--config=digits", "--config.epochs=0"], "--config.epochs is 0"),
        ("evaluate.py", [], f"there is no run in runs/: train one with python {ROOT}/train.py"),
    ):
        done = subprocess.run(
            [sys.executable, ROOT / script, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        check_refused(done.returncode, done.stdout, done.stderr, f"error: {said}")
    assert list(tmp_path.iterdir()) == []


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


def test_the_module_has_help(program):
    status, out, err = program(MODULE, "--help")
    assert (status, err) == (0, "")
    for name in ("train", "evaluate", "predict"):
        assert f"python -m seenn_jax {name}" in out
    status, out, err = program(MODULE, "train", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("Train the network of a config")


@pytest.mark.parametrize("arguments", [[], ["fit"], ["--workdir=x"], ["Train"]], ids=str)
def test_the_module_s_first_argument_is_a_program(program, arguments):
    refused = program(MODULE, *arguments)
    check_refused(*refused, f"give one of {', '.join(PROGRAMS)}, and --help", *arguments[:1])


def test_the_module_says_its_version(program):
    assert program(MODULE, "--version") == (0, f"seenn_jax {seenn_jax.__version__}\n", "")


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
def as_it_was():
    """Flags and logging are put back."""
    handlers, levels = list(logging.root.handlers), {}
    for name in (None, "absl", "seenn_jax"):
        levels[name] = logging.getLogger(name).level
    yield
    flags.FLAGS.unparse_flags()
    logging.root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def call_main(as_it_was, monkeypatch, capsys):
    """`main` around a function. What really ends the process: tests/cli/test_start.py."""
    monkeypatch.setattr(shell, "exit_at_once", sys.exit)

    def call(function, **options):
        monkeypatch.setattr(sys, "argv", ["program.py"])
        with pytest.raises(SystemExit) as end:
            shell.main(function, {}, **options)
        return end.value.code, *capsys.readouterr()

    return call


def raising(error):
    def function():
        raise error

    return function


def test_ctrl_c_is_130(call_main):
    assert call_main(raising(KeyboardInterrupt())) == (130, "", "interrupted\n")
    found = call_main(raising(KeyboardInterrupt()), interrupted="gone on")
    assert found == (130, "", "gone on\n")


def test_nobody_who_reads_on_is_no_mistake(as_it_was, monkeypatch, capsys):
    silenced = []
    monkeypatch.setattr(shell, "silence", silenced.append)
    monkeypatch.setattr(sys, "argv", ["program.py"])
    shell.main(raising(BrokenPipeError()), {})
    assert silenced == [sys.stdout]
    assert capsys.readouterr() == ("", "")


def test_scripts_are_called_as_this_one(monkeypatch):
    sentence = "train one with python train.py --config=x, then run python evaluate.py, or other.py"
    monkeypatch.setattr(sys, "argv", ["seenn-jax train"])
    assert as_flags(sentence, {}) == (
        "train one with seenn-jax train --config=x, then run seenn-jax evaluate, or other.py"
    )


def test_a_path_that_fails_is_named(call_main):
    error = PermissionError(13, "Permission denied", "/some/path")
    check_refused(*call_main(raising(error)), "/some/path: Permission denied")


def test_a_full_disk_is_said(call_main):
    error = OSError(28, "No space left on device")  # as of a write, which names no file
    found = call_main(raising(error))
    check_refused(*found, "what is being written has no room (No space left on device): make some")
    error = OSError(122, "Disk quota exceeded", "/some/path")
    check_refused(*call_main(raising(error)), "error: /some/path has no room (Disk quota exceeded)")


def test_what_tensorstore_says_after_a_failed_write_is_left_out(monkeypatch, call_main):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_value))

    def function():
        for words in ("Event loop is closed", "other"):
            sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(words)))
        raise UserError("a disk is full")

    check_refused(*call_main(function), "a disk is full")
    assert [str(value) for value in told] == ["other"]


def test_a_disk_that_is_gone_is_said(call_main):
    for number in (errno.EIO, errno.ESTALE, errno.EMFILE):  # as of a read, which names no file
        found = call_main(raising(OSError(number, os.strerror(number))))
        check_refused(*found, f"can't be read or written any more ({os.strerror(number)}): see")


def test_a_long_value_is_shortened(call_main):
    status, _, err = call_main(raising(UserError(f"--x is {'a' * 50_000}b: give another")))
    assert status == 2
    assert len(err) < 400
    assert "aaa...(50,002 characters)...aaa" in err
    assert err.endswith("ab: give another\n")


def test_too_little_memory_is_said(call_main):
    for error in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")):
        named = ["error: there is not enough memory (", "lower the number of"]
        check_refused(*call_main(raising(error)), *named)


def test_names_of_others_are_no_commands_to_the_terminal(call_main):
    status, _, err = call_main(raising(UserError("class 'a\x1b[2Jb' is not there: mend it")))
    assert (status, err) == (2, "error: class 'a\\x1b[2Jb' is not there: mend it\n")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, call_main):
    ours = jax.errors.JaxRuntimeError("INTERNAL: ours")
    for error in (ValueError("a mistake of ours"), OSError("without a path"), ours):
        with pytest.raises(type(error), match=str(error)):
            call_main(raising(error))


def test_compiled_programs_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    updates = {}
    monkeypatch.setattr("jax.config.update", updates.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(type(shell.jax.config), "jax_compilation_cache_dir", None, raising=False)
    shell._enable_compilation_cache()
    assert updates == {
        "jax_compilation_cache_dir": str(tmp_path / "seenn_jax" / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
