"""Trainings that are killed at a random moment and go on by the same command."""

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from soak_runs import EIGHT, Row, difference, end_of, flags_of, images, kill, start, start_two, tell

from seenn_jax.run import checkpoints


class Kind(NamedTuple):
    """How runs are started, and what they must end as."""

    what: str
    tries: int
    arguments: Callable[[Path], list[str]]
    start: Callable[[list[str]], list[subprocess.Popen]]
    resume: Callable[[list[str]], list[subprocess.Popen]]
    tolerance: float = 0  # 0: the same bits


def one(arguments: list[str]) -> list[subprocess.Popen]:
    """One process."""
    return [start(arguments)]


def kinds(scratch: Path) -> list[Kind]:
    """The table; what they need lies in `scratch`."""
    folder, network = scratch / "images", scratch / "network"
    precise = {"JAX_ENABLE_X64": "1"}

    def digits(workdir: Path) -> list[str]:
        return flags_of(workdir, inherit_epochs=1)  # two programs in a run

    def policy(workdir: Path) -> list[str]:
        settings = {"policy__candidates": "(1,2)", "policy__copies": 2, "policy__width": 4}
        joint = {"joint_epochs": 1, "init_from": network}
        return flags_of(workdir, "digits_policy", **settings, **joint)

    def streamed(workdir: Path) -> list[str]:
        of_data = {"data__name": folder, "data__image_size": 8, "data__workers": 2}
        steps = {"batch_size": 4, "checkpoint_every": 3}
        return flags_of(workdir, "folder", **of_data, **steps)

    def float64(workdir: Path) -> list[str]:
        # Eight devices sum in another order: what differs must stay far below a spike's margin.
        return flags_of(workdir, model__dtype="float64")

    def eight(arguments: list[str]) -> list[subprocess.Popen]:
        return [start(arguments, **EIGHT, **precise)]

    def alone(arguments: list[str]) -> list[subprocess.Popen]:
        return [start(arguments, **precise)]

    images(folder)
    for program in one(flags_of(network)):
        end_of(program)
    return [
        Kind("killed: digits", 25, digits, one, one),
        Kind("killed: a policy", 20, policy, one, one),
        Kind("killed: streamed images, 2 workers", 20, streamed, one, one),
        Kind("killed: two processes", 20, flags_of, start_two, start_two),
        Kind("killed on 8 devices, continued on 1", 20, float64, eight, alone, 1e-6),
    ]


def kills(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """Rows of all kinds."""
    return [_of_kind(kind, tries or kind.tries, scratch, rng) for kind in kinds(scratch)]


def _of_kind(kind: Kind, tries: int, scratch: Path, rng: random.Random) -> Row:
    whole = scratch / "whole"
    for _ in range(2):  # the second time with all programs compiled
        shutil.rmtree(whole, ignore_errors=True)
        started = time.monotonic()
        ends = [end_of(program) for program in kind.start(kind.arguments(whole))]
        length = time.monotonic() - started
        if any(end.status for end in ends):
            raise SystemExit(f"{kind.what}: the run to compare with failed: {ends}")
    lost = tracebacks = done = 0
    while done < tries:
        workdir = scratch / "killed"
        shutil.rmtree(workdir, ignore_errors=True)
        arguments = kind.arguments(workdir)
        # Half of a run is the start of its program: more of the kills go to the rest.
        if not _killed(kind.start(arguments), length * rng.uniform(0.2, 1)):
            continue
        done += 1
        there = checkpoints.steps(workdir)
        ends = [end_of(program) for program in kind.resume(arguments)]
        tracebacks += any(end.traceback for end in ends)
        failed = [end.err[-500:] for end in ends if end.status]
        differs = failed or difference(workdir, whole, kind.tolerance)
        if differs:
            lost += 1
            tell(kind.what, f"killed with checkpoints {there}: {differs}")
    shutil.rmtree(whole)
    return Row(kind.what, tries, lost, tracebacks)


def _killed(programs: list[subprocess.Popen], seconds: float) -> bool:
    """Kill programs after so many seconds; False where one has ended by then."""
    time.sleep(seconds)
    running = [program.poll() is None for program in programs]
    for program in programs:
        kill(program)
        program.communicate()
    return all(running)
