"""JSON records that know whether they are as they were written: by a checksum among their entries.

Records without one, of older runs, are taken as they are.
"""

import contextlib
import json
import logging
import sys
import zlib
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
Scalars = dict[str, float | int]
_log = logging.getLogger(__name__)


def sealed(content: dict) -> dict:
    """A record, of what JSON can hold, with its checksum as the last entry."""
    return {**content, CHECKSUM: _checksum(content)}


def opened(content: dict) -> dict:
    """A record without its checksum.

    Raises:
      ValueError: it is not as it was written.
    """
    rest = {name: value for name, value in content.items() if name != CHECKSUM}
    if CHECKSUM in content and content[CHECKSUM] != _checksum(rest):
        raise ValueError("it has changed since it was written, by its checksum")
    return rest


def _checksum(content: dict) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def parsed(text: str | bytes) -> dict:
    """A record of a file, checked.

    Raises:
      ValueError: it is no JSON object, or not as it was written.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} and no object")
    return opened(content)


def line(step: int, scalars: Scalars) -> str:
    """A line of `metrics.jsonl`."""
    return json.dumps(sealed({"step": step, **scalars})) + "\n"


def scalars_in(path: Path) -> tuple[list[tuple[bytes, Scalars]], int]:
    """(lines of a `metrics.jsonl` with what they say, how many others are damaged).

    A last line without an end is what a killed process left unfinished, and no damage.
    """
    if not path.is_file():
        return [], 0
    lines = path.read_bytes().split(b"\n")
    finished, unfinished = lines[:-1], lines[-1]
    found, damaged = [], 0
    for each in finished:
        try:
            found.append((each, _scalars(each)))
        except ValueError:
            damaged += 1
    with contextlib.suppress(ValueError):  # Edited, it may be whole.
        found += [(unfinished, _scalars(unfinished))] if unfinished else []
    if damaged:
        _log.warning("%s has %d damaged line(s), which are left out", path, damaged)
    return found, damaged


def _scalars(text: bytes) -> Scalars:
    content = parsed(text)
    step = content.get("step")
    if not (isinstance(step, int) and step >= 0 and all(map(is_number, content.values()))):
        raise ValueError("it has no step, or what is no number")
    return content


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that can be computed with."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max
