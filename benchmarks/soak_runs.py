"""Tiny runs for soak.py: how they are started, and whether two are the same."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from seenn_jax.run import checkpoints, stored

ROOT = Path(__file__).parent.parent
SECONDS = 300  # for a program, which takes ten
SPEED = "train/images_per_second"  # which no two runs share
SMALL = {
    "plugins": "('tests.one_block',)",  # most of a small run's time is its network's compilation
    "model.name": "one_block",
    "epochs": 3,
    "inherit_epochs": 0,
    "timesteps": 2,
    "batch_size": 64,
    "validate_every": 1,
    "checkpoint_every": 5,
    "model.width": 4,
    "optimizer.learning_rate": 0.02,
}
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}


class Row(NamedTuple):
    """What became of the tries of one kind."""

    what: str
    tries: int
    lost: int  # in silence: other bits, a line that is not there or twice, an end without a word
    tracebacks: int  # or several lines where there should be one sentence
    note: str = ""


class Ended(NamedTuple):
    """A program that has ended."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def traceback(self) -> bool:
        """Whether it says more than a user can read."""
        return "Traceback" in self.err or "Fatal" in self.err

    @property
    def sentence(self) -> str | None:
        """The one sentence of an error, or of SIGTERM; None where there is another number."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith(("error: ", "ended by SIGTERM"))]
        return said[0] if len(said) == 1 and len(lines) == 1 else None


def flags_of(workdir: Path, config: str = "digits", **changes: object) -> list[str]:
    """How a small run is called."""
    settings = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return [
        *(f"--config={config}", f"--workdir={workdir}"),
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]


def start(arguments: list[str], program: str = "train.py", **variables: str) -> subprocess.Popen:
    """Start a program in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, program, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def start_two(arguments: list[str]) -> list[subprocess.Popen]:
    """Two processes that train one run."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    joined = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    return [
        start([*arguments, "--multihost", "--wait=60"], **joined, JAX_PROCESS_ID=str(index))
        for index in range(2)
    ]


def kill(program: subprocess.Popen) -> None:
    """End a program and its workers at once, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


def end_of(program: subprocess.Popen, seconds: float = SECONDS) -> Ended:
    """Wait for a program, but not for ever."""
    started = time.monotonic()
    clock = threading.Timer(seconds, kill, [program])
    clock.start()
    try:
        out, err = program.communicate()
    finally:
        clock.cancel()
        kill(program)  # where this one is interrupted
    return Ended(program.returncode, out, err, time.monotonic() - started)


def run(arguments: list[str], **variables: str) -> Ended:
    """Start a program and wait for it."""
    return end_of(start(arguments, **variables))


def wait_for(program: subprocess.Popen, said: Callable[[str], bool]) -> bool:
    """Read what a program prints until a line is `said`; False where none is."""
    return any(said(line) for line in program.stdout)


def images(folder: Path) -> Path:
    """A folder of two classes of 40 images."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


# --- The same? -----------------------------------------------------------------------------------


def difference(found: Path, wanted: Path, tolerance: float = 0) -> str | None:
    """What differs between two runs that have come to their end, or None."""
    if checkpoints.steps(found) != checkpoints.steps(wanted):
        return f"checkpoints {checkpoints.steps(found)}, not {checkpoints.steps(wanted)}"
    step = checkpoints.steps(wanted)[-1]
    ours, theirs = stored.arrays(found, step), stored.arrays(wanted, step)
    if ours.keys() != theirs.keys():
        return f"arrays {sorted(ours.keys() ^ theirs.keys())}"
    for name, array in ours.items():
        if array.dtype != theirs[name].dtype or not close(array, theirs[name], tolerance):
            return f"array {name} of checkpoint {step}"
    for name, reads in (("metrics.jsonl", lines_of), ("tensorboard", events_of)):
        ours, theirs = reads(found / name), reads(wanted / name)
        if ours.keys() != theirs.keys():
            return f"lines of {name}: {sorted(map(str, ours.keys() ^ theirs.keys()))[:4]}"
        for key, values in ours.items():
            if len(values) != 1 or not close(values, theirs[key], tolerance):
                return f"{key} of {name}: {values}, not {theirs[key]}"
    return None


def close(a: object, b: object, tolerance: float) -> bool:
    """Whether numbers have the same bits, or differ by no more than a share of them."""
    if not tolerance:
        return np.array_equal(a, b)
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


def lines_of(file: Path) -> dict[tuple[int, str], list[float]]:
    """{(step, name): values} of all lines of a metrics.jsonl."""
    found: dict = {}
    for line in map(json.loads, file.read_text().splitlines()):
        for name, value in line.items():
            if name not in (SPEED, "checksum"):
                found.setdefault((line["step"], name), []).append(value)
    return found


def events_of(folder: Path) -> dict[tuple[int, str], list[float]]:
    """The same as TensorBoard shows it: a session that starts takes later steps back."""
    shown: dict = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        data = file.read_bytes()
        while len(data) > 16:
            # A record: its length, a checksum of that, the event, a checksum of it.
            (length,) = struct.unpack("<Q", data[:8])
            if len(data) < length + 16:
                break  # of a process that was killed as it wrote
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                shown = {key: values for key, values in shown.items() if key[0] < event.step}
            for value in event.summary.value:
                if value.tag != SPEED:
                    shown.setdefault((event.step, value.tag), []).append(value.simple_value)
    return shown


def tell(what: str, why: object) -> None:
    """Say, beside the table, what went wrong in a try."""
    print(f"{what}: {why}", file=sys.stderr, flush=True)
