"""A million samples through slots, and many training steps at constant memory."""

import random
import subprocess
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from soak_runs import Row, end_of, flags_of, start, tell

from seenn_jax import Criterion, early_exit
from seenn_jax.engine import Exited
from seenn_jax.run import checkpoints, folder

SAMPLES, AT_A_TIME = 1_000_000, 50_000
TIMESTEPS, SLOTS = 6, (1000, 512, 4096, 77)
STEPS, BATCH = 20_000, 8
GROWTH = 0.02  # of the memory after warming up, which its pages make


def samples(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """Each sample leaves at a tick of its own, with logits that no other one has."""
    ticks_of = np.random.default_rng(rng.randrange(2**32))
    wrong = done = 0
    each = -(-(tries or SAMPLES) // len(SLOTS))  # samples
    for slots in SLOTS:
        for first in range(1, each + 1, AT_A_TIME):
            numbers = np.arange(first, min(first + AT_A_TIME, each + 1), dtype=np.float32)
            due = ticks_of.integers(1, TIMESTEPS + 1, numbers.size).astype(np.int32)
            exited = jax.device_get(_answers(numbers, due, slots))
            # Sums of whole numbers below 2^24: exact.
            right = (exited.timesteps == due) & (
                exited.logits == (numbers * due)[:, None] * [1, -1]
            ).all(1)
            wrong += int((~right).sum())
            done += numbers.size
    return [Row("samples through slots", done, wrong, 0)]


def _answers(numbers: np.ndarray, due: np.ndarray, slots: int) -> Exited:
    """What comes of a network that says a sample's number at each tick."""

    @jax.jit
    def call(numbers, due):
        def step(ticks, number):
            return ticks + 1, jnp.stack([number, -number], axis=-1)

        criterion = Criterion((), lambda memory, logits, t, index: (memory, t >= due[index]))
        return early_exit(step, jnp.int32(0), numbers, criterion, TIMESTEPS, slots)

    return call(numbers, due)


def steps(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """A training whose memory is looked at in its second half."""
    wanted, workdir = tries or STEPS, scratch / "run"
    epochs = -(-wanted // (1237 // BATCH))
    changes = {"epochs": epochs, "batch_size": BATCH, "timesteps": 1}
    often = {"validate_every": max(1, epochs // 20), "checkpoint_every": 0}
    program = start(flags_of(workdir, **changes, **often))
    seen: list[tuple[int, float]] = []
    watching = threading.Thread(target=_watch, args=(program, workdir, seen))
    watching.start()
    ended = end_of(program, seconds=3600)
    watching.join()
    early = max((mib for epoch, mib in seen if 0.4 <= epoch / epochs < 0.5), default=0)
    late = max((mib for epoch, mib in seen if epoch / epochs >= 0.9), default=0)
    taken = max(checkpoints.steps(workdir), default=0)
    note = f"{early:.0f} MiB before the half of them, {late:.0f} MiB in the last tenth"
    failed = ended.status != 0 or taken < wanted or late > early * (1 + GROWTH)
    if failed:
        tell("steps", f"{note}; status {ended.status}: {ended.err[-500:]}")
    return [
        Row("training steps at constant memory", taken, int(failed), int(ended.traceback), note)
    ]


def _watch(program: subprocess.Popen, workdir: Path, seen: list[tuple[int, float]]) -> None:
    """Note epochs and the memory of a program, in MiB, until it ends."""
    log = workdir / folder.METRICS_FILE
    while program.poll() is None:
        epochs = log.read_bytes().count(b"\n") if log.is_file() else 0
        for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                seen.append((epochs, int(line.split()[1]) / 1024))
        time.sleep(0.2)
