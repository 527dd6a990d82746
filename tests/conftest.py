"""What several test files share: one trained run, train.py and evaluate.py called in-process."""

import contextlib
import fcntl
import gc
import hashlib
import io
import logging
import os
import runpy
import shutil
import struct
import sys
import warnings
from pathlib import Path

import grain  # noqa: F401 - defines flags, which `program` must not take for a script's own.
import jax
import jaxlib.version
import jaxtyping
import pytest
from absl import flags
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from seenn_jax.cli import main as shell
from seenn_jax.config import default_config
from seenn_jax.data.events import cifar10_dvs
from seenn_jax.plugins import load_plugins
from seenn_jax.training import train
from tests.pictures import encoded as encoded
from tests.pictures import imagenet as imagenet
from tests.pictures import picture as picture
from tests.pictures import prepare_official as prepare_official

ROOT = Path(__file__).parent.parent

# Most of the time of these tests is LLVM's, for programs that run once. So it takes little effort,
# and what it made is kept for all workers, for the processes that tests start, which inherit it,
# and for the next run.
# The older of XLA's ways to fuse operations, which newer ones have no more (and end at once where
# they are asked for it), takes a third less time to compile what tests run.
FAST_COMPILATION = (
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false" * (jaxlib.version.__version_info__ < (0, 12))
)
COMPILED = {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILATION}".strip(),
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
}
os.environ.update(COMPILED)
jax.config.update("jax_compilation_cache_dir", COMPILED["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


UNOPTIMISED = "jax_disable_most_optimizations"


@pytest.fixture(autouse=True, scope="session")
def _unoptimised():
    """Where programs run once, LLVM need not optimise at all: it takes half as long.

    Training, and nothing else here, would take ten times as long: see `optimised`.
    """
    jax.config.update(UNOPTIMISED, True)


@contextlib.contextmanager
def optimised():
    """Programs compiled meanwhile are optimised a little."""
    jax.config.update(UNOPTIMISED, False)
    try:
        yield
    finally:
        jax.config.update(UNOPTIMISED, True)


ONE_BLOCK = "tests.one_block"
load_plugins([ONE_BLOCK])


def pytest_collection_finish():
    """What was imported stays: no collection of garbage is to go through it again."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Compiled programs of all files would take gigabytes."""
    yield
    jax.clear_caches()


def tiny_config(**changes):
    """The smallest experiment that still learns; `changes` may be nested dicts."""
    config = default_config()
    with config.unlocked():
        config.plugins = (ONE_BLOCK,)
        config.model.update(name="one_block", width=16)
        config.data.validation = 150
        config.augment.crop = 1
        config.timesteps = 3
        config.epochs = 6
        config.inherit_epochs = 1
        config.ema = 0.5
        config.validate_every = 2
        config.update(changes)
    return config


@pytest.fixture(scope="session")
def make_config():
    return tiny_config


@pytest.fixture(scope="session")
def call_train():
    """`(config, workdir) -> what it printed`."""

    def call(config, workdir):
        out = io.StringIO()
        with optimised():
            train(config, workdir, Console(file=out, soft_wrap=True, markup=False))
        return out.getvalue()

    return call


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`(name, make) -> a folder`, of what the first worker that needs it makes by `make(folder)`.

    The others wait for it. It is everybody's: look, don't touch.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def call(name, make):
        folder, made = shared / "runs" / name, shared / f"{name}.made"
        folder.parent.mkdir(exist_ok=True)
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
            if not made.exists():
                make(folder)
                made.touch()
        return folder

    return call


@pytest.fixture(scope="session")
def trained(call_train, made_once):
    """A run of `tiny_config`, all its epochs done. Look, don't touch: see `copy_of_trained`."""
    return made_once("tiny", lambda workdir: call_train(tiny_config(), workdir))


def tiny_policy_config(**changes):
    """A policy for the network of `tiny_config`, two epochs alone and one with the network."""
    config = tiny_config()
    with config.unlocked():
        config.update(inherit_epochs=0, ema=0.0, epochs=3, joint_epochs=1, validate_every=1)
        config.optimizer.learning_rate = 0.02
        config.policy.update(candidates=(1, 3), width=4, copies=2, beta=0.5, auxiliary=0.25)
        config.update(changes)
    return config


@pytest.fixture(scope="session")
def make_policy_config():
    return tiny_policy_config


@pytest.fixture(scope="session")
def trained_policy(call_train, trained, made_once):
    """A run of `tiny_policy_config` for `trained`. Look, don't touch."""
    config = tiny_policy_config(init_from=str(trained))
    return made_once("policy", lambda workdir: call_train(config, workdir))


@pytest.fixture(scope="session")
def aedat():
    """`(pixels, special=()) -> a file of the DVS128`, of events (x, y, on) a millisecond apart.

    The camera lay on its side and counts backwards: of an address bits 8 to 14 are 127 - x, bits 1
    to 7 are 127 - y, and bit 0 is 0 for ON. `special` are addresses as they are.
    """
    header = (
        b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Data format is int32 "
        b"address, int32 timestamp (8 bytes total), repeated for each event\r\n# Timestamps tick "
        b"is 1 us\r\n# created Thu Dec 17 13:59:45 CST 2015\r\n"
    )

    def make(pixels, special=()):
        words = [(127 - x) << 8 | (127 - y) << 1 | (not on) for x, y, on in pixels] + [*special]
        return header + b"".join(struct.pack(">II", word, 1000 * t) for t, word in enumerate(words))

    return make


@pytest.fixture(scope="session")
def make_cifar10_dvs(aedat):
    """`(folder, patch) -> folder` with a small CIFAR10-DVS, of four recordings a class.

    Number 2 is for testing. Recording n of class c has 40 events at the pixel x = 12 c, y = 10 n,
    first ON, then OFF. `patch`, a MonkeyPatch, is what makes it pass for the data set.
    """

    def make(folder, patch):
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        patch.setattr(cifar10_dvs, "RECORDINGS", 4)
        patch.setattr(
            cifar10_dvs, "held_out", lambda: {name: {2} for name in cifar10_dvs.CIFAR10_DVS}
        )
        for label, name in enumerate(cifar10_dvs.CIFAR10_DVS):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                pixels = [(12 * label, 10 * number, i < 20) for i in range(40)]
                file = folder / name / f"cifar10_{name}_{number}.aedat"
                if not file.exists():
                    file.write_bytes(aedat(pixels))
        return folder

    return make


def event_config(folder, **changes):
    """The smallest experiment on that data."""
    config = tiny_config(timesteps=3, epochs=2, inherit_epochs=0, batch_size=6, validate_every=1)
    with config.unlocked():
        config.data.update(name="cifar10_dvs", dir=str(folder), validation=12)
        config.augment.update(flip=True, roll=2, rotate=10.0, cutout=3)
        config.model.surrogate = "triangle"
        config.update(changes)
    return config


@pytest.fixture(scope="session")
def make_event_config():
    return event_config


@pytest.fixture(scope="session")
def trained_on_events(call_train, make_cifar10_dvs, made_once):
    """(a run of `event_config`, the folder of its data). Look, don't touch."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            call_train(event_config(make_cifar10_dvs(folder / "dvs", patch)), folder / "run")

    folder = made_once("events", make)
    return folder / "run", folder / "dvs"


@pytest.fixture
def on_events(trained_on_events, make_cifar10_dvs, monkeypatch):
    """`trained_on_events`, in a test that reads the data too."""
    make_cifar10_dvs(trained_on_events[1], monkeypatch)
    return trained_on_events


@pytest.fixture
def copy_of_trained(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def events_in(folder):
    """{(step, name): [values]} as TensorBoard shows it: a new session discards later steps."""
    shown = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        assert "tfevents" in path.name
        data = path.read_bytes()
        while data:
            # A record: its length, a checksum of that, the event, a checksum of it.
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                shown = {key: values for key, values in shown.items() if key[0] < event.step}
            for value in event.summary.value:
                shown.setdefault((event.step, value.tag), []).append(value.simple_value)
    return shown


@pytest.fixture(scope="session")
def make_imagenet_config(imagenet):
    """configs/imagenet.py with its network, images and schedule made tiny."""

    def make(**changes):
        config = runpy.run_path(str(ROOT / "configs/imagenet.py"))["get_config"]()
        config.data.update(dir=str(imagenet), image_size=8, validation=8, workers=0)
        config.model.update(name="one_block", width=4, dtype="float32")
        config.update(timesteps=2, epochs=2, inherit_epochs=0, batch_size=8, ema=0.5)
        config.update(plugins=(ONE_BLOCK,), validate_every=1, **changes)
        return config

    return make


@pytest.fixture(scope="session")
def trained_on_imagenet(make_imagenet_config, call_train, made_once):
    """A run of `make_imagenet_config`. Look, don't touch."""
    return made_once("imagenet", lambda workdir: call_train(make_imagenet_config(), workdir))


@pytest.fixture(scope="session")
def read_events():
    return events_in


@pytest.fixture(scope="session")
def contents():
    """`folder -> {path: digest}` of every file below it, empty folders included."""

    def read(folder):
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "folder"
            for path in Path(folder).rglob("*")
        }

    return read


@pytest.fixture
def program(monkeypatch, capsys):
    """`(script, *arguments) -> (exit status, stdout, stderr)`, here, with fresh flags."""
    known = set(flags.FLAGS)
    loggers = {name: logging.getLogger(name) for name in (None, "absl", "seenn_jax")}
    levels = {name: logger.level for name, logger in loggers.items()}
    handlers = list(logging.root.handlers)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(shell, "exit_at_once", sys.exit)  # which would end this process

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        status, training = 0, script == "train.py" or "train" in arguments[:1]
        compilation = optimised() if training else contextlib.nullcontext()
        try:
            with warnings.catch_warnings(), compilation:
                # ml_collections loads a config file by a deprecated method of importlib.
                warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
                runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
            logging.root.handlers[:] = handlers
            for name, logger in loggers.items():
                logger.setLevel(levels[name])
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def environment():
    """Environment of a real process, with the shared cache."""
    return dict(os.environ)


@pytest.fixture
def unchecked(monkeypatch):
    """Arguments of any type reach the package, as they do outside of tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
