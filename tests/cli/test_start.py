"""How a program starts: help at once, Ctrl-C in one line, a closed pipe in silence."""

import signal
import subprocess
import sys
import time

import pytest

from seenn_jax.cli.flags import PROGRAMS
from seenn_jax.cli.start import command, printable
from tests.cli.conftest import ROOT

CALLS = {
    "train": [sys.executable, "train.py"],
    "evaluate": [sys.executable, "evaluate.py"],
    **{
        name: [sys.executable, "-m", "seenn_jax", name]
        for name in ("predict", "import", "export", "serve")
    },
}


def run(call, environment, *arguments, **options):
    return subprocess.run(
        [*call, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("flag", ["--help", "--help=config"])
def test_help_is_there_at_once(environment, name, flag):
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        done = run(CALLS[name], environment, flag)
        seconds.append(time.perf_counter() - started)
        assert (done.returncode, done.stderr) == (0, "")
        assert ("--config.model.width=16" in done.stdout) == (flag == "--help=config")
    assert min(seconds) < 2


def test_help_imports_nothing_slow(environment):
    code = (
        "import sys; sys.argv = ['train.py', '--help']; from seenn_jax.cli.start import start; "
        "start('train'); print([m for m in ('jax', 'numpy', 'rich') if m in sys.modules])"
    )
    done = run([sys.executable, "-c", code], environment)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_what_only_some_need_is_not_imported_by_all(environment):
    rare = ("grain", "matplotlib", "orbax", "scipy.special", "sklearn", "tensorflow_datasets")
    code = (
        "import sys, seenn_jax.cli.train, seenn_jax.cli.predict; "
        f"print([m for m in {rare} if m in sys.modules])"
    )
    done = run([sys.executable, "-c", code], environment)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("name", "sent", "status", "words"),
    [
        *((name, signal.SIGINT, 130, "interrupted") for name in PROGRAMS),
        (
            *("train", signal.SIGTERM, 143),
            "ended by SIGTERM: the same command continues from what is saved",
        ),
    ],
)
def test_a_signal_while_it_is_imported(environment, name, sent, status, words):
    process = subprocess.Popen(
        [*CALLS[name], "--workdir=no/such/run", "x.png"],
        cwd=ROOT,
        # Python says on stderr what it imports, and when.
        env=environment | {"PYTHONPROFILEIMPORTTIME": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.split("|")[-1].strip() == "absl.flags":
            break  # it has been started, and jax is yet to come
    # The next modules are those of the program.
    for line in process.stderr:
        if line.split("|")[-1].strip().startswith(("numpy", "jax")):
            process.send_signal(sent)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (out, said[-1].endswith(words)) == ("", True)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("code", "times"),
    [
        ("import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)", 1),  # half an hour
        ("[sum(range(1000)) for _ in range(10**9)]", 6),
    ],
    ids=["other code", "Python's"],
)
def test_sigterm_is_one_sentence_whatever_runs(environment, code, times):
    begin = "from seenn_jax.cli.start import ended_by_sigterm as e"
    processes = [
        subprocess.Popen(
            [sys.executable, "-u", "-c", f"{begin}\nwith e(', now'): print('begun'); {code}"],
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(times)
    ]
    for process in processes:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("", "ended by SIGTERM, now\n")
        assert process.returncode == 143


def test_ctrl_c_before_anything_is_imported(environment):
    code = (
        "import sys, signal; sys.argv = ['train.py', '--help']; "
        "from seenn_jax.cli.start import start; print(sorted({'absl', 'importlib.metadata', "
        "'shutil', 'textwrap'} & set(sys.modules) - before)); "
    )
    code = f"import sys; before = set(sys.modules); {code}"
    done = run([sys.executable, "-S", "-c", code], environment | {"PYTHONPATH": str(ROOT)})
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_ctrl_c_while_a_program_is_compiled(environment, tmp_path):
    process = subprocess.Popen(
        [*CALLS["train"], "--config=digits", f"--workdir={tmp_path}/run"],
        cwd=ROOT,
        # JAX says on stderr when it has traced a program, whose compilation then takes seconds.
        env=environment | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_LOG_COMPILES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "MLIR module conversion jit(train_steps)" in line:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=300)
    # Python's way out would take the thread that compiles its client, and crash.
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted: the same command continues")


def test_a_pipe_that_nobody_reads(environment, copy_of_trained):
    first = f"{sys.executable} evaluate.py --workdir={copy_of_trained} | head -n 1"
    done = run(["bash", "-c", f"{first}; exit ${{PIPESTATUS[0]}}"], environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Evaluating {copy_of_trained}.\n"
    assert (copy_of_trained / "evaluation" / "confidence" / "report.html").is_file()
    assert (copy_of_trained / "exit.json").is_file()
    many = f"{sys.executable} train.py --help=config | true; exit ${{PIPESTATUS[0]}}"
    done = run(["bash", "-c", many], environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("called", "evaluate", "predict"),
    [
        ("train.py", "python evaluate.py", "python -m seenn_jax predict"),
        (f"{ROOT}/train.py", f"python {ROOT}/evaluate.py", "python -m seenn_jax predict"),
        ("seenn_jax train", "python -m seenn_jax evaluate", "python -m seenn_jax predict"),
        ("seenn-jax train", "seenn-jax evaluate", "seenn-jax predict"),
        ("elsewhere/my program.py", "python -m seenn_jax evaluate", "python -m seenn_jax predict"),
    ],
)
def test_the_next_program_is_called_as_this_one(monkeypatch, called, evaluate, predict):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [called])
    assert (command("evaluate"), command("predict")) == (evaluate, predict)


def test_text_of_others_does_not_reach_the_terminal_as_commands():
    assert printable("a\x1b[2Jb\x9b31m\r\x07\x7f") == r"a\x1b[2Jb\x9b31m\r\x07\x7f"
    assert printable("Zürich\t図\n") == "Zürich\t図\n"


def test_a_mistake_ends_without_what_libraries_say_at_python_s_end(environment):
    code = (
        "import sys\n"
        "from seenn_jax.cli.main import main\n"
        "from seenn_jax.errors import UserError\n"
        "async def unawaited(): pass\n"  # as where one of many writes has failed
        "kept = [unawaited()]\n"
        "def function(): print('said'); raise UserError('wrong')\n"
        "sys.argv = ['train.py']\n"
        "main(function, {})\n"
    )
    done = run([sys.executable, "-c", code], environment)
    assert (done.returncode, done.stdout, done.stderr) == (2, "said\n", "error: wrong\n")
