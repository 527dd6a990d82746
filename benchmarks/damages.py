"""Ways to damage a file on purpose."""

import os
import random
from pathlib import Path


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit becomes another."""
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def zeros(data: bytes, rng: random.Random) -> bytes:
    """A stretch of zeros, as a file system leaves it that lost power."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((4, 64, 4096)))
    return data[:start] + bytes(end - start) + data[end:]


DAMAGES = {"flip": flip, "cut": cut, "zeros": zeros, "gone": None}


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """Damage a file, whose time stays as it was: nobody wrote to it."""
    if DAMAGES[kind] is None:
        path.unlink()
        return
    there, data = path.stat(), path.read_bytes()
    if data:
        path.write_bytes(DAMAGES[kind](data, rng))
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))
