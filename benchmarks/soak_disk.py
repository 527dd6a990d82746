"""A small disk that is full at some moment of a training, and has room again later."""

import math
import random
import shutil
import subprocess
from pathlib import Path

from soak_runs import Ended, Row, difference, flags_of, run, tell

from seenn_jax.errors import UserError
from seenn_jax.run import checkpoints, folder, records, stored

MOMENTS = 10
SIZE = 8 * 2**20  # bytes of the disk
# A plugin by which nobody looks whether a checkpoint finds room: another program takes it.
NO_LOOK = """
from seenn_jax.run import checkpoints

checkpoints._check_room = lambda *_: None
"""


def disk_full(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """Rows of disks that are full at each moment; none where a disk can't be mounted."""
    disk = scratch / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        tell("disk full", f"left out: a disk can't be mounted here ({mounted.stderr.strip()})")
        return []
    try:
        plugin = scratch / "no_look.py"
        plugin.write_text(NO_LOOK)
        return [
            _row("disk full", {}, tries or MOMENTS, scratch, rng),
            _row("disk full within a checkpoint", _with(plugin), tries or MOMENTS, scratch, rng),
        ]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _with(plugin: Path) -> dict[str, str]:
    return {"plugins": f"('tests.one_block','{plugin}')"}


def _row(what: str, changes: dict, tries: int, scratch: Path, rng: random.Random) -> Row:
    whole, disk = scratch / "whole", scratch / "disk"
    shutil.rmtree(whole, ignore_errors=True)
    done = run(flags_of(whole, **changes))
    if done.status:
        raise SystemExit(f"the run to compare with failed: {done}")
    needed = sum(_size(path) for path in whole.rglob("*"))
    lost = tracebacks = number = 0
    while number < tries:
        # Room for so much of a run: between none of it and nearly all.
        room = math.ceil(needed * (number + rng.uniform(0, 1)) / MOMENTS * 0.95)
        workdir = disk / "run"
        filler = disk / "filler"
        _fill(filler, disk, room)
        full = run(flags_of(workdir, **changes))
        wrong = _wrong(full, workdir)
        filler.unlink()
        again = run(flags_of(workdir, **changes))
        tracebacks += full.traceback or again.traceback
        differs = wrong or again.err or difference(workdir, whole)
        number += 1
        if differs:
            lost += 1
            tell(f"{what} after {room} bytes", differs)
        shutil.rmtree(workdir, ignore_errors=True)
    return Row(what, tries, lost, tracebacks)


def _size(path: Path) -> int:
    """Bytes of a disk that a file or folder takes, in whole pages."""
    return -(-path.stat().st_size // 4096) * 4096 if path.is_file() else 0


def _fill(filler: Path, disk: Path, room: int) -> None:
    """Write a file that leaves so much room."""
    left = shutil.disk_usage(disk).free - room
    with filler.open("wb") as file:
        for start in range(0, left, 2**16):
            file.write(bytes(min(2**16, left - start)))


def _wrong(end: Ended, workdir: Path) -> str | None:
    """What is not as it should be on a full disk, or None."""
    if end.status != 2 or not end.sentence:
        return f"status {end.status}: {end.err[-1500:]}"
    try:
        for step in checkpoints.steps(workdir):
            stored.arrays(workdir, step)
        if (workdir / folder.FILE).is_file():
            folder.load(workdir)
    except UserError as error:
        return f"what was whole is not: {error}"
    damaged = records.scalars_in(workdir / folder.METRICS_FILE)[1]
    return f"{damaged} damaged line(s) of the log" if damaged > 1 else None  # the last is cut off
