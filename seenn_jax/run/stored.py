"""Checkpoints as they lie in a run's folder: read whole, and only as they were written.

A checkpoint is a folder that Orbax wrote, named by its step: a flat dict of arrays by name, and
`metrics`, with its score on validation and checksums. Those of older runs have no checksums.
"""

import contextlib
import errno
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seenn_jax.errors import UserError
from seenn_jax.paths import put
from seenn_jax.run.folder import CHECKPOINTS
from seenn_jax.run.records import is_number

ARRAYS, CHECK = "arrays", "check"
HEADER = "/.zarray"  # how the key of an array's description ends
DAMAGED = "damaged-"  # how the names of those that were set aside begin
# What keeps a checkpoint from being read, and is no fault of its own.
ELSEWHERE = (
    *("permission denied", "permission_denied", "too many open files", "cannot allocate"),
    *("input/output error", "stale file handle", "timed out", "endpoint is not connected"),
)


class Damaged(UserError):
    """A checkpoint, that of `step`, that can't be read, or is not as it was written."""

    def __init__(self, sentence: str, step: int):
        super().__init__(sentence)
        self.step = step


def steps(workdir: Path) -> list[int]:
    """Steps of the checkpoints of a run, damaged ones too, ascending."""
    names = (path.name for path in (workdir / CHECKPOINTS).glob("*"))
    return sorted(int(name) for name in names if name.isdecimal() and name.isascii())


def place(workdir: Path, step: int) -> Path:
    """The folder of a checkpoint."""
    return workdir / CHECKPOINTS / str(step)


def metrics(step: int, score: float, checksum: int) -> dict[str, float | int]:
    """What is written with the arrays of a checkpoint, whose checksum it is."""
    return {"score": score, ARRAYS: checksum, CHECK: _check(step, score, checksum)}


def checksum_of(arrays: Mapping[str, Any]) -> int:
    """A CRC-32 over arrays by name: over names, dtypes, shapes and every bit."""
    checksum = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        about = f"{name} {array.dtype} {np.shape(arrays[name])} "
        checksum = zlib.crc32(about.encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _check(step: int, score: float, checksum: int) -> int:
    return zlib.crc32(f"{step} {score!r} {checksum}".encode())


def score(workdir: Path, step: int) -> float:
    """The validation score of a checkpoint; -inf where nothing was validated.

    Raises:
      Damaged: it can't be read, or is not as it was written.
    """
    with reading(workdir, step):
        return _score_and_checksum(workdir, step)[0]


def set_score(workdir: Path, step: int, value: float) -> None:
    """Give a checkpoint another score.

    Raises:
      Damaged: it can't be read, or is not as it was written.
    """
    with reading(workdir, step):
        checksum = _score_and_checksum(workdir, step)[1]
    about = {"score": value} if checksum is None else metrics(step, value, checksum)
    put(place(workdir, step) / "metrics" / "metrics", json.dumps(about).encode())


def _score_and_checksum(workdir: Path, step: int) -> tuple[float, int | None]:
    found = json.loads((place(workdir, step) / "metrics" / "metrics").read_bytes())
    if not isinstance(found, dict):
        raise ValueError("its metrics are none")
    names = found.keys()
    if names not in ({"score"}, {"accuracy"}, {"score", ARRAYS, CHECK}):
        raise ValueError(f"its metrics are {', '.join(sorted(names))}")
    value = found["score"] if "score" in found else found["accuracy"]  # of older runs
    if not (is_number(value) or value == -np.inf):
        raise ValueError(f"its score is {value!r}")
    if CHECK in found and found[CHECK] != _check(step, value, found[ARRAYS]):
        raise ValueError("its score is not the one that was written")
    return value, found.get(ARRAYS)


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by name.

    Raises:
      Damaged: they can't be read, or are not as they were written.
    """
    with reading(workdir, step):
        _, checksum = _score_and_checksum(workdir, step)
        found = _read(place(workdir, step).resolve() / "default")
        if checksum is not None and checksum_of(found) != checksum:
            raise ValueError("its arrays are not those that were written")
        return found


def _read(folder: Path) -> dict[str, np.ndarray]:
    """The arrays that Orbax wrote, each in zarr's format in one database of TensorStore's.

    Not by Orbax: of several processes each would wait for the others, and where one array can't be
    read, callbacks of the others print what they can't tell anyone.
    """
    import tensorstore  # Slow to import.

    database = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    keys = tensorstore.KvStore.open(database).result().list().result()
    names = [key.decode().removesuffix(HEADER) for key in keys if key.endswith(HEADER.encode())]
    if not names:
        raise ValueError("it has no arrays")
    spec = {"driver": "zarr", "open": True}
    opened = {
        name: tensorstore.open({**spec, "kvstore": {**database, "path": f"{name}/"}})
        for name in names
    }
    reads = {name: array.result().read() for name, array in opened.items()}
    return {name: np.asarray(read.result()) for name, read in reads.items()}


def set_aside(workdir: Path, step: int) -> Path:
    """Rename a checkpoint, so that nothing takes it for one; where it is now."""
    folder, number = place(workdir, step), 1
    while (new := folder.with_name(f"{DAMAGED}{step}" + f"-{number}" * (number > 1))).exists():
        number += 1
    return folder.rename(new)


@contextlib.contextmanager
def reading(workdir: Path, step: int) -> Iterator[None]:
    """Turn whatever reading a checkpoint raises, of Orbax and below, into one sentence."""
    try:
        with quietly():
            yield
    except UserError:
        raise
    except Exception as error:
        path, why = place(workdir, step), reason(error)
        if isinstance(error, MemoryError) or any(w in str(error).lower() for w in ELSEWHERE):
            raise UserError(f"checkpoint {path} can't be read ({why}): mend that") from error
        raise Damaged(f"checkpoint {path} is damaged ({why})", step) from error


def reason(error: BaseException) -> str:
    """What an exception says, in few words."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    words = " ".join((str(error) or type(error).__name__).split())
    full = os.strerror(errno.ENOSPC)
    if full in words:
        return full
    of_system = re.search(r"\[OS error \d+: (?:E[A-Z]+ )?(.+?)\]", words)
    if of_system:
        return of_system[1]
    return words if len(words) <= 160 else f"{words[:150]} ..."


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence absl's logger: Orbax tells by it what it does, and what fails, at length."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
