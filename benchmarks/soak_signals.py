"""SIGTERM at chosen and random moments, and two trainings that are started at once."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from soak_runs import (
    Ended,
    Row,
    difference,
    end_of,
    flags_of,
    images,
    kill,
    run,
    start,
    tell,
    wait_for,
)

from seenn_jax.run import checkpoints, folder

SOON = 10  # seconds after SIGTERM
# A plugin by which validation says when it begins and then takes long, where it is asked to.
SLOW = """
import os, time
from seenn_jax.training import network

make = network._make_validate


def make_slow(*arguments):
    validate = make(*arguments)

    def slow(state):
        if "SLOW_VALIDATION" in os.environ:
            print("validating", flush=True)
            time.sleep(100)
        return validate(state)

    return slow


network._make_validate = make_slow
"""


class Moment(NamedTuple):
    """When a training is sent SIGTERM."""

    what: str
    arguments: Callable[[Path], list[str]]
    variables: dict[str, str]
    wait: Callable[[subprocess.Popen], object]
    saves: bool  # whether there must be a checkpoint then


def _moments(scratch: Path, rng: random.Random) -> list[Moment]:
    pictures, plugin = images(scratch / "images"), scratch / "slow.py"
    plugin.write_text(SLOW)

    def streamed(workdir: Path) -> list[str]:
        of_data = {"data__name": pictures, "data__image_size": 8, "data__workers": 2}
        return flags_of(workdir, "folder", **of_data, batch_size=4, epochs=12)

    def long(workdir: Path) -> list[str]:
        return flags_of(workdir, epochs=12)

    def slow(workdir: Path) -> list[str]:
        return flags_of(workdir, plugins=f"('tests.one_block','{plugin}')")

    def soon(_: subprocess.Popen) -> None:
        time.sleep(rng.uniform(0.3, 3))

    def after(beginning: str, seconds: float) -> Callable[[subprocess.Popen], object]:
        def wait(program: subprocess.Popen) -> None:
            wait_for(program, lambda line: line.startswith(beginning))
            time.sleep(rng.uniform(0, seconds))

        return wait

    shown, validates = {"SLOW_VALIDATION": "1"}, after("validating", 1)
    trains = after("epoch   1", 2)
    return [
        Moment("SIGTERM while it starts", flags_of, {}, soon, False),
        Moment("SIGTERM before the first step", flags_of, {}, after("Compiling", 0.2), False),
        Moment("SIGTERM in training", long, {}, trains, True),
        Moment("SIGTERM while it validates", slow, shown, validates, True),
        Moment("SIGTERM to training and its 2 workers", streamed, {}, trains, True),
    ]


def sigterm(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """A row for each moment."""
    scratch.mkdir()
    return [_at_moment(moment, tries or 5, scratch) for moment in _moments(scratch, rng)]


def _at_moment(moment: Moment, tries: int, scratch: Path) -> Row:
    whole, workdir = scratch / "whole", scratch / "ended"
    shutil.rmtree(whole, ignore_errors=True)
    done = run(moment.arguments(whole))
    if done.status:
        raise SystemExit(f"the run to compare with failed: {done}")
    lost = tracebacks = number = 0
    while number < tries:
        shutil.rmtree(workdir, ignore_errors=True)
        arguments = moment.arguments(workdir)
        program = start(arguments, **moment.variables)
        moment.wait(program)
        if program.poll() is not None:
            program.communicate()
            continue  # it was faster
        number += 1
        os.killpg(program.pid, signal.SIGTERM)
        wrong = _wrong(end_of(program), moment, workdir)
        goes_on = run(arguments)
        differs = wrong or goes_on.err or difference(workdir, whole)
        tracebacks += goes_on.traceback or (wrong is not None and "Traceback" in wrong)
        if differs:
            lost += 1
            tell(moment.what, differs)
    return Row(moment.what, tries, lost, tracebacks)


def _wrong(end: Ended, moment: Moment, workdir: Path) -> str | None:
    """What is not as it should be after SIGTERM, or None."""
    if end.status == 0:  # at its end there was no step left to end before
        return None
    if end.status != 143 or not end.sentence:
        return f"status {end.status}: {end.err[-1000:]}"
    if end.seconds > SOON:
        return f"it took {end.seconds:.1f} s"
    if moment.saves and not checkpoints.steps(workdir):
        return "no checkpoint"
    return None


def at_once(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """Two trainings that differ, started at the same time in the same new workdir."""
    scratch.mkdir()
    wrong = tracebacks = 0
    tries = tries or 10
    for number in range(tries):
        workdir = scratch / str(number)
        other = {"model.width": 8} if number % 2 else {"seed": 1}
        calls = [flags_of(workdir), flags_of(workdir, **other)]
        rng.shuffle(calls)
        programs = [start(call) for call in calls]
        time.sleep(rng.uniform(0, 0.2))
        ends = [end_of(program) for program in programs]
        for program in programs:
            kill(program)
        tracebacks += sum(end.traceback for end in ends)
        refused = [end for end in ends if end.status]
        trained = [call for call, end in zip(calls, ends, strict=True) if not end.status]
        if len(trained) != 1 or refused[0].status != 2 or not refused[0].sentence:
            wrong += 1
            tell("at once", [(end.status, end.err[-500:]) for end in ends])
            continue
        config, facts = folder.load(workdir)
        checkpoints.load_model(workdir, config, facts)  # it fits what run.json says
        asked = {"width": 8 if "--config.model.width=8" in trained[0] else 4}
        asked["seed"] = int("--config.seed=1" in trained[0])
        if {"width": config.model.width, "seed": config.seed} != asked:
            wrong += 1
            tell("at once", f"run.json is not of the one that trained: {asked}")
    return [Row("started twice at once, with other widths or seeds", tries, wrong, tracebacks)]
