"""Damaged files and wrong settings, as damaged_runs.py and damaged_data.py try them."""

import os
import random
from collections import Counter
from pathlib import Path

import damaged_data
import damaged_runs
from soak_runs import Row

# What has a checksum.
CHECKED = ("decoded cache", "records", "records, skip_corrupt", "images, PNG")
CHECKPOINT_TRIES, RECORDS, FILES, VALUES = 4, 1500, 6000, 200
SETTINGS = ("settings of train", "flags of evaluate")


def damage(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """A row for each kind of file."""
    scratch.mkdir()
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    files = _of_files(tries or FILES, tries or VALUES, scratch)  # first: its tries are forks
    return _of_runs(tries or RECORDS, 1 if tries else CHECKPOINT_TRIES, scratch) + files


def _of_runs(records: int, tries: int, scratch: Path) -> list[Row]:
    counts = damaged_runs.damaged(tries, records, 0, scratch)
    found: dict[str, Counter] = {}
    for (what, _, outcome), number in counts.items():
        found.setdefault(what, Counter())[outcome] += number
    return [
        Row(
            f"damaged: {what}",
            outcomes.total(),
            outcomes[damaged_runs.SILENT],
            outcomes[damaged_runs.ERROR],
        )
        for what, outcomes in found.items()
    ]


def _of_files(files: int, values: int, scratch: Path) -> list[Row]:
    table = damaged_data.damaged(files, scratch / "data", None)
    table |= damaged_data.valued(values, scratch / "values", None)
    return [_row(what, outcomes) for what, outcomes in table.items()]


def _row(what: str, outcomes: Counter) -> Row:
    silent = outcomes["silent"]
    guarded = what in (*CHECKED, *SETTINGS)
    lost = (silent if guarded else 0) + outcomes["hang"]
    name = what if what in SETTINGS else f"damaged: {what}"
    broken = outcomes["traceback"] + outcomes["crash"]
    note = "" if guarded else f"{silent} changed what no checksum guards"
    return Row(name, outcomes.total(), lost, broken, note)
